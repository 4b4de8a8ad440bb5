from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prelabel_models.errors import ImageDamagedError, OptionError
from prelabel_models.masks import (
    CocoRle,
    Mask,
    Polygon,
    decode_png,
    decode_rle,
    encode_png,
    encode_rle,
    from_polygons,
    mask_area,
    mask_box_xyxy,
    mask_iou,
    resize_logits_to_mask,
    stability_score,
    to_polygons,
)

oracle = pytest.importorskip("pycocotools.mask")

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


def blobs(height: int, width: int, seed: int = 0) -> Mask:
    """Smooth noise above its mean: parts, holes and long runs."""
    import cv2

    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), min(height, width) / 20) > 0)


SPECIAL = {
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "one pixel of one": np.ones((1, 1), bool),
    "no pixel of one": np.zeros((1, 1), bool),
    "one pixel": np.eye(1, 12, 5, dtype=bool).reshape(3, 4),
    "ring": np.pad(np.zeros((3, 3), bool), 2, constant_values=True),
    "touching corners": np.eye(4, dtype=bool),
    "checkerboard": np.indices((6, 7)).sum(axis=0) % 2 == 0,
    "island in a hole": np.pad(np.pad(np.ones((1, 1), bool), 2), 2, constant_values=True),
    "large": blobs(300, 1000),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_masks_survive_every_form(name: str) -> None:
    mask = SPECIAL[name]
    height, width = mask.shape
    encoded = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_rle(mask) == CocoRle(height, width, encoded["counts"].decode())
    assert np.array_equal(decode_rle(encode_rle(mask)), mask)
    assert np.array_equal(from_polygons(to_polygons(mask, 0), (width, height)), mask)
    assert np.array_equal(decode_png(encode_png(mask)), mask)


@given(masks)
def test_run_lengths_are_those_of_pycocotools(mask: Mask) -> None:
    theirs = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = encode_rle(mask)
    assert ours.counts == theirs["counts"].decode()
    decoded = decode_rle(CocoRle(mask.shape[0], mask.shape[1], theirs["counts"].decode()))
    assert decoded.dtype == np.bool_
    assert decoded.flags.c_contiguous
    assert np.array_equal(decoded, mask)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 70_000), min_size=1, max_size=12),
    st.integers(1, 40),
)
def test_long_runs_are_those_of_pycocotools(runs: list[int], width: int) -> None:
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    height = len(flat) // width + 1
    columns = np.zeros(height * width, bool)
    columns[: len(flat)] = flat
    mask = columns.reshape(width, height).T
    theirs = oracle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert encode_rle(mask).counts == theirs
    assert np.array_equal(decode_rle(CocoRle(height, width, theirs)), mask)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_any_text_is_decoded_or_refused(counts: str) -> None:
    try:
        mask = decode_rle(CocoRle(6, 5, counts))
    except OptionError:
        return
    assert mask.shape == (6, 5)


@pytest.mark.parametrize(
    ("rle", "expected"),
    [
        pytest.param(CocoRle(2, 2, ""), "characters", id="empty text"),
        pytest.param(CocoRle(2, 2, "é"), "characters", id="not ASCII"),
        pytest.param(CocoRle(2, 2, "2R"), "characters", id="cut inside a number"),
        pytest.param(CocoRle(2, 2, "2"), "add up", id="too short"),
        pytest.param(CocoRle(2, 2, "23"), "add up", id="too long"),
        pytest.param(CocoRle(2, 2, "5O"), "add up", id="negative run"),
        pytest.param(CocoRle(2, 2, "o" * 40 + "0"), "runs below", id="huge number"),
        pytest.param(CocoRle(0, 2, "0"), "sides", id="no rows"),
        pytest.param(CocoRle(1 << 20, 1 << 20, "0"), "sides", id="too many pixels"),
    ],
)
def test_bad_run_lengths_are_refused(rle: CocoRle, expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        decode_rle(rle)


def test_run_lengths_of_a_photograph_are_quick() -> None:
    mask = blobs(480, 640)
    rle = encode_rle(mask)

    def best(work: object, argument: object) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            work(argument)  # type: ignore[operator]
            times.append(time.perf_counter() - start)
        return min(times)

    # Measured at 0.3 ms each; the margin is for a busy machine.
    assert best(encode_rle, mask) < 3e-3
    assert best(decode_rle, rle) < 3e-3


@given(masks)
def test_exact_outlines_give_the_mask_back(mask: Mask) -> None:
    polygons = to_polygons(mask, 0)
    assert np.array_equal(from_polygons(polygons, (mask.shape[1], mask.shape[0])), mask)
    areas = [_area(p.exterior) - sum(map(_area, p.holes)) for p in polygons]
    assert sum(areas) == mask_area(mask)


def _area(ring: np.ndarray) -> float:
    x, y = ring.astype(float).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@given(masks, st.floats(0.5, 5))
def test_every_part_of_a_simplified_mask_keeps_its_area(mask: Mask, tolerance: float) -> None:
    exact = to_polygons(mask, 0)
    simple = to_polygons(mask, tolerance)
    assert len(exact) == len(simple)
    assert all(_area(p.exterior) > 0 for p in simple)
    assert all(_area(hole) > 0 for p in simple for hole in p.holes)


def test_simplified_outlines_stay_within_their_tolerance() -> None:
    import cv2

    mask = blobs(200, 300)
    again = from_polygons(to_polygons(mask, 2.0), (300, 200))
    wrong = (again ^ mask).astype(np.uint8)
    # A disagreement wider than twice the tolerance would survive this erosion.
    assert not cv2.erode(wrong, np.ones((7, 7), np.uint8), borderValue=0).any()
    assert sum(len(p.exterior) for p in to_polygons(mask, 2.0)) < 0.3 * sum(
        len(p.exterior) for p in to_polygons(mask, 0)
    )


def test_outline_of_one_pixel_is_the_unit_square() -> None:
    (polygon,) = to_polygons(np.ones((1, 1), bool))
    assert sorted(map(tuple, polygon.exterior.tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_parts_and_holes_are_counted() -> None:
    mask = np.zeros((10, 20), bool)
    mask[1:9, 1:9] = True
    mask[3:5, 3:5] = False
    mask[6:8, 6:8] = False
    mask[0:2, 12:14] = True
    polygons = to_polygons(mask, 0)
    assert sorted(len(p.holes) for p in polygons) == [0, 2]


def test_polygons_are_clipped_to_the_image_and_united() -> None:
    square = np.array([[-5, -5], [3, -5], [3, 3], [-5, 3]], np.float32)
    mask = from_polygons([Polygon(square), Polygon(square + 2)], (4, 6))
    assert mask.sum() == 4 * 5
    with pytest.raises(OptionError, match="finite"):
        from_polygons([Polygon(square * np.float32(np.nan))], (4, 6))


def test_negative_tolerance_is_refused() -> None:
    with pytest.raises(OptionError, match="tolerance_px"):
        to_polygons(np.ones((2, 2), bool), -1.0)


@pytest.mark.parametrize("data", [b"", b"GIF89a", encode_png(np.ones((9, 9), bool))[:40]])
def test_what_is_no_whole_png_is_refused(data: bytes) -> None:
    with pytest.raises(ImageDamagedError):
        decode_png(data)


def test_size_of_a_png_is_checked_before_decoding() -> None:
    with pytest.raises(ImageDamagedError, match="100 x 100"):
        decode_png(encode_png(np.ones((100, 100), bool)), max_pixels=9_999)


@given(masks)
def test_box_is_the_smallest_around_the_object(mask: Mask) -> None:
    box = mask_box_xyxy(mask)
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        assert box is None
    else:
        assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_iou_of_masks() -> None:
    a = np.array([[True, True, False]])
    b = np.array([[False, True, True]])
    assert mask_iou(a, b) == pytest.approx(1 / 3)
    assert mask_iou(a & ~a, b & ~b) == 1.0
    with pytest.raises(ValueError, match="one shape"):
        mask_iou(a, b.T)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (7, 9), elements=st.floats(-4, 4, width=32)),
    st.tuples(st.integers(-20, 30), st.integers(-20, 30)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_upscaled_logits_agree_with_opencv_inside_the_box(
    logits: np.ndarray, corner: tuple[int, int], sides: tuple[int, int]
) -> None:
    import cv2

    (x, y), (w, h) = corner, sides
    mask = resize_logits_to_mask(logits, (x, y, x + w, y + h), (40, 32))
    rows, columns = np.mgrid[0:32, 0:40] + 0.5
    grid_x = np.clip((columns - x) * (9 / w) - 0.5, 0, 8).astype(np.float32)
    grid_y = np.clip((rows - y) * (7 / h) - 0.5, 0, 6).astype(np.float32)
    reference = cv2.remap(logits, grid_x, grid_y, cv2.INTER_LINEAR)
    inside = (columns > x) & (columns < x + w) & (rows > y) & (rows < y + h)
    # remap rounds positions to 1/32 cell; logits differ by at most 8 between cells.
    sure = np.abs(reference) > 0.6
    assert np.array_equal(mask[sure & inside], reference[sure & inside] > 0)
    assert not mask[~inside].any()


def test_logits_of_an_empty_box_are_refused() -> None:
    with pytest.raises(OptionError, match="box_xyxy"):
        resize_logits_to_mask(np.zeros((2, 2), np.float32), (5, 5, 5, 9), (9, 9))


def test_stability_is_the_iou_of_two_thresholds() -> None:
    logits = np.array([[-3.0, -0.5, 0.5, 2.0]])
    assert stability_score(logits) == pytest.approx(1 / 3)
    assert stability_score(logits - 10) == 0.0
    assert stability_score(logits, threshold=-0.75, offset=0.2) == 1.0
