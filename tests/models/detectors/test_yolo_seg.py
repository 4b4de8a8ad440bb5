from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.family_graphs import LABELS, picture, save_case, yolov8_seg
from models.graphs import make_card
from prelabel_models.base import detect
from prelabel_models.detectors import load_detector, yolo_seg
from prelabel_models.detectors.yolo_seg import box_mask
from prelabel_models.errors import NonFiniteOutputError
from prelabel_models.transforms import letterbox
from prelabel_models.types import DetectOptions


def test_mask_is_the_positive_half_of_its_box_in_image_pixels(tmp_path: Path) -> None:
    card = make_card("yolov8-seg", labels=LABELS)
    detector = load_detector(card, {"model": save_case(tmp_path, "yolov8-seg")})
    assert detector.info.gives_masks
    found = detect(detector, picture(), DetectOptions())
    assert found.masks is not None
    (mask,) = found.masks
    assert mask.shape == (64, 128)
    # The prototype changes sign between input columns 18 and 22: at 20, column 40 of the image.
    expected = np.zeros((64, 128), bool)
    expected[10:50, 20:40] = True
    np.testing.assert_array_equal(mask, expected)


def test_masks_beyond_the_memory_bound_are_cut_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = yolov8_seg()
    outputs["output0"][0, :, 8] = outputs["output0"][0, :, 7]
    outputs["output0"][0, 0, 8] += 25
    graph = save_case(tmp_path, "yolov8-seg", outputs=outputs)
    detector = load_detector(make_card("yolov8-seg", labels=LABELS), {"model": graph})
    assert len(detect(detector, picture(), DetectOptions())) == 2
    monkeypatch.setattr(yolo_seg, "_MASK_BYTES", 128 * 64)
    found = detect(detector, picture(), DetectOptions())
    assert len(found) == 1
    assert found.truncated
    assert found.masks is not None
    assert len(found.masks) == 1


def test_non_finite_prototypes_are_refused(tmp_path: Path) -> None:
    outputs = yolov8_seg()
    outputs["output1"][:] = np.nan
    graph = save_case(tmp_path, "yolov8-seg", outputs=outputs)
    detector = load_detector(make_card("yolov8-seg", labels=LABELS), {"model": graph})
    with pytest.raises(NonFiniteOutputError, match="mask value"):
        detect(detector, picture(), DetectOptions())


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    corner=st.tuples(st.floats(0, 90), st.floats(0, 90)),
    extent=st.tuples(st.floats(0, 90), st.floats(0, 90)),
    seed=st.integers(0, 1000),
)
def test_mask_equals_the_one_made_by_enlarging_everything(
    size: tuple[int, int],
    corner: tuple[float, float],
    extent: tuple[float, float],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    transform = letterbox(size, (64, 64), centered=True)
    prototypes = rng.normal(size=(4, 16, 16)).astype(np.float32)
    weights = rng.normal(size=4).astype(np.float32)
    limits = np.array([*size, *size], np.float32)
    box = np.minimum([*corner, corner[0] + extent[0], corner[1] + extent[1]], limits)
    mask = box_mask(weights, prototypes, box.astype(np.float32), transform)

    x, y = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    u = ((x * transform.scale[0] + transform.offset[0]) / 4 - 0.5).astype(np.float32)
    v = ((y * transform.scale[1] + transform.offset[1]) / 4 - 0.5).astype(np.float32)
    whole = np.tensordot(weights, prototypes, axes=1)
    maps = np.meshgrid(u, v)
    logits = cv2.remap(whole, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = ((x >= box[0]) & (x < box[2]))[None, :] & ((y >= box[1]) & (y < box[3]))[:, None]
    assert mask.shape == (size[1], size[0])
    assert not mask[~inside].any()
    # Both interpolate in steps of 1/32 of a sample, so values near zero may differ in sign.
    clear = inside & (np.abs(logits) > 0.5)
    np.testing.assert_array_equal(mask[clear], logits[clear] > 0)
