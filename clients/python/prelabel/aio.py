"""The asynchronous client: the same verbs as `Client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from prelabel import _calls, _convert, _images, _segment, types
from prelabel.errors import ImageNotCached, from_rpc_error, from_status
from prelabel.v1 import (
    detection_service_pb2,
    detection_service_pb2_grpc,
    image_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    segmentation_service_pb2,
    segmentation_service_pb2_grpc,
)


class AsyncClient:
    """A connection to a prelabel server for asyncio; arguments and results as for `Client`.

    Example:
        async with AsyncClient("127.0.0.1:50051") as client:
            result = await client.detect("photo.jpg", model="yolox-nano")
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
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            self._channel = grpc.aio.secure_channel(address, tls, options=options)
        self._timeout_s = timeout_s
        self._metadata = _calls.metadata(token)
        self._sent = _calls.SentImages()
        channel: Any = self._channel  # the stubs are declared for synchronous channels
        self._detection: Any = detection_service_pb2_grpc.DetectionServiceStub(channel)
        self._segmentation: Any = segmentation_service_pb2_grpc.SegmentationServiceStub(channel)
        self._models: Any = model_service_pb2_grpc.ModelServiceStub(channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; calls in flight are cancelled."""
        await self._channel.close()

    async def detect(
        self,
        image: _images.ImageInput,
        *,
        model: str,
        options: types.DetectOptions | None = None,
        request_id: str = "",
        **changes: Any,
    ) -> types.DetectResult:
        """Pre-label one image; see `Client.detect`."""
        wanted = _calls.merged(options, changes)
        reply = await self._with_image(
            image,
            lambda source: self._call(
                self._detection.Detect,
                _calls.detect_request(source, model, wanted, request_id),
            ),
        )
        return _convert.detect_result_from_proto(reply)

    async def detect_many(
        self,
        images: Iterable[_images.ImageInput],
        *,
        model: str,
        options: types.DetectOptions | None = None,
        window: int = 16,
        ordered: bool = True,
        **changes: Any,
    ) -> AsyncIterator[_calls.StreamItem]:
        """Pre-label many images over one stream; see `Client.detect_many`."""
        if window < 1:
            raise ValueError(f"window: expected at least 1, got {window}")
        wanted = _calls.merged(options, changes)
        slots = asyncio.Semaphore(window)
        names: dict[int, str] = {}

        async def requests() -> AsyncIterator[detection_service_pb2.StreamDetectRequest]:
            for index, image in enumerate(images):
                await slots.acquire()
                names[index] = _calls.name_of(image)
                data = await asyncio.to_thread(_images.encoded, image)
                source = image_pb2.ImageSource(data=data)
                request = _calls.detect_request(source, model, wanted, str(index))
                yield detection_service_pb2.StreamDetectRequest(request=request)

        call = self._detection.StreamDetect(requests(), metadata=self._metadata)
        waiting: dict[int, _calls.StreamItem] = {}
        upcoming = 0
        try:
            async for message in call:
                item = _item(message, names)
                waiting[item.index] = item
                ready = upcoming if ordered else item.index
                while ready in waiting:
                    slots.release()
                    yield waiting.pop(ready)
                    upcoming += 1
                    ready = upcoming if ordered else -1
        except grpc.RpcError as err:
            raise from_rpc_error(err) from None
        finally:
            call.cancel()

    async def embed(self, image: _images.ImageInput, *, model: str) -> types.EmbedResult:
        """Encode an image ahead of the first click; see `Client.embed`."""
        reply = await self._with_image(
            image,
            lambda source: self._call(
                self._segmentation.Embed,
                segmentation_service_pb2.EmbedRequest(image=source, model=model),
            ),
        )
        return _segment.embed_result(reply)

    async def segment(
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
        """Masks for clicks, boxes and scribbles; see `Client.segment`."""
        every = (*boxes, box) if box is not None else tuple(boxes)
        prompts = _segment.prompts_to_proto(points, every, scribbles, mask, previous_mask)
        wanted = _calls.merged_segment(options, changes)
        reply = await self._with_image(
            image,
            lambda source: self._call(
                self._segmentation.Segment,
                _segment.segment_request(source, model, prompts, wanted, request_id),
            ),
        )
        return _segment.segment_result(reply)

    async def models(self) -> tuple[types.Model, ...]:
        """Every model of the server, loaded or not, by name."""
        reply = await self._call(self._models.ListModels, model_service_pb2.ListModelsRequest())
        return tuple(_convert.model_from_proto(m) for m in reply.models)

    async def model(self, name: str) -> types.Model:
        """One model; see `Client.model`."""
        request = model_service_pb2.GetModelRequest(name=name)
        reply = await self._call(self._models.GetModel, request)
        return _convert.model_from_proto(reply.model)

    async def load_model(self, name: str) -> types.Model:
        """Load a model; see `Client.load_model`."""
        request = model_service_pb2.LoadModelRequest(name=name)
        reply = await self._call(self._models.LoadModel, request)
        return _convert.model_from_proto(reply.model)

    async def unload_model(self, name: str) -> types.Model:
        """Unload a model; requests in flight finish."""
        request = model_service_pb2.UnloadModelRequest(name=name)
        reply = await self._call(self._models.UnloadModel, request)
        return _convert.model_from_proto(reply.model)

    async def server_info(self) -> types.ServerInfo:
        """The server's version, limits and devices."""
        request = model_service_pb2.GetServerInfoRequest()
        reply = await self._call(self._models.GetServerInfo, request)
        return _convert.server_info_from_proto(reply)

    async def _with_image(
        self,
        image: _images.ImageInput,
        ask: Callable[[image_pb2.ImageSource], Awaitable[Any]],
    ) -> Any:
        """Ask with the image's digest where the server should hold it, else with its bytes."""
        data = await asyncio.to_thread(_images.encoded, image)
        try:
            reply = await ask(self._sent.source(data))
        except ImageNotCached:
            self._sent.forget(_images.digest(data))
            reply = await ask(image_pb2.ImageSource(data=data))
        self._sent.remember(reply.image.digest)
        return reply

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as err:
            raise from_rpc_error(err) from None


def _item(
    message: detection_service_pb2.StreamDetectResponse, names: dict[int, str]
) -> _calls.StreamItem:
    index = int(message.request_id)
    name = names.pop(index, "")
    if message.WhichOneof("result") == "error":
        return _calls.StreamItem(index, name, error=from_status(message.error))
    return _calls.StreamItem(
        index, name, result=_convert.detect_result_from_proto(message.response)
    )
