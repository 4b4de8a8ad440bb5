"""Graphs in the manner of TensorFlow's detection API: boxes, scores and classes as outputs.

Outputs are found by their names, case ignored: boxes hold `box`, scores `score`, classes `class`
or `label`, the optional count `num`. What they mean follows three rules:

* Corners are (y1, x1, y2, x2), relative to the input, where the boxes' name holds
  `detection_boxes`, as TensorFlow's exporters write it. Else (x1, y1, x2, y2).
* Corners in x-first order are relative where none of an image's rows reaches past 2, else pixels
  of the input. (Relative corners may reach a little over 1; an object of 2 pixels is none.)
* Classes are indices into the card's labels. Graphs that count from 1 therefore need labels whose
  first is the background, such as `coco91`.

Graphs without classes whose scores are `(N, boxes, 1 + classes)`, background first, have not
suppressed anything yet; that is then done here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import Prepared, RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.errors import CardError, ModelUnusableError, NonFiniteOutputError
from prelabel_models.session import SessionOptions, TensorInfo, open_session

_HINTS = {"boxes": ("box",), "scores": ("score",), "classes": ("class", "label"), "count": ("num",)}
# TensorFlow 2 exports raw and multiclass outputs beside these, whose names hold the same hints.
_EXACT = {
    "boxes": "detection_boxes",
    "scores": "detection_scores",
    "classes": "detection_classes",
    "count": "num_detections",
}
_MOST_RELATIVE = 2.0


class SsdDetector(OnnxDetector):
    """Boxes that the graph has selected itself. Inputs may be NHWC and uint8, as TensorFlow's."""

    # Raw 8-bit values: TensorFlow's exports normalise inside; the card says where one does not.
    HABIT: ClassVar[PixelHabit] = PixelHabit(resize="stretch", color="rgb", default_size=(320, 320))
    SUPPRESSES_IN_GRAPH: ClassVar[bool] = True

    @classmethod
    def from_files(
        cls, card: ModelCard, files: Mapping[str, Path], options: SessionOptions
    ) -> SsdDetector:
        """Open the graph and choose between the finished and the unsuppressed kind.

        Raises:
            CardError: The role `model` is missing.
            ModelUnusableError: The graph does not fit.
        """
        if "model" not in files:
            raise CardError(f"card: files: expected the role 'model', got {', '.join(files)}")
        session = open_session(files["model"], options)
        finished = "classes" in _roles(session.outputs)
        return (SsdDetector if finished else SsdUnsuppressedDetector)(card, session)

    def infer(self, batch: Sequence[Prepared]) -> list[RawOutput]:
        """See `base.Detector`; graphs without a batch axis in their outputs run one by one."""
        tensors = [self._fed(item.tensor) for item in batch]
        if self._batched_outputs:
            return self._session.run_stacked(tensors)
        name = self._session.inputs[0].name
        return [tuple(self._session.run({name: tensor[None]})) for tensor in tensors]

    def check_graph(self, card: ModelCard) -> int:
        """Boxes, scores and classes by name, with fitting shapes; labels are the card's."""
        self._find_outputs(card, ("boxes", "scores", "classes"))
        if not card.label_names():
            raise CardError(
                f"card: labels: {card.family} graphs do not tell their classes; expected a list or "
                "the name of a label set, got none"
            )
        return 0

    def decode(self, output: RawOutput) -> Candidates:
        """Rows up to the count, as boxes in input pixels with the class that the graph named."""
        scores = np.asarray(output[self._at["scores"]], np.float32).reshape(-1)
        named = np.asarray(output[self._at["classes"]]).reshape(-1)
        boxes = self._corners(output)
        if not len(scores) == len(named) == len(boxes):
            raise ModelUnusableError(
                f"model: expected as many boxes as scores and classes, the run gave {len(boxes)}, "
                f"{len(scores)} and {len(named)}"
            )
        used = self._count(output, len(scores))
        if not np.isfinite(named[:used]).all():
            raise NonFiniteOutputError("model: a class is NaN or infinite")
        ids = np.rint(named[:used]).astype(np.int64)  # TensorFlow gives classes as floats
        return Candidates(self._scaled(boxes[:used]), scores[:used], class_ids=ids)

    def _find_input_size(self, card: ModelCard) -> tuple[int, int]:
        info = self._session.inputs[0]
        self._channels_last = len(info.shape) == 4 and info.shape[3] == 3 and info.shape[1] != 3
        self._bytes = info.dtype == "tensor(uint8)"
        own = card.preprocess
        if self._bytes and (own.scale, own.mean, own.std) != (None, None, None):
            raise CardError(
                "card: preprocess: the graph takes 8-bit values; expected no scale, mean or std"
            )
        if self._channels_last:
            return self._agreed_size(card, info.shape[2], info.shape[1])
        return super()._find_input_size(card)

    def _find_outputs(self, card: ModelCard, needed: tuple[str, ...]) -> None:
        outputs = self._session.outputs
        self._at = _roles(outputs)
        if any(role not in self._at for role in needed):
            raise ModelUnusableError(
                f"model: {card.family} expects outputs whose names tell boxes, scores and classes, "
                f"got {', '.join(o.name for o in outputs)}"
            )
        boxes = outputs[self._at["boxes"]]
        if len(boxes.shape) not in (2, 3) or boxes.shape[-1] not in (4, None):
            raise ModelUnusableError(
                f"model: {card.family} expects boxes of (batch, boxes, 4), got {boxes.shape}"
            )
        self._batched_outputs = len(boxes.shape) == 3
        self._y_first = _EXACT["boxes"] in boxes.name.lower()

    def _fed(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        fed = tensor.transpose(1, 2, 0) if self._channels_last else tensor
        # Pixels are whole numbers here, so that the cast loses nothing.
        return fed.astype(np.uint8) if self._bytes else fed

    def _corners(self, output: RawOutput) -> NDArray[np.float32]:
        boxes = np.asarray(output[self._at["boxes"]], np.float32)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ModelUnusableError(
                f"model: expected boxes of (boxes, 4), the run gave {boxes.shape}"
            )
        return boxes[:, [1, 0, 3, 2]] if self._y_first else boxes

    def _count(self, output: RawOutput, rows: int) -> int:
        if "count" not in self._at:
            return rows
        value = float(np.asarray(output[self._at["count"]]).reshape(-1)[0])
        if not np.isfinite(value):
            raise NonFiniteOutputError("model: the count is NaN or infinite")
        if not 0 <= value <= rows:
            raise ModelUnusableError(
                f"model: expected a count of 0 to {rows}, the run gave {value}"
            )
        return int(value)

    def _scaled(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        finite = boxes[np.isfinite(boxes)]
        relative = self._y_first or finite.size == 0 or float(finite.max()) <= _MOST_RELATIVE
        if not relative:
            return boxes
        return boxes * np.tile(np.asarray(self._input_size, np.float32), 2)


class SsdUnsuppressedDetector(SsdDetector):
    """Boxes and a score for each class, background first."""

    SUPPRESSES_IN_GRAPH: ClassVar[bool] = False

    def check_graph(self, card: ModelCard) -> int:
        """Boxes `(batch, boxes, 4)` and scores `(batch, boxes, 1 + classes)`."""
        self._find_outputs(card, ("boxes", "scores"))
        shape = self._session.outputs[self._at["scores"]].shape
        if not self._batched_outputs or len(shape) != 3 or (shape[2] is not None and shape[2] < 2):
            raise ModelUnusableError(
                f"model: {card.family} without classes expects scores (batch, boxes, 1 + classes), "
                f"got {shape}"
            )
        return 0 if shape[2] is None else shape[2] - 1

    def decode(self, output: RawOutput) -> Candidates:
        """All rows, without the background's column."""
        scores = np.asarray(output[self._at["scores"]], np.float32)[:, 1:]
        boxes = self._corners(output)
        if len(scores) != len(boxes):
            raise ModelUnusableError(
                f"model: expected as many boxes as scores, the run gave {len(boxes)} and "
                f"{len(scores)}"
            )
        return Candidates(self._scaled(boxes), scores)


def _roles(outputs: Sequence[TensorInfo]) -> dict[str, int]:
    """Role to position; a name that holds several hints has the first role that is still free."""
    names = [output.name.lower() for output in outputs]
    found = {role: names.index(name) for role, name in _EXACT.items() if name in names}
    if {"boxes", "scores", "classes"} <= set(found):
        return found
    found = {}
    for at, name in enumerate(names):
        for role, hints in _HINTS.items():
            if role not in found and any(hint in name for hint in hints):
                found[role] = at
                break
    return found
