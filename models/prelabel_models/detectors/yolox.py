"""YOLOX (Ge et al., 2021): anchor-free raw head, strides 8, 16, 32.

Graph: `(N, 3, H, W)` BGR 0-255, letterboxed to the top left with 114, to `(N, cells, 5 + classes)`
of (x, y, w, h, objectness, class scores) relative to the grid. Exports made with
`--decode_in_inference` give pixels instead and are recognised by their values' meaning in the
card: `family: yolox-decoded`.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.errors import ModelUnusableError

_STRIDES = (8, 16, 32)


class YoloxDetector(OnnxDetector):
    """Raw YOLOX head: the grid is decoded here."""

    HABIT: ClassVar[PixelHabit] = PixelHabit(resize="letterbox", color="bgr")
    DECODED: ClassVar[bool] = False

    def check_graph(self, card: ModelCard) -> int:
        """One output `(N, cells, 5 + classes)` with as many cells as the input size gives."""
        width, height = self._input_size
        self._cells, self._cell_strides = grid(width, height, _STRIDES)
        outputs = self._session.outputs
        shape = outputs[0].shape
        if len(outputs) != 1 or len(shape) != 3 or (shape[2] is not None and shape[2] < 6):
            raise ModelUnusableError(
                f"model: {card.family} expects one output (batch, cells, 5 + classes), "
                f"got {[o.shape for o in outputs]}"
            )
        if shape[1] is not None and shape[1] != len(self._cells):
            raise ModelUnusableError(
                f"model: {card.family} expects {len(self._cells)} cells for an input of "
                f"{width}x{height} (strides 8, 16, 32), got {shape[1]}"
            )
        return 0 if shape[2] is None else shape[2] - 5

    def decode(self, output: RawOutput) -> Candidates:
        """Grid offsets and log sizes to boxes; score = objectness x class score."""
        raw = np.asarray(output[0], np.float32)
        if raw.shape[0] != len(self._cells):
            raise ModelUnusableError(
                f"model: expected {len(self._cells)} cells, the run gave {raw.shape[0]}"
            )
        center, size = raw[:, :2], raw[:, 2:4]
        if not self.DECODED:
            center = (center + self._cells) * self._cell_strides
            # A wild log size overflows to infinity, which `select` refuses if the row matters.
            with np.errstate(over="ignore"):
                size = np.exp(size) * self._cell_strides
        boxes = np.concatenate([center - size / 2, center + size / 2], axis=1)
        return Candidates(boxes, raw[:, 4:5] * raw[:, 5:])


class YoloxDecodedDetector(YoloxDetector):
    """YOLOX exported with the grid decoded in the graph."""

    DECODED: ClassVar[bool] = True


def grid(
    width: int, height: int, strides: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cell corners and strides of a multi-level head, level by level, row by row.

    Returns:
        (cells, 2) x and y indices within the level, and (cells, 1) strides in pixels.
    """
    cells, sizes = [], []
    for stride in strides:
        y, x = np.meshgrid(np.arange(height // stride), np.arange(width // stride), indexing="ij")
        level = np.stack([x, y], axis=-1).reshape(-1, 2)
        cells.append(level)
        sizes.append(np.full((len(level), 1), stride))
    return (
        np.concatenate(cells).astype(np.float32),
        np.concatenate(sizes).astype(np.float32),
    )
