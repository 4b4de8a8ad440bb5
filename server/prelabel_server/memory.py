"""Give the memory of large buffers back to the system."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
# Larger than the buffers of every request (a 416x416x3 float32 tensor is 2 MiB), whose pages are
# worth keeping, and smaller than the messages and photographs that should leave no trace. A fresh
# mapping of 5 MiB costs about half a millisecond.
_LARGE_BYTES = 4 * 2**20


def return_large_buffers() -> bool:
    """Fix glibc's thresholds; call it once, before the threads start.

    Left to itself glibc raises its threshold with each large buffer that is freed, up to 32 MiB,
    and keeps such buffers in the heaps of every thread: a few 20 MiB messages cost 270 MiB for
    good. One heap suffices: ONNX Runtime and Python's own small objects have allocators of their
    own, so threads hardly meet at it.

    Returns:
        False where there is no glibc; nothing is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl returns large buffers by itself
        return False
    done: int = mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    done = done and mallopt(_M_ARENA_MAX, 1)
    return bool(done and mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES))
