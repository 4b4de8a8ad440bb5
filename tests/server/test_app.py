from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from prelabel import AsyncClient, PrelabelError
from prelabel_models.errors import DeviceUnavailableError, ModelNotFoundError
from prelabel_server.app import running_server
from prelabel_server.config import Settings
from prelabel_server.rpc.server import SERVICES
from server.conftest import photo


async def test_health_is_reported_for_every_service(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", *SERVICES):
            reply = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_every_service(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        anything: Any = channel  # the stub is declared for synchronous channels
        stub = reflection_pb2_grpc.ServerReflectionStub(anything)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        method: Any = stub.ServerReflectionInfo
        async for reply in method(iter([request])):
            names = {service.name for service in reply.list_services_response.service}
            break
    assert names == {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_taken_port_is_an_error_that_names_it(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=listen):
            async with running_server(replace(settings, listen=listen)):
                pass


async def test_an_unknown_model_to_load_stops_the_start(settings: Settings) -> None:
    with pytest.raises(ModelNotFoundError, match="nope"):
        async with running_server(replace(settings, load=("nope",))):
            pass


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt", "gpu", "cpu:1"])
async def test_a_device_that_cannot_be_had_is_an_error_and_never_the_cpu(
    settings: Settings, device: str
) -> None:
    with pytest.raises(DeviceUnavailableError, match="device"):
        async with running_server(replace(settings, device=device, load=("constant",))):
            pass


@asynccontextmanager
async def serving(
    settings: Settings, *more: str
) -> AsyncIterator[tuple[str, subprocess.Popen[str]]]:
    """`prelabel serve` as a process of its own."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "prelabel_server"),
            *("serve", "--listen", "127.0.0.1:0", "--store", str(settings.store_root)),
            *more,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = ""
        while "serving on" not in line:
            line = await asyncio.to_thread(process.stderr.readline)
            assert line, "the server ended before it served"
        yield line.split()[-1], process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


async def test_sigterm_lets_requests_in_flight_finish_and_ends_with_0(settings: Settings) -> None:
    images = [photo(640, 480, seed=i) for i in range(16)]
    async with (
        serving(settings, "--load", "constant") as (address, process),
        AsyncClient(address) as client,
    ):
        calls = [asyncio.create_task(client.detect(i, model="constant")) for i in images]
        # One answer shows that the calls have arrived.
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        process.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        code = await asyncio.to_thread(process.wait, 20)
        assert code == 0
        # What was admitted is answered; what came after the signal is refused, never lost.
        for answer in answers:
            assert not isinstance(answer, BaseException) or (
                isinstance(answer, PrelabelError) and answer.code in ("UNAVAILABLE", "CANCELLED")
            )
        assert sum(not isinstance(a, BaseException) for a in answers) >= 1
        with pytest.raises(PrelabelError) as refused:
            await client.detect(images[0], model="constant")
        assert refused.value.code == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--root", "photos"], "--root"),
        (["--root", "a=/nonexistent"], "--root"),
        (["--allow-format", "EPS"], "--allow-format"),
        (["--workers", "-1"], "--workers"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_mistakes_in_options_end_with_2_and_name_the_option(
    settings: Settings, arguments: list[str], words: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prelabel_server", "serve", "--listen", "127.0.0.1:0", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
