"""The composition root: builds the parts, and owns the order in which they start and stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from prelabel import __version__
from prelabel_models.session import SessionOptions
from prelabel_models.store import ModelStore
from prelabel_server.config import Settings
from prelabel_server.engine.models import ModelManager
from prelabel_server.engine.scheduler import Scheduler
from prelabel_server.handlers import Handlers
from prelabel_server.rpc.server import RpcServer

logger = logging.getLogger(__name__)


@asynccontextmanager
async def running_handlers(settings: Settings) -> AsyncIterator[Handlers]:
    """The use cases over a running engine, without any transport.

    Raises:
        ModelsError: A model of `settings.load` cannot be loaded.
    """
    models = ModelManager(ModelStore(settings.store_root), SessionOptions(device=settings.device))
    scheduler = Scheduler(settings.workers, settings.limits.max_queue_length)
    try:
        for name in settings.load:
            await models.load(name)
        yield Handlers(settings, models, scheduler)
    finally:
        if not await scheduler.drain(settings.drain_s):
            logger.warning("abandoned work that did not finish within %g s", settings.drain_s)


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[int]:
    """The server on its port; leaving the context drains it.

    Order of the stop: health NOT_SERVING, no new calls, calls in flight finish, engine ends.

    Yields:
        The gRPC port.

    Raises:
        OSError: The address is taken.
        ModelsError: A model of `settings.load` cannot be loaded.
    """
    async with running_handlers(settings) as handlers:
        server = RpcServer(handlers, __version__)
        port = await server.start(settings.listen)
        try:
            yield port
        finally:
            await server.refuse()
            await server.stop(settings.drain_s)


async def serve(settings: Settings, announce: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        settings: Everything that can be set.
        announce: Called with the gRPC port once requests are answered.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running_server(settings) as port:
        announce(port)
        await stop.wait()
        logger.info("stopping: requests in flight have %g s", settings.drain_s)
