from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from prelabel_server.engine.scheduler import Priority, Scheduler, Work
from prelabel_server.errors import DeadlineError, DrainingError, QueueFullError

# Long enough for any machine; tests never wait for it.
FOREVER_S = 60.0


class Doubler:
    """A runner whose right answer is known: twice the unit. `bad` units make the run fail."""

    def __init__(self, max_batch: int = 4) -> None:
        self._max_batch = max_batch
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failures_left = 0
        self.bad: set[int] = set()

    @property
    def max_batch(self) -> int:
        return self._max_batch

    def run(self, units: Sequence[Any]) -> Sequence[Any]:
        self.gate.wait()
        self.batches.append(list(units))
        if self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("the device hiccuped")
        if self.bad & set(units):
            raise ValueError("bad unit")
        return [2 * unit for unit in units]


class Double(Work[int]):
    def __init__(self, runner: Doubler, value: int, on_prepare: Callable[[], None] | None = None):
        super().__init__(runner)
        self.value = value
        self.released = 0
        self.prepared = False
        self._on_prepare = on_prepare

    def prepare(self) -> Sequence[int]:
        self.prepared = True
        if self._on_prepare:
            self._on_prepare()
        return [self.value]

    def finish(self, outputs: Sequence[Any]) -> int:
        (output,) = outputs
        return int(output)

    def release(self) -> None:
        self.released += 1


@pytest.fixture
async def scheduler() -> AsyncIterator[Scheduler]:
    made = Scheduler(workers=1, capacity=64)
    yield made
    await made.drain(5)


def soon() -> float:
    return time.monotonic() + FOREVER_S


async def started(runner: Doubler, scheduler: Scheduler) -> asyncio.Task[int]:
    """Occupy the only worker until the runner's gate opens."""
    runner.gate.clear()
    task = asyncio.create_task(scheduler.submit(Double(runner, 1000), deadline=soon()))
    while scheduler.stats.running == 0:
        await asyncio.sleep(0.001)
    return task


async def queued(scheduler: Scheduler, count: int) -> None:
    while scheduler.stats.queued < count:
        await asyncio.sleep(0.001)


async def test_every_caller_gets_its_own_answer(scheduler: Scheduler) -> None:
    runner = Doubler()
    answers = await asyncio.gather(
        *(scheduler.submit(Double(runner, i), deadline=soon()) for i in range(50))
    )
    assert answers == [2 * i for i in range(50)]


async def test_work_that_waits_while_the_device_is_busy_shares_a_run(scheduler: Scheduler) -> None:
    runner = Doubler(max_batch=4)
    first = await started(runner, scheduler)
    rest = [
        asyncio.create_task(scheduler.submit(Double(runner, i), deadline=soon())) for i in range(6)
    ]
    await queued(scheduler, 6)
    runner.gate.set()
    assert await asyncio.gather(first, *rest) == [2000, 0, 2, 4, 6, 8, 10]
    assert runner.batches == [[1000], [0, 1, 2, 3], [4, 5]]


async def test_a_lone_request_does_not_wait_for_company(scheduler: Scheduler) -> None:
    runner = Doubler(max_batch=64)
    assert await scheduler.submit(Double(runner, 1), deadline=soon()) == 2
    assert runner.batches == [[1]]


@pytest.mark.parametrize("repeat", range(20))
async def test_cancelled_caller_does_not_stall_or_spoil_its_batch(
    scheduler: Scheduler, repeat: int
) -> None:
    runner = Doubler(max_batch=8)
    first = await started(runner, scheduler)
    others = [
        asyncio.create_task(scheduler.submit(Double(runner, i), deadline=soon())) for i in range(10)
    ]
    await queued(scheduler, 10)
    others[repeat % 10].cancel()
    await asyncio.sleep(0)
    runner.gate.set()
    answers = await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), 5)
    for i, answer in enumerate(answers[1:]):
        if i == repeat % 10:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer == 2 * i


@pytest.mark.parametrize("repeat", range(20))
async def test_one_bad_item_fails_alone(scheduler: Scheduler, repeat: int) -> None:
    runner = Doubler(max_batch=8)
    first = await started(runner, scheduler)
    runner.bad = {repeat % 8}
    others = [
        asyncio.create_task(scheduler.submit(Double(runner, i), deadline=soon())) for i in range(8)
    ]
    await queued(scheduler, 8)
    runner.gate.set()
    answers = await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), 5)
    for i, answer in enumerate(answers[1:]):
        if i == repeat % 8:
            assert isinstance(answer, ValueError)
        else:
            assert answer == 2 * i


@pytest.mark.parametrize("repeat", range(20))
async def test_model_that_raises_once_works_again(scheduler: Scheduler, repeat: int) -> None:
    runner = Doubler(max_batch=4)
    runner.failures_left = 1
    with pytest.raises(RuntimeError, match="hiccuped"):
        await scheduler.submit(Double(runner, repeat), deadline=soon())
    assert await scheduler.submit(Double(runner, repeat), deadline=soon()) == 2 * repeat


async def test_failed_preparation_fails_only_its_own(scheduler: Scheduler) -> None:
    runner = Doubler(max_batch=4)
    first = await started(runner, scheduler)

    def explode() -> None:
        raise KeyError("not a picture")

    bad = asyncio.create_task(scheduler.submit(Double(runner, 1, explode), deadline=soon()))
    good = asyncio.create_task(scheduler.submit(Double(runner, 2), deadline=soon()))
    await queued(scheduler, 2)
    runner.gate.set()
    answers = await asyncio.gather(first, bad, good, return_exceptions=True)
    assert isinstance(answers[1], KeyError)
    assert answers[2] == 4


async def test_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    scheduler = Scheduler(workers=1, capacity=2)
    runner = Doubler(max_batch=1)
    first = await started(runner, scheduler)
    waiting = [
        asyncio.create_task(scheduler.submit(Double(runner, i), deadline=soon())) for i in range(2)
    ]
    await queued(scheduler, 2)
    with pytest.raises(QueueFullError) as refused:
        await scheduler.submit(Double(runner, 9), deadline=soon())
    assert refused.value.retry_after_s > 0
    runner.gate.set()
    assert await asyncio.gather(first, *waiting) == [2000, 0, 2]
    assert scheduler.stats.refused == 1
    await scheduler.drain(5)


async def test_without_the_bound_the_same_load_is_admitted() -> None:
    """Negative control of the bound: with room for all, nothing is refused."""
    scheduler = Scheduler(workers=1, capacity=1000)
    runner = Doubler(max_batch=1)
    first = await started(runner, scheduler)
    waiting = [
        asyncio.create_task(scheduler.submit(Double(runner, i), deadline=soon())) for i in range(3)
    ]
    await queued(scheduler, 3)
    runner.gate.set()
    assert await asyncio.gather(first, *waiting) == [2000, 0, 2, 4]
    assert scheduler.stats.refused == 0
    await scheduler.drain(5)


async def test_expired_work_is_never_started(scheduler: Scheduler) -> None:
    runner = Doubler(max_batch=1)
    first = await started(runner, scheduler)
    work = Double(runner, 1)
    with pytest.raises(DeadlineError):
        await scheduler.submit(work, deadline=time.monotonic() + 0.02)
    runner.gate.set()
    await first
    await scheduler.drain(5)
    assert not work.prepared
    assert runner.batches == [[1000]]


async def test_work_that_cannot_be_ready_in_time_is_refused_at_the_door() -> None:
    scheduler = Scheduler(workers=1, capacity=64)
    runner = Doubler(max_batch=1)
    first = await started(runner, scheduler)
    waiting = asyncio.create_task(scheduler.submit(Double(runner, 1), deadline=soon()))
    await queued(scheduler, 1)
    # Service is estimated at 50 ms before the first run: two ahead cannot be done in 1 ms.
    with pytest.raises(QueueFullError, match="deadline"):
        await scheduler.submit(Double(runner, 2), deadline=time.monotonic() + 0.001)
    runner.gate.set()
    assert list(await asyncio.gather(first, waiting)) == [2000, 2]
    await scheduler.drain(5)


async def test_clicks_overtake_batch_work_and_batch_work_still_moves(scheduler: Scheduler) -> None:
    runner = Doubler(max_batch=1)
    first = await started(runner, scheduler)
    batch = [
        asyncio.create_task(
            scheduler.submit(Double(runner, i), priority=Priority.BATCH, deadline=soon())
        )
        for i in range(4)
    ]
    await queued(scheduler, 4)
    clicks = [
        asyncio.create_task(
            scheduler.submit(
                Double(runner, 100 + i), priority=Priority.INTERACTIVE, deadline=soon()
            )
        )
        for i in range(8)
    ]
    await queued(scheduler, 12)
    runner.gate.set()
    await asyncio.gather(first, *batch, *clicks)
    order = [unit for (unit,) in runner.batches[1:]]
    first_eight = order[:8]
    assert sum(unit >= 100 for unit in first_eight) >= 6, order
    assert any(unit < 100 for unit in first_eight), order


async def test_work_is_released_exactly_once_however_it_ends(scheduler: Scheduler) -> None:
    runner = Doubler(max_batch=4)
    good, bad = Double(runner, 1), Double(runner, 7)
    runner.bad = {7}
    await asyncio.gather(
        scheduler.submit(good, deadline=soon()),
        scheduler.submit(bad, deadline=soon()),
        return_exceptions=True,
    )
    await scheduler.drain(5)
    assert (good.released, bad.released) == (1, 1)


async def test_drain_finishes_what_was_admitted_and_refuses_the_rest() -> None:
    scheduler = Scheduler(workers=1, capacity=64)
    runner = Doubler(max_batch=1)
    first = await started(runner, scheduler)
    waiting = asyncio.create_task(scheduler.submit(Double(runner, 3), deadline=soon()))
    await queued(scheduler, 1)
    draining = asyncio.create_task(scheduler.drain(10))
    await asyncio.sleep(0.01)
    with pytest.raises(DrainingError):
        await scheduler.submit(Double(runner, 4), deadline=soon())
    runner.gate.set()
    assert list(await asyncio.gather(first, waiting)) == [2000, 6]
    assert await draining


async def test_drain_gives_up_on_a_stuck_device_and_tells_who_waits() -> None:
    scheduler = Scheduler(workers=1, capacity=64)
    runner = Doubler(max_batch=1)
    first = await started(runner, scheduler)
    waiting = asyncio.create_task(scheduler.submit(Double(runner, 3), deadline=soon()))
    await queued(scheduler, 1)
    assert not await scheduler.drain(0.05)
    with pytest.raises(DrainingError):
        await waiting
    runner.gate.set()
    assert await first == 2000


async def test_timing_tells_how_long_the_work_waited_and_in_what_company(
    scheduler: Scheduler,
) -> None:
    runner = Doubler(max_batch=4)
    first = await started(runner, scheduler)
    works = [Double(runner, i) for i in range(3)]
    tasks = [asyncio.create_task(scheduler.submit(w, deadline=soon())) for w in works]
    await queued(scheduler, 3)
    await asyncio.sleep(0.02)
    runner.gate.set()
    await asyncio.gather(first, *tasks)
    assert [w.timing.batch_size for w in works] == [3, 3, 3]
    assert all(w.timing.queue_s >= 0.02 for w in works)
