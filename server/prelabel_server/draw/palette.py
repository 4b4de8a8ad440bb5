"""Colours of classes: told apart with any kind of colour vision, the same in every picture."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

Rgb = tuple[int, int, int]

# Okabe and Ito, "Color Universal Design" (2008), without black, which vanishes in photographs.
PALETTE: tuple[Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def class_colors(labels: Iterable[str]) -> Mapping[str, Rgb]:
    """One colour for each class of a picture.

    A class has its place in the palette by its name alone. Where two classes of the picture share
    a place, the alphabetically later one moves on to the next free one; from the eighth class on
    colours repeat.

    Example:
        >>> class_colors(["cat"])["cat"] == class_colors(["cat"])["cat"]
        True
    """
    colors: dict[str, Rgb] = {}
    free = set(range(len(PALETTE)))
    for label in sorted(set(labels)):
        wanted = zlib.crc32(label.encode()) % len(PALETTE)
        tries = ((wanted + step) % len(PALETTE) for step in range(len(PALETTE)))
        place = next((p for p in tries if p in free), wanted)
        free.discard(place)
        colors[label] = PALETTE[place]
    return colors


def ink_on(background: Rgb) -> Rgb:
    """Black or white, whichever reads better on a colour (WCAG 2 contrast)."""
    linear = [_linear(value / 255) for value in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Where black and white have the same contrast: sqrt(1.05 * 0.05) - 0.05.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def _linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)
