"""A bound on bytes in use at a time."""

from __future__ import annotations

import threading


class ByteBudget:
    """Hands out bytes up to a total; who finds none left waits. Thread-safe.

    Args:
        total_bytes: The bound. A single demand above it is granted alone, once nothing else is
            out: the image limits, not this budget, decide how large one image may be.
    """

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._used = 0
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """Bytes handed out now."""
        with self._changed:
            return self._used

    def acquire(self, count: int) -> None:
        """Wait until `count` bytes are free and take them."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + count <= self._total)
            self._used += count

    def release(self, count: int) -> None:
        """Give `count` bytes back."""
        with self._changed:
            self._used -= count
            self._changed.notify_all()
