"""FastestDet (dog-qiuqiu, 2022): one map at stride 16, one box for each cell.

Graph: `(N, 3, H, W)` BGR / 255, stretched, to `(N, 5 + classes, H / 16, W / 16)`: objectness
(sigmoid inside the graph), box (raw), class probabilities (softmax inside the graph).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.detectors.yolox import grid
from prelabel_models.errors import ModelUnusableError

_STRIDE = 16


class FastestDetDetector(OnnxDetector):
    """The box of cell (x, y): centre `(x + tanh(a)) / columns`, width `sigmoid(c)` of the input."""

    HABIT: ClassVar[PixelHabit] = PixelHabit(
        resize="stretch", color="bgr", scale=1 / 255, default_size=(352, 352)
    )

    def check_graph(self, card: ModelCard) -> int:
        """One output `(batch, 5 + classes, rows, columns)` at stride 16."""
        width, height = self._input_size
        self._map_size = (height // _STRIDE, width // _STRIDE)
        self._cells, _ = grid(width, height, (_STRIDE,))
        outputs = self._session.outputs
        shape = outputs[0].shape
        if len(outputs) != 1 or len(shape) != 4 or (shape[1] is not None and shape[1] < 6):
            raise ModelUnusableError(
                f"model: {card.family} expects one output (batch, 5 + classes, rows, columns), "
                f"got {[o.shape for o in outputs]}"
            )
        if any(
            got not in (None, want) for got, want in zip(shape[2:], self._map_size, strict=True)
        ):
            raise ModelUnusableError(
                f"model: {card.family} expects a map of {self._map_size} rows and columns for an "
                f"input of {width}x{height} (stride 16), got {shape[2:]}"
            )
        return 0 if shape[1] is None else shape[1] - 5

    def decode(self, output: RawOutput) -> Candidates:
        """Score = objectness x class probability, as in the author's runtime example."""
        raw = np.asarray(output[0], np.float32)
        if raw.shape[1:] != self._map_size:
            raise ModelUnusableError(
                f"model: expected a map of {self._map_size}, the run gave {raw.shape[1:]}"
            )
        rows = raw.reshape(raw.shape[0], -1).T
        map_wh = np.asarray(self._map_size[::-1], np.float32)
        input_wh = np.asarray(self._input_size, np.float32)
        center = (self._cells + np.tanh(rows[:, 1:3])) / map_wh * input_wh
        size = sigmoid(rows[:, 3:5]) * input_wh
        boxes = np.concatenate([center - size / 2, center + size / 2], axis=1)
        return Candidates(boxes, rows[:, :1] * rows[:, 5:])


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logistic function, without overflow for large negative values."""
    out: NDArray[np.float32] = 0.5 * (1.0 + np.tanh(0.5 * values))
    return out
