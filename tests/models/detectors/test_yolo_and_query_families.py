from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from models.family_graphs import (
    BOX,
    CASES,
    CLASS_ID,
    CLASSES,
    LABELS,
    SCORE,
    Outputs,
    picture,
    save_case,
)
from models.graphs import make_card, save_constant_graph
from prelabel_models.base import Detector, detect
from prelabel_models.cards import Preprocess
from prelabel_models.detectors import family_class, load_detector
from prelabel_models.errors import CardError, ModelUnusableError, NonFiniteOutputError
from prelabel_models.types import DetectOptions

every_case = pytest.mark.parametrize("name", CASES)


def load(
    folder: Path, name: str, *, outputs: Outputs | None = None, tile_batch: bool = False
) -> Detector:
    graph = save_case(folder, name, outputs=outputs, tile_batch=tile_batch)
    return load_detector(make_card(CASES[name][0], labels=LABELS), {"model": graph})


@every_case
def test_known_object_comes_back_in_image_pixels(tmp_path: Path, name: str) -> None:
    detector = load(tmp_path, name)
    found = detect(detector, picture(), DetectOptions(min_score=0.3))
    np.testing.assert_allclose(found.boxes_xyxy, [BOX], atol=1e-3)
    np.testing.assert_allclose(found.scores, [SCORE], atol=1e-5)
    assert found.class_ids.tolist() == [CLASS_ID]
    assert detector.info.labels == LABELS
    assert detector.info.input_size == (64, 64)


@every_case
def test_batch_of_two_gives_each_image_its_own_frame(tmp_path: Path, name: str) -> None:
    detector = load(tmp_path, name, tile_batch=True)
    assert detector.info.max_batch >= 2
    small = np.full((32, 64, 3), 7, np.uint8)
    prepared = [detector.preprocess(picture()), detector.preprocess(small)]
    outputs = detector.infer(prepared)
    boxes = [
        detector.postprocess(o, p, DetectOptions()).boxes_xyxy[0]
        for o, p in zip(outputs, prepared, strict=True)
    ]
    np.testing.assert_allclose(boxes[0], BOX, atol=1e-3)
    np.testing.assert_allclose(boxes[1], np.array(BOX) / 2, atol=1e-3)


@every_case
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_non_finite_outputs_never_become_a_box(tmp_path: Path, name: str, poison: float) -> None:
    outputs = {
        key: np.full_like(value, poison) if np.issubdtype(value.dtype, np.floating) else value
        for key, value in CASES[name][1]().items()
    }
    detector = load(tmp_path, name, outputs=outputs)
    with pytest.raises(NonFiniteOutputError, match=r"NaN or infin"):
        detect(detector, picture(), DetectOptions(min_score=0.0))


@every_case
@pytest.mark.parametrize("shape", [(1, 1000), (1, 2, 3, 4, 5)])
def test_graph_of_another_kind_is_refused_in_words(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    family, _, inputs = CASES[name]
    graph = save_constant_graph(
        tmp_path / "other.onnx",
        {"out": np.zeros(shape, np.float32)},
        inputs=inputs,
        input_dtypes={"orig_target_sizes": np.int64},
    )
    with pytest.raises(ModelUnusableError, match=rf"{family} expects .*got") as caught:
        load_detector(make_card(family, labels=LABELS), {"model": graph})
    assert str(tmp_path) not in str(caught.value)


@every_case
def test_wrong_number_of_labels_is_refused(tmp_path: Path, name: str) -> None:
    family = CASES[name][0]
    graph = save_case(tmp_path, name)
    names = tuple(f"n{i}" for i in range(CLASSES + 40))
    if name in ("yolo-e2e", "yolo-nms", "rtdetr finished", "dfine"):
        with pytest.raises(CardError, match=r"labels: .* does not tell how many classes"):
            load_detector(make_card(family), {"model": graph})
    else:
        with pytest.raises(CardError, match=r"labels: the graph has \d+ classes, got 43"):
            load_detector(make_card(family, labels=names), {"model": graph})


@pytest.mark.parametrize(
    ("name", "output", "index"),
    [
        ("yolo-e2e", "output0", (0, 0, 5)),
        ("yolo-nms", "det_classes", (0, 0)),
        ("rtdetr finished", "labels", (0, 0)),
    ],
)
@pytest.mark.parametrize("wrong", [-1, CLASSES, 10**6])
def test_class_without_a_label_is_refused(
    tmp_path: Path, name: str, output: str, index: tuple[int, ...], wrong: int
) -> None:
    outputs = CASES[name][1]()
    outputs[output][index] = wrong
    detector = load(tmp_path, name, outputs=outputs)
    with pytest.raises(ModelUnusableError, match=rf"named class {wrong}, .* 3 labels"):
        detect(detector, picture(), DetectOptions())


def test_fractional_class_is_refused(tmp_path: Path) -> None:
    outputs = CASES["yolo-e2e"][1]()
    outputs["output0"][0, 0, 5] = 0.5
    detector = load(tmp_path, "yolo-e2e", outputs=outputs)
    with pytest.raises(ModelUnusableError, match="whole numbers"):
        detect(detector, picture(), DetectOptions())


def test_padding_rows_stay_out_even_at_a_threshold_of_zero(tmp_path: Path) -> None:
    detector = load(tmp_path, "yolo-e2e")
    assert len(detect(detector, picture(), DetectOptions(min_score=0.0))) == 1


@pytest.mark.parametrize("count", [-1, 11])
def test_impossible_count_is_refused(tmp_path: Path, count: int) -> None:
    outputs = CASES["yolo-nms"][1]()
    outputs["num_dets"][0, 0] = count
    detector = load(tmp_path, "yolo-nms", outputs=outputs)
    with pytest.raises(ModelUnusableError, match=f"counts {count} objects"):
        detect(detector, picture(), DetectOptions())


def test_suppression_is_left_to_graphs_that_have_it_and_run_for_those_that_do_not(
    tmp_path: Path,
) -> None:
    finished = CASES["yolo-e2e"][1]()
    finished["output0"][0, 1] = finished["output0"][0, 0]
    raw = CASES["yolov8"][1]()
    raw["output0"][0, :, 8] = raw["output0"][0, :, 7]
    options = DetectOptions(nms_iou=0.5)
    assert len(detect(load(tmp_path, "yolo-e2e", outputs=finished), picture(), options)) == 2
    assert len(detect(load(tmp_path, "yolov8", outputs=raw), picture(), options)) == 1


def test_families_say_whether_they_suppress() -> None:
    quiet = {"yolov5", "yolov8", "yolov8-seg"}
    for family, _, _ in CASES.values():
        assert (family not in quiet) == family_class(family).SUPPRESSES_IN_GRAPH


def test_detr_gives_one_class_per_query_and_rtdetr_each_pair(tmp_path: Path) -> None:
    both = CASES["rtdetr raw"][1]()
    both["logits"][0, 3, 2] = 1.0
    assert detect(
        load(tmp_path, "rtdetr raw", outputs=both), picture(), DetectOptions()
    ).class_ids.tolist() == [CLASS_ID, 2]
    softmax = CASES["detr"][1]()
    softmax["pred_logits"][0, 3, 2] = 1.0
    assert detect(
        load(tmp_path, "detr", outputs=softmax), picture(), DetectOptions()
    ).class_ids.tolist() == [CLASS_ID]


def test_rfdetr_with_as_many_labels_as_logits_keeps_the_last(tmp_path: Path) -> None:
    graph = save_case(tmp_path, "rfdetr")
    detector = load_detector(make_card("rfdetr", labels=(*LABELS, "dog")), {"model": graph})
    assert detect(detector, picture(), DetectOptions()).class_ids.tolist() == [3, CLASS_ID]


def test_target_sizes_are_fed_width_first(tmp_path: Path) -> None:
    """A graph that scales relative boxes itself, as RT-DETR's exporter writes it."""
    relative = np.array([[[10, 10, 30, 50]]], np.float32) / np.array([64, 32, 64, 32], np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["orig_target_sizes"], ["size"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Concat", ["size", "size"], ["sizes"], axis=1),
            helper.make_node("Unsqueeze", ["sizes", "one"], ["factors"]),
            helper.make_node("Mul", ["relative", "factors"], ["boxes"]),
            helper.make_node("Identity", ["l"], ["labels"]),
            helper.make_node("Identity", ["s"], ["scores"]),
        ],
        "scaled",
        [
            helper.make_tensor_value_info("images", 1, [1, 3, 32, 64]),
            helper.make_tensor_value_info("orig_target_sizes", 7, [1, 2]),
        ],
        [
            helper.make_tensor_value_info("labels", 7, [1, 1]),
            helper.make_tensor_value_info("boxes", 1, [1, 1, 4]),
            helper.make_tensor_value_info("scores", 1, [1, 1]),
        ],
        initializer=[
            onnx.numpy_helper.from_array(relative, "relative"),
            onnx.numpy_helper.from_array(np.array([1]), "one"),
            onnx.numpy_helper.from_array(np.zeros((1, 1), np.int64), "l"),
            onnx.numpy_helper.from_array(np.full((1, 1), 0.9, np.float32), "s"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    detector = load_detector(make_card("dfine", labels=LABELS), {"model": path})
    found = detect(detector, picture(), DetectOptions())
    np.testing.assert_allclose(found.boxes_xyxy, [[20, 20, 60, 64]], atol=1e-3)


def test_finished_query_graph_without_a_size_input_is_refused(tmp_path: Path) -> None:
    graph = save_constant_graph(tmp_path / "m.onnx", CASES["dfine"][1]())
    with pytest.raises(ModelUnusableError, match="second input orig_target_sizes"):
        load_detector(make_card("dfine", labels=LABELS), {"model": graph})


def test_query_graph_with_an_unknown_input_is_refused(tmp_path: Path) -> None:
    graph = save_constant_graph(
        tmp_path / "m.onnx",
        CASES["rtdetr raw"][1](),
        inputs={"images": (1, 3, 64, 64), "prompt": (1, 77, 512)},
    )
    with pytest.raises(ModelUnusableError, match=r"no input beside the image .* prompt"):
        load_detector(make_card("rtdetr"), {"model": graph})


def test_pixel_mask_is_filled_with_ones(tmp_path: Path) -> None:
    graph = save_constant_graph(
        tmp_path / "m.onnx",
        CASES["detr"][1](),
        inputs={"pixel_values": (1, 3, 64, 64), "pixel_mask": (1, 8, 8)},
        input_dtypes={"pixel_mask": np.int64},
    )
    detector = load_detector(make_card("detr"), {"model": graph})
    assert len(detect(detector, picture(), DetectOptions(min_score=0.5))) == 1


def test_habit_of_each_kind_reaches_the_tensor(tmp_path: Path) -> None:
    yolo = load(tmp_path, "yolov8").preprocess(picture()).tensor
    np.testing.assert_allclose(yolo[:, 0, 0], 114 / 255, atol=1e-6)
    np.testing.assert_allclose(yolo[:, 32, 32], 90 / 255, atol=1e-6)
    detr = load(tmp_path, "detr").preprocess(picture()).tensor
    expected = (90 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(detr[:, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["yolov8", "yolo-e2e", "rtdetr raw", "detr"])
def test_graph_in_half_precision_is_fed_half_precision(tmp_path: Path, name: str) -> None:
    family, make, inputs = CASES[name]
    graph = save_constant_graph(
        tmp_path / "m.onnx",
        {key: value.astype(np.float16) for key, value in make().items()},
        inputs=inputs,
        input_dtypes=dict.fromkeys(inputs, np.float16),
    )
    detector = load_detector(make_card(family, labels=LABELS), {"model": graph})
    found = detect(detector, picture(), DetectOptions(min_score=0.3))
    np.testing.assert_allclose(found.boxes_xyxy, [BOX], atol=0.2)


def test_varying_axes_are_resolved_by_the_labels(tmp_path: Path) -> None:
    outputs = CASES["yolov8 transposed"][1]()
    graph = save_constant_graph(
        tmp_path / "m.onnx",
        outputs,
        inputs={"images": ("batch", 3, "height", "width")},
        output_shapes={"output0": ("batch", "anchors", 7)},
    )
    card = make_card("yolov8", labels=LABELS, preprocess=Preprocess(width=64, height=64))
    detector = load_detector(card, {"model": graph})
    assert len(detect(detector, picture(), DetectOptions())) == 1


def test_old_yolov5_exports_with_raw_maps_behind_the_output_are_read(tmp_path: Path) -> None:
    outputs = CASES["yolov5"][1]() | {"345": np.zeros((1, 3, 8, 8, 8), np.float32)}
    assert len(detect(load(tmp_path, "yolov5", outputs=outputs), picture(), DetectOptions())) == 1
