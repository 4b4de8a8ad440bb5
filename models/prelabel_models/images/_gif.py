"""GIF blocks: the size of the first frame and the number of frames."""

from __future__ import annotations

from prelabel_models.images._common import Parsed, cut_short, damaged, too_many

# A sub-block holds up to 255 bytes, so 20 MiB of honest GIF has 82,000.
_MAX_BLOCKS = 100_000
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def _skip_blocks(data: bytes, at: int, budget: int) -> tuple[int, int]:
    """Position behind a chain of sub-blocks, and the budget left; (-1, ...) if it is cut."""
    size = len(data)
    while at < size:
        length = data[at]
        at += 1 + length
        budget -= 1
        if length == 0:
            return at, budget
        if budget <= 0:
            raise too_many("GIF", "blocks", _MAX_BLOCKS)
    return -1, budget


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def parse(data: bytes) -> Parsed:
    """Header of a GIF. A frame may reach over the screen; the size then covers both, as decoded.

    Raises:
        ImageDamagedError: Cut short before the end of the first frame.
        ImageTooLargeError: More blocks than any real file has.
    """
    if len(data) < 13:
        raise cut_short("GIF")
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    at, frames, budget = 13 + _table_bytes(data[10]), 0, _MAX_BLOCKS
    while at < len(data) and data[at] != _TRAILER:
        kind = data[at]
        if kind == _IMAGE:
            if at + 10 > len(data):
                break
            x, y, w, h = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (1, 3, 5, 7))
            if frames == 0:
                width, height = max(width, x + w), max(height, y + h)
            at += 11 + _table_bytes(data[at + 9])  # descriptor, colours, code size
        elif kind == _EXTENSION:
            at += 2
        else:
            break
        at, budget = _skip_blocks(data, at, budget)
        if at < 0:
            break
        frames += kind == _IMAGE
    if frames == 0:
        raise cut_short("GIF")
    if width == 0 or height == 0:
        raise damaged("GIF", "it has no width or no height")
    return Parsed(width, height, "P", 8, 4, frames=frames)
