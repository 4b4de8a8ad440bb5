from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from prelabel_models.geometry import box_areas, box_iou, nms, rotated_boxes, suppress
from prelabel_models.types import Detections, DetectOptions

corner = st.floats(0, 1000, allow_nan=False, width=32)


@st.composite
def boxes(draw: st.DrawFn, max_size: int = 30) -> NDArray[np.float32]:
    rows = draw(st.lists(st.tuples(corner, corner, corner, corner), min_size=1, max_size=max_size))
    raw = np.asarray(rows, np.float32).reshape(-1, 2, 2)
    return np.sort(raw, axis=1).reshape(-1, 4)


@given(boxes())
def test_iou_is_symmetric_and_between_0_and_1(rows: NDArray[np.float32]) -> None:
    iou = box_iou(rows, rows)
    assert np.allclose(iou, iou.T)
    assert (iou >= 0).all()
    assert (iou <= 1 + 1e-9).all()
    solid = box_areas(rows) > 0
    assert np.allclose(np.diag(iou)[solid], 1)
    assert not np.diag(iou)[~solid].any()


def test_iou_of_known_boxes() -> None:
    a = np.asarray([[0, 0, 2, 2], [0, 0, 4, 4]])
    b = np.asarray([[1, 0, 3, 2], [10, 10, 12, 12]])
    assert np.allclose(box_iou(a, b), [[1 / 3, 0], [4 / 16, 0]])


def slow_nms(rows: NDArray[np.float32], scores: NDArray[np.float32], limit: float) -> list[int]:
    """The definition, one pair at a time."""
    order = sorted(range(len(rows)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in order:
        if all(box_iou(rows[[i]], rows[[k]])[0, 0] <= limit for k in kept):
            kept.append(i)
    return kept


@given(boxes(max_size=15), st.floats(0.05, 0.95), st.randoms(use_true_random=False))
def test_nms_is_what_its_definition_says(
    rows: NDArray[np.float32], limit: float, random: object
) -> None:
    scores = np.random.default_rng(len(rows)).random(len(rows)).astype(np.float32)
    iou = box_iou(rows, rows)
    if (np.abs(iou - limit) < 1e-6).any():
        return  # a tie within rounding may go either way
    assert nms(rows, scores, limit).tolist() == slow_nms(rows, scores, limit)


@given(boxes(max_size=20), st.integers(1, 4), st.integers(1, 20))
def test_groups_do_not_see_each_other_and_the_limit_only_cuts_the_end(
    rows: NDArray[np.float32], count: int, limit: int
) -> None:
    scores = np.random.default_rng(len(rows)).random(len(rows)).astype(np.float32)
    groups = np.arange(len(rows)) % count
    kept = nms(rows, scores, 0.5, groups=groups)
    for group in range(count):
        (members,) = np.nonzero(groups == group)
        alone = members[nms(rows[members], scores[members], 0.5)]
        assert [i for i in kept if groups[i] == group] == alone.tolist()
    assert nms(rows, scores, 0.5, groups=groups, limit=limit).tolist() == kept[:limit].tolist()


def test_nms_breaks_ties_by_position() -> None:
    rows = np.asarray([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    assert nms(rows, np.asarray([0.5, 0.5]), 0.5).tolist() == [0]


def found(rows: list[list[float]], scores: list[float], class_ids: list[int]) -> Detections:
    return Detections(
        np.asarray(rows, np.float32).reshape(-1, 4),
        np.asarray(scores, np.float32),
        np.asarray(class_ids, np.int64),
    )


def test_suppression_keeps_classes_apart_unless_told_otherwise() -> None:
    same = found([[0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8], [0, 1])
    assert len(suppress(same, DetectOptions(nms_iou=0.5))) == 2
    assert len(suppress(same, DetectOptions(nms_iou=0.5, class_agnostic_nms=True))) == 1


def test_suppression_off_keeps_all_in_order_of_score() -> None:
    same = found([[0, 0, 10, 10], [0, 0, 10, 10]], [0.1, 0.8], [0, 0])
    kept = suppress(same, DetectOptions(nms_iou=None))
    assert kept.scores.tolist() == pytest.approx([0.8, 0.1])


def test_bound_on_the_count_is_reported() -> None:
    apart = found([[0, 0, 1, 1], [5, 5, 6, 6], [9, 9, 10, 10]], [0.1, 0.8, 0.5], [0, 0, 0])
    kept = suppress(apart, DetectOptions(max_detections=2))
    assert kept.scores.tolist() == pytest.approx([0.8, 0.5])
    assert kept.truncated
    assert not suppress(apart, DetectOptions(max_detections=3)).truncated


def test_empty_boxes_do_not_survive() -> None:
    assert len(suppress(found([[5, 5, 5, 9]], [0.9], [0]), DetectOptions())) == 0


@pytest.mark.parametrize("angle", [0, 5, 30, 44, -44, -20])
def test_rotated_box_of_a_wide_rectangle(angle: float) -> None:
    turn = np.deg2rad(angle)
    half = np.asarray([[-50, -10], [50, -10], [50, 10], [-50, 10]], np.float64)
    spin = np.asarray([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    outline = half @ spin + [200, 100]
    ((x, y, width, height, degrees),) = rotated_boxes(outline[None]).tolist()
    assert (x, y) == pytest.approx((200, 100), abs=1e-3)
    assert (width, height) == pytest.approx((100, 20), abs=1e-2)
    assert degrees == pytest.approx(angle, abs=0.05)
