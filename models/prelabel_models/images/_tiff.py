"""TIFF 6.0 directories: size, kind of pixels, orientation, number of pages."""

from __future__ import annotations

import struct

from prelabel_models.errors import ImageFormatError
from prelabel_models.images._common import Parsed, cut_short, damaged, too_many

_MAX_PAGES = 1_000
_MAX_ENTRIES = 256  # of one directory; scanners and cameras write 10 to 60
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 274, 277, 322, 323
_SAMPLE_FORMAT, _ICC = 339, 34675
# None, CCITT, LZW, Deflate (both numbers), PackBits. JPEG inside TIFF has a size of its own.
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 8, 32946, 32773})
_MAX_TILE_SIDE = 4_096  # a tile is decoded whole, however small the picture
# (photometric, samples, bits) to mode.
_MODES = {
    (0, 1, 1): "1",
    (1, 1, 1): "1",
    (0, 1, 8): "L",
    (1, 1, 8): "L",
    (1, 1, 16): "I;16",
    (2, 3, 8): "RGB",
    (2, 4, 8): "RGBA",
    (2, 3, 16): "RGB",
    (3, 1, 8): "P",
    (5, 4, 8): "CMYK",
}


def _entries(data: bytes, order: str, start: int) -> tuple[dict[int, tuple[int, ...]], int]:
    """Short and long values of one directory, by tag, and where the next one starts."""
    if start + 2 > len(data):
        raise cut_short("TIFF")
    (count,) = struct.unpack_from(order + "H", data, start)
    stop = start + 2 + 12 * count
    if stop + 4 > len(data):
        raise cut_short("TIFF")
    if count > _MAX_ENTRIES:
        raise too_many("TIFF", "directory entries", _MAX_ENTRIES)
    found: dict[int, tuple[int, ...]] = {}
    for at in range(start + 2, stop, 12):
        tag, kind, n = struct.unpack_from(order + "HHI", data, at)
        size = {3: 2, 4: 4}.get(kind)
        if size is None or n == 0:
            found[tag] = ()
            continue
        n = min(n, 4)  # no tag that is read here has more
        offset = at + 8 if n * size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
        if offset + n * size > len(data):
            raise cut_short("TIFF")
        found[tag] = struct.unpack_from(f"{order}{n}{'H' if size == 2 else 'I'}", data, offset)
    (following,) = struct.unpack_from(order + "I", data, stop)
    return found, following


def _pages(data: bytes, order: str, following: int) -> int:
    seen: set[int] = set()
    while following:
        if following in seen:
            raise damaged("TIFF", "its directories form a loop")
        if len(seen) >= _MAX_PAGES:
            raise too_many("TIFF", "pages", _MAX_PAGES)
        seen.add(following)
        if following + 2 > len(data):
            raise cut_short("TIFF")
        (count,) = struct.unpack_from(order + "H", data, following)
        at = following + 2 + 12 * count
        if at + 4 > len(data):
            raise cut_short("TIFF")
        (following,) = struct.unpack_from(order + "I", data, at)
    return 1 + len(seen)


def parse(data: bytes) -> Parsed:
    """Header of a TIFF's first page.

    Raises:
        ImageDamagedError: Cut short or contradictory.
        ImageFormatError: Floating point, or a kind of pixels or compression not decoded here.
        ImageTooLargeError: More pages or entries, or larger tiles, than any real file has.
    """
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 8:
        raise cut_short("TIFF")
    (start,) = struct.unpack_from(order + "I", data, 4)
    tags, following = _entries(data, order, start)
    if following == start:
        raise damaged("TIFF", "its directories form a loop")

    def first(tag: int, default: int) -> int:
        return int((tags.get(tag) or (default,))[0])

    bits = tags.get(_BITS) or (1,)
    samples, photometric = first(_SAMPLES, 1), first(_PHOTOMETRIC, -1)
    width, height = first(_WIDTH, 0), first(_HEIGHT, 0)
    if first(_SAMPLE_FORMAT, 1) != 1:
        raise ImageFormatError(
            "image: expected a TIFF of 8 or 16 bit whole numbers, got floating point or signed ones"
        )
    mode = _MODES.get((photometric, samples, bits[0]))
    if mode is None or len(set(bits)) != 1 or first(_COMPRESSION, 1) not in _COMPRESSIONS:
        raise ImageFormatError(
            "image: expected a TIFF of gray, RGB, RGBA, palette or CMYK pixels of 8 or 16 bits, "
            "uncompressed or with LZW, Deflate, PackBits or CCITT"
        )
    if width == 0 or height == 0:
        raise damaged("TIFF", "it has no width or no height")
    if max(first(_TILE_WIDTH, 1), first(_TILE_HEIGHT, 1)) > _MAX_TILE_SIDE:
        raise too_many("TIFF", "pixels along a tile", _MAX_TILE_SIDE)
    orientation = first(_ORIENTATION, 1)
    if not 1 <= orientation <= 8:
        orientation = 1
    return Parsed(
        width,
        height,
        mode,
        bits[0],
        8,
        orientation,
        _pages(data, order, following),
        _ICC in tags,
    )


def upright(data: bytes) -> bytes:
    """The same file with orientation 1, so that a decoder does not turn the first page."""
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(order + "H", data, at)[0] == _ORIENTATION:
            entry = struct.pack(order + "HHIHH", _ORIENTATION, 3, 1, 1, 0)
            data = data[:at] + entry + data[at + 12 :]
    return data
