"""BMP headers: size, depth, and whether the file holds all its pixels."""

from __future__ import annotations

import struct

from prelabel_models.errors import ImageFormatError
from prelabel_models.images._common import Parsed, cut_short, damaged

# OS/2 core header, and Windows' with its later growth.
HEADER_SIZES = frozenset({12, 40, 52, 56, 64, 108, 124})
_PLAIN, _BITFIELDS = 0, 3


def _fields(data: bytes) -> tuple[int, int, int, int, int]:
    """(start of the pixels, width, height, bits per pixel, compression); height may be < 0."""
    if len(data) < 26:
        raise cut_short("BMP")
    (pixels, header) = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return pixels, width, height, bits, _PLAIN
    if len(data) < 14 + header:
        raise cut_short("BMP")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    return pixels, width, height, bits, compression


def parse(data: bytes) -> Parsed:
    """Header of a BMP.

    Raises:
        ImageDamagedError: Cut short or contradictory.
        ImageFormatError: Run-length coded, or JPEG or PNG inside.
    """
    _, width, height, bits, compression = _fields(data)
    if compression not in (_PLAIN, _BITFIELDS):
        # Pillow reads run lengths byte by byte in Python: 20 MiB would take many seconds.
        raise ImageFormatError("image: expected a BMP without compression, got a compressed one")
    if bits not in (1, 4, 8, 16, 24, 32):
        raise damaged("BMP", f"expected 1, 4, 8, 16, 24 or 32 bits per pixel, got {bits}")
    if width <= 0 or height == 0:
        raise damaged("BMP", "it has no width or no height")
    mode = "1" if bits == 1 else "P" if bits <= 8 else "RGB"
    depth = 1 if bits == 1 else 5 if bits == 16 else 8
    # OpenCV copies the encoded pixels, Pillow holds RGBX.
    return Parsed(width, abs(height), mode, depth, 4)


def check_complete(data: bytes) -> None:
    """That the file holds as many bytes as its header asks for.

    Raises:
        ImageDamagedError: It does not.
    """
    start, width, height, bits, _ = _fields(data)
    row = (width * bits + 31) // 32 * 4
    if start + row * abs(height) > len(data):
        raise cut_short("BMP")


def is_plain(data: bytes) -> bool:
    """24 or 32 bits per pixel without masks: OpenCV's fast path."""
    _, _, _, bits, compression = _fields(data)
    return bits in (24, 32) and compression == _PLAIN
