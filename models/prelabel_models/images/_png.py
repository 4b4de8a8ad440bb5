"""PNG (ISO/IEC 15948) chunks: size, orientation, completeness. `parse` inflates nothing."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from prelabel_models.images._common import (
    MAX_STEPS,
    Parsed,
    cut_short,
    damaged,
    exif_orientation,
    too_many,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour type to (mode, allowed depths).
_KINDS = {
    0: ("L", (1, 2, 4, 8, 16)),
    2: ("RGB", (8, 16)),
    3: ("P", (1, 2, 4, 8)),
    4: ("LA", (8, 16)),
    6: ("RGBA", (8, 16)),
}
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column, first row, step right, step down of the interlaced passes (section 8.2).
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_INFLATE_STEP = 4_096  # deflate grows at most 1,032 times: 4 MiB
# What the pixels mean. All else is text, time, profiles and animation, which the decoder never
# sees: no text bomb, no profile bomb, no library warning about either.
_NEEDED = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
# Real profiles of RGB images have 0.5 to 60 KiB.
_MAX_PROFILE_BYTES = 1 << 20


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the body, end of the body) up to and including IEND.

    Raises:
        ImageDamagedError: The file ends before IEND.
        ImageTooLargeError: More chunks than any real file has.
    """
    at, size = 8, len(data)
    for _ in range(MAX_STEPS):
        body = at + 8
        end = body + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : body]
        if end + 4 > size:
            raise cut_short("PNG")
        yield kind, body, end
        if kind == b"IEND":
            return
        at = end + 4
    raise too_many("PNG", "chunks", MAX_STEPS)


def _mode(color: int, depth: int) -> str:
    mode, depths = _KINDS.get(color, ("", ()))
    if depth not in depths:
        raise damaged("PNG", f"colour type {color} has no depth {depth}")
    if mode == "L":
        return {1: "1", 16: "I;16"}.get(depth, "L")
    return mode


def parse(data: bytes) -> Parsed:
    """Header of a PNG; walks all chunk headers, for EXIF may stand behind the pixels.

    Raises:
        ImageDamagedError: Cut short or contradictory.
        ImageTooLargeError: More chunks than any real file has.
    """
    if len(data) < 33:
        raise cut_short("PNG")
    if data[8:16] != b"\0\0\0\x0dIHDR" or zlib.crc32(data[12:29]) != _crc(data, 29):
        raise damaged("PNG", "expected a header")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, color, compression, filtering, interlace = data[24:29]
    if width == 0 or height == 0 or compression or filtering or interlace > 1:
        raise damaged("PNG", "its header holds impossible values")
    mode = _mode(color, depth)
    orientation, frames, has_profile = 1, 1, False
    for kind, body, end in _chunks(data):
        if kind == b"eXIf":
            orientation = exif_orientation(data[body : min(end, body + 65_536)])
        elif kind == b"iCCP":
            has_profile = True
        elif kind == b"acTL" and end - body == 8:
            frames = max(1, int.from_bytes(data[body : body + 4], "big"))
    working = {"1": 1, "L": 1, "P": 1, "I;16": 2}.get(mode, 4)
    return Parsed(width, height, mode, depth, working, orientation, frames, has_profile)


def _crc(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def essence(data: bytes) -> bytes:
    """The chunks that the pixels need, each compared with its checksum.

    Returns:
        `data` itself where it holds nothing else.

    Raises:
        ImageDamagedError: Cut short, or a checksum is wrong, or there are no pixels.
    """
    view = memoryview(data)
    kept: list[memoryview] = [view[:8]]
    found = set()
    for kind, body, end in _chunks(data):
        if kind not in _NEEDED:
            if not kind[0] & 0x20:  # an upper-case first letter: not to be skipped
                raise damaged("PNG", "it has a critical chunk that is not known")
            continue
        if zlib.crc32(view[body - 4 : end]) != _crc(data, end):
            raise damaged("PNG", "a checksum is wrong")
        found.add(kind)
        kept.append(view[body - 8 : end + 4])
    if b"IDAT" not in found:
        raise damaged("PNG", "it has no pixels")
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


def check_rows(data: bytes) -> None:
    """That the deflated stream holds every row. Inflates it all, in small pieces.

    Pillow takes a stream that ends early in good order for a whole picture.

    Raises:
        ImageDamagedError: It holds less.
        zlib.error: The stream is broken.
    """
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits = data[24] * _SAMPLES[data[25]]
    missing = 0
    for x0, y0, dx, dy in _ADAM7 if data[28] else ((0, 0, 1, 1),):
        columns, rows = (width - x0 + dx - 1) // dx, (height - y0 + dy - 1) // dy
        if columns > 0 and rows > 0:
            missing += rows * (1 + (columns * bits + 7) // 8)
    inflater = zlib.decompressobj()
    for kind, body, end in _chunks(data):
        if kind != b"IDAT":
            continue
        for at in range(body, end, _INFLATE_STEP):
            missing -= len(inflater.decompress(data[at : min(at + _INFLATE_STEP, end)]))
            if missing <= 0:
                return
    raise damaged("PNG", "it holds fewer rows than its header says")


def profile(data: bytes) -> bytes:
    """The ICC profile; empty if there is none, or it is broken or inflates past 1 MiB."""
    for kind, body, end in _chunks(data):
        if kind == b"iCCP":
            name_end = data.find(b"\0", body, body + 80)
            if name_end < 0:
                return b""
            inflater = zlib.decompressobj()
            try:
                out = inflater.decompress(data[name_end + 2 : end], _MAX_PROFILE_BYTES)
            except zlib.error:
                return b""
            return out if inflater.eof else b""
        if kind == b"IDAT":
            break
    return b""
