"""An image's header: what it is and what decoding it would cost, before any pixel is decoded.

The parsers are our own. Libraries inflate text chunks, follow directories or import plug-ins
before they tell a size; these look at a bounded number of bytes, need no import, and know exactly
the formats that are allowed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from prelabel_models.errors import ImageFormatError, ImageTooLargeError
from prelabel_models.images import _bmp, _gif, _jpeg, _png, _tiff, _webp
from prelabel_models.images._common import Parsed


class ImageFormat(StrEnum):
    """An encoding of images; the value is its usual name."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    BMP = "BMP"
    TIFF = "TIFF"
    GIF = "GIF"


DEFAULT_FORMATS: frozenset[str] = frozenset(
    {ImageFormat.JPEG, ImageFormat.PNG, ImageFormat.WEBP, ImageFormat.BMP}
)

_PARSERS: dict[ImageFormat, Callable[[bytes], Parsed]] = {
    ImageFormat.JPEG: _jpeg.parse,
    ImageFormat.PNG: _png.parse,
    ImageFormat.WEBP: _webp.parse,
    ImageFormat.BMP: _bmp.parse,
    ImageFormat.TIFF: _tiff.parse,
    ImageFormat.GIF: _gif.parse,
}

# Only to name what came instead; nothing here is ever opened.
_STRANGERS = (
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\0\0\x01\0", "ICO"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"8BPS", "PSD"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\x1f\x8b", "gzip"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<", "a text document"),
)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is let in.

    Attributes:
        max_bytes: Of the encoded image.
        max_pixels: Width x height. 40 Mpx covers every common camera; a cheap file can ask for
            gigabytes beyond it.
        max_side_px: Of the longer side; below OpenCV's and WebP's own bounds.
        formats: Names of the encodings that are decoded, see `ImageFormat`. TIFF and GIF are looked
            at only if named here.

    Raises:
        ValueError: A limit is below 1, or there is no such format.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 40_000_000
    max_side_px: int = 16_384
    formats: frozenset[str] = DEFAULT_FORMATS

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side_px"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        known = frozenset(ImageFormat)
        if not self.formats or not self.formats <= known:
            raise ValueError(
                f"formats: expected some of {', '.join(ImageFormat)}, "
                f"got {', '.join(sorted(self.formats - known)) or 'none'}"
            )


DEFAULT_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an encoded image says of itself.

    Attributes:
        format: Its encoding.
        stored_width: Width of the pixel array in the file.
        stored_height: Height of the pixel array in the file.
        exif_orientation: 1 to 8, as EXIF numbers them; 1 if the file is silent.
        mode: Kind of pixels in Pillow's words: `1`, `L`, `LA`, `P`, `RGB`, `RGBA`, `CMYK`, `I;16`.
        bits: Bits per channel as stored.
        frame_count: Pictures in the file; the first is decoded.
        has_profile: The file carries an ICC profile.
        decode_bytes: Upper bound of the memory that decoding takes at its peak, in bytes, with the
            result and without the encoded image.
    """

    format: ImageFormat
    stored_width: int
    stored_height: int
    exif_orientation: int
    mode: str
    bits: int
    frame_count: int
    has_profile: bool
    decode_bytes: int

    @property
    def width(self) -> int:
        """Width in pixels as displayed."""
        return self.stored_height if self.exif_orientation >= 5 else self.stored_width

    @property
    def height(self) -> int:
        """Height in pixels as displayed."""
        return self.stored_width if self.exif_orientation >= 5 else self.stored_height

    @property
    def channels(self) -> int:
        """Channels as stored: 1 to 4; a palette counts as one."""
        return {"LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}.get(self.mode, 1)


def sniff(data: bytes) -> ImageFormat | None:
    """The encoding that the first bytes announce; None for every other."""
    if data.startswith(b"\xff\xd8\xff"):
        return ImageFormat.JPEG
    if data.startswith(_png.SIGNATURE):
        return ImageFormat.PNG
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _bmp.HEADER_SIZES:
        return ImageFormat.BMP
    if data.startswith((b"GIF87a", b"GIF89a")):
        return ImageFormat.GIF
    if data.startswith((b"II*\0", b"MM\0*")):
        return ImageFormat.TIFF
    return None


def _stranger(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "HEIC, AVIF or a video"
    head = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, name in _STRANGERS:
        if data.startswith(magic) or head.startswith(magic):
            return name
    return "something else"


def _allowed_format(data: bytes, limits: ImageLimits) -> ImageFormat:
    if not data:
        raise ImageFormatError("image: expected an encoded image, got 0 bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"image: expected at most {limits.max_bytes:,} bytes (max_bytes), got {len(data):,}"
        )
    found = sniff(data)
    if found is None or found not in limits.formats:
        allowed = ", ".join(f for f in ImageFormat if f in limits.formats)
        raise ImageFormatError(f"image: expected one of {allowed}, got {found or _stranger(data)}")
    return found


def read_header(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> ImageHeader:
    """Read an encoded image's header; no pixel is decoded and nothing is inflated.

    Args:
        data: The encoded image.
        limits: What is let in.

    Raises:
        ImageFormatError: Not an image of an allowed format, or a kind that is not decoded.
        ImageTooLargeError: Over a limit; the text names it.
        ImageDamagedError: Cut short or contradictory. That the pixels are whole is for `decode`.

    Example:
        >>> import struct
        >>> head = struct.pack("<2sIHHIIiiHHI", b"BM", 58, 0, 0, 54, 40, 1, 1, 1, 24, 0)
        >>> header = read_header(head + bytes(20) + b"abc0")
        >>> header.format.value, header.width, header.height, header.mode
        ('BMP', 1, 1, 'RGB')
    """
    found = _allowed_format(data, limits)
    parsed = _PARSERS[found](data)
    width, height = parsed.width, parsed.height
    if max(width, height) > limits.max_side_px:
        raise ImageTooLargeError(
            f"image: expected sides of at most {limits.max_side_px:,} pixels (max_side_px), "
            f"got {width:,} x {height:,}"
        )
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"image: expected at most {limits.max_pixels:,} pixels (max_pixels), "
            f"got {width:,} x {height:,} = {width * height:,}"
        )
    # The RGB result, once more while it is turned, and the decoder's own.
    per_pixel = 3 + (3 if parsed.orientation != 1 else 0) + parsed.working_bytes_per_pixel
    return ImageHeader(
        format=found,
        stored_width=width,
        stored_height=height,
        exif_orientation=parsed.orientation,
        mode=parsed.mode,
        bits=parsed.bits,
        frame_count=parsed.frames,
        has_profile=parsed.has_profile,
        decode_bytes=width * height * per_pixel,
    )


def digest(data: bytes) -> str:
    """The name of these very bytes: `sha256:` and 64 hexadecimal digits.

    Example:
        >>> digest(b"")[:15]
        'sha256:e3b0c442'
    """
    return "sha256:" + hashlib.sha256(data).hexdigest()
