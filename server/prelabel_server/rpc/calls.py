"""What every call has: a deadline, an id, and errors that become statuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from grpc_status import rpc_status

from prelabel_server.engine.clock import monotonic
from prelabel_server.engine.scheduler import Priority
from prelabel_server.handlers.commands import Caller
from prelabel_server.rpc.status import to_status


def caller(context: Any, default_deadline_s: float, priority: Priority) -> Caller:
    """Who asks, and until when; the client's own deadline where it set one.

    Args:
        context: The call's `ServicerContext`.
        default_deadline_s: Where it set none.
        priority: Who goes first.
    """
    remaining = context.time_remaining()
    seconds = default_deadline_s if remaining is None else remaining
    return Caller(deadline=monotonic() + seconds, priority=priority)


@asynccontextmanager
async def answering(context: Any, request_id: str = "") -> AsyncIterator[None]:
    """Turn whatever the body raises into the call's status, with details.

    Args:
        context: The call's `ServicerContext`.
        request_id: Goes into the details and the log.
    """
    try:
        yield
    except Exception as err:
        status = rpc_status.to_status(to_status(err, request_id))
        await context.abort(status.code, status.details, status.trailing_metadata)
