"""WebP (RFC 9649) chunks: size, orientation, frames."""

from __future__ import annotations

from collections.abc import Iterator

from prelabel_models.images._common import (
    MAX_STEPS,
    Parsed,
    cut_short,
    damaged,
    exif_orientation,
    too_many,
)

_ALPHA, _PROFILE, _ANIMATION = 0x10, 0x20, 0x02


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of the body, end of the body), without what follows the RIFF container."""
    stop = 8 + int.from_bytes(data[4:8], "little")
    if stop > len(data):
        raise cut_short("WebP")
    at = 12
    for _ in range(MAX_STEPS):
        if at + 8 > stop:
            return
        body = at + 8
        end = body + int.from_bytes(data[at + 4 : body], "little")
        if end > stop:
            raise damaged("WebP", "a chunk is longer than the file")
        yield data[at : at + 4], body, end
        at = end + (end - body & 1)
    raise too_many("WebP", "chunks", MAX_STEPS)


def _still_size(data: bytes, kind: bytes, body: int, end: int) -> tuple[int, int, bool]:
    """(width, height, has alpha) of a VP8 or VP8L bit stream."""
    if kind == b"VP8L":
        if end - body < 5 or data[body] != 0x2F:
            raise damaged("WebP", "its lossless stream has no header")
        bits = int.from_bytes(data[body + 1 : body + 5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    if end - body < 10 or data[body + 3 : body + 6] != b"\x9d\x01\x2a":
        raise damaged("WebP", "its lossy stream has no header")
    width = int.from_bytes(data[body + 6 : body + 8], "little") & 0x3FFF
    height = int.from_bytes(data[body + 8 : body + 10], "little") & 0x3FFF
    return width, height, False


def parse(data: bytes) -> Parsed:
    """Header of a WebP.

    Raises:
        ImageDamagedError: Cut short or contradictory.
        ImageTooLargeError: More chunks than any real file has.
    """
    size, canvas, alpha, orientation, flags, frames = (0, 0), (0, 0), False, 1, 0, 0
    for kind, body, end in _chunks(data):
        if kind in (b"VP8 ", b"VP8L") and size == (0, 0):
            *size_list, stream_alpha = _still_size(data, kind, body, end)
            size, alpha = (size_list[0], size_list[1]), alpha or stream_alpha
        elif kind == b"VP8X" and end - body >= 10:
            flags = data[body]
            canvas = (
                1 + int.from_bytes(data[body + 4 : body + 7], "little"),
                1 + int.from_bytes(data[body + 7 : body + 10], "little"),
            )
        elif kind == b"ALPH":
            alpha = True
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            orientation = exif_orientation(data[body : min(end, body + 65_536)])
    animated = bool(flags & _ANIMATION)
    if animated and canvas != (0, 0) and frames > 0:
        size = canvas
    elif canvas not in ((0, 0), size):
        raise damaged("WebP", "its canvas and its picture differ in size")
    if 0 in size:
        raise damaged("WebP", "it has no picture")
    # An animation is composited on a canvas that starts out transparent.
    mode = "RGBA" if alpha or animated or flags & _ALPHA else "RGB"
    # Pillow's decoder holds two RGBA canvases, its frame as bytes and its image; libwebp's lossless
    # decoder behind OpenCV works in ARGB.
    working = 16 if mode == "RGBA" else 4
    return Parsed(
        *size, mode, 8, working, orientation, frames if animated else 1, bool(flags & _PROFILE)
    )


def profile(data: bytes) -> bytes:
    """The ICC profile; empty if there is none."""
    for kind, body, end in _chunks(data):
        if kind == b"ICCP":
            return data[body:end]
    return b""
