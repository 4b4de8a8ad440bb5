"""Pixels by Pillow: PNG, and every unusual kind of pixel.

The plug-in's class is opened directly: `Image.open` would import and ask every plug-in, and warn
about sizes that the limits have already judged.

PNG comes here too, though OpenCV is some 10 to 50 % faster: libpng inside OpenCV writes its
errors to the process's standard error, which a hostile file could fill, and Pillow does not.
(libtiff behind Pillow does, for damaged TIFF with compression; TIFF is opt-in.)
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from prelabel_models.images import _icc, _jpeg, _png, _tiff
from prelabel_models.images.header import ImageFormat, ImageHeader
from prelabel_models.types import RgbImage

# Keeps the second copy of the pixels to a few megabytes and inside the processor's cache.
_STRIP_PIXELS = 1 << 18
# `warnings.catch_warnings` changes the process; TIFF and GIF are opt-in and rare.
_WARNINGS = threading.Lock()

_PLUGINS: dict[ImageFormat, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    ImageFormat.JPEG: JpegImagePlugin.JpegImageFile,
    ImageFormat.PNG: PngImagePlugin.PngImageFile,
    ImageFormat.WEBP: WebPImagePlugin.WebPImageFile,
    ImageFormat.BMP: BmpImagePlugin.BmpImageFile,
    ImageFormat.TIFF: TiffImagePlugin.TiffImageFile,
    ImageFormat.GIF: GifImagePlugin.GifImageFile,
}


def decode_rgb(data: bytes, header: ImageHeader, profile: bytes) -> RgbImage:
    """The stored pixels of the first frame as (H, W, 3) uint8 RGB.

    Transparent pixels are composited over white: what lies hidden under them is arbitrary, and
    white is the page that people see such pictures on. 16-bit gray is scaled exactly, 16-bit
    colour by its high byte (at most one step below the exact value).

    Args:
        data: The encoded image.
        header: Its header.
        profile: ICC profile for CMYK pixels; other kinds ignore it.

    Raises:
        Exception: Whatever Pillow raises; the caller maps it.
    """
    if header.format is ImageFormat.PNG:
        data = _png.essence(data)
    elif header.format is ImageFormat.JPEG:
        data = _jpeg.without_metadata(data)
    elif header.format is ImageFormat.TIFF:
        # Pillow would turn the pixels itself; orientation is applied once, for all formats.
        data = _tiff.upright(data)
    image = _open(data, header)
    if header.format is ImageFormat.PNG and _may_lack_rows(data, image):
        _png.check_rows(data)
    if image.size != (header.stored_width, header.stored_height):
        raise ValueError("the decoder sees another size")
    out = np.empty((header.stored_height, header.stored_width, 3), np.uint8)
    conversion = _icc.transform(profile, "CMYK") if image.mode == "CMYK" and profile else None
    for y, strip in _strips(image):
        out[y : y + strip.height] = _rgb(strip, conversion)
    return out


def _open(data: bytes, header: ImageHeader) -> Image.Image:
    plugin = _PLUGINS[header.format]
    if header.format not in (ImageFormat.TIFF, ImageFormat.GIF):
        image = plugin(io.BytesIO(data))
        image.load()
        return image
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = plugin(io.BytesIO(data))
        image.load()
    return image


def _may_lack_rows(data: bytes, image: Image.Image) -> bool:
    """Whether a PNG's last row is as empty as memory that was never written to.

    Rows are written in order, so any value in the last one shows that all arrived; only the rest
    (black, or the palette's first colour) has to be inflated a second time to know.
    """
    interlaced = bool(data[28])
    last = image.crop((0, image.height - 1, image.width, image.height))
    return interlaced or not np.asarray(last).any()


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _STRIP_PIXELS // image.width)
    for y in range(0, image.height, rows):
        yield y, image.crop((0, y, image.width, min(y + rows, image.height)))


def _rgb(strip: Image.Image, conversion: ImageCms.ImageCmsTransform | None) -> NDArray[np.uint8]:
    """Pixels of any kind to something that fits (H, W, 3)."""
    if strip.mode.startswith("I;16"):
        return _gray16(strip)
    if strip.mode in ("RGBA", "LA", "PA") or "transparency" in strip.info:
        colors = strip.convert("RGBA")
        page = Image.new("RGB", strip.size, "white")
        page.paste(colors, mask=colors.getchannel("A"))
        return np.asarray(page)
    if conversion is not None:
        return np.asarray(conversion.apply(strip))
    if strip.mode == "RGB":
        return np.asarray(strip)
    if strip.mode in ("1", "L"):
        gray = np.asarray(strip.convert("L"))
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    return np.asarray(strip.convert("RGB"))


def _gray16(strip: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(strip).astype(np.uint32)
    # round(v * 255 / 65535) in integers, exact for all 65,536 values (libpng's PNG_DIV257).
    gray = ((values * 255 + 32_895) >> 16).astype(np.uint8)
    key = strip.info.get("transparency")
    if isinstance(key, int):
        gray[values == key] = 255
    return np.repeat(gray[:, :, None], 3, axis=2)
