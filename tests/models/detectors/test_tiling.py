from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel_models.detectors.tiling import Tile, crop, merge, plan_tiles
from prelabel_models.errors import OptionError
from prelabel_models.types import Detections, DetectOptions


def found(*rows: tuple[float, float, float, float, float]) -> Detections:
    values = np.asarray(rows, np.float32).reshape(-1, 5)
    return Detections(values[:, :4], values[:, 4], np.zeros(len(rows), np.int64))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(64, 800), st.floats(0, 0.9))
def test_tiles_cover_every_pixel_and_stay_inside(
    width: int, height: int, size: int, overlap: float
) -> None:
    tiles = plan_tiles((width, height), size, overlap, max_tiles=10**9)
    if width <= size and height <= size:
        assert tiles == ()
        return
    for length, spans in (
        (width, {(t.x1, t.x2) for t in tiles}),
        (height, {(t.y1, t.y2) for t in tiles}),
    ):
        reached = 0
        for start, end in sorted(spans):
            assert 0 <= start <= reached  # no gap
            assert end - start == min(size, length)
            reached = end
        assert reached == length


def test_too_many_tiles_are_refused_with_their_count() -> None:
    with pytest.raises(OptionError, match=r"at most 4 tiles.* give 100") as refused:
        plan_tiles((1000, 1000), 100, 0.0, max_tiles=4)
    assert refused.value.field == "tiling.tile_size_px"


def test_boxes_are_moved_to_where_their_tile_lies() -> None:
    tile = Tile(100, 50, 200, 150)
    merged = merge([(found((10, 20, 30, 40, 0.9)), tile)], (400, 300), DetectOptions())
    assert merged.boxes_xyxy.tolist() == [[110, 70, 130, 90]]


def test_the_same_object_in_two_tiles_is_one() -> None:
    left, right = Tile(0, 0, 100, 100), Tile(60, 0, 160, 100)
    merged = merge(
        [(found((65, 10, 95, 40, 0.8)), left), (found((5, 10, 35, 40, 0.9)), right)],
        (160, 100),
        DetectOptions(),
    )
    assert merged.scores.tolist() == pytest.approx([0.9])


def test_a_part_cut_by_a_tile_gives_way_to_the_whole() -> None:
    left, right = Tile(0, 0, 100, 100), Tile(60, 0, 160, 100)
    # The left tile sees a third of the object, with a higher score.
    merged = merge(
        [(found((85, 10, 100, 40, 0.95)), left), (found((25, 10, 70, 40, 0.9)), right)],
        (160, 100),
        DetectOptions(),
    )
    assert merged.boxes_xyxy.tolist() == [[85, 10, 130, 40]]


def test_a_small_object_inside_a_large_one_stays_when_no_tile_cut_it() -> None:
    tile = Tile(0, 0, 100, 100)
    merged = merge(
        [(found((20, 20, 30, 30, 0.9)), tile), (found((0, 0, 160, 100, 0.8)), None)],
        (160, 100),
        DetectOptions(),
    )
    assert len(merged) == 2


def test_crop_is_the_tiles_own_contiguous_pixels() -> None:
    image = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    part = crop(image, Tile(5, 2, 15, 8))
    assert part.shape == (6, 10, 3)
    assert part.flags["C_CONTIGUOUS"]
    assert (part == image[2:8, 5:15]).all()


def test_masks_and_key_points_move_along() -> None:
    base = found((0, 0, 2, 2, 0.9))
    mask = np.zeros((4, 4), bool)
    mask[:2, :2] = True
    part = Detections(
        base.boxes_xyxy,
        base.scores,
        base.class_ids,
        key_points=np.ones((1, 1, 2), np.float32),
        masks=(mask,),
    )
    merged = merge([(part, Tile(6, 1, 10, 5))], (10, 5), DetectOptions())
    assert merged.masks is not None
    assert merged.masks[0].shape == (5, 10)
    assert merged.masks[0][1:3, 6:8].all()
    assert merged.masks[0].sum() == 4
    assert merged.key_points is not None
    assert merged.key_points.tolist() == [[[7, 2]]]
