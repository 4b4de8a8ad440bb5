"""A bidirectional stream with a window: answers as they finish, requests read no further ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

Request = TypeVar("Request")
Reply = TypeVar("Reply")


async def answer_stream(
    requests: AsyncIterator[Request],
    answer: Callable[[Request], Awaitable[Reply]],
    window: int,
) -> AsyncIterator[Reply]:
    """Answer each request, several at a time, in the order in which answers are ready.

    A request is read only when fewer than `window` are under way, and one counts as under way
    until its answer has been taken: a client that does not read its answers is not read from.

    Args:
        requests: Read lazily.
        answer: Called once per request; an exception from it ends the stream.
        window: >= 1.

    Yields:
        One reply per request.
    """
    running: set[asyncio.Future[Reply]] = set()
    source = aiter(requests)
    upcoming: asyncio.Future[Request] | None = asyncio.ensure_future(_next(source))
    try:
        while running or upcoming is not None:
            waiting: set[asyncio.Future[Reply] | asyncio.Future[Request]] = {*running}
            if upcoming is not None and len(running) < window:
                waiting.add(upcoming)
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if upcoming in done and upcoming is not None:
                try:
                    request = upcoming.result()
                except StopAsyncIteration:
                    upcoming = None
                else:
                    running.add(asyncio.ensure_future(answer(request)))
                    upcoming = asyncio.ensure_future(_next(source))
            for task in [t for t in running if t.done()]:
                running.discard(task)
                yield task.result()
    finally:
        left: list[asyncio.Future[Reply] | asyncio.Future[Request]] = [*running]
        if upcoming is not None:
            left.append(upcoming)
        for pending in left:
            pending.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _next(source: AsyncIterator[Request]) -> Request:
    return await anext(source)
