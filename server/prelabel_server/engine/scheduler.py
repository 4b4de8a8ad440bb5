"""The queue and its workers.

Work is admitted at the door or refused at once; it never waits outside. A worker that becomes free
takes the most urgent work and, with it, whatever of the same model is waiting, up to one batch: a
device never idles while something waits, and nothing waits for a batch to fill.

What a batch fails with reaches exactly its own members, and one bad member fails alone: the result
travels with the work, not through a table of ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeVar

from prelabel_server.engine.clock import Clock, monotonic
from prelabel_server.errors import DeadlineError, DrainingError, QueueFullError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Every fourth pick starts from the least urgent class, so that batch work keeps a quarter of the
# workers while clicks and single requests flood in.
_FAIR_PICK = 4
# Weight of the newest run in the moving average of service times; 0.1 remembers about 20 runs.
_EWMA_WEIGHT = 0.1
# Until the first run has been timed.
_FIRST_SERVICE_S = 0.05


class Priority(IntEnum):
    """Who goes first."""

    INTERACTIVE = 0
    UNARY = 1
    BATCH = 2


class Runner(Protocol):
    """What work of one model has in common: the device's step."""

    @property
    def max_batch(self) -> int:
        """Units that one run takes."""
        ...

    def run(self, units: Sequence[Any]) -> Sequence[Any]:
        """One output per unit, in the same order."""
        ...


@dataclass(slots=True)
class Timing:
    """Where one piece of work spent its time, in seconds; filled in as it goes."""

    queue_s: float = 0.0
    inference_s: float = 0.0
    batch_size: int = 0


class Work(ABC, Generic[T]):
    """One request's work, in three steps that a worker thread calls.

    Attributes:
        runner: Work with the same runner may share a run.
        timing: Filled in by the scheduler.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.timing = Timing()

    @abstractmethod
    def prepare(self) -> Sequence[Any]:
        """CPU work before the run: the units for the runner, at least one."""

    @abstractmethod
    def finish(self, outputs: Sequence[Any]) -> T:
        """CPU work after the run: the result."""

    def release(self) -> None:
        """Give back what `prepare` took; called once, whatever happened."""


@dataclass(slots=True, eq=False)
class _Entry:
    work: Work[Any]
    priority: Priority
    deadline: float
    admitted: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    cancelled: bool = False
    settled: bool = False
    units: Sequence[Any] = ()
    outputs: list[Any] = field(default_factory=list)

    def resolve(self, result: Any) -> None:
        """Hand the result to the waiting caller, from any thread, at most once."""
        self._settle(lambda: self.future.set_result(result))

    def fail(self, error: Exception) -> None:
        """Hand the error to the waiting caller, from any thread, at most once."""
        self._settle(lambda: self.future.set_exception(error))

    def _settle(self, deliver: Callable[[], None]) -> None:
        if self.settled:
            return
        self.settled = True
        # The caller may have left meanwhile, even with its whole loop: then nobody waits.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(lambda: None if self.future.done() else deliver())


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """Counters since the start, and what is going on now."""

    queued: int
    running: int
    completed: int
    failed: int
    refused: int
    expired: int
    cancelled: int


class Scheduler:
    """A bounded queue in front of worker threads.

    Args:
        workers: Threads, >= 1.
        capacity: Work that may wait, >= 1; more is refused.
        clock: For tests.
    """

    def __init__(self, workers: int, capacity: int, clock: Clock = monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._queues: dict[Priority, deque[_Entry]] = {p: deque() for p in Priority}
        self._changed = threading.Condition()
        self._picks = itertools.count(1)
        self._service_s = _FIRST_SERVICE_S
        self._running = 0
        self._draining = False
        self._stopped = False
        self._counts = dict.fromkeys(("completed", "failed", "refused", "expired", "cancelled"), 0)
        self._threads = [
            threading.Thread(target=self._serve, name=f"prelabel-worker-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def stats(self) -> SchedulerStats:
        """A consistent snapshot."""
        with self._changed:
            return SchedulerStats(queued=self._depth(), running=self._running, **self._counts)

    async def submit(
        self, work: Work[T], *, priority: Priority = Priority.UNARY, deadline: float
    ) -> T:
        """Admit work and wait for its result.

        Cancelling the caller drops the work if it has not started, and its result otherwise.

        Args:
            work: Is not used again afterwards.
            priority: Who goes first.
            deadline: On the scheduler's clock; work that has not started by then never does.

        Raises:
            QueueFullError: No room, or no chance to be ready before the deadline.
            DrainingError: The scheduler is shutting down.
            DeadlineError: The deadline passed while waiting.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(work, priority, deadline, self._clock(), loop, loop.create_future())
        self._admit(entry)
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                result: T = await entry.future
        except TimeoutError:
            raise DeadlineError("the deadline passed before the answer was ready") from None
        finally:
            # Not done only where the caller left: by cancellation or by its deadline.
            if not entry.settled:
                self._drop(entry)
        return result

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new work, let admitted work finish, end the workers.

        Returns:
            False if some was still going on after `timeout_s`; it is abandoned.
        """
        with self._changed:
            self._draining = True
        return await asyncio.to_thread(self._join, timeout_s)

    def _join(self, timeout_s: float) -> bool:
        with self._changed:
            idle = self._changed.wait_for(
                lambda: self._depth() == 0 and self._running == 0, timeout_s
            )
            self._stopped = True
            left = [entry for queue in self._queues.values() for entry in queue]
            for queue in self._queues.values():
                queue.clear()
            self._changed.notify_all()
        for entry in left:
            entry.fail(DrainingError("the server is shutting down"))
        if idle:
            for thread in self._threads:
                thread.join()
        return idle

    def _admit(self, entry: _Entry) -> None:
        with self._changed:
            if self._draining:
                raise DrainingError("the server is shutting down")
            depth = self._depth()
            wait_s = (depth + 1) * self._service_s / len(self._threads)
            if depth >= self._capacity:
                self._counts["refused"] += 1
                raise QueueFullError(
                    f"the queue is full: {depth} of {self._capacity} places are taken", wait_s
                )
            late = entry.admitted + wait_s > entry.deadline
            # With nothing waiting the estimate may be stale: let the work try.
            if late and depth > 0:
                self._counts["refused"] += 1
                raise QueueFullError(
                    f"{depth} requests are waiting: this one could not be ready before its "
                    "deadline",
                    wait_s,
                )
            self._queues[entry.priority].append(entry)
            self._changed.notify()

    def _drop(self, entry: _Entry) -> None:
        with self._changed:
            entry.cancelled = True
            queue = self._queues[entry.priority]
            if entry in queue:
                queue.remove(entry)
                self._counts["cancelled"] += 1
                self._changed.notify_all()

    def _depth(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def _serve(self) -> None:
        while self._serve_once():
            pass

    def _serve_once(self) -> bool:
        """One batch. A method of its own, so that no worker holds on to its last images."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._depth() > 0)
            if self._stopped:
                return False
            batch = self._take()
            self._running += len(batch)
        try:
            self._execute(batch)
        finally:
            with self._changed:
                self._running -= len(batch)
                self._changed.notify_all()
        return True

    def _take(self) -> list[_Entry]:
        """The next batch; the lock is held. Empty if all that waited had expired."""
        first = self._pick()
        if first is None:
            return []
        batch = [first]
        runner = first.work.runner
        for priority in Priority:
            queue = self._queues[priority]
            for entry in [e for e in queue if e.work.runner is runner]:
                if len(batch) >= runner.max_batch:
                    return batch
                queue.remove(entry)
                if self._alive(entry):
                    batch.append(entry)
        return batch

    def _pick(self) -> _Entry | None:
        order: Iterable[Priority] = Priority
        if next(self._picks) % _FAIR_PICK == 0:
            order = reversed(Priority)
        for priority in order:
            queue = self._queues[priority]
            while queue:
                entry = queue.popleft()
                if self._alive(entry):
                    return entry
        return None

    def _alive(self, entry: _Entry) -> bool:
        if entry.cancelled:
            self._counts["cancelled"] += 1
            return False
        if self._clock() >= entry.deadline:
            self._counts["expired"] += 1
            entry.fail(DeadlineError("the deadline passed while the request was waiting"))
            return False
        entry.work.timing.queue_s = self._clock() - entry.admitted
        return True

    def _execute(self, batch: list[_Entry]) -> None:
        started = self._clock()
        try:
            ready = [entry for entry in batch if self._prepared(entry)]
            if ready:
                self._run(ready)
            for entry in ready:
                if not entry.settled:
                    self._finish(entry)
        finally:
            for entry in batch:
                entry.units, entry.outputs = (), []
                try:
                    entry.work.release()
                except Exception:
                    logger.exception("releasing finished work failed")
        if batch:
            each = (self._clock() - started) / len(batch)
            with self._changed:
                self._service_s += _EWMA_WEIGHT * (each - self._service_s)

    def _prepared(self, entry: _Entry) -> bool:
        try:
            entry.units = entry.work.prepare()
        except Exception as err:
            self._failed(entry, err)
            return False
        # The caller may have left while the image was decoded: do not run the model for nobody.
        if entry.cancelled:
            self._count("cancelled")
            return False
        return True

    def _run(self, ready: list[_Entry]) -> None:
        """Run all units in as few runs as the model allows."""
        owned = [(entry, unit) for entry in ready for unit in entry.units]
        step = ready[0].work.runner.max_batch
        for start in range(0, len(owned), step):
            chunk = [pair for pair in owned[start : start + step] if not pair[0].settled]
            if chunk:
                self._run_chunk(chunk)

    def _run_chunk(self, chunk: list[tuple[_Entry, Any]]) -> None:
        runner = chunk[0][0].work.runner
        started = self._clock()
        try:
            outputs = runner.run([unit for _, unit in chunk])
        except Exception as err:
            if len(chunk) == 1:
                self._failed(chunk[0][0], err)
                return
            # One bad item must not take its neighbours along: give each its own run.
            for pair in chunk:
                self._run_chunk([pair])
            return
        elapsed = self._clock() - started
        for (entry, _), output in zip(chunk, outputs, strict=True):
            entry.outputs.append(output)
            timing = entry.work.timing
            timing.batch_size = max(timing.batch_size, len(chunk))
        for entry in {id(e): e for e, _ in chunk}.values():
            entry.work.timing.inference_s += elapsed

    def _finish(self, entry: _Entry) -> None:
        try:
            result = entry.work.finish(entry.outputs)
        except Exception as err:
            self._failed(entry, err)
            return
        self._count("completed")
        entry.resolve(result)

    def _failed(self, entry: _Entry, error: Exception) -> None:
        if not entry.settled:  # one of its units may have failed before
            self._count("failed")
            entry.fail(error)

    def _count(self, what: str) -> None:
        with self._changed:
            self._counts[what] += 1
