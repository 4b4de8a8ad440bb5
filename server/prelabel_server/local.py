"""The SDK's verbs without a server: the same handlers, in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from prelabel import _calls, _convert, _images, _segment, types
from prelabel.errors import PrelabelError, from_status
from prelabel.v1 import detection_service_pb2, errors_pb2, image_pb2, segmentation_service_pb2
from prelabel_server.app import running_handlers
from prelabel_server.config import Settings
from prelabel_server.engine.clock import monotonic
from prelabel_server.engine.scheduler import Priority
from prelabel_server.handlers import Handlers
from prelabel_server.handlers.commands import Caller
from prelabel_server.rpc import converters, segment_converters
from prelabel_server.rpc.status import to_status

T = TypeVar("T")


class LocalClient:
    """`detect`, `detect_many` and `segment` of the SDK's `Client`, in this process.

    Requests and answers pass through the same converters as on the wire, so that both give the
    same proposals to the last bit.

    Args:
        settings: As for a server; `listen` plays no part.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._handlers: Handlers = self._wait(
            self._stack.enter_async_context(running_handlers(settings))
        )

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
        """End the engine."""
        self._wait(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def detect(
        self,
        image: _images.ImageInput,
        *,
        model: str,
        options: types.DetectOptions | None = None,
        request_id: str = "",
        **changes: Any,
    ) -> types.DetectResult:
        """See `prelabel.Client.detect`."""
        return self._wait(self._detect(image, model, _calls.merged(options, changes), request_id))

    def detect_many(
        self,
        images: Iterable[_images.ImageInput],
        *,
        model: str,
        options: types.DetectOptions | None = None,
        window: int = 16,
        **changes: Any,
    ) -> Iterator[_calls.StreamItem]:
        """See `prelabel.Client.detect_many`; always in order."""
        wanted = _calls.merged(options, changes)
        pending: list[tuple[int, str, Future[types.DetectResult]]] = []
        for index, image in enumerate(images):
            job = asyncio.run_coroutine_threadsafe(
                self._detect(image, model, wanted, str(index)), self._loop
            )
            pending.append((index, _calls.name_of(image), job))
            if len(pending) >= min(window, self._settings.limits.max_queue_length):
                yield _item(*pending.pop(0))
        for entry in pending:
            yield _item(*entry)

    def segment(
        self,
        image: _images.ImageInput,
        *,
        model: str = _calls.DEFAULT_SEGMENTER,
        points: Sequence[_segment.ClickXYP] = (),
        boxes: Sequence[types.BoxXYXY] = (),
        options: types.SegmentOptions | None = None,
    ) -> types.SegmentResult:
        """See `prelabel.Client.segment`."""
        request = _segment.segment_request(
            image_pb2.ImageSource(data=_images.encoded(image)),
            model,
            _segment.prompts_to_proto(points, boxes, (), None, None),
            options or types.SegmentOptions(),
            "",
        )
        return self._wait(self._segment(request))

    def model(self, name: str) -> types.Model:
        """See `prelabel.Client.model`.

        Raises:
            ModelNotFoundError: There is none of this name.
        """
        return _convert.model_from_proto(converters.model_to_proto(self._handlers.model(name)))

    async def _detect(
        self,
        image: _images.ImageInput,
        model: str,
        options: types.DetectOptions,
        request_id: str,
    ) -> types.DetectResult:
        data = await asyncio.to_thread(_images.encoded, image)
        source = image_pb2.ImageSource(data=data)
        request = _calls.detect_request(source, model, options, request_id)
        with _client_errors(request.request_id):
            return _convert.detect_result_from_proto(await self._answer(request))

    async def _segment(
        self, request: segmentation_service_pb2.SegmentRequest
    ) -> types.SegmentResult:
        with _client_errors(request.request_id):
            command = segment_converters.segment_command_from_proto(request)
            answer = await self._handlers.segmentation.segment(
                command, self._caller(Priority.INTERACTIVE)
            )
            reply = segment_converters.segment_answer_to_proto(answer)
            return _segment.segment_result(reply)

    async def _answer(
        self, request: detection_service_pb2.DetectRequest
    ) -> detection_service_pb2.DetectResponse:
        command = converters.detect_command_from_proto(request)
        answer = await self._handlers.detect(command, self._caller(Priority.BATCH))
        return converters.detect_answer_to_proto(answer)

    def _caller(self, priority: Priority) -> Caller:
        deadline = monotonic() + self._settings.limits.default_deadline_s
        return Caller(deadline, priority=priority)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@contextmanager
def _client_errors(request_id: str) -> Iterator[None]:
    """Raise what a client of a server would have seen."""
    try:
        yield
    except Exception as err:
        status = to_status(err, request_id)
        message = errors_pb2.ErrorStatus.FromString(status.SerializeToString())
        raise from_status(message) from err


def _item(index: int, name: str, job: Future[types.DetectResult]) -> _calls.StreamItem:
    try:
        return _calls.StreamItem(index, name, result=job.result())
    except PrelabelError as err:
        return _calls.StreamItem(index, name, error=err)
