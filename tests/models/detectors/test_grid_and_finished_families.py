from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.graphs import Axis, make_card, save_constant_graph
from prelabel_models.base import Detector, detect
from prelabel_models.cards import Preprocess
from prelabel_models.detectors import load_detector
from prelabel_models.detectors.fastestdet import sigmoid
from prelabel_models.detectors.nanodet import _expectation
from prelabel_models.errors import CardError, ModelUnusableError, NonFiniteOutputError
from prelabel_models.types import DetectOptions

# The input is 64x64 and the image 128x64, so that a stretched input halves x alone and a
# letterboxed one halves both.
IMAGE = np.full((64, 128, 3), 90, np.uint8)
INPUT = (1, 3, 64, 64)
Outputs = dict[str, NDArray[Any]]


def fastestdet() -> Outputs:
    """Cell (2, 1) of 4x4: centre (2 + 0.5, 1 + 0.5) / 4, half the input wide, a quarter high."""
    raw = np.zeros((1, 5 + 3, 4, 4), np.float32)
    raw[0, 3:5] = -9.0
    raw[0, :5, 1, 2] = 0.9, np.arctanh(0.5), np.arctanh(0.5), 0.0, -np.log(3.0)
    raw[0, 5 + 1, 1, 2] = 0.8
    return {"758": raw}


def nanodet() -> Outputs:
    """Stride 16, cell (1, 2): point (24, 40), one stride to each side but two to the right."""
    out: Outputs = {}
    for stride, cells in ((8, 64), (16, 16), (32, 4)):
        out[f"cls_pred_stride_{stride}"] = np.zeros((1, cells, 3), np.float32)
        out[f"dis_pred_stride_{stride}"] = np.zeros((1, cells, 32), np.float32)
    row = 2 * 4 + 1
    out["cls_pred_stride_16"][0, row, 1] = 0.72
    out["dis_pred_stride_16"][0, row] = _sharp((1, 1, 2, 1))
    return out


def nanodet_plus() -> Outputs:
    """Stride 16, cell (1, 2): the point is the cell's corner (16, 32)."""
    joined = np.zeros((1, 64 + 16 + 4 + 1, 3 + 32), np.float32)
    row = 64 + 2 * 4 + 1
    joined[0, row, 1] = 0.72
    joined[0, row, 3:] = _sharp((1, 1, 2, 1))
    return {"output": joined}


def ultraface() -> Outputs:
    scores = np.tile(np.array([1.0, 0.0], np.float32), (1, 10, 1))
    boxes = np.zeros((1, 10, 4), np.float32)
    scores[0, 3] = 0.28, 0.72
    boxes[0, 3] = 0.25, 0.125, 0.75, 0.5
    return {"scores": scores, "boxes": boxes}


def yunet() -> Outputs:
    """Stride 16, cell (1, 2): offset by half a cell, a stride wide and two high."""
    out: Outputs = {}
    for kind, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride, cells in ((8, 64), (16, 16), (32, 4)):
            out[f"{kind}_{stride}"] = np.zeros((1, cells, size), np.float32)
    row = 2 * 4 + 1
    out["cls_16"][0, row] = 0.9
    out["obj_16"][0, row] = 0.576
    out["bbox_16"][0, row] = 0.5, 0.0, 0.0, np.log(2.0)
    out["kps_16"][0, row] = 0.5, 0.25, *([0.0] * 8)
    return out


def ssd_tensorflow() -> Outputs:
    return {
        "num_detections": np.array([2.0], np.float32),
        "detection_boxes": np.array(
            [[[0.125, 0.25, 0.5, 0.75], [0, 0, 1, 1], [0, 0, 1, 1]]], np.float32
        ),
        "detection_scores": np.array([[0.72, 0.1, 0.9]], np.float32),
        "detection_classes": np.array([[1.0, 2.0, 9.0]], np.float32),
        "raw_detection_boxes": np.zeros((1, 7, 4), np.float32),
    }


def ssd_relative() -> Outputs:
    return {
        "bboxes": np.array([[[0.25, 0.125, 0.75, 0.5], [0, 0, 1, 1]]], np.float32),
        "labels": np.array([[1, 2]], np.int64),
        "scores": np.array([[0.72, 0.1]], np.float32),
    }


def ssd_pixels() -> Outputs:
    """As detection libraries for PyTorch export it: no batch axis, pixels of the input."""
    return {
        "boxes": np.array([[16.0, 8, 48, 32], [0, 0, 64, 64]], np.float32),
        "labels": np.array([1, 2], np.int64),
        "scores": np.array([0.72, 0.1], np.float32),
    }


def ssd_raw() -> Outputs:
    scores = np.array([[[0.1, 0.0, 0.72, 0.0], [0.2, 0.0, 0.6, 0.0]]], np.float32)
    boxes = np.array([[[0.25, 0.125, 0.75, 0.5], [0.25, 0.125, 0.75, 0.51]]], np.float32)
    return {"scores": scores, "boxes": boxes}


def _sharp(bins: tuple[int, ...]) -> NDArray[np.float32]:
    logits = np.full((4, 8), -40.0, np.float32)
    logits[np.arange(4), bins] = 40.0
    return logits.reshape(-1)


# Name to family, outputs, labels, and the box in the image that they mean. Score 0.72 and class 1
# throughout; class 0 where there is but one.
Case = tuple[str, Callable[[], Outputs], tuple[str, ...], tuple[float, ...]]
THREE = ("ant", "bee", "cat")
CASES: dict[str, Case] = {
    "fastestdet": ("fastestdet", fastestdet, THREE, (48, 16, 112, 32)),
    "nanodet": ("nanodet", nanodet, THREE, (16, 24, 112, 56)),
    "nanodet-plus": ("nanodet", nanodet_plus, THREE, (0, 16, 96, 48)),
    "ultraface": ("ultraface", ultraface, ("face",), (32, 8, 96, 32)),
    "yunet": ("yunet", yunet, ("face",), (32, 32, 64, 64)),
    "ssd-tensorflow": ("ssd", ssd_tensorflow, THREE, (32, 8, 96, 32)),
    "ssd-relative": ("ssd", ssd_relative, THREE, (32, 8, 96, 32)),
    "ssd-pixels": ("ssd", ssd_pixels, THREE, (32, 8, 96, 32)),
    "ssd-raw": ("ssd", ssd_raw, THREE, (32, 8, 96, 32)),
}
every_case = pytest.mark.parametrize("name", CASES)


def load(
    folder: Path,
    name: str,
    outputs: Outputs | None = None,
    *,
    shape: tuple[Axis, ...] = INPUT,
    preprocess: Preprocess | None = None,
) -> Detector:
    family, make, labels, _ = CASES[name]
    graph = save_constant_graph(folder / "m.onnx", outputs or make(), inputs={"image": shape})
    card = make_card(family, labels=labels, preprocess=preprocess)
    return load_detector(card, {"model": graph})


@every_case
def test_known_object_comes_back_in_image_pixels(tmp_path: Path, name: str) -> None:
    # NanoDet's graphs are drawn for a stretched input, which keeps the arithmetic plain.
    resize = Preprocess(resize="stretch") if name.startswith("nanodet") else None
    detector = load(tmp_path, name, preprocess=resize)
    found = detect(detector, IMAGE, DetectOptions(min_score=0.3))
    np.testing.assert_allclose(found.boxes_xyxy, [CASES[name][3]], atol=1e-2)
    np.testing.assert_allclose(found.scores, [0.72], atol=1e-4)
    assert found.class_ids.tolist() == [0 if len(CASES[name][2]) == 1 else 1]
    assert detector.info.input_size == (64, 64)


@every_case
def test_threshold_above_every_score_leaves_nothing(tmp_path: Path, name: str) -> None:
    found = detect(load(tmp_path, name), IMAGE, DetectOptions(min_score=0.99))
    assert len(found) == 0
    assert found.boxes_xyxy.shape == (0, 4)


@every_case
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_smallest_images_pass_through(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    found = detect(load(tmp_path, name), np.zeros((*size, 3), np.uint8), DetectOptions())
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy[:, 2:] <= (size[1], size[0])).all()


@every_case
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(tmp_path: Path, name: str, value: float) -> None:
    outputs = CASES[name][1]()
    scores = {"fastestdet": "758", "nanodet": "cls_pred_stride_16", "nanodet-plus": "output"}
    own = scores.get(name) or next(n for n in outputs if "score" in n or n == "cls_8")
    outputs[own] = np.full_like(outputs[own], value)
    with pytest.raises(NonFiniteOutputError):
        detect(load(tmp_path, name, outputs), IMAGE, DetectOptions())


@every_case
def test_boxes_that_are_no_numbers_are_refused(tmp_path: Path, name: str) -> None:
    outputs = CASES[name][1]()
    for key, value in outputs.items():
        if key == "758":
            value[:, 1:5] = np.nan
        elif key == "output":
            value[..., 3:] = np.nan
        elif "box" in key or key.startswith("dis_"):
            outputs[key] = np.full_like(value, np.nan)
    with pytest.raises(NonFiniteOutputError):
        detect(load(tmp_path, name, outputs), IMAGE, DetectOptions())


@pytest.mark.parametrize("family", ["fastestdet", "nanodet", "ultraface", "yunet", "ssd"])
@pytest.mark.parametrize("shape", [(1, 7), (1, 7, 3), (1, 2, 3, 3)])
def test_graphs_of_other_families_are_refused_in_words(
    tmp_path: Path, family: str, shape: tuple[int, ...]
) -> None:
    wrong = {"whatever": np.zeros(shape, np.float32)}
    graph = save_constant_graph(tmp_path / "m.onnx", wrong)
    with pytest.raises(ModelUnusableError, match=rf"{family}.* expects .*(got|missing)"):
        load_detector(make_card(family, labels=("a",)), {"model": graph})


@pytest.mark.parametrize("name", ["fastestdet", "nanodet", "nanodet-plus", "yunet"])
def test_map_that_does_not_fit_the_input_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelUnusableError, match="128x128"):
        load(tmp_path, name, shape=(1, 3, 128, 128))


def test_yunet_gives_five_key_points(tmp_path: Path) -> None:
    found = detect(load(tmp_path, "yunet"), IMAGE, DetectOptions())
    assert found.key_points is not None
    assert found.key_points.shape == (1, 5, 2)
    # Cell (1, 2) at stride 16, letterboxed by a half: ((1 + 0.5) * 16 * 2, (2 + 0.25) * 16 * 2),
    # cut off at the image's height of 64.
    np.testing.assert_allclose(found.key_points[0, 0], (48, 64))


def test_yunet_sees_raw_bgr_on_black(tmp_path: Path) -> None:
    image = np.zeros((64, 128, 3), np.uint8)
    image[:] = (10, 20, 30)
    tensor = load(tmp_path, "yunet").preprocess(image).tensor
    assert tensor[:, 0, 0].tolist() == [30, 20, 10]
    assert tensor[:, 63, 0].tolist() == [0, 0, 0]


def test_ultraface_and_fastestdet_scale_pixels_as_they_were_trained(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:] = (255, 127, 0)
    face = load(tmp_path, "ultraface").preprocess(image).tensor
    np.testing.assert_allclose(face[:, 0, 0], [1.0, 0.0, -127 / 128], atol=1e-6)
    thing = load(tmp_path, "fastestdet").preprocess(image).tensor
    np.testing.assert_allclose(thing[:, 0, 0], [0.0, 127 / 255, 1.0], atol=1e-6)


def test_ultraface_finds_its_outputs_in_either_order(tmp_path: Path) -> None:
    outputs = dict(reversed(ultraface().items()))
    assert len(detect(load(tmp_path, "ultraface", outputs), IMAGE, DetectOptions())) == 1


def test_ssd_takes_bytes_with_the_channels_last(tmp_path: Path) -> None:
    graph = save_constant_graph(
        tmp_path / "m.onnx",
        ssd_tensorflow(),
        inputs={"image": (1, "height", "width", 3)},
        input_dtypes={"image": np.uint8},
    )
    sized = Preprocess(width=64, height=32)
    detector = load_detector(make_card("ssd", labels=THREE, preprocess=sized), {"model": graph})
    assert detector.info.input_size == (64, 32)
    assert len(detect(detector, IMAGE, DetectOptions())) == 1
    scaled = make_card("ssd", labels=THREE, preprocess=Preprocess(scale=0.5))
    with pytest.raises(CardError, match="8-bit"):
        load_detector(scaled, {"model": graph})


def test_ssd_suppresses_only_what_the_graph_did_not(tmp_path: Path) -> None:
    assert load(tmp_path, "ssd-tensorflow").info.suppresses_in_graph
    assert not load(tmp_path, "ssd-raw").info.suppresses_in_graph


def test_ssd_without_labels_is_refused(tmp_path: Path) -> None:
    graph = save_constant_graph(tmp_path / "m.onnx", ssd_relative())
    with pytest.raises(CardError, match="labels"):
        load_detector(make_card("ssd"), {"model": graph})


@pytest.mark.parametrize(
    ("key", "value", "error", "words"),
    [
        ("num_detections", [4.0], ModelUnusableError, "count of 0 to 3"),
        ("num_detections", [np.nan], NonFiniteOutputError, "count"),
        ("detection_classes", [[3.0, 0, 0]], ModelUnusableError, "class 3"),
        ("detection_classes", [[np.nan, 0, 0]], NonFiniteOutputError, "class"),
    ],
)
def test_ssd_answers_outside_their_range_are_refused(
    tmp_path: Path, key: str, value: list[object], error: type[Exception], words: str
) -> None:
    outputs = ssd_tensorflow() | {key: np.array(value, np.float32)}
    with pytest.raises(error, match=words):
        detect(load(tmp_path, "ssd-tensorflow", outputs), IMAGE, DetectOptions())


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=8, max_size=8))
def test_expected_distance_stays_among_the_bins(logits: list[float]) -> None:
    mean = _expectation(np.array([logits], np.float32))
    assert 0 <= mean[0] <= 7.001


@given(st.floats(-(2.0**100), 2.0**100, width=32))
def test_sigmoid_never_overflows(value: float) -> None:
    out = sigmoid(np.array([value], np.float32))
    assert 0 <= out[0] <= 1
