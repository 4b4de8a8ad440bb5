"""Time for deadlines and durations: monotonic, and replaceable in tests."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds since an arbitrary moment; never goes back."""

monotonic: Clock = time.monotonic
