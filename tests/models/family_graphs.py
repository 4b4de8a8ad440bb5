"""One small graph for each family that answers one known object, whatever the image.

The picture is 128x64 and the input 64x64. The object covers (20, 10, 60, 50) of the picture:
(10, 21, 30, 41) of a letterboxed input, (10, 10, 30, 50) of a stretched one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.graphs import Axis, save_constant_graph
from prelabel_models.types import RgbImage

BOX = (20.0, 10.0, 60.0, 50.0)
CLASS_ID, SCORE, CLASSES = 1, 0.8, 3
LABELS = ("ant", "bee", "cat")
QUERIES, ROWS = 60, 10

Outputs = dict[str, NDArray[Any]]

_LETTERBOXED = np.array([10.0, 21.0, 30.0, 41.0], np.float32)
_STRETCHED = np.array([10.0, 10.0, 30.0, 50.0], np.float32)
_LOGIT = float(np.log(SCORE / (1 - SCORE)))


def picture() -> RgbImage:
    """A gray 128x64 image."""
    return np.full((64, 128, 3), 90, np.uint8)


def centered(box: NDArray[np.float32]) -> NDArray[np.float32]:
    """(x1, y1, x2, y2) to (cx, cy, w, h)."""
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]]).astype(np.float32)


def yolov5() -> Outputs:
    """84 cells x 3 anchors; objectness 0.8, class score 1."""
    rows = np.zeros((1, 252, 5 + CLASSES), np.float32)
    rows[0, 7, :4], rows[0, 7, 4], rows[0, 7, 5 + CLASS_ID] = centered(_LETTERBOXED), SCORE, 1.0
    return {"output0": rows}


def yolov8() -> Outputs:
    """Channels before boxes."""
    rows = np.zeros((1, 84, 4 + CLASSES), np.float32)
    rows[0, 7, :4], rows[0, 7, 4 + CLASS_ID] = centered(_LETTERBOXED), SCORE
    return {"output0": rows.transpose(0, 2, 1)}


def yolov8_transposed() -> Outputs:
    """Boxes before channels."""
    return {"output0": yolov8()["output0"].transpose(0, 2, 1)}


def yolov8_seg() -> Outputs:
    """The one object's mask is the left half of its box: prototype 0 is positive there."""
    head = yolov8()["output0"]
    weights = np.zeros((1, 32, head.shape[2]), np.float32)
    weights[0, 0, 7] = 4.0
    prototypes = np.zeros((1, 32, 16, 16), np.float32)
    prototypes[0, 0] = np.where(np.arange(16) < 5, 1.0, -1.0)  # input columns 0 to 20
    return {"output0": np.concatenate([head, weights], axis=1), "output1": prototypes}


def yolo_e2e() -> Outputs:
    """Ten rows, all but the first padding."""
    rows = np.zeros((1, ROWS, 6), np.float32)
    rows[0, 0] = [*_LETTERBOXED, SCORE, CLASS_ID]
    return {"output0": rows}


def yolo_nms() -> Outputs:
    """TensorRT's names; the padding rows name class -1."""
    boxes, scores = np.zeros((1, ROWS, 4), np.float32), np.zeros((1, ROWS), np.float32)
    classes = np.full((1, ROWS), -1, np.int32)
    boxes[0, 0], scores[0, 0], classes[0, 0] = _LETTERBOXED, SCORE, CLASS_ID
    return {
        "num_dets": np.array([[1]], np.int32),
        "det_boxes": boxes,
        "det_scores": scores,
        "det_classes": classes,
    }


def rtdetr_raw() -> Outputs:
    """Logits and relative boxes."""
    logits, boxes = _raw(CLASSES, -9.0)
    logits[0, 3, CLASS_ID] = _LOGIT
    return {"logits": logits, "pred_boxes": boxes}


def rtdetr_joined() -> Outputs:
    """Relative boxes and finished scores side by side."""
    _, boxes = _raw(CLASSES, 0.0)
    scores = np.zeros((1, QUERIES, CLASSES), np.float32)
    scores[0, 3, CLASS_ID] = SCORE
    return {"output0": np.concatenate([boxes, scores], axis=2)}


def finished() -> Outputs:
    """Labels, boxes in input pixels, scores."""
    boxes, scores = np.zeros((1, ROWS, 4), np.float32), np.zeros((1, ROWS), np.float32)
    labels = np.zeros((1, ROWS), np.int64)
    boxes[0, 0], scores[0, 0], labels[0, 0] = _STRETCHED, SCORE, CLASS_ID
    return {"labels": labels, "boxes": boxes, "scores": scores}


def rfdetr() -> Outputs:
    """One logit more than classes, the unused one high."""
    logits, boxes = _raw(CLASSES + 1, -9.0)
    logits[0, 3, CLASS_ID], logits[0, 5, CLASSES] = _LOGIT, 9.0
    return {"dets": boxes, "labels": logits}


def detr() -> Outputs:
    """All queries but one are "no object"."""
    logits, boxes = _raw(CLASSES + 1, -50.0)
    logits[0, :, CLASSES] = 0.0
    logits[0, 3, CLASS_ID] = _LOGIT
    return {"pred_logits": logits, "pred_boxes": boxes}


def _raw(classes: int, logit: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    boxes = np.full((1, QUERIES, 4), 0.01, np.float32)
    boxes[0, 3] = centered(_STRETCHED) / 64
    return np.full((1, QUERIES, classes), logit, np.float32), boxes


IMAGE = {"images": (1, 3, 64, 64)}
WITH_SIZES = {**IMAGE, "orig_target_sizes": (1, 2)}

CASES: Mapping[str, tuple[str, Callable[[], Outputs], Mapping[str, tuple[int, ...]]]] = {
    "yolov5": ("yolov5", yolov5, IMAGE),
    "yolov8": ("yolov8", yolov8, IMAGE),
    "yolov8 transposed": ("yolov8", yolov8_transposed, IMAGE),
    "yolov8-seg": ("yolov8-seg", yolov8_seg, IMAGE),
    "yolo-e2e": ("yolo-e2e", yolo_e2e, IMAGE),
    "yolo-nms": ("yolo-nms", yolo_nms, IMAGE),
    "rtdetr raw": ("rtdetr", rtdetr_raw, {"pixel_values": (1, 3, 64, 64)}),
    "rtdetr joined": ("rtdetr", rtdetr_joined, IMAGE),
    "rtdetr finished": ("rtdetr", finished, WITH_SIZES),
    "dfine": ("dfine", finished, WITH_SIZES),
    "rfdetr": ("rfdetr", rfdetr, {"input": (1, 3, 64, 64)}),
    "detr": ("detr", detr, {"inputs": (1, 3, 64, 64)}),
}
"""Name to family, outputs and inputs."""


def save_case(
    folder: Path,
    name: str,
    *,
    outputs: Outputs | None = None,
    tile_batch: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write the graph of a case; `outputs` replaces its own."""
    _, make, fixed = CASES[name]
    inputs: dict[str, tuple[Axis, ...]] = {
        key: ("batch", *shape[1:]) if tile_batch else shape for key, shape in fixed.items()
    }
    return save_constant_graph(
        folder / "model.onnx",
        outputs or make(),
        inputs=inputs,
        input_dtypes={"orig_target_sizes": np.int64},
        tile_batch=tile_batch,
        metadata=metadata,
    )
