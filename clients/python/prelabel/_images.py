"""From what the caller has (a path, bytes or an array) to an encoded image."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ImageInput = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, "NDArray[np.uint8]"]

# Fast rather than small: the bytes travel over loopback or a local network once.
_PNG_COMPRESSION = 1


def encoded(image: ImageInput) -> bytes:
    """The bytes to send.

    Args:
        image: A path, the bytes of an image file, or an array of shape (H, W, 3), uint8, RGB,
            which is sent as PNG, hence without loss.

    Raises:
        TypeError: None of these; the text says what came.
        ValueError: An array of another shape.
        OSError: The file cannot be read.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or dtype is None:
        raise TypeError(f"image: expected a path, bytes or an array, got {type(image).__name__}")
    if len(shape) != 3 or shape[2] != 3 or str(dtype) != "uint8" or 0 in shape:
        raise ValueError(
            f"image: expected an array of shape (height, width, 3) and uint8, got {shape} {dtype}"
        )
    return _png(shape[1], shape[0], image.tobytes())


def digest(data: bytes) -> str:
    """`sha256:` and 64 hexadecimal digits: how the server names the image."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _png(width: int, height: int, rgb: bytes) -> bytes:
    """An 8-bit RGB PNG (PNG specification, 3rd edition) with unfiltered rows."""
    stride = width * 3
    rows = b"".join(b"\0" + rgb[i : i + stride] for i in range(0, len(rgb), stride))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(rows, _PNG_COMPRESSION)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body
