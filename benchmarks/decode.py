"""Decoding against OpenCV alone: the same picture in each format, in turns, in one run.

    python benchmarks/decode.py [--width 640 --height 480] [--rounds 100]

Prints the fastest time of each side in milliseconds and their ratio. In turns, so that other
processes on the machine slow both alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from prelabel_models.images import decode, read_header


def picture(width: int, height: int) -> np.ndarray:
    """Smooth shapes with some noise, so that JPEG and PNG have the work of a photograph."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 40 + 1, width // 40 + 1, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    return np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def milliseconds(work: Callable[[], object]) -> float:
    """One run."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def reference(data: bytes) -> None:
    """What a server that trusts its callers does."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=100)
    given = parser.parse_args()
    image = picture(given.width, given.height)
    print(f"{'format':8}{'ours ms':>10}{'OpenCV ms':>12}{'ratio':>8}{'header ms':>12}")
    for ending in (".jpg", ".png", ".webp", ".bmp"):
        data = bytes(cv2.imencode(ending, image)[1])
        pairs = [
            (milliseconds(lambda: decode(data)), milliseconds(lambda: reference(data)))  # noqa: B023
            for _ in range(given.rounds)
        ]
        header = min(milliseconds(lambda: read_header(data)) for _ in range(given.rounds))  # noqa: B023
        ours, theirs = (min(times) for times in zip(*pairs, strict=True))
        print(f"{ending:8}{ours:10.2f}{theirs:12.2f}{ours / theirs:8.2f}{header:12.3f}")


if __name__ == "__main__":
    main()
