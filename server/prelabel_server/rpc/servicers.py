"""The servicers: convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from prelabel.v1 import (
    detection_service_pb2,
    detection_service_pb2_grpc,
    errors_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
)
from prelabel_server.engine.clock import monotonic
from prelabel_server.engine.scheduler import Priority
from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers import Handlers
from prelabel_server.handlers.commands import Caller
from prelabel_server.rpc import converters
from prelabel_server.rpc.calls import answering, caller
from prelabel_server.rpc.status import to_status
from prelabel_server.rpc.streams import answer_stream


class DetectionServicer(detection_service_pb2_grpc.DetectionServiceServicer):
    """`prelabel.v1.DetectionService`."""

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._limits = handlers.settings.limits

    async def Detect(  # noqa: N802 - the contract's name
        self, request: detection_service_pb2.DetectRequest, context: Any
    ) -> detection_service_pb2.DetectResponse:
        """See the contract."""
        async with answering(context, request.request_id):
            who = caller(context, self._limits.default_deadline_s, Priority.UNARY)
            return await self._detect(request, who)
        raise AssertionError("answering() ends the call on errors")

    async def StreamDetect(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[detection_service_pb2.StreamDetectRequest],
        context: Any,
    ) -> AsyncIterator[detection_service_pb2.StreamDetectResponse]:
        """See the contract."""

        async def answer(
            message: detection_service_pb2.StreamDetectRequest,
        ) -> detection_service_pb2.StreamDetectResponse:
            # Each image has the default deadline: a stream itself may last for hours.
            seconds = self._limits.default_deadline_s
            who = Caller(monotonic() + seconds, priority=Priority.BATCH)
            return await self._answer_one(message.request, who)

        async with answering(context):
            async for reply in answer_stream(
                request_iterator, answer, self._limits.max_stream_window
            ):
                yield reply

    async def _detect(
        self, request: detection_service_pb2.DetectRequest, who: Caller
    ) -> detection_service_pb2.DetectResponse:
        command = converters.detect_command_from_proto(request)
        return converters.detect_answer_to_proto(await self._handlers.detect(command, who))

    async def _answer_one(
        self, request: detection_service_pb2.DetectRequest, who: Caller
    ) -> detection_service_pb2.StreamDetectResponse:
        reply = detection_service_pb2.StreamDetectResponse(request_id=request.request_id)
        try:
            if not request.request_id:
                raise InvalidFieldError("request.request_id", "expected an id, got nothing")
            reply.response.CopyFrom(await self._detect(request, who))
        except Exception as err:
            status = to_status(err, request.request_id)
            reply.error.CopyFrom(errors_pb2.ErrorStatus.FromString(status.SerializeToString()))
        return reply


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """`prelabel.v1.ModelService`."""

    def __init__(self, handlers: Handlers, version: str) -> None:
        self._handlers = handlers
        self._version = version

    async def ListModels(  # noqa: N802
        self, request: model_service_pb2.ListModelsRequest, context: Any
    ) -> model_service_pb2.ListModelsResponse:
        """See the contract."""
        async with answering(context):
            task = converters.task_from_proto(request.task)
            known = await asyncio.to_thread(self._handlers.models)
            wanted = [m for m in known if task in (None, m.card.task)]
            return model_service_pb2.ListModelsResponse(
                models=[converters.model_to_proto(m) for m in wanted]
            )
        raise AssertionError("answering() ends the call on errors")

    async def GetModel(  # noqa: N802
        self, request: model_service_pb2.GetModelRequest, context: Any
    ) -> model_service_pb2.GetModelResponse:
        """See the contract."""
        async with answering(context):
            status = self._handlers.model(request.name)
            return model_service_pb2.GetModelResponse(model=converters.model_to_proto(status))
        raise AssertionError("answering() ends the call on errors")

    async def LoadModel(  # noqa: N802
        self, request: model_service_pb2.LoadModelRequest, context: Any
    ) -> model_service_pb2.LoadModelResponse:
        """See the contract."""
        async with answering(context):
            status = await self._handlers.load_model(request.name)
            return model_service_pb2.LoadModelResponse(model=converters.model_to_proto(status))
        raise AssertionError("answering() ends the call on errors")

    async def UnloadModel(  # noqa: N802
        self, request: model_service_pb2.UnloadModelRequest, context: Any
    ) -> model_service_pb2.UnloadModelResponse:
        """See the contract."""
        async with answering(context):
            status = self._handlers.unload_model(request.name)
            return model_service_pb2.UnloadModelResponse(model=converters.model_to_proto(status))
        raise AssertionError("answering() ends the call on errors")

    async def GetServerInfo(  # noqa: N802
        self, request: model_service_pb2.GetServerInfoRequest, context: Any
    ) -> model_service_pb2.GetServerInfoResponse:
        """See the contract."""
        async with answering(context):
            known = await asyncio.to_thread(self._handlers.models)
            devices = {model.info.device for model in known if model.info is not None}
            return converters.server_info_to_proto(
                self._handlers.settings, self._version, sorted(devices)
            )
        raise AssertionError("answering() ends the call on errors")
