"""NanoDet (RangiLyu, 2020): anchor-free, each side of a box is a distribution over distances.

Graph: `(N, 3, H, W)` BGR, mean and deviation of ImageNet, to `cls_pred_stride_S`
`(N, cells, classes)` of probabilities and `dis_pred_stride_S` `(N, cells, 4 * bins)` of logits for
each stride S. The distance from a cell's point to a side is the expectation of the softmax over
0 .. bins - 1, in strides (Li et al., Generalized Focal Loss, 2020). NanoDet-Plus joins all strides
and both parts in one output `(N, cells, classes + 4 * 8)`.
"""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.errors import ModelUnusableError

_NAME = re.compile(r"(cls|dis)_pred_stride_(\d{1,3})")
_PLUS_STRIDES = (8, 16, 32, 64)
_PLUS_BINS = 8  # reg_max 7 in every published NanoDet-Plus configuration
# NanoDet predicts from the middle of a cell, NanoDet-Plus from its corner.
_POINT, _PLUS_POINT = 0.5, 0.0


class NanodetDetector(OnnxDetector):
    """Both generations; they are told apart by the number of outputs."""

    HABIT: ClassVar[PixelHabit] = PixelHabit(
        resize="letterbox_center",
        color="bgr",
        pad_value=0,
        mean=(103.53, 116.28, 123.675),
        std=(57.375, 57.12, 58.395),
        default_size=(320, 320),
    )

    def check_graph(self, card: ModelCard) -> int:
        """One output of NanoDet-Plus, or a class and a distance map for each stride."""
        outputs = self._session.outputs
        if len(outputs) == 1:
            return self._check_plus(card)
        found = {m.groups(): at for at, o in enumerate(outputs) if (m := _NAME.fullmatch(o.name))}
        strides = sorted({int(stride) for _, stride in found})
        pairs = [(found.get(("cls", str(s))), found.get(("dis", str(s)))) for s in strides]
        self._pairs = [(c, d) for c, d in pairs if c is not None and d is not None]
        if not strides or 2 * len(self._pairs) != len(outputs):
            raise ModelUnusableError(
                f"model: {card.family} expects the outputs cls_pred_stride_S and dis_pred_stride_S "
                f"for each stride S, or one joined output, got {', '.join(o.name for o in outputs)}"
            )
        self._points, self._strides = _points(self._input_size, strides, _POINT)
        classes = {outputs[c].shape[-1:] for c, _ in self._pairs}
        widths = {outputs[d].shape[-1:] for _, d in self._pairs}
        (size,) = next(iter(classes)) or (None,)
        (width,) = next(iter(widths)) or (None,)
        if len(classes) > 1 or len(widths) > 1 or width is None or width % 4 or width < 8:
            raise ModelUnusableError(
                f"model: {card.family} expects class maps (batch, cells, classes) and distance "
                f"maps (batch, cells, 4 * bins), got {[o.shape for o in outputs]}"
            )
        self._bins = width // 4
        for (at, other), stride in zip(self._pairs, strides, strict=True):
            cells = int(np.count_nonzero(self._strides == stride))
            for shape in (outputs[at].shape, outputs[other].shape):
                if len(shape) != 3 or shape[1] not in (None, cells):
                    raise ModelUnusableError(
                        f"model: {card.family} expects (batch, {cells}, ...) at stride {stride} "
                        f"for an input of {self._input_size[0]}x{self._input_size[1]}, got {shape}"
                    )
        return size or 0

    def decode(self, output: RawOutput) -> Candidates:
        """Distances to boxes; the class probability is the score."""
        if self._pairs:
            scores = np.concatenate([np.asarray(output[c], np.float32) for c, _ in self._pairs])
            sides = np.concatenate([np.asarray(output[d], np.float32) for _, d in self._pairs])
        else:
            joined = np.asarray(output[0], np.float32)
            scores, sides = np.split(joined, [joined.shape[1] - 4 * _PLUS_BINS], axis=1)
        if len(scores) != len(self._points) or len(sides) != len(self._points):
            raise ModelUnusableError(
                f"model: expected {len(self._points)} cells, the run gave {len(scores)} scores "
                f"and {len(sides)} boxes"
            )
        distances = _expectation(sides.reshape(-1, 4, self._bins)) * self._strides
        boxes = np.concatenate(
            [self._points - distances[:, :2], self._points + distances[:, 2:]], axis=1
        )
        return Candidates(boxes, scores)

    def _check_plus(self, card: ModelCard) -> int:
        shape = self._session.outputs[0].shape
        self._pairs, self._bins = [], _PLUS_BINS
        self._points, self._strides = _points(self._input_size, _PLUS_STRIDES, _PLUS_POINT)
        least = 4 * _PLUS_BINS + 1
        if (
            len(shape) != 3
            or shape[1] not in (None, len(self._points))
            or (shape[2] is not None and shape[2] < least)
        ):
            raise ModelUnusableError(
                f"model: {card.family} with one output expects (batch, {len(self._points)}, "
                f"classes + {least - 1}) for an input of {self._input_size[0]}x"
                f"{self._input_size[1]} (strides 8, 16, 32, 64), got {shape}"
            )
        return 0 if shape[2] is None else shape[2] - least + 1


def _points(
    input_size: tuple[int, int], strides: list[int] | tuple[int, ...], shift: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points that boxes are measured from, (cells, 2) in pixels, and strides, (cells, 1)."""
    points, sizes = [], []
    for stride in strides:
        columns, rows = (-(-side // stride) for side in input_size)  # padded convolutions round up
        y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        level = (np.stack([x, y], axis=-1).reshape(-1, 2) + shift) * stride
        points.append(level)
        sizes.append(np.full((len(level), 1), stride))
    return np.concatenate(points).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def _expectation(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean bin of each softmax: (..., bins) to (...)."""
    # The largest logit is subtracted so that `exp` cannot overflow.
    # Infinite logits become NaN boxes, which `select` refuses if the row matters.
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    bins = np.arange(logits.shape[-1], dtype=np.float32)
    mean: NDArray[np.float32] = (weights @ bins) / weights.sum(axis=-1)
    return mean
