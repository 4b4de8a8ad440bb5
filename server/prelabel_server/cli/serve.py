"""`prelabel serve`."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from prelabel_server.cli.common import (
    EXIT_USAGE,
    DeviceOption,
    StoreOption,
    fail,
    reported_errors,
)


def serve(
    listen: Annotated[
        str,
        typer.Option(
            "--listen",
            envvar="PRELABEL_LISTEN",
            help="gRPC address, HOST:PORT or unix:/PATH. Port 0 takes a free one.",
        ),
    ] = "127.0.0.1:50051",
    store: StoreOption = None,
    load: Annotated[
        list[str] | None,
        typer.Option(
            "--load",
            envvar="PRELABEL_LOAD",
            help="Load this model before the first request; repeat for more. Others load on "
            "first use.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            envvar="PRELABEL_WORKERS",
            min=0,
            help="Images worked on at a time. 0: one per core.",
        ),
    ] = 0,
    root: Annotated[
        list[str] | None,
        typer.Option(
            "--root",
            envvar="PRELABEL_ROOT",
            help="NAME=FOLDER: requests may name files below this folder; repeat for more.",
        ),
    ] = None,
    allow_format: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-format",
            envvar="PRELABEL_ALLOW_FORMAT",
            help="Read this format too: TIFF or GIF (first frame); repeat for both.",
        ),
    ] = None,
    drain_s: Annotated[
        float,
        typer.Option(
            "--drain-s",
            envvar="PRELABEL_DRAIN_S",
            min=0.0,
            help="Seconds that requests in flight may take after SIGTERM.",
        ),
    ] = 30.0,
) -> None:
    """Serve pre-labels over gRPC until SIGTERM."""
    from prelabel_server import app, memory
    from prelabel_server.config import Limits, Settings, available_cores, image_limits, parse_roots

    logging.getLogger("prelabel_server").setLevel(logging.INFO)
    memory.return_large_buffers()
    try:
        roots = parse_roots(root or [])
        limits = Limits(image=image_limits(allow_format or []))
    except ValueError as err:
        raise fail(str(err), EXIT_USAGE) from err
    defaults = Settings()
    settings = Settings(
        listen=listen,
        store_root=store or defaults.store_root,
        load=tuple(load or ()),
        device=device,
        workers=workers or available_cores(),
        drain_s=drain_s,
        roots=roots,
        limits=limits,
    )
    with reported_errors():
        _run(app.serve(settings, lambda port: _announce(listen, port)))


def _announce(listen: str, port: int) -> None:
    address = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
    typer.echo(f"prelabel: serving on {address}", err=True)


def _run(main: Coroutine[Any, Any, None]) -> None:
    factory = None
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop

        # 0.1 ms less per request than asyncio's own loop, measured on loopback.
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
