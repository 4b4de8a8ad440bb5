from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prelabel.types import Mask, Polygon, Proposal, RotatedBox
from prelabel_models.masks import encode_png, encode_rle
from prelabel_server.draw import class_colors, draw_proposals, draw_reading
from prelabel_server.draw import lettering as letters
from prelabel_server.draw.chips import Rect, place_chips
from prelabel_server.draw.palette import PALETTE, ink_on
from prelabel_server.draw.proposals import caption

GREY = np.full((200, 300, 3), 90, np.uint8)


def proposal(label: str = "cat", score: float = 0.9, **more: Any) -> Proposal:
    return Proposal(label, 0, score, None, more.pop("box", (100, 80, 200, 160)), **more)


def changed(picture: NDArray[np.uint8], ground: NDArray[np.uint8] = GREY) -> NDArray[np.bool_]:
    return np.asarray((picture != ground).any(axis=2))


def test_the_given_picture_stays_as_it_is() -> None:
    pixels = GREY.copy()

    picture = draw_proposals(pixels, [proposal()])

    assert (pixels == GREY).all()
    assert picture.shape == GREY.shape
    assert picture.dtype == np.uint8


def test_a_picture_without_proposals_is_unchanged() -> None:
    assert (draw_proposals(GREY, []) == GREY).all()


def test_a_box_is_drawn_on_its_edges_in_the_colour_of_its_class() -> None:
    picture = draw_proposals(GREY, [proposal()], labels=False)

    color = class_colors(["cat"])["cat"]
    assert tuple(picture[120, 100]) == color
    assert tuple(picture[120, 199]) == color
    assert tuple(picture[159, 150]) == color
    assert tuple(picture[120, 150]) == (90, 90, 90)
    rows, columns = np.nonzero(changed(picture))
    assert (columns.min(), rows.min()) >= (97, 77)
    assert (columns.max(), rows.max()) <= (202, 162)


def test_a_rotated_box_is_drawn_at_its_angle_and_not_upright() -> None:
    turned = proposal(rotated_box=RotatedBox(150, 120, 80, 40, 45))

    marks = changed(draw_proposals(GREY, [turned], labels=False))

    # The corner of a 80 x 40 box at 45 degrees: 150 + (40 + 20) / sqrt(2).
    assert not marks[80:83, 100:103].any()
    assert marks[118 + 14 : 122 + 14, 190:195].any()


@pytest.mark.parametrize("encoding", ["rle", "polygons", "png"])
def test_a_mask_tints_its_pixels_in_every_encoding(encoding: str) -> None:
    inside = np.zeros((200, 300), bool)
    inside[90:150, 110:190] = True
    rle = encode_rle(inside)
    mask = {
        "rle": Mask(size=(200, 300), rle=rle.counts),
        "png": Mask(png=encode_png(inside)),
        "polygons": Mask(polygons=(Polygon(((110, 90), (190, 90), (190, 150), (110, 150))),)),
    }[encoding]

    marks = changed(draw_proposals(GREY, [proposal(mask=mask)], labels=False))

    assert marks[95:145, 115:185].all()
    assert not marks[84:88, 110:190].any()


def test_a_mask_of_another_size_is_left_out_and_the_rest_is_drawn() -> None:
    odd = Mask(size=(2, 2), rle=encode_rle(np.ones((2, 2), bool)).counts)

    picture = draw_proposals(GREY, [proposal(mask=odd)])

    assert (picture == draw_proposals(GREY, [proposal()])).all()


def test_key_points_are_dots() -> None:
    bare = draw_proposals(GREY, [proposal()], labels=False)
    dotted = draw_proposals(GREY, [proposal(key_points=((150.0, 120.0),))], labels=False)

    assert changed(dotted, bare)[119:122, 149:152].all()


def test_proposals_outside_the_picture_do_no_harm() -> None:
    far = [proposal(box=(-500, -400, -300, -200)), proposal(box=(900, 900, 950, 990))]

    assert draw_proposals(GREY, far).shape == GREY.shape


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (12, 12)])
def test_tiny_pictures_can_be_drawn_on(size: tuple[int, int]) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    text = proposal(box=(0, 0, size[1], size[0]), text="far too long for this picture")

    assert draw_proposals(pixels, [text]).shape == pixels.shape
    assert draw_reading(pixels, [text]).shape[0] == size[0]


def test_lines_and_letters_grow_with_the_picture() -> None:
    shares = []
    for scale in (3, 12):  # 900 and 3600 pixels wide
        ground = np.full((200 * scale, 300 * scale, 3), 90, np.uint8)
        scaled = proposal(box=(100 * scale, 80 * scale, 200 * scale, 160 * scale))
        shares.append(changed(draw_proposals(ground, [scaled]), ground).mean())

    assert shares[1] == pytest.approx(shares[0], rel=0.15)


def test_a_reading_puts_the_text_beside_the_picture() -> None:
    read = proposal("text", box=(20, 50, 280, 90), text="HELLO")

    picture = draw_reading(GREY, [read])

    ink = np.asarray(picture[:, -300:].max(axis=2) < 60)
    assert picture.shape[1] > 600
    assert ink[50:90, 20:280].any()
    assert not ink[:45].any()
    assert not ink[95:].any()


def test_colours_depend_on_the_name_alone_and_differ_within_a_picture() -> None:
    for labels in (["a"], ["b", "a"], ["person", "dog", "tie", "car"]):
        colors = class_colors(labels)
        assert len(set(colors.values())) == len(labels)
        assert set(colors.values()) <= set(PALETTE)
    assert class_colors(["x", "y"]) == class_colors(["y", "x", "x"])
    assert len(class_colors([str(n) for n in range(40)])) == 40


def test_ink_is_black_on_yellow_and_white_on_blue() -> None:
    assert ink_on((240, 228, 66)) == (0, 0, 0)
    assert ink_on((0, 0, 160)) == (255, 255, 255)


def overlap(a: Rect, b: Rect) -> int:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


boxes = st.tuples(
    st.integers(-50, 350), st.integers(-50, 250), st.integers(1, 200), st.integers(1, 200)
).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@given(st.lists(boxes, max_size=12))
def test_labels_stay_inside_the_picture(found: list[Rect]) -> None:
    for x1, y1, x2, y2 in place_chips(found, [(60, 14)] * len(found), (300, 200)):
        assert x1 >= 0
        assert y1 >= 0
        assert x2 <= 300
        assert y2 <= 200
        assert (x2 - x1, y2 - y1) == (60, 14)


def test_labels_of_one_box_lie_beside_one_another() -> None:
    placed = place_chips([(100, 80, 200, 160)] * 8, [(40, 12)] * 8, (300, 200))

    for i, a in enumerate(placed):
        assert all(overlap(a, b) == 0 for b in placed[:i])


def test_the_first_label_has_the_first_choice() -> None:
    assert place_chips([(10, 50, 90, 90)] * 2, [(30, 10)] * 2, (100, 100))[0] == (10, 40, 40, 50)


def test_captions_are_one_line_of_bounded_length() -> None:
    words = caption(proposal("a\nb", 0.876, text="x\ty " * 100))

    assert words.startswith("a b 0.88: x y")
    assert words.endswith("...")
    assert len(words) < 110


def test_signs_that_no_font_has_are_counted_instead_of_drawn_wrong() -> None:
    class Plain:
        def covers(self, sign: str) -> bool:
            return sign.isascii()

        def render(self, text: str, size_px: int) -> letters.Coverage:
            raise NotImplementedError

    marked = letters._with_marks("ab ቀቁ c ቀ", Plain())

    assert marked == "ab [2 signs] c [1 sign]"


def test_letters_beyond_english_are_drawn_where_a_font_has_them() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        pytest.skip("no font with Greek: matplotlib is not installed")

    omega, question = letters.render("Ω", 24), letters.render("[1 sign]", 24)

    assert omega.any()
    assert omega.shape[1] < question.shape[1] / 2


@given(st.text(max_size=30))
def test_any_text_can_be_rendered(text: str) -> None:
    ink = letters.render(text, 12)

    assert ink.ndim == 2
    assert ink.dtype == np.uint8
    assert ink.shape[0] < 40
