"""Where the labels of a picture go: inside it, and beside one another rather than on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Rect = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in whole pixels, half-open."""


def place_chips(
    boxes: Sequence[Rect], sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]
) -> list[Rect]:
    """A place for each label, the first label choosing first.

    Tried in turn: on the box's upper edge, inside its corners, below it, at its sides, then up
    and down along its left edge. If all are taken, the one that hides the least of other labels.

    Args:
        boxes: What each label belongs to.
        sizes: (width, height) of each label in pixels.
        image_size: (width, height) in pixels.

    Returns:
        One rectangle per label, inside the image as far as it fits.

    Example:
        >>> place_chips([(10, 50, 90, 90)], [(30, 10)], (100, 100))
        [(10, 40, 40, 50)]
    """
    placed: list[Rect] = []
    for box, size in zip(boxes, sizes, strict=True):
        best, least = None, 0
        for rect in _candidates(box, size, image_size):
            hidden = sum(_overlap(rect, other) for other in placed)
            if best is None or hidden < least:
                best, least = rect, hidden
            if hidden == 0:
                break
        if best is not None:
            placed.append(best)
    return placed


def _candidates(box: Rect, size: tuple[int, int], image_size: tuple[int, int]) -> Iterator[Rect]:
    x1, y1, x2, y2 = box
    width, height = size
    corners = [
        (x1, y1 - height),
        (x2 - width, y1 - height),
        (x1, y1),
        (x2 - width, y1),
        (x1, y2),
        (x1, y2 - height),
        (x2 - width, y2),
        (x2 - width, y2 - height),
        (x2, y1),
        (x1 - width, y1),
    ]
    # Three rows either way keep a label in sight of its box.
    corners += [(x1, y1 + step * height) for step in (1, -2, 2, -3, 3)]
    for x, y in corners:
        yield _inside((x, y, x + width, y + height), image_size)


def _inside(rect: Rect, image_size: tuple[int, int]) -> Rect:
    x1, y1, x2, y2 = rect
    dx = max(0, -x1) if x1 < 0 else min(0, image_size[0] - x2)
    dy = max(0, -y1) if y1 < 0 else min(0, image_size[1] - y2)
    # A label wider than the picture starts at its left edge.
    dx, dy = max(dx, -x1), max(dy, -y1)
    return x1 + dx, y1 + dy, x2 + dx, y2 + dy


def _overlap(a: Rect, b: Rect) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0
