"""What the header parsers share. None of them decodes a pixel or inflates a byte."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from prelabel_models.errors import ImageDamagedError, ImageTooLargeError

# A header walk costs about 0.6 us a step in Python, so this bounds it to some 5 ms. Real files
# stay below: 20 MiB of PNG in libpng's 8 KiB chunks has 2,560, and each frame of a WebP is one.
MAX_STEPS = 8_192

# Orientation stands among the first entries of an EXIF block; cameras write 10 to 40.
_MAX_EXIF_ENTRIES = 256
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser found.

    Attributes:
        width: Stored width in pixels.
        height: Stored height in pixels.
        mode: Pixel kind in Pillow's words.
        bits: Bits per channel as stored.
        working_bytes_per_pixel: Upper bound of what the decoder needs beside the RGB result.
        orientation: EXIF orientation, 1 to 8.
        frames: Frames in the file.
        has_profile: The file carries an ICC profile.
    """

    width: int
    height: int
    mode: str
    bits: int
    working_bytes_per_pixel: int
    orientation: int = 1
    frames: int = 1
    has_profile: bool = False


def cut_short(name: str) -> ImageDamagedError:
    """The error for a file that ends too early."""
    return ImageDamagedError(f"image: the {name} is cut short")


def damaged(name: str, what: str) -> ImageDamagedError:
    """The error for a file that contradicts its format."""
    return ImageDamagedError(f"image: the {name} is damaged: {what}")


def too_many(name: str, what: str, limit: int) -> ImageTooLargeError:
    """The error for a file made of more parts than any real one."""
    return ImageTooLargeError(f"image: the {name} has more than {limit:,} {what}")


def exif_orientation(block: bytes) -> int:
    """Orientation from an EXIF block (a TIFF header and its first directory).

    Returns:
        1 to 8; 1 where the block is absent, broken or silent.
    """
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 14:
        return 1
    (start,) = struct.unpack_from(order + "I", block, 4)
    if start + 2 > len(block):
        return 1
    (count,) = struct.unpack_from(order + "H", block, start)
    for i in range(min(count, _MAX_EXIF_ENTRIES)):
        at = start + 2 + 12 * i
        if at + 12 > len(block):
            return 1
        tag, kind = struct.unpack_from(order + "HH", block, at)
        if tag == _ORIENTATION_TAG:
            if kind not in (_SHORT, _LONG):
                return 1
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), block, at + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1
