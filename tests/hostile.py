"""Images that must be refused, and the words for why. Made here; no file of strangers is kept.

`hostile_images()` is used by the decoder's own tests and end to end against a server.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image

Hostile = tuple[str, bytes, str]
FORMAT, DAMAGED, TOO_LARGE = "ImageFormatError", "ImageDamagedError", "ImageTooLargeError"


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, depth: int = 8, color: int = 2) -> bytes:
    """Signature and IHDR."""
    ihdr = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr)


def png_bomb(side: int) -> bytes:
    """A gray PNG of zeros, `side` pixels square; decodes to side * side bytes."""
    deflate = zlib.compressobj(1)
    row = bytes(side + 1)
    parts = [deflate.compress(row) for _ in range(side)]
    pixels = b"".join(parts) + deflate.flush()
    return png_header(side, side, 8, 0) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _zeros(count: int) -> bytes:
    """`count` zeros, deflated, made in pieces."""
    deflate = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [deflate.compress(block) for _ in range(count >> 20)]
    return b"".join(parts) + deflate.flush()


def photo(side: int = 64) -> Image.Image:
    """A small picture with gradients and noise."""
    y, x = np.mgrid[:side, :side]
    noise = np.random.default_rng(7).integers(0, 24, (side, side))
    planes = [(x * 3 + noise) % 256, (y * 3 + noise) % 256, (x + y + noise) % 256]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image's bytes in the given format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _sof_patched(width: int, height: int) -> bytes:
    """A JPEG whose frame header claims another size."""
    data = bytearray(encoded(photo(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _bombs() -> Iterator[Hostile]:
    for side in (10_000, 13_000):
        yield f"png {side} squared", png_bomb(side), TOO_LARGE
    for side in (20_000, 32_000, 65_535, 2**31 - 1):
        header = png_header(side, side, 8, 0) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        yield f"png header {side} squared", header, TOO_LARGE
    yield "png 1 x 2 billion", png_header(1, 2**31 - 1) + chunk(b"IEND", b""), TOO_LARGE
    yield "jpeg 16,000 squared", _sof_patched(16_000, 16_000), TOO_LARGE
    yield "jpeg 65,500 squared", _sof_patched(65_500, 65_500), TOO_LARGE
    yield "jpeg 65,500 x 1", _sof_patched(65_500, 1), TOO_LARGE
    lossless = struct.pack("<BI", 0x2F, 16_382 | 16_382 << 14)
    yield "webp 16,383 squared", _riff((b"VP8L", lossless)), TOO_LARGE
    canvas = struct.pack("<B3x", 0x02) + b"\xff\xff\xff" * 2
    yield "webp canvas 2^24 squared", _riff((b"VP8X", canvas), (b"ANMF", bytes(24))), TOO_LARGE
    yield "bmp really big", bmp_header(40_000, 40_000), TOO_LARGE
    yield "bmp height -2^31", bmp_header(1, -(2**31)), TOO_LARGE
    yield "bmp width 2^31 - 1", bmp_header(2**31 - 1, 1), TOO_LARGE
    yield "20 MiB and a byte", encoded(photo(), "BMP") + bytes(20 << 20), TOO_LARGE
    yield "jpeg of a million segments", b"\xff\xd8" + b"\xff\xfe\0\x02" * 1_000_000, TOO_LARGE
    yield "png of a million chunks", png_header(8, 8) + chunk(b"IDAT", b"") * 1_000_000, TOO_LARGE
    yield "webp of a million chunks", _riff(*[(b"XXXX", b"")] * 1_000_000), TOO_LARGE
    yield "jpeg of 3,000 scans", _many_scans(), TOO_LARGE


def _many_scans() -> bytes:
    data = encoded(photo(), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    return data[:-2] + data[scan:-2] * 3_000 + b"\xff\xd9"


def _riff(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [k + struct.pack("<I", len(b)) + b + bytes(len(b) & 1) for k, b in chunks]
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_header(width: int, height: int, bits: int = 24, compression: int = 0) -> bytes:
    """A BMP's headers without pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info


def _strangers() -> Iterator[Hostile]:
    small = photo(16)
    for kind in ("GIF", "TIFF", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS"):
        yield f"{kind.lower()} not opted in", encoded(small, kind), FORMAT
    gif = bytearray(encoded(small, "GIF"))
    at = gif.index(b"\x2c\0\0\0\0\x10\0\x10\0")
    gif[at + 1 : at + 9] = struct.pack("<HHHH", 0, 0, 65_535, 65_535)
    yield "gif with a frame over its screen", bytes(gif), FORMAT
    yield "tiff with a directory loop", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", FORMAT
    for name, data in (
        ("eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(x) run\n"),
        ("eps, binary", b"\xc5\xd0\xd3\xc6" + bytes(64)),
        ("eps behind spaces", b"   \n%!PS-Adobe-3.0 EPSF-3.0\n"),
        ("svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
        ("svg with an entity bomb", b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "aa">]><svg/>'),
        ("pdf", b"%PDF-1.7\n1 0 obj\n"),
        ("heic", b"\0\0\0\x18ftypheic" + bytes(32)),
        ("avif", b"\0\0\0\x18ftypavif" + bytes(32)),
        ("mp4", b"\0\0\0\x18ftypmp42" + bytes(32)),
        ("jpeg 2000", b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(32)),
        ("jpeg xl", b"\xff\x0a" + bytes(32)),
        ("zip", b"PK\x03\x04" + bytes(64)),
        ("gzip", b"\x1f\x8b\x08" + bytes(64)),
        ("psd", b"8BPS\0\x01" + bytes(64)),
        ("openexr", b"\x76\x2f\x31\x01" + bytes(64)),
        ("radiance hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n"),
        ("html", b"<html><script>alert(1)</script></html>"),
        ("pickle", b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94."),
        ("elf", b"\x7fELF" + bytes(64)),
        ("text", b"not an image"),
        ("text that starts like a bmp", b"BMW drivers are a polite folk, they say"),
        ("nothing", b""),
        ("one byte", b"\xff"),
        ("zeros", bytes(4096)),
        ("a png behind a newline", b"\n" + encoded(small, "PNG")),
        ("a wave file", b"RIFF\x24\0\0\0WAVEfmt " + bytes(24)),
    ):
        yield name, data, FORMAT


def _broken() -> Iterator[Hostile]:
    image = photo()
    jpeg, png = encoded(image, "JPEG", quality=90), encoded(image, "PNG")
    webp, bmp = encoded(image, "WEBP"), encoded(image, "BMP")
    for name, data in (("jpeg", jpeg), ("png", png), ("webp", webp), ("bmp", bmp)):
        yield f"{name}, half", data[: len(data) // 2], DAMAGED
        yield f"{name} without its last byte", data[:-1], DAMAGED
    yield "jpeg magic alone", b"\xff\xd8\xff", DAMAGED
    yield "jpeg of fill bytes", b"\xff\xd8" + b"\xff" * (4 << 20), DAMAGED
    yield "jpeg of stray bytes", b"\xff\xd8\xff\xe0\0\x02" + bytes(4 << 20), DAMAGED
    yield "jpeg without a frame", b"\xff\xd8\xff\xda\0\x08\x01\x01\0\0\x3f\0\xff\xd9", DAMAGED
    yield "jpeg with a segment of no length", b"\xff\xd8\xff\xe0\0\0" + bytes(400), DAMAGED
    yield "jpeg of width 0", _sof_patched(0, 64), DAMAGED
    yield "jpeg of height 0", _sof_patched(64, 0), DAMAGED
    yield "jpeg, lossless", jpeg.replace(b"\xff\xc0", b"\xff\xc3", 1), FORMAT
    at = jpeg.index(b"\xff\xc0")
    yield "jpeg of 12 bits", jpeg[: at + 4] + b"\x0c" + jpeg[at + 5 :], FORMAT
    yield "png of width 0", png_header(0, 8) + png[33:], DAMAGED
    yield "png of colour type 5", png_header(64, 64, 8, 5) + png[33:], DAMAGED
    yield "png without pixels", png_header(64, 64) + chunk(b"IEND", b""), DAMAGED
    yield "png of too few pixels", png_header(64, 99) + png[33:], DAMAGED
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0x10
    yield "png with a flipped bit", bytes(flipped), DAMAGED
    ends = chunk(b"IEND", b"")
    yield "png of bad deflate", png_header(8, 8) + chunk(b"IDAT", b"\x78\x9c\xff") + ends, DAMAGED
    filters = zlib.compress(bytes([9] * (8 * 25)))
    yield "png of bad filters", png_header(8, 8) + chunk(b"IDAT", filters) + ends, DAMAGED
    unknown = png_header(64, 64) + chunk(b"ABCD", b"x") + png[33:]
    yield "png with an unknown critical chunk", unknown, DAMAGED
    yield (
        "png palette without palette",
        png_header(8, 8, 8, 3) + chunk(b"IDAT", b"") + ends,
        DAMAGED,
    )
    text = png_header(8, 8) + chunk(b"zTXt", b"a\0\0" + _zeros(64 << 20)) + ends
    yield "png with a text bomb and no pixels", text, DAMAGED
    profile = png_header(8, 8) + chunk(b"iCCP", b"a\0\0" + _zeros(64 << 20))
    pixels = chunk(b"IDAT", b"\x78\x9c\xff") + ends
    yield "png with a profile bomb and bad pixels", profile + pixels, DAMAGED
    yield "png chunk of 2^32 - 1 bytes", png_header(8, 8) + b"\xff\xff\xff\xffIDAT", DAMAGED
    yield "webp without a picture", _riff((b"EXIF", bytes(8))), DAMAGED
    yield "webp chunk over its end", webp[:16] + b"\xff\xff\xff\x7f" + webp[20:], DAMAGED
    yield "webp with a false canvas", _riff((b"VP8X", bytes(10)), *_webp_stream(webp)), DAMAGED
    yield "bmp of 7 bits", bmp_header(8, 8, bits=7) + bytes(999), DAMAGED
    yield "bmp of width 0", bmp_header(0, 8) + bytes(999), DAMAGED
    yield "bmp, run-length coded", bmp_header(8, 8, 8, compression=1) + bytes(2048), FORMAT
    yield "bmp with a jpeg inside", bmp_header(64, 64, 0, compression=4) + jpeg, FORMAT


def _webp_stream(webp: bytes) -> list[tuple[bytes, bytes]]:
    size = int.from_bytes(webp[16:20], "little")
    return [(webp[12:16], webp[20 : 20 + size])]


@cache
def _all() -> tuple[Hostile, ...]:
    return (*_bombs(), *_strangers(), *_broken())


def hostile_images() -> list[Hostile]:
    """(name, bytes, name of the expected error class) with the default limits.

    Made once per process, in a second or two; over 90 images, 55 MB together.
    """
    return list(_all())
