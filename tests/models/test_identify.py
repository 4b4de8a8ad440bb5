from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.family_graphs import CASES, LABELS, save_case
from models.graphs import Axis, save_constant_graph
from prelabel_models.errors import ModelUnusableError
from prelabel_models.identify import identify, tensors_in_words
from prelabel_models.labels import COCO80

NAMES = str(dict(enumerate(LABELS)))
# Without it a transposed YOLOv8 of three classes looks like a YOLOX of two.
METADATA = {"yolov8 transposed": {"names": NAMES}}
FORMS_OF_TWO = {"dfine": "rtdetr"}


def graph(path: Path, shapes: dict[str, tuple[Axis, ...]], **options: Any) -> Path:
    """A graph of which only the declared shapes matter."""
    outputs = {name: np.zeros([1] * len(shape), np.float32) for name, shape in shapes.items()}
    return save_constant_graph(path / "m.onnx", outputs, output_shapes=shapes, **options)


def image(size: int) -> dict[str, tuple[Axis, ...]]:
    return {"images": (1, 3, size, size)}


@pytest.mark.parametrize("name", CASES)
def test_every_family_graph_is_named(tmp_path: Path, name: str) -> None:
    found = identify(save_case(tmp_path, name, metadata=METADATA.get(name)))
    family = CASES[name][0]
    assert found.guesses[0].family == FORMS_OF_TWO.get(name, family)
    assert family in [guess.family for guess in found.guesses]
    assert found.guesses[0].task == "detect"
    assert found.input_size == (64, 64)
    assert found.summary.startswith(found.guesses[0].family)


@pytest.mark.parametrize(
    ("shapes", "size", "family", "labels"),
    [
        ({"output0": (1, 84, 8400)}, 640, "yolov8", "coco80"),
        ({"output0": (1, 84, "anchors")}, 640, "yolov8", "coco80"),
        ({"output0": (1, 84, 34000)}, 640, "yolov8", "coco80"),
        ({"output0": (1, 8400, 84)}, 640, "yolov8", "coco80"),
        ({"output0": (1, 5, 8400)}, 640, "yolov8", ()),
        ({"output": (1, 8400, 85)}, 640, "yolox", "coco80"),
        ({"output": (1, 8400, 6)}, 640, "yolox", ()),
        ({"output": (1, 25200, 85)}, 640, "yolov5", "coco80"),
        ({"output": (1, 25200, 6)}, 640, "yolov5", ()),
        ({"output": (1, 102000, 85)}, 1280, "yolov5", "coco80"),
        ({"output0": (1, 300, 6)}, 640, "yolo-e2e", "coco80"),
        ({"output0": (1, 300, 84)}, 640, "rtdetr", "coco80"),
        ({"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, 640, "rtdetr", "coco80"),
        ({"logits": (1, 100, 92), "pred_boxes": (1, 100, 4)}, 800, "detr", "coco91"),
        ({"dets": (1, 300, 4), "labels": (1, 300, 91)}, 560, "rfdetr", "coco91"),
        ({"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, 640, "yolov8-seg", "coco80"),
        ({"out": (1, 85, 22, 22)}, 352, "fastestdet", "coco80"),
        ({"out": (1, 3598, 112)}, 416, "nanodet", "coco80"),
        ({"scores": (1, 4420, 2), "boxes": (1, 4420, 4)}, 320, "ultraface", ("face",)),
    ],
)
def test_published_shapes_are_told_apart(
    tmp_path: Path,
    shapes: dict[str, tuple[Axis, ...]],
    size: int,
    family: str,
    labels: str | tuple[str, ...],
) -> None:
    best = identify(graph(tmp_path, shapes, inputs=image(size))).guesses[0]
    assert (best.family, best.labels) == (family, labels)


def test_yolox_with_exponents_in_the_graph_is_the_decoded_family(tmp_path: Path) -> None:
    path = graph(tmp_path, {"output": (1, 8400, 85)}, inputs=image(640))
    model = onnx.load(str(path))
    model.graph.node.append(onnx.helper.make_node("Exp", ["output_value"], ["unused"]))
    path.write_bytes(model.SerializeToString())
    assert identify(path).guesses[0].family == "yolox-decoded"


def test_nanodet_and_yunet_are_known_by_their_names(tmp_path: Path) -> None:
    nano: dict[str, tuple[Axis, ...]] = {}
    for stride, cells in ((8, 1600), (16, 400), (32, 100)):
        nano[f"cls_pred_stride_{stride}"] = (1, cells, 80)
        nano[f"dis_pred_stride_{stride}"] = (1, cells, 32)
    assert identify(graph(tmp_path, nano, inputs=image(320))).guesses[0].family == "nanodet"
    yunet: dict[str, tuple[Axis, ...]] = {
        f"{kind}_{stride}": (1, (320 // stride) ** 2, width)
        for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in (8, 16, 32)
    }
    best = identify(graph(tmp_path, yunet, inputs=image(320))).guesses[0]
    assert (best.family, best.labels) == ("yunet", ("face",))


def test_boxes_scores_and_classes_are_the_ssd_family(tmp_path: Path) -> None:
    flow: dict[str, tuple[Axis, ...]] = {
        "detection_boxes": (1, 100, 4),
        "detection_classes": (1, 100),
        "detection_scores": (1, 100),
        "num_detections": (1,),
    }
    last: dict[str, tuple[Axis, ...]] = {"image": (1, 300, 320, 3)}
    found = identify(graph(tmp_path, flow, inputs=last))
    assert (found.guesses[0].family, found.guesses[0].labels) == ("ssd", "coco91")
    assert found.input_size == (320, 300)
    zoo: dict[str, tuple[Axis, ...]] = {
        "bboxes": (1, "n", 4),
        "labels": (1, "n"),
        "scores": (1, "n"),
    }
    assert identify(graph(tmp_path, zoo, inputs=image(300))).guesses[0].family == "ssd"


def test_text_graphs_are_known_by_map_and_strip(tmp_path: Path) -> None:
    both: dict[str, tuple[Axis, ...]] = {"x": ("n", 3, "h", "w")}
    strip: dict[str, tuple[Axis, ...]] = {"x": ("n", 3, 48, "w")}
    found = identify(graph(tmp_path, {"maps": ("n", 1, "h", "w")}, inputs=both)).guesses[0]
    assert (found.family, found.role) == ("rapidocr", "det")
    found = identify(graph(tmp_path, {"rows": ("n", "t", 6625)}, inputs=strip)).guesses[0]
    assert (found.family, found.role) == ("rapidocr", "rec")


def test_text_direction_is_part_of_reading_and_other_pairs_of_scores_are_not(
    tmp_path: Path,
) -> None:
    shapes: dict[str, tuple[Axis, ...]] = {"out": ("n", 2)}
    found = identify(graph(tmp_path, shapes, inputs={"x": ("n", 3, "h", "w")})).guesses[0]
    assert (found.family, found.role) == ("rapidocr", "cls")
    assert identify(graph(tmp_path, shapes, inputs=image(224))).guesses == ()


@pytest.mark.parametrize(
    ("inputs", "outputs", "family", "role"),
    [
        (
            {"batched_images": ("n", 3, "h", "w")},
            {"image_embeddings": ("n", 256, 64, 64)},
            "efficientsam",
            "encoder",
        ),
        (
            {
                "image_embeddings": (1, 256, 64, 64),
                "batched_point_coords": (1, 1, "n", 2),
                "batched_point_labels": (1, 1, "n"),
                "orig_im_size": (2,),
            },
            {"output_masks": (1, 1, 3, "h", "w"), "iou_predictions": (1, 1, 3)},
            "efficientsam",
            "decoder",
        ),
        (image(1024), {"image_embeddings": (1, 256, 64, 64)}, "sam", "encoder"),
        (
            {
                "image_embeddings": (1, 256, 64, 64),
                "point_coords": (1, "n", 2),
                "point_labels": (1, "n"),
                "mask_input": (1, 1, 256, 256),
                "has_mask_input": (1,),
                "orig_im_size": (2,),
            },
            {"masks": (1, 1, "h", "w"), "iou_predictions": (1, 1)},
            "sam",
            "decoder",
        ),
        (
            image(1024),
            {
                "high_res_feats_0": (1, 32, 256, 256),
                "high_res_feats_1": (1, 64, 128, 128),
                "image_embed": (1, 256, 64, 64),
            },
            "sam2",
            "encoder",
        ),
    ],
)
def test_segmenters_are_known_with_their_role(
    tmp_path: Path,
    inputs: dict[str, tuple[Axis, ...]],
    outputs: dict[str, tuple[Axis, ...]],
    family: str,
    role: str,
) -> None:
    best = identify(graph(tmp_path, outputs, inputs=inputs)).guesses[0]
    assert (best.family, best.role, best.task) == (family, role, "segment")


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (image(224), {"prob": (1, 1000)}, "a classifier .* one row of 1000 numbers"),
        (image(512), {"map": (1, 21, 512, 512)}, "not a detector: it gives a map"),
        ({"x": (1, 768)}, {"y": (1, 10)}, "has 2 axes, but a detector takes an image of four"),
        ({"x": (1, 1, 28, 28)}, {"y": (1, 10, 4)}, "has 1 channels"),
        ({"x": (1, 224, 224, 3)}, {"y": (1, 1000)}, "channels last"),
        (image(640), {"output": (100, 7)}, "rows have no batch axis"),
        (image(640), {"a": (1, 3, 80, 80, 85), "b": (1, 3, 40, 40, 85)}, "raw YOLO maps"),
        (image(640), {"a": (1,), "b": (1, 2, 3, 4, 5, 6)}, "no known family: images"),
    ],
)
def test_other_graphs_are_described_in_words(
    tmp_path: Path,
    inputs: dict[str, tuple[Axis, ...]],
    outputs: dict[str, tuple[Axis, ...]],
    words: str,
) -> None:
    found = identify(graph(tmp_path, outputs, inputs=inputs))
    assert found.guesses == ()
    assert re.search(words, found.summary), found.summary


@pytest.mark.parametrize(
    ("task", "shape", "word"),
    [("pose", (1, 56, 8400), "key points"), ("obb", (1, 20, 21504), "rotated boxes")],
)
def test_yolo_of_another_task_is_not_taken_for_a_detector(
    tmp_path: Path, task: str, shape: tuple[int, ...], word: str
) -> None:
    path = graph(tmp_path, {"output0": shape}, inputs=image(640), metadata={"task": task})
    found = identify(path)
    assert found.guesses == ()
    assert word in found.summary


@pytest.mark.parametrize("text", [NAMES, '{"0": "ant", "1": "bee", "2": "cat"}', str(list(LABELS))])
def test_names_in_the_metadata_become_labels(tmp_path: Path, text: str) -> None:
    best = identify(save_case(tmp_path, "yolo-e2e", metadata={"names": text})).guesses[0]
    assert (best.labels, best.labels_from) == (LABELS, "metadata")


def test_the_names_of_coco_are_shown_as_the_label_set(tmp_path: Path) -> None:
    metadata = {"names": str(dict(enumerate(COCO80)))}
    path = graph(tmp_path, {"output0": (1, 84, 8400)}, inputs=image(640), metadata=metadata)
    assert identify(path).guesses[0].labels == "coco80"


@settings(max_examples=50, deadline=None)
@given(text=st.one_of(st.text(max_size=60), st.sampled_from(["[" * 5000, "{0: 1}", "{3: 'a'}"])))
def test_hostile_names_are_passed_over(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    folder = tmp_path_factory.mktemp("names")
    found = identify(save_case(folder, "yolov8", metadata={"names": text}))
    assert found.guesses[0].family == "yolov8"


def test_assumed_labels_are_said_to_be_assumed(tmp_path: Path) -> None:
    best = identify(save_case(tmp_path, "yolo-nms")).guesses[0]
    assert best.labels == "coco80"
    assert "so coco80 is assumed: check it" in best.reason


def test_guesses_are_ranked_and_doubt_is_named(tmp_path: Path) -> None:
    found = identify(save_case(tmp_path, "dfine"))
    ranks = [guess.confidence for guess in found.guesses]
    assert ranks == sorted(ranks, reverse=True)
    assert "could also be dfine" in found.summary
    assert tensors_in_words(found).startswith("images (1, 3, 64, 64), orig_target_sizes (1, 2) -> ")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x08"])
def test_other_files_are_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelUnusableError, match=r"not an ONNX graph|no graph with an output"):
        identify(path)


@settings(max_examples=200, deadline=None)
@given(case=st.sampled_from(sorted(CASES)), cut=st.floats(0, 4), data=st.data())
def test_damaged_graphs_are_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, case: str, cut: float, data: st.DataObject
) -> None:
    path = save_case(tmp_path_factory.getbasetemp(), case, metadata={"names": NAMES})
    content = bytearray(path.read_bytes())
    # Most bytes are zeros of a constant; damage to those tells nothing.
    spots = [i for i, byte in enumerate(content) if byte]
    for spot in data.draw(st.lists(st.sampled_from(spots), min_size=1, max_size=5)):
        content[spot] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: int(len(content) * min(cut, 1.0))])
    try:
        found = identify(path)
    except ModelUnusableError:
        return
    assert found.summary


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("yolox-nano/yolox_nano.onnx", "yolox"),
        ("fastestdet/FastestDet.onnx", "fastestdet"),
        ("nanodet-m/nanodet_m_320.onnx", "nanodet"),
        ("ultraface/ultraface_rfb_320.onnx", "ultraface"),
    ],
)
def test_published_detectors_are_identified(data_dir: Path, file: str, family: str) -> None:
    best = identify(data_dir / "models" / file).guesses[0]
    assert best.family == family
    assert best.confidence >= 0.9
    assert best.labels == (("face",) if family == "ultraface" else "coco80")
