"""The synchronous client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from prelabel import _calls, _convert, _images, _segment, types
from prelabel.errors import ImageNotCached, from_rpc_error, from_status
from prelabel.session import SegmentSession
from prelabel.v1 import (
    detection_service_pb2,
    detection_service_pb2_grpc,
    image_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    segmentation_service_pb2,
    segmentation_service_pb2_grpc,
)


class Client:
    """A connection to a prelabel server. Thread-safe; close it, or use it as a context manager.

    Args:
        address: `host:port`, or `unix:/path`.
        token: Bearer token, where the server asks for one.
        timeout_s: Deadline of each call in seconds.
        tls: Credentials made by `grpc.ssl_channel_credentials`; None connects in plain text.

    Example:
        with Client("127.0.0.1:50051") as client:
            for proposal in client.detect("photo.jpg", model="yolox-nano").proposals:
                print(proposal.label, proposal.score, proposal.box)
    """

    def __init__(
        self,
        address: str = _calls.DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        timeout_s: float = _calls.DEFAULT_TIMEOUT_S,
        tls: grpc.ChannelCredentials | None = None,
    ) -> None:
        options = _calls.CHANNEL_OPTIONS
        if tls is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, tls, options=options)
        self._timeout_s = timeout_s
        self._metadata = _calls.metadata(token)
        self._sent = _calls.SentImages()
        self._detection = detection_service_pb2_grpc.DetectionServiceStub(self._channel)
        self._segmentation = segmentation_service_pb2_grpc.SegmentationServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; calls in flight are cancelled."""
        self._channel.close()

    def detect(
        self,
        image: _images.ImageInput,
        *,
        model: str,
        options: types.DetectOptions | None = None,
        request_id: str = "",
        **changes: Any,
    ) -> types.DetectResult:
        """Pre-label one image.

        An image that this client has sent before is named by its digest; where the server has let
        go of it, the bytes are sent again without the caller noticing.

        Args:
            image: A path, the bytes of an image file, or an array (H, W, 3) uint8 RGB.
            model: Name of a detector, see `models`.
            options: What to keep.
            request_id: Found again in the server's log; made up if empty.
            **changes: Any field of `DetectOptions`, for example `min_score=0.05`.

        Raises:
            PrelabelError: See `prelabel.errors`.
        """
        wanted = _calls.merged(options, changes)
        reply = self._with_image(
            image,
            lambda source: self._call(
                self._detection.Detect,
                _calls.detect_request(source, model, wanted, request_id),
            ),
        )
        return _convert.detect_result_from_proto(reply)

    def detect_many(
        self,
        images: Iterable[_images.ImageInput],
        *,
        model: str,
        options: types.DetectOptions | None = None,
        window: int = 16,
        ordered: bool = True,
        **changes: Any,
    ) -> Iterator[_calls.StreamItem]:
        """Pre-label many images over one stream; an image that fails does not end it.

        Args:
            images: Read lazily, never more than `window` ahead of the answers.
            model: Name of a detector.
            options: What to keep, for every image.
            window: Images under way at a time, >= 1.
            ordered: Yield in the order of `images`; else as they finish.
            **changes: Any field of `DetectOptions`.

        Yields:
            One item per image.

        Raises:
            PrelabelError: The stream as a whole failed.
        """
        if window < 1:
            raise ValueError(f"window: expected at least 1, got {window}")
        feed = _Feed(images, model, _calls.merged(options, changes), window)
        call = self._detection.StreamDetect(iter(feed), metadata=self._metadata)
        try:
            yield from feed.answers(call, ordered=ordered)
        except grpc.RpcError as err:
            if feed.failure is not None:  # the caller's own iterable raised
                raise feed.failure from None
            raise from_rpc_error(err) from None
        finally:
            feed.stop()
            call.cancel()
        if feed.failure is not None:
            raise feed.failure

    def embed(self, image: _images.ImageInput, *, model: str) -> types.EmbedResult:
        """Encode an image ahead of the first click.

        Args:
            image: A path, the bytes of an image file, or an array (H, W, 3) uint8 RGB.
            model: Name of a segmenter, see `models`.
        """
        reply = self._with_image(
            image,
            lambda source: self._call(
                self._segmentation.Embed,
                segmentation_service_pb2.EmbedRequest(image=source, model=model),
            ),
        )
        return _segment.embed_result(reply)

    def segment(
        self,
        image: _images.ImageInput,
        *,
        model: str = _calls.DEFAULT_SEGMENTER,
        points: Sequence[_segment.ClickXYP] = (),
        box: types.BoxXYXY | None = None,
        boxes: Sequence[types.BoxXYXY] = (),
        scribbles: Sequence[types.Scribble] = (),
        mask: Any = None,
        previous_mask: str | types.MaskProposal | None = None,
        options: types.SegmentOptions | None = None,
        request_id: str = "",
        **changes: Any,
    ) -> types.SegmentResult:
        """Masks for clicks, boxes and scribbles. The image travels, and is encoded, once.

        Args:
            image: A path, the bytes of an image file, or an array (H, W, 3) uint8 RGB.
            model: Name of a segmenter.
            points: Clicks (x, y, on the object?) in pixels of the displayed image.
            box: A box around the object.
            boxes: Several boxes, parts of one object.
            scribbles: Free lines.
            mask: A shape to refine: a `Mask` or a boolean array (H, W).
            previous_mask: A mask of an earlier answer, refined at the model's resolution.
            options: What the answer is to hold.
            request_id: Found again in the server's log; made up if empty.
            **changes: Any field of `SegmentOptions`, for example `max_masks=3`.

        Raises:
            PrelabelError: See `prelabel.errors`.
        """
        every = (*boxes, box) if box is not None else tuple(boxes)
        prompts = _segment.prompts_to_proto(points, every, scribbles, mask, previous_mask)
        wanted = _calls.merged_segment(options, changes)
        reply = self._with_image(
            image,
            lambda source: self._call(
                self._segmentation.Segment,
                _segment.segment_request(source, model, prompts, wanted, request_id),
            ),
        )
        return _segment.segment_result(reply)

    def segment_everything(
        self,
        image: _images.ImageInput,
        *,
        model: str = _calls.DEFAULT_SEGMENTER,
        options: types.SegmentOptions | None = None,
        everything: types.EverythingOptions | None = None,
    ) -> types.SegmentResult:
        """Masks for everything in the image."""
        reply = self._with_image(
            image,
            lambda source: self._call(
                self._segmentation.SegmentEverything,
                _segment.everything_request(
                    source,
                    model,
                    options or types.SegmentOptions(),
                    everything or types.EverythingOptions(),
                ),
            ),
        )
        return _segment.everything_result(reply)

    def session(
        self,
        image: _images.ImageInput,
        *,
        model: str = _calls.DEFAULT_SEGMENTER,
        options: types.SegmentOptions | None = None,
        **changes: Any,
    ) -> SegmentSession:
        """A session of clicks on one image; see `prelabel.session.SegmentSession`."""
        return SegmentSession(
            lambda requests: self._segmentation.SegmentSession(requests, metadata=self._metadata),
            _images.encoded(image),
            model,
            _calls.merged_segment(options, changes),
        )

    def models(self) -> tuple[types.Model, ...]:
        """Every model of the server, loaded or not, by name."""
        reply: model_service_pb2.ListModelsResponse = self._call(
            self._models.ListModels, model_service_pb2.ListModelsRequest()
        )
        return tuple(_convert.model_from_proto(m) for m in reply.models)

    def model(self, name: str) -> types.Model:
        """One model.

        Raises:
            NotFound: There is none of this name.
        """
        request = model_service_pb2.GetModelRequest(name=name)
        return _convert.model_from_proto(self._call(self._models.GetModel, request).model)

    def load_model(self, name: str) -> types.Model:
        """Load a model from the server's store, or load it anew.

        Raises:
            ModelUnusable: Its files are damaged or do not fit its card.
        """
        request = model_service_pb2.LoadModelRequest(name=name)
        return _convert.model_from_proto(self._call(self._models.LoadModel, request).model)

    def unload_model(self, name: str) -> types.Model:
        """Unload a model; requests in flight finish."""
        request = model_service_pb2.UnloadModelRequest(name=name)
        return _convert.model_from_proto(self._call(self._models.UnloadModel, request).model)

    def server_info(self) -> types.ServerInfo:
        """The server's version, limits and devices."""
        request = model_service_pb2.GetServerInfoRequest()
        return _convert.server_info_from_proto(self._call(self._models.GetServerInfo, request))

    def _with_image(
        self, image: _images.ImageInput, ask: Callable[[image_pb2.ImageSource], Any]
    ) -> Any:
        """Ask with the image's digest where the server should hold it, else with its bytes."""
        data = _images.encoded(image)
        try:
            reply = ask(self._sent.source(data))
        except ImageNotCached:
            self._sent.forget(_images.digest(data))
            reply = ask(image_pb2.ImageSource(data=data))
        self._sent.remember(reply.image.digest)
        return reply

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as err:
            raise from_rpc_error(err) from None


class _Feed:
    """The requests of one stream: read by gRPC's thread, held back by a window."""

    def __init__(
        self,
        images: Iterable[_images.ImageInput],
        model: str,
        options: types.DetectOptions,
        window: int,
    ) -> None:
        self._images = images
        self._model = model
        self._options = options
        self._slots = threading.Semaphore(window)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._failed: dict[int, Exception] = {}
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[detection_service_pb2.StreamDetectRequest]:
        try:
            for index, image in enumerate(self._images):
                self._slots.acquire()
                if self._stopped.is_set():
                    return
                with self._lock:
                    self._names[index] = _calls.name_of(image)
                source = image_pb2.ImageSource(data=_images.encoded(image))
                request = _calls.detect_request(source, self._model, self._options, str(index))
                yield detection_service_pb2.StreamDetectRequest(request=request)
        except Exception as err:
            # gRPC would swallow it in its own thread: keep it for the caller's.
            self.failure = err

    def answers(
        self, call: Iterable[detection_service_pb2.StreamDetectResponse], *, ordered: bool
    ) -> Iterator[_calls.StreamItem]:
        """Items as they come, or in order; each frees a slot of the window once it is taken."""
        waiting: dict[int, _calls.StreamItem] = {}
        upcoming = 0
        for message in call:
            item = self._item(message)
            if not ordered:
                self._slots.release()
                yield item
                continue
            waiting[item.index] = item
            while upcoming in waiting:
                self._slots.release()
                yield waiting.pop(upcoming)
                upcoming += 1

    def stop(self) -> None:
        """Let the reading thread end."""
        self._stopped.set()
        self._slots.release()

    def _item(self, message: detection_service_pb2.StreamDetectResponse) -> _calls.StreamItem:
        index = int(message.request_id)
        with self._lock:
            name = self._names.pop(index, "")
        if message.WhichOneof("result") == "error":
            return _calls.StreamItem(index, name, error=from_status(message.error))
        result = _convert.detect_result_from_proto(message.response)
        return _calls.StreamItem(index, name, result=result)
