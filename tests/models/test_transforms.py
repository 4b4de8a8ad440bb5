from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel_models.transforms import Transform, letterbox, stretch

side = st.integers(1, 6000)


@st.composite
def transforms(draw: st.DrawFn) -> Transform:
    image = (draw(side), draw(side))
    size = (draw(st.integers(32, 1280)), draw(st.integers(32, 1280)))
    if draw(st.booleans()):
        return stretch(image, size)
    return letterbox(image, size, centered=draw(st.booleans()), enlarge=draw(st.booleans()))


@given(transforms(), st.floats(0, 1), st.floats(0, 1))
def test_there_and_back_is_the_same_point(t: Transform, u: float, v: float) -> None:
    point = np.asarray([u * t.image_size[0], v * t.image_size[1]])
    back = t.points_to_image(t.points_to_input(point))
    assert np.allclose(back, point, atol=1e-2 / min(t.scale) + 1e-3)


@given(transforms())
def test_the_whole_image_maps_into_the_input(t: Transform) -> None:
    width, height = t.image_size
    box = t.boxes_to_input(np.asarray([[0, 0, width, height]]))[0]
    # A content side is cut to whole pixels and never below one.
    assert box[0] == t.offset[0]
    assert box[1] == t.offset[1]
    assert box[2] <= t.input_size[0] + 1
    assert box[3] <= t.input_size[1] + 1


@given(transforms(), st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4))
def test_boxes_come_back_inside_the_image(t: Transform, corners: list[float]) -> None:
    box = t.boxes_to_image(np.asarray([corners]))[0]
    assert (box >= 0).all()
    assert (box[[0, 2]] <= t.image_size[0]).all()
    assert (box[[1, 3]] <= t.image_size[1]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 1), (640, 480)])
def test_apply_fills_the_input_and_pads_the_rest(size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 200, np.uint8)
    t = letterbox(size, (64, 96))
    canvas = t.apply(image, pad_value=114)
    assert canvas.shape == (96, 64, 3)
    width, height = t.content_size
    assert (canvas[:height, :width] == 200).all()
    assert (canvas[height:] == 114).all()
    assert (canvas[:, width:] == 114).all()


def test_centered_padding_is_on_both_sides() -> None:
    t = letterbox((100, 50), (100, 100), centered=True)
    canvas = t.apply(np.zeros((50, 100, 3), np.uint8), pad_value=7)
    assert (canvas[:25] == 7).all()
    assert (canvas[25:75] == 0).all()
    assert (canvas[75:] == 7).all()


def test_an_image_of_the_inputs_size_is_not_copied() -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    assert stretch((32, 32), (32, 32)).apply(image, pad_value=0) is image
