"""Drives one segmentation session: the latest action wins, answers keep the order of actions."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

from prelabel.v1 import errors_pb2, segmentation_service_pb2
from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers.commands import Caller
from prelabel_server.handlers.segmentation import Segmentation
from prelabel_server.handlers.session import AnnotationSession, PromptHistory
from prelabel_server.rpc import segment_converters as convert
from prelabel_server.rpc.converters import image_source_from_proto, model_ref_to_proto
from prelabel_server.rpc.status import to_status

Request = segmentation_service_pb2.SegmentSessionRequest
Response = segmentation_service_pb2.SegmentSessionResponse

# Answers that a client has not read; a click is answered long before the next but one.
_UNREAD_ANSWERS = 64


class SessionDriver:
    """One session.

    Args:
        segmentation: The use cases.
        caller: Makes a caller with a fresh deadline for each action.
    """

    def __init__(self, segmentation: Segmentation, caller: Callable[[], Caller]) -> None:
        self._segmentation = segmentation
        self._caller = caller
        self._session: AnnotationSession | None = None
        self._history = PromptHistory()
        self._running: asyncio.Task[None] | None = None
        self._running_sequence = 0
        self._answers: asyncio.Queue[Response | None] = asyncio.Queue(_UNREAD_ANSWERS)

    async def run(self, requests: AsyncIterator[Request]) -> AsyncIterator[Response]:
        """Answers to `requests`; ends when they end and the last action is answered."""
        reading = asyncio.ensure_future(self._read(requests))
        try:
            while (answer := await self._answers.get()) is not None:
                yield answer
            await reading  # raises what reading raised
        finally:
            reading.cancel()
            if self._running is not None:
                self._running.cancel()

    async def _read(self, requests: AsyncIterator[Request]) -> None:
        try:
            async for request in requests:
                await self._supersede()
                try:
                    await self._apply(request)
                except Exception as err:
                    await self._answers.put(self._failure(request.sequence, err))
            if self._running is not None:
                await self._running
        finally:
            await self._answers.put(None)

    async def _apply(self, request: Request) -> None:
        if request.WhichOneof("action") == "start":
            await self._start(request)
            return
        if self._session is None:
            raise InvalidFieldError("action", "expected start as the first message")
        self._change_history(request)
        self._running_sequence = request.sequence
        self._running = asyncio.ensure_future(self._compute(self._session, request.sequence))

    async def _start(self, request: Request) -> None:
        if self._session is not None:
            raise InvalidFieldError("action", "the session has started; open another one")
        start = request.start
        caller = self._caller()
        options = convert.segment_options_from_proto(start.options)
        image = await self._segmentation.hold(image_source_from_proto(start.image), caller)
        embedded = await self._segmentation.embed(image, start.model, caller)
        self._session = AnnotationSession(
            self._segmentation, image, start.model, options, self._history
        )
        reply = Response(sequence=request.sequence)
        reply.started.image.CopyFrom(convert.image_facts_to_proto(embedded.image))
        reply.started.model.CopyFrom(model_ref_to_proto(embedded.model))
        await self._answers.put(reply)

    def _change_history(self, request: Request) -> None:
        kind = request.WhichOneof("action")
        step = convert.step_from_proto(request)
        if step is not None:
            self._history.add(step)
        elif kind == "undo":
            self._history.undo()
        elif kind == "redo":
            self._history.redo()
        elif kind == "reset":
            self._history.reset()
        elif kind == "choose":
            self._history.choose(request.choose.index)
        else:
            raise InvalidFieldError("action", "expected an action, got none")

    async def _compute(self, session: AnnotationSession, sequence: int) -> None:
        try:
            answer = await session.refresh(uuid.uuid4().hex, self._caller())
        except Exception as err:
            # The prompt was refused: the session goes on as if it had not been made.
            self._history.undo()
            await self._answers.put(self._failure(sequence, err))
            return
        reply = self._reply(sequence)
        if answer is None:
            reply.masks.SetInParent()
        else:
            reply.masks.CopyFrom(convert.segment_answer_to_proto(answer))
        await self._answers.put(reply)

    async def _supersede(self) -> None:
        running, self._running = self._running, None
        if running is None or running.done():
            return
        running.cancel()
        await asyncio.wait([running])
        if running.cancelled():
            reply = self._reply(self._running_sequence)
            reply.superseded.SetInParent()
            await self._answers.put(reply)

    def _failure(self, sequence: int, error: Exception) -> Response:
        status = to_status(error, "")
        reply = self._reply(sequence)
        reply.error.CopyFrom(errors_pb2.ErrorStatus.FromString(status.SerializeToString()))
        return reply

    def _reply(self, sequence: int) -> Response:
        return Response(
            sequence=sequence,
            prompt_count=self._history.count,
            redo_count=self._history.redo_count,
        )
