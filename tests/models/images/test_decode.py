from __future__ import annotations

import io
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from hostile import chunk, encoded, photo, png_header
from prelabel_models.errors import ImageDamagedError, ImageError
from prelabel_models.images import ImageFormat, ImageLimits, decode, read_header

EVERY_FORMAT = ImageLimits(formats=frozenset(ImageFormat))


def smooth(width: int = 160, height: int = 120) -> np.ndarray:
    """A picture without fine detail, so that lossy formats stay close to it."""
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    blue = 128 + 100 * np.sin(x / 17) * np.cos(y / 13)
    return np.stack([red, green, blue], -1).round().astype(np.uint8)


RGB = smooth()
GRAY = np.asarray(Image.fromarray(RGB).convert("L"))


def difference(data: bytes, truth: np.ndarray) -> float:
    out = decode(data, limits=EVERY_FORMAT)
    assert out.pixels.dtype == np.uint8
    assert out.pixels.flags.c_contiguous
    assert out.pixels.flags.writeable
    if truth.ndim == 2:
        truth = np.repeat(truth[:, :, None], 3, axis=2)
    return float(np.abs(out.pixels.astype(int) - truth).mean())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_rgb_decodes_to_the_original(kind: str) -> None:
    data = encoded(Image.fromarray(RGB), kind, quality=95)
    assert difference(data, RGB) <= (3 if kind in ("JPEG", "WEBP") else 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_gray_decodes_to_the_original(kind: str) -> None:
    data = encoded(Image.fromarray(GRAY), kind, quality=95)
    assert difference(data, GRAY) <= (3 if kind == "JPEG" else 0)


def test_progressive_and_subsampled_jpeg_decode_to_the_original() -> None:
    for options in ({"progressive": True}, {"subsampling": 2}, {"restart_marker_blocks": 4}):
        assert difference(encoded(Image.fromarray(RGB), "JPEG", quality=95, **options), RGB) <= 3


def test_one_bit_pictures_are_black_and_white() -> None:
    bits = Image.fromarray(GRAY).convert("1")
    for kind in ("PNG", "BMP", "TIFF"):
        assert difference(encoded(bits, kind), np.asarray(bits.convert("L"))) == 0


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_palettes_give_their_colours(kind: str) -> None:
    image = Image.fromarray(RGB).quantize(256)
    assert difference(encoded(image, kind), np.asarray(image.convert("RGB"))) == 0


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_small_gray_depths_are_spread_over_the_whole_range(depth: int) -> None:
    top = 2**depth - 1
    values = np.arange(64).reshape(8, 8) % (top + 1)
    rows = b"".join(b"\0" + np.packbits(_bits(row, depth)).tobytes() for row in values)
    png = png_header(8, 8, depth, 0) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert difference(png, values * 255 // top) == 0


def _bits(row: np.ndarray, depth: int) -> np.ndarray:
    return (row[:, None] >> np.arange(depth)[::-1] & 1).astype(np.uint8).ravel()


def test_transparent_pixels_become_white_whatever_hides_under_them() -> None:
    alpha = np.zeros(RGB.shape[:2], np.uint8)
    alpha[:, 80:] = 255
    alpha[:, 40:80] = 128
    image = Image.fromarray(np.dstack([RGB, alpha]))
    weight = alpha[:, :, None] / 255
    truth = (RGB * weight + 255 * (1 - weight)).round()
    for kind in ("PNG", "WEBP", "TIFF"):
        assert difference(encoded(image, kind, lossless=True, exact=True), truth) <= 0.5


def test_gray_with_alpha_is_composited_over_white() -> None:
    alpha = np.linspace(0, 255, RGB.shape[1]).round().astype(np.uint8)[None].repeat(120, 0)
    data = encoded(Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(alpha)]), "PNG")
    assert difference(data, GRAY * (alpha / 255) + 255 * (1 - alpha / 255)) <= 1


def test_a_transparent_palette_entry_becomes_white() -> None:
    image = Image.fromarray(RGB).quantize(16)
    indices = np.asarray(image)
    truth = np.asarray(image.convert("RGB")).copy()
    truth[indices == 3] = 255
    assert difference(encoded(image, "PNG", transparency=3), truth) == 0
    assert difference(encoded(image, "GIF", transparency=3), truth) == 0


def test_a_transparent_colour_becomes_white() -> None:
    for pixels, key in ((RGB, tuple(int(v) for v in RGB[60, 80])), (GRAY, int(GRAY[60, 80]))):
        truth = pixels.copy()
        truth[(pixels == key).all(axis=2) if pixels.ndim == 3 else pixels == key] = 255
        data = encoded(Image.fromarray(pixels), "PNG", transparency=key)
        assert difference(data, truth) == 0


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65_535, 256 * 256).round().astype(np.uint16).reshape(256, 256)
    truth = (values / 257).round()
    for kind in ("PNG", "TIFF"):
        out = decode(encoded(Image.fromarray(values), kind), limits=EVERY_FORMAT).pixels
        assert np.abs(out - truth[:, :, None]).max() == 0
        assert abs(out.mean() - 127.5) < 0.01


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_is_scaled_not_clipped(channels: int) -> None:
    values = np.random.default_rng(1).integers(0, 65_536, (64, 64, channels), np.uint16)
    if channels == 4:
        values[:, :, 3] = 65_535
    ok, data = cv2.imencode(".png", values)
    assert ok
    out = decode(data.tobytes()).pixels
    truth = values[:, :, 2::-1] / 257
    assert np.abs(out - truth).max() <= 1
    assert abs(out.mean() - truth.mean()) <= 1


def without_adobe(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def test_cmyk_jpeg_gives_the_colours_of_the_rgb_original() -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    adobe = encoded(cmyk, "JPEG", quality=97, subsampling=0)
    assert b"Adobe" in adobe
    assert difference(adobe, RGB) <= 3


def test_cmyk_jpeg_without_adobe_s_marker_is_read_as_inverted_like_everywhere_else() -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    plain = without_adobe(encoded(cmyk, "JPEG", quality=97, subsampling=0))
    assert b"Adobe" not in plain
    assert difference(plain, RGB) <= 3


def test_ycck_jpeg_gives_the_colours_too() -> None:
    # Adobe's transform 2: inks are stored inverted (as RGB), then turned again into YCbCr.
    ycc = np.asarray(Image.fromarray(255 - RGB).convert("YCbCr"))
    white = np.full((*RGB.shape[:2], 1), 255, np.uint8)
    # Pillow inverts on writing, so the inverse is given.
    image = Image.fromarray(255 - np.concatenate([ycc, white], axis=2), "CMYK")
    data = bytearray(encoded(image, "JPEG", quality=97, subsampling=0))
    at = data.index(b"Adobe")
    data[at + 11] = 2
    assert difference(bytes(data), RGB) <= 3


def test_cmyk_tiff_gives_the_colours_of_the_rgb_original() -> None:
    assert difference(encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB) <= 3


def matrix_profile(red: tuple[float, float, float], gamma: float) -> bytes:
    """A profile made from sRGB's by another red primary and another curve."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = {}
    for i in range(count):
        name, start, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        tags[name] = start, size
    start, _size = tags[b"rXYZ"]
    struct.pack_into(">iii", profile, start + 8, *(round(v * 65_536) for v in red))
    start, _size = tags[b"rTRC"]
    assert profile[start : start + 4] == b"para"
    struct.pack_into(">i", profile, start + 12, round(gamma * 65_536))
    return bytes(profile)


SRGB_RED = (0.4360, 0.2225, 0.0139)
WIDE_RED = (0.6097, 0.3111, 0.0195)  # Adobe RGB (1998)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_wide_gamut_profile_is_converted_to_srgb(kind: str) -> None:
    profile = matrix_profile(WIDE_RED, 2.4)
    image = Image.fromarray(RGB)
    truth = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    assert truth is not None
    expected = np.asarray(truth)
    assert np.abs(expected.astype(int) - RGB).mean() > 3  # it matters
    data = encoded(image, kind, icc_profile=profile, quality=97, subsampling=0, lossless=True)
    assert difference(data, expected) <= 3
    untouched = decode(data, apply_profile=False).pixels
    assert np.abs(untouched.astype(int) - RGB).mean() <= 3


def test_a_curve_far_from_srgb_s_is_converted() -> None:
    data = encoded(Image.fromarray(RGB), "PNG", icc_profile=matrix_profile(SRGB_RED, 1.0))
    assert difference(data, RGB) > 3


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert difference(encoded(Image.fromarray(RGB), "PNG", icc_profile=profile), RGB) == 0


def test_broken_and_huge_profiles_are_ignored() -> None:
    good = matrix_profile(WIDE_RED, 2.4)
    for profile in (b"x", good[:140], good[:36] + b"none" + good[40:], bytes(4 << 20), good[:300]):
        data = encoded(Image.fromarray(RGB), "PNG", icc_profile=profile)
        assert difference(data, RGB) == 0


def test_metadata_bombs_around_good_pixels_are_never_inflated() -> None:
    png = encoded(photo(), "PNG")
    deflate = zlib.compressobj(9)
    zeros = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(32)) + deflate.flush()
    extra = chunk(b"zTXt", b"a\0\0" + zeros) + chunk(b"iCCP", b"a\0\0" + zeros)
    assert difference(png[:33] + extra + png[33:], np.asarray(photo())) == 0


@pytest.fixture(params=["simplejpeg", "opencv"])
def jpeg_decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both JPEG decoders."""
    module = sys.modules["prelabel_models.images.decode"]
    if request.param == "opencv":
        monkeypatch.setattr(module, "_simplejpeg", lambda: None)
    elif module._simplejpeg() is None:
        pytest.skip("simplejpeg is not installed")
    return str(request.param)


@pytest.mark.usefixtures("jpeg_decoder")
@pytest.mark.parametrize("size", [(640, 480), (641, 479), (333, 777), (9, 17)])
@pytest.mark.parametrize("least", [(1, 1), (80, 60), (81, 60), (160, 120), (320, 240), (700, 9)])
def test_a_reduced_jpeg_still_covers_the_wanted_size(
    size: tuple[int, int], least: tuple[int, int]
) -> None:
    image = Image.fromarray(smooth(*size))
    data = encoded(image, "JPEG", quality=95)
    out = decode(data, min_size=least)
    height, width = out.pixels.shape[:2]
    k = round(1 / out.scale)
    assert (width, height) == (-(-size[0] // k), -(-size[1] // k))
    if k > 1:
        assert width >= least[0]
        assert height >= least[1]
    if k < 8:  # and no larger than it must be
        assert -(-size[0] // (2 * k)) < least[0] or -(-size[1] // (2 * k)) < least[1]
    if min(size) > 100:
        # The last block of a side that k does not divide repeats the last pixels.
        margins = ((0, height * k - size[1]), (0, width * k - size[0]), (0, 0))
        full = np.pad(np.asarray(image), margins, mode="edge")
        small = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA)
        assert np.abs(out.pixels.astype(int) - small).mean() <= 3


@pytest.mark.usefixtures("jpeg_decoder")
def test_jpeg_is_decoded_whole_by_default() -> None:
    out = decode(encoded(photo(256), "JPEG"))
    assert out.scale == 1
    assert out.pixels.shape == (256, 256, 3)


@pytest.mark.usefixtures("jpeg_decoder")
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_equals_opencv_s_own_decoding(subsampling: int) -> None:
    data = encoded(photo(200), "JPEG", quality=90, subsampling=subsampling)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert reference is not None
    expected = cv2.cvtColor(reference, cv2.COLOR_BGR2RGB)
    assert np.abs(decode(data).pixels.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_with_a_black_last_row_is_whole(interlaced: bool) -> None:
    pixels = RGB.copy()
    pixels[-3:] = 0
    ok, data = cv2.imencode(".png", pixels[:, :, ::-1])
    assert ok
    if interlaced:
        data = np.frombuffer(interlaced_png(pixels), np.uint8)
    assert difference(data.tobytes(), pixels) == 0


def interlaced_png(pixels: np.ndarray) -> bytes:
    height, width = pixels.shape[:2]
    rows = []
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4))
    for x, y, dx, dy in (*passes, (1, 0, 2, 2), (0, 1, 1, 2)):
        rows += [b"\0" + row.tobytes() for row in pixels[y::dy, x::dx] if row.size]
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    body = chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def test_an_interlaced_png_that_lacks_rows_is_refused() -> None:
    data = interlaced_png(RGB)
    taller = bytearray(data)
    taller[20:24] = struct.pack(">I", RGB.shape[0] + 8)
    taller[29:33] = struct.pack(">I", zlib.crc32(taller[12:29]))
    assert difference(data, RGB) == 0
    with pytest.raises(ImageDamagedError):
        decode(bytes(taller))


def test_a_header_of_another_picture_is_noticed() -> None:
    small, large = encoded(photo(32), "JPEG"), encoded(photo(64), "JPEG")
    with pytest.raises(ImageError):
        decode(small, read_header(large))
