"""The asynchronous client: the same verbs as `Client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from prelabel import _calls, _convert, _images, types
from prelabel.errors import ImageNotCached, from_rpc_error, from_status
from prelabel.v1 import (
    detection_service_pb2,
    detection_service_pb2_grpc,
    image_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
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
        data = await asyncio.to_thread(_images.encoded, image)
        wanted = _calls.merged(options, changes)
        try:
            message = await self._detect_once(self._sent.source(data), model, wanted, request_id)
        except ImageNotCached:
            self._sent.forget(_images.digest(data))
            source = image_pb2.ImageSource(data=data)
            message = await self._detect_once(source, model, wanted, request_id)
        self._sent.remember(message.image.digest)
        return _convert.detect_result_from_proto(message)

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

    async def _detect_once(
        self,
        source: image_pb2.ImageSource,
        model: str,
        options: types.DetectOptions,
        request_id: str,
    ) -> detection_service_pb2.DetectResponse:
        request = _calls.detect_request(source, model, options, request_id)
        reply: detection_service_pb2.DetectResponse = await self._call(
            self._detection.Detect, request
        )
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
