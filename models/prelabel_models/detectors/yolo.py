"""YOLO heads that are decoded in the graph: v5 to v12, with or without suppression inside.

Input: `(N, 3, H, W)` RGB 0-1, letterboxed to the middle with 114, 640x640 unless the graph says
otherwise. Outputs, all in pixels of the input:

* `yolov5` (also v7): `(N, boxes, 5 + classes)` of (cx, cy, w, h, objectness, class scores); the
  score is objectness x class score. Exports before v6.1 list the three raw maps behind it.
* `yolov8` (also v9, 11, 12): `(N, 4 + classes, boxes)` of (cx, cy, w, h, class scores), or its
  transpose.
* `yolo-e2e` (v10, 26, and exports with `nms=True`): `(N, K, 6)` of (x1, y1, x2, y2, score,
  class), suppressed in the graph.

Sources: ultralytics/yolov5 `export.py` and `models/yolo.py`; ultralytics/ultralytics
`engine/exporter.py` (`export_onnx`, `NMSModel`), `nn/modules/head.py` and `data/augment.py`
(`LetterBox`).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from prelabel_models.base import RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._decode import (
    class_indices,
    cxcywh_to_xyxy,
    labels_needed,
    shapes,
)
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.errors import ModelUnusableError

YOLO_HABIT = PixelHabit(resize="letterbox_center", color="rgb", scale=1 / 255)

_STRIDES = (8, 16, 32)


class Yolov5Detector(OnnxDetector):
    """YOLOv5 and v7: boxes, objectness and class scores per row."""

    HABIT: ClassVar[PixelHabit] = YOLO_HABIT

    def check_graph(self, card: ModelCard) -> int:
        """One output `(batch, boxes, 5 + classes)`, and none other but raw maps of rank 5."""
        first, *rest = self._session.outputs
        shape = first.shape
        fits = len(shape) == 3 and (shape[2] is None or shape[2] > 5)
        if not fits or any(len(o.shape) != 5 for o in rest):
            raise ModelUnusableError(
                f"model: {card.family} expects one output (batch, boxes, 5 + classes), "
                f"got {shapes(self._session.outputs)}"
            )
        return labels_needed(card) if shape[2] is None else shape[2] - 5

    def decode(self, output: RawOutput) -> Candidates:
        """Corners from centres; score = objectness x class score."""
        raw = np.asarray(output[0], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # `select` refuses what comes of it
            scores = raw[:, 4:5] * raw[:, 5:]
        return Candidates(cxcywh_to_xyxy(raw[:, :4]), scores)


class Yolov8Detector(OnnxDetector):
    """YOLOv8, v9, 11 and 12: boxes and class scores, no objectness; either axis order."""

    HABIT: ClassVar[PixelHabit] = YOLO_HABIT
    EXTRA_CHANNELS: ClassVar[int] = 0

    def check_graph(self, card: ModelCard) -> int:
        """One output `(batch, 4 + classes, boxes)` or `(batch, boxes, 4 + classes)`."""
        outputs = self._session.outputs
        if len(outputs) != 1 or len(outputs[0].shape) != 3:
            raise ModelUnusableError(
                f"model: {card.family} expects one output (batch, 4 + classes, boxes), "
                f"got {shapes(outputs)}"
            )
        return self.find_layout(card)

    def find_layout(self, card: ModelCard) -> int:
        """Which axis of the first output holds the channels, and how many classes they are."""
        shape = self._session.outputs[0].shape
        other = 4 + self.EXTRA_CHANNELS
        labels = len(card.label_names())
        axis = channel_axis(
            (shape[1], shape[2]), self._input_size, other + labels if labels else None
        )
        self._channels_last = axis == 1
        channels = shape[1 + axis]
        classes = labels_needed(card) if channels is None else channels - other
        if classes < 1:
            raise ModelUnusableError(
                f"model: {card.family} expects {other} + classes channels, got {channels}"
            )
        return classes

    def rows(self, output: RawOutput) -> Candidates:
        """The first output as rows: boxes, class scores, and what comes behind them."""
        raw = np.asarray(output[0], np.float32)
        if not self._channels_last:
            raw = raw.T
        end = 4 + len(self._info.labels)
        if raw.shape[1] != end + self.EXTRA_CHANNELS:
            raise ModelUnusableError(
                f"model: expected {end + self.EXTRA_CHANNELS} channels, the run gave {raw.shape[1]}"
            )
        return Candidates(cxcywh_to_xyxy(raw[:, :4]), raw[:, 4:end], mask_coefficients=raw[:, end:])

    def decode(self, output: RawOutput) -> Candidates:
        """Corners from centres; the class scores are the scores."""
        return self.rows(output)


class YoloE2eDetector(OnnxDetector):
    """Heads that end in one finished row per object."""

    HABIT: ClassVar[PixelHabit] = YOLO_HABIT
    SUPPRESSES_IN_GRAPH: ClassVar[bool] = True

    def check_graph(self, card: ModelCard) -> int:
        """One output `(batch, rows, 6)`; the labels come from the card."""
        outputs = self._session.outputs
        shape = outputs[0].shape
        if len(outputs) != 1 or len(shape) != 3 or shape[2] not in (6, None):
            raise ModelUnusableError(
                f"model: {card.family} expects one output (batch, rows, 6) of "
                f"x1, y1, x2, y2, score, class, got {shapes(outputs)}"
            )
        return labels_needed(card)

    def decode(self, output: RawOutput) -> Candidates:
        """The rows as they are."""
        raw = np.asarray(output[0], np.float32)
        if raw.shape[1] != 6:
            raise ModelUnusableError(f"model: expected 6 numbers per row, got {raw.shape[1]}")
        return Candidates(raw[:, :4], raw[:, 4], class_ids=class_indices(raw[:, 5]))


def channel_axis(
    axes: tuple[int | None, int | None], input_size: tuple[int, int], expected: int | None
) -> int:
    """Which of the two axes behind the batch holds the channels: 0 or 1.

    An axis as long as the card's labels ask for wins, then the one that is not the number of grid
    cells; if neither tells, the shorter one, and the usual order 0 where even that is unknown.

    Args:
        axes: Lengths; None where the axis varies.
        input_size: (width, height) of the input in pixels.
        expected: Channels by the card's labels; None without labels.

    Example:
        >>> channel_axis((84, 8400), (640, 640), None), channel_axis((None, 84), (640, 640), None)
        (0, 1)
    """
    first, second = axes
    for wanted, holds in ((expected, True), (cell_count(input_size), False)):
        if wanted is not None and (first == wanted) != (second == wanted):
            return 0 if (first == wanted) == holds else 1
    if first is None or second is None:
        # A fixed length beside a varying one is the channels: the boxes follow the input size.
        return 1 if second is not None else 0
    return 0 if first <= second else 1


def cell_count(input_size: tuple[int, int], strides: tuple[int, ...] = _STRIDES) -> int:
    """Grid cells of all levels for an input of (width, height) pixels."""
    return sum((input_size[0] // s) * (input_size[1] // s) for s in strides)
