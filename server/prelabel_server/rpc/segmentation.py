"""The servicer of click-to-segment: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from prelabel.v1 import segmentation_service_pb2 as pb
from prelabel.v1 import segmentation_service_pb2_grpc
from prelabel_server.engine.clock import monotonic
from prelabel_server.engine.scheduler import Priority
from prelabel_server.handlers import Handlers
from prelabel_server.handlers.commands import Caller
from prelabel_server.rpc import segment_converters as convert
from prelabel_server.rpc.calls import answering, caller
from prelabel_server.rpc.converters import image_source_from_proto
from prelabel_server.rpc.sessions import SessionDriver


class SegmentationServicer(segmentation_service_pb2_grpc.SegmentationServiceServicer):
    """`prelabel.v1.SegmentationService`."""

    def __init__(self, handlers: Handlers) -> None:
        self._segmentation = handlers.segmentation
        self._limits = handlers.settings.limits

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:  # noqa: N802
        """See the contract."""
        async with answering(context):
            who = caller(context, self._limits.default_deadline_s, Priority.UNARY)
            source = image_source_from_proto(request.image)
            answer = await self._segmentation.embed(source, request.model, who)
            return convert.embed_answer_to_proto(answer)
        raise AssertionError("answering() ends the call on errors")

    async def Segment(  # noqa: N802
        self, request: pb.SegmentRequest, context: Any
    ) -> pb.SegmentResponse:
        """See the contract."""
        async with answering(context, request.request_id):
            who = caller(context, self._limits.default_deadline_s, Priority.INTERACTIVE)
            command = convert.segment_command_from_proto(request)
            return convert.segment_answer_to_proto(await self._segmentation.segment(command, who))
        raise AssertionError("answering() ends the call on errors")

    async def SegmentEverything(  # noqa: N802
        self, request: pb.SegmentEverythingRequest, context: Any
    ) -> pb.SegmentEverythingResponse:
        """See the contract."""
        async with answering(context, request.request_id):
            who = caller(context, self._limits.default_deadline_s, Priority.BATCH)
            command = convert.everything_command_from_proto(request)
            answer = await self._segmentation.segment(command, who)
            return convert.everything_answer_to_proto(answer)
        raise AssertionError("answering() ends the call on errors")

    async def SegmentSession(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.SegmentSessionRequest], context: Any
    ) -> AsyncIterator[pb.SegmentSessionResponse]:
        """See the contract."""

        def who() -> Caller:
            # Each action has the default deadline: a session itself may last for hours.
            deadline = monotonic() + self._limits.default_deadline_s
            return Caller(deadline, priority=Priority.INTERACTIVE)

        async with answering(context):
            async for answer in SessionDriver(self._segmentation, who).run(request_iterator):
                yield answer
