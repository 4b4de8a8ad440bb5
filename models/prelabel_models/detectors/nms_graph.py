"""Graphs that end in a suppression step with four outputs.

Graph: the input of `yolov8`; outputs, in any order, known by their names:

* `num_dets`, `num_detections` or `num_predictions`: `(N, 1)` or `(N,)`, rows that count;
* `det_boxes`, `boxes`, ...: `(N, K, 4)` of (x1, y1, x2, y2) in pixels of the input;
* `det_scores`, `scores`, ...: `(N, K)`;
* `det_classes`, `classes`, `labels`, ...: `(N, K)`.

Sources: NVIDIA/TensorRT `plugin/efficientNMSPlugin` (names and meaning of the four outputs);
WongKinYiu/yolov7 `export.py --end2end`; Deci-AI/super-gradients (`num_predictions`, `pred_boxes`,
`pred_scores`, `pred_classes`). A graph that holds TensorRT's plugin node itself runs only under
TensorRT; exports for ONNX Runtime use ONNX's own NonMaxSuppression.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from prelabel_models.base import RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._decode import class_indices, labels_needed, shapes
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.detectors.yolo import YOLO_HABIT
from prelabel_models.errors import ModelUnusableError

# Role to the parts of a name that give it away. The first output to match takes the role, so the
# count comes first: `num_det_boxes` is a count.
_ROLES = {
    "count": ("num",),
    "boxes": ("box",),
    "scores": ("score", "conf"),
    "classes": ("class", "label", "cls"),
}


class YoloNmsDetector(OnnxDetector):
    """Four outputs: count, boxes, scores, classes."""

    HABIT: ClassVar[PixelHabit] = YOLO_HABIT
    SUPPRESSES_IN_GRAPH: ClassVar[bool] = True

    def check_graph(self, card: ModelCard) -> int:
        """Four outputs that can be told by name; the labels come from the card."""
        outputs = self._session.outputs
        roles = output_roles([o.name for o in outputs])
        if roles is None or [len(outputs[roles[r]].shape) for r in ("boxes", "scores")] != [3, 2]:
            raise ModelUnusableError(
                f"model: {card.family} expects four outputs named num_dets, boxes (batch, rows, "
                f"4), scores (batch, rows) and classes (batch, rows), got {shapes(outputs)}"
            )
        self._roles = roles
        return labels_needed(card)

    def decode(self, output: RawOutput) -> Candidates:
        """The first `count` rows."""
        count, boxes, scores, classes = (output[self._roles[role]] for role in _ROLES)
        rows = int(np.asarray(count).reshape(-1)[0]) if np.size(count) else 0
        if not 0 <= rows <= len(scores) or boxes.shape != (len(scores), 4):
            raise ModelUnusableError(
                f"model: the graph counts {rows} objects, but gives {len(scores)} scores and "
                f"boxes of shape {boxes.shape}"
            )
        return Candidates(
            np.asarray(boxes[:rows], np.float32),
            np.asarray(scores[:rows], np.float32),
            class_ids=class_indices(classes[:rows]),
        )


def output_roles(names: list[str]) -> dict[str, int] | None:
    """Role (`count`, `boxes`, `scores`, `classes`) to output index; None if one is missing.

    Example:
        >>> output_roles(["num_dets", "det_boxes", "det_scores", "det_classes"])["scores"]
        2
    """
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        for role, hints in _ROLES.items():
            if role not in found and any(hint in name.lower() for hint in hints):
                found[role] = index
                break
    return found if len(names) == len(found) == len(_ROLES) else None
