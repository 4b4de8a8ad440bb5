from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hostile import chunk
from prelabel_models.geometry import box_iou
from prelabel_models.images import (
    ImageFormat,
    ImageHeader,
    ImageLimits,
    boxes_to_displayed,
    boxes_to_stored,
    decode,
    mask_to_displayed,
    mask_to_stored,
    points_to_displayed,
    points_to_stored,
    read_header,
)
from prelabel_models.images._common import exif_orientation

WIDTH, HEIGHT = 96, 64
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
# Of the displayed picture; half-open.
BOXES = {"red": (0, 0, 32, 16), "green": (64, 0, 96, 32), "blue": (16, 32, 48, 64)}
# How a program that stores pixels turned must turn them: the inverse of displaying them.
TO_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def stored_picture(orientation: int) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    for name, box in BOXES.items():
        image.paste(COLORS[name], box)
    turn = TO_STORED[orientation]
    return image if turn is None else image.transpose(turn)


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    options: dict[str, dict[str, object]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True},
        "PNG": {},
        "TIFF": {},
    }
    stored_picture(orientation).save(buffer, kind, exif=exif.tobytes(), **options[kind])
    return buffer.getvalue()


def found_box(pixels: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    y, x = np.nonzero(np.abs(pixels.astype(int) - color).max(axis=2) < 100)
    return np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float64)


EVERY_FORMAT = ImageLimits(formats=frozenset(ImageFormat))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_come_back_in_both_frames(kind: str, orientation: int) -> None:
    out = decode(oriented(kind, orientation), limits=EVERY_FORMAT)
    header = out.header
    assert header.exif_orientation == orientation
    assert (header.width, header.height) == (WIDTH, HEIGHT)
    assert out.pixels.shape == (HEIGHT, WIDTH, 3)
    assert out.pixels.flags.c_contiguous
    stored = np.asarray(stored_picture(orientation))
    assert (header.stored_height, header.stored_width) == stored.shape[:2]
    for name, color in COLORS.items():
        displayed_box = found_box(out.pixels, color)
        assert box_iou(displayed_box, np.array([BOXES[name]], float))[0, 0] >= 0.99
        stored_box = found_box(stored, color)
        assert box_iou(boxes_to_stored(displayed_box, header), stored_box)[0, 0] >= 0.99
        assert box_iou(boxes_to_displayed(stored_box, header), displayed_box)[0, 0] >= 0.99
        shown = np.abs(out.pixels.astype(int) - color).max(axis=2) < 100
        kept = np.abs(stored.astype(int) - color).max(axis=2) < 100
        assert (mask_to_stored(shown, header) == kept).mean() > 0.99
        assert (mask_to_displayed(kept, header) == shown).mean() > 0.99


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_picture_is_turned_too(orientation: int) -> None:
    out = decode(oriented("JPEG", orientation), min_size=(WIDTH // 2, HEIGHT // 2))
    assert out.scale == 0.5
    assert out.pixels.shape == (HEIGHT // 2, WIDTH // 2, 3)
    for name, color in COLORS.items():
        box = found_box(out.pixels, color) / out.scale
        assert box_iou(box, np.array([BOXES[name]], float))[0, 0] >= 0.9


def header_of(width: int, height: int, orientation: int) -> ImageHeader:
    return ImageHeader(ImageFormat.JPEG, width, height, orientation, "RGB", 8, 1, False, 0)


SIDES = st.integers(1, 5000)
ORIENTATIONS = st.integers(1, 8)


@given(SIDES, SIDES, ORIENTATIONS, st.lists(st.tuples(*[st.floats(0, 1)] * 2), max_size=9))
def test_points_survive_the_way_there_and_back(
    width: int, height: int, orientation: int, fractions: list[tuple[float, float]]
) -> None:
    header = header_of(width, height, orientation)
    points = np.array(fractions, np.float64).reshape(-1, 2) * (header.width, header.height)
    stored = points_to_stored(points, header)
    assert (stored >= 0).all()
    assert (stored <= (width, height)).all()
    np.testing.assert_allclose(points_to_displayed(stored, header), points, atol=2e-3)


@given(SIDES, SIDES, ORIENTATIONS, st.tuples(*[st.floats(0, 1)] * 4))
def test_boxes_keep_their_order_and_area(
    width: int, height: int, orientation: int, corners: tuple[float, ...]
) -> None:
    header = header_of(width, height, orientation)
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    box = np.array([[x1, y1, x2, y2]]) * ([header.width, header.height] * 2)
    stored = boxes_to_stored(box, header)
    assert (stored[0, 2:] >= stored[0, :2]).all()
    sides = np.sort(stored[0, 2:] - stored[0, :2])
    np.testing.assert_allclose(sides, np.sort(box[0, 2:] - box[0, :2]), atol=2e-3)
    np.testing.assert_allclose(boxes_to_displayed(stored, header), box, atol=2e-3)


@given(st.integers(1, 12), st.integers(1, 12), ORIENTATIONS, st.randoms(use_true_random=False))
def test_masks_move_with_their_points(width: int, height: int, orientation: int, random) -> None:  # type: ignore[no-untyped-def]
    header = header_of(width, height, orientation)
    mask = np.zeros((header.height, header.width), bool)
    x, y = random.randrange(header.width), random.randrange(header.height)
    mask[y, x] = True
    stored = mask_to_stored(mask, header)
    assert stored.shape == (height, width)
    ((sx, sy),) = points_to_stored(np.array([[x + 0.5, y + 0.5]]), header)
    assert stored[int(sy), int(sx)]
    assert (mask_to_displayed(stored, header) == mask).all()


def test_no_boxes_stay_no_boxes() -> None:
    assert boxes_to_stored(np.zeros((0, 4), np.float32), header_of(8, 9, 6)).shape == (0, 4)


@given(st.binary(max_size=200))
def test_broken_exif_means_orientation_1_and_never_an_error(block: bytes) -> None:
    for start in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"Exif\0\0II*\0\x08\0\0\0"):
        assert 1 <= exif_orientation(start + block) <= 8


def test_exif_behind_a_png_s_pixels_counts() -> None:
    plain = oriented("PNG", 1)
    exif = Image.Exif()
    exif[274] = 6
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    end = plain[-12:]
    header = read_header(plain[:-12] + chunk(b"eXIf", body) + end)
    assert header.exif_orientation == 6
    assert (header.width, header.height) == (HEIGHT, WIDTH)


def test_opencv_does_not_turn_the_picture_a_second_time() -> None:
    data = oriented("JPEG", 6)
    header = read_header(data)
    as_stored = decode(data, replace(header, exif_orientation=1)).pixels
    assert as_stored.shape[:2] == (header.stored_height, header.stored_width)
