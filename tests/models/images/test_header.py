from __future__ import annotations

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hostile import bmp_header, chunk, encoded, photo, png_header
from prelabel_models.errors import ImageDamagedError, ImageFormatError, ImageTooLargeError
from prelabel_models.images import ImageFormat, ImageLimits, decode, digest, read_header

EVERY_FORMAT = ImageLimits(formats=frozenset(ImageFormat))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_header_tells_format_and_size(kind: str) -> None:
    data = encoded(photo(64).resize((50, 31)), kind)
    header = read_header(data, EVERY_FORMAT)
    assert header.format == kind
    assert (header.width, header.height, header.bits) == (50, 31, 8)
    assert header.decode_bytes >= 50 * 31 * 3
    assert header.channels == (1 if kind == "GIF" else 3)


@pytest.mark.parametrize(
    ("pillow_mode", "kind", "mode", "bits"),
    [
        ("1", "PNG", "1", 1),
        ("L", "PNG", "L", 8),
        ("LA", "PNG", "LA", 8),
        ("P", "PNG", "P", 8),
        ("RGBA", "PNG", "RGBA", 8),
        ("I;16", "PNG", "I;16", 16),
        ("L", "JPEG", "L", 8),
        ("CMYK", "JPEG", "CMYK", 8),
        ("RGBA", "WEBP", "RGBA", 8),
        ("1", "BMP", "1", 1),
        ("P", "BMP", "P", 8),
        ("CMYK", "TIFF", "CMYK", 8),
        ("I;16", "TIFF", "I;16", 16),
    ],
)
def test_header_tells_the_kind_of_pixels(pillow_mode: str, kind: str, mode: str, bits: int) -> None:
    image = photo().convert("L").convert("I;16") if pillow_mode == "I;16" else photo()
    if pillow_mode == "RGBA":
        image.putalpha(99)
    header = read_header(encoded(image.convert(pillow_mode), kind, lossless=True), EVERY_FORMAT)
    assert (header.mode, header.bits) == (mode, bits)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 3), (4000, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_extreme_shapes_decode(kind: str, size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, (200, 100, 50)), kind)
    out = decode(data)
    assert out.pixels.shape == (size[1], size[0], 3)
    assert np.abs(out.pixels.astype(int) - [200, 100, 50]).max() <= 4


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        (ImageLimits(max_bytes=500), "max_bytes"),
        (ImageLimits(max_pixels=64 * 64 - 1), "max_pixels"),
        (ImageLimits(max_side_px=63), "max_side_px"),
    ],
)
def test_each_limit_is_named_when_it_is_exceeded(limits: ImageLimits, names: str) -> None:
    with pytest.raises(ImageTooLargeError, match=names):
        read_header(encoded(photo(), "PNG"), limits)


def test_an_image_on_the_limit_is_let_in() -> None:
    data = encoded(photo(), "PNG")
    limits = ImageLimits(max_bytes=len(data), max_pixels=64 * 64, max_side_px=64)
    assert read_header(data, limits).width == 64


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": 0}, {"max_pixels": -1}, {"formats": frozenset({"EPS"})}]
)
def test_impossible_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ImageLimits(**wrong)  # type: ignore[arg-type]


def animation(kind: str, frames: int) -> bytes:
    pictures = [Image.new("RGB", (16, 16), (i % 256, 255 - i % 256, 9)) for i in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], lossless=True)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame_and_the_number_of_frames(kind: str) -> None:
    out = decode(animation(kind, 500), limits=EVERY_FORMAT)
    assert out.header.frame_count == 500
    assert np.abs(out.pixels.astype(int) - [0, 255, 9]).max() <= 3


def test_tiff_pages_are_counted() -> None:
    buffer = io.BytesIO()
    photo().save(buffer, "TIFF", save_all=True, append_images=[photo(), photo()])
    assert read_header(buffer.getvalue(), EVERY_FORMAT).frame_count == 3


def tiff_with_loop() -> bytes:
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    first = struct.pack("<H", 4) + body + struct.pack("<I", 62)
    second = struct.pack("<HI", 0, 8)
    return b"II*\0\x08\0\0\0" + first + second


@pytest.mark.parametrize("to", [8, 62])
def test_a_tiff_whose_directories_loop_is_refused(to: int) -> None:
    data = tiff_with_loop()
    data = data[:-4] + struct.pack("<I", to)
    with pytest.raises(ImageDamagedError, match="loop"):
        read_header(data, EVERY_FORMAT)


def test_a_floating_point_tiff_is_refused_in_words() -> None:
    with pytest.raises(ImageFormatError, match="floating point"):
        read_header(encoded(photo().convert("F"), "TIFF"), EVERY_FORMAT)


def test_a_gif_frame_larger_than_its_screen_counts() -> None:
    gif = bytearray(encoded(photo(16), "GIF"))
    at = gif.index(b"\x2c\0\0\0\0\x10\0\x10\0")
    gif[at + 1 : at + 9] = struct.pack("<HHHH", 0, 0, 65_535, 65_535)
    with pytest.raises(ImageTooLargeError, match="65,535"):
        read_header(bytes(gif), EVERY_FORMAT)


def test_a_gif_of_tiny_blocks_is_refused() -> None:
    start = encoded(photo(16), "GIF")
    at = start.index(b"\x2c\0\0\0\0\x10\0\x10\0") + 11
    with pytest.raises(ImageTooLargeError, match="blocks"):
        read_header(start[:at] + b"\x01\x00" * 2_000_000 + b"\0;", EVERY_FORMAT)


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_truncated_opt_in_formats_never_give_another_error(kind: str) -> None:
    data = encoded(photo(), kind)
    for cut in range(8, len(data) - 1, max(1, len(data) // 40)):
        with pytest.raises((ImageDamagedError, ImageFormatError)):
            decode(data[:cut], limits=EVERY_FORMAT)


def test_a_tiff_of_huge_tiles_is_refused() -> None:
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (262, 3, 1, 1), (322, 4, 1, 65_536)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", 5) + body + bytes(4)
    with pytest.raises(ImageTooLargeError, match="tile"):
        read_header(data, EVERY_FORMAT)


def test_what_came_instead_is_named() -> None:
    with pytest.raises(ImageFormatError, match="expected one of JPEG, PNG, WEBP, BMP, got PDF"):
        read_header(b"%PDF-1.7")


def test_header_of_a_bomb_with_metadata_bombs_before_its_pixels_is_read_without_inflating() -> None:
    bomb = png_header(8, 8) + chunk(b"zTXt", b"a\0\0" + bytes(100)) + chunk(b"IEND", b"")
    assert read_header(bomb).width == 8


def test_top_down_bmp_has_a_positive_height() -> None:
    assert read_header(bmp_header(4, -4) + bytes(48)).height == 4


def test_reading_headers_imports_no_decoder_of_pillow() -> None:
    code = (
        "import sys, prelabel_models.images as i\n"
        "i.decode(open(0, 'rb').read())\n"
        "sys.exit('PIL' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=encoded(photo(), "JPEG"), env=_env(), check=False
    )
    assert done.returncode == 0


def _env() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}


def test_digest_is_the_sha256_of_the_bytes() -> None:
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(b"abc") == f"sha256:{expected}"
