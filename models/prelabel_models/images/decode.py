"""Encoded image to RGB pixels, in the displayed orientation.

Who decodes what, and why: JPEG by libjpeg-turbo through `simplejpeg`, which names damage instead
of filling the rest with gray and writes nothing to standard error; OpenCV where it is not
installed. Opaque WebP and plain BMP by OpenCV. PNG and everything unusual by Pillow.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from prelabel_models.errors import ImageDamagedError, ImageError
from prelabel_models.images import _bmp, _jpeg, _png, _webp
from prelabel_models.images.header import (
    DEFAULT_LIMITS,
    ImageFormat,
    ImageHeader,
    ImageLimits,
    read_header,
)
from prelabel_models.images.orientation import orient
from prelabel_models.types import RgbImage

# OpenCV's flags carry a size each. They give BGR; at 1/2 and below the swap costs little.
_REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# libjpeg's warning for stray bytes behind complete coded pixels, which some cameras leave.
_HARMLESS = "extraneous bytes before marker"
_PROFILES = {
    ImageFormat.JPEG: _jpeg.profile,
    ImageFormat.PNG: _png.profile,
    ImageFormat.WEBP: _webp.profile,
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels and where they came from.

    Attributes:
        pixels: (height, width, 3) uint8 RGB, C-contiguous, in the displayed orientation.
        header: The header; its sizes are those of the full picture.
        scale: Decoded per displayed pixels: 1, 1/2, 1/4 or 1/8. Divide coordinates in `pixels` by
            it to get those of the full picture; sizes are rounded up.
    """

    pixels: RgbImage
    header: ImageHeader
    scale: float = 1.0


def decode(
    data: bytes,
    header: ImageHeader | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
    min_size: tuple[int, int] | None = None,
    *,
    apply_profile: bool = True,
) -> DecodedImage:
    """Decode the first frame. Transparent pixels become white.

    Args:
        data: The encoded image.
        header: What `read_header` gave for this very `data`; read here if None.
        limits: For the header, where it is read here.
        min_size: (width, height) in displayed pixels, each >= 1. A JPEG is then decoded at the
            smallest of 1, 1/2, 1/4 and 1/8 that still covers it both ways.
        apply_profile: Convert pixels with an ICC profile other than sRGB to sRGB, which costs some
            20 ns a pixel. Reference pipelines of detectors mostly ignore profiles: turn it off to
            compare with them.

    Raises:
        ImageFormatError: Not an image of an allowed format.
        ImageTooLargeError: Over a limit.
        ImageDamagedError: Cut short or corrupt. Never a partial picture.
    """
    if header is None:
        header = read_header(data, limits)
    reduction = 1
    if min_size is not None and header.format is ImageFormat.JPEG and header.mode != "CMYK":
        reduction = _reduction(header, min_size)
    try:
        pixels = _stored_pixels(data, header, reduction, apply_profile)
    except (ImageError, MemoryError):
        raise
    except Exception:
        # Decoders raise whatever they like (Pillow even SyntaxError) in words for programmers.
        raise _undecodable(header) from None
    expected = (-(-header.stored_height // reduction), -(-header.stored_width // reduction), 3)
    if pixels.shape != expected:
        raise _undecodable(header)
    return DecodedImage(orient(pixels, header.exif_orientation), header, 1 / reduction)


def _undecodable(header: ImageHeader) -> ImageDamagedError:
    return ImageDamagedError(f"image: the {header.format} is damaged, its pixels cannot be decoded")


def _reduction(header: ImageHeader, min_size: tuple[int, int]) -> int:
    for k in (8, 4, 2):
        if -(-header.width // k) >= min_size[0] and -(-header.height // k) >= min_size[1]:
            return k
    return 1


def _stored_pixels(
    data: bytes, header: ImageHeader, reduction: int, apply_profile: bool
) -> RgbImage:
    """Pixels in the stored orientation; raises anything."""
    if header.format is ImageFormat.JPEG:
        _jpeg.check_complete(data)
    elif header.format is ImageFormat.BMP:
        _bmp.check_complete(data)
    profile = b""
    if apply_profile and header.has_profile and header.format in _PROFILES:
        profile = _PROFILES[header.format](data)
    if not _is_usual(data, header):
        # Imported late: most processes never see such a picture, and the import takes 30 ms.
        from prelabel_models.images import _pillow

        pixels = _pillow.decode_rgb(data, header, profile)
    elif header.format is ImageFormat.JPEG:
        pixels = _decode_jpeg(data, header, reduction)
    else:
        pixels = _decode_with_opencv(data, cv2.IMREAD_COLOR_RGB)
    if profile and header.mode != "CMYK":
        from prelabel_models.images import _icc

        pixels = _icc.to_srgb(pixels, profile)
    return pixels


def _is_usual(data: bytes, header: ImageHeader) -> bool:
    match header.format:
        case ImageFormat.JPEG:
            return header.mode != "CMYK"
        case ImageFormat.WEBP:
            return header.mode == "RGB"
        case ImageFormat.BMP:
            return _bmp.is_plain(data)
        case _:
            return False


@functools.cache
def _simplejpeg() -> Any:
    found = importlib.util.find_spec("simplejpeg") is not None
    return importlib.import_module("simplejpeg") if found else None


def _decode_jpeg(data: bytes, header: ImageHeader, reduction: int) -> RgbImage:
    library = _simplejpeg()
    if library is None:
        pixels = _decode_with_opencv(data, _REDUCED[reduction])
        if reduction == 1:
            return pixels
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    size = {}
    if reduction > 1:
        size = {
            "min_height": -(-header.stored_height // reduction),
            "min_width": -(-header.stored_width // reduction),
        }
    decoded: RgbImage
    try:
        decoded = library.decode_jpeg(data, "RGB", **size)
    except ValueError as error:
        if _HARMLESS not in str(error):
            raise
        decoded = library.decode_jpeg(data, "RGB", strict=False, **size)
    return decoded


def _decode_with_opencv(data: bytes, flags: int) -> RgbImage:
    """RGB or, with a reducing flag, BGR."""
    # Orientation is applied once, for all formats, so that boxes can be mapped back.
    flags |= cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise ValueError("OpenCV could not decode the picture")
    return pixels.astype(np.uint8, copy=False)
