"""YuNet (Wu et al., 2023; `face_detection_yunet` of OpenCV Zoo): faces with five key points.

Graph: `(1, 3, H, W)` BGR 0-255, to `cls_S`, `obj_S`, `bbox_S` and `kps_S` for the strides S of 8,
16 and 32: `(1, cells, 1)`, `(1, cells, 1)`, `(1, cells, 4)` and `(1, cells, 10)`. The key points
are right eye, left eye, nose tip, right and left corner of the mouth, as the person has them.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from prelabel_models.base import RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.detectors.yolox import grid
from prelabel_models.errors import ModelUnusableError, NonFiniteOutputError

_STRIDES = (8, 16, 32)
_WIDTHS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


class YunetDetector(OnnxDetector):
    """Outputs are found by their names; the score is `sqrt(cls x obj)`, as OpenCV computes it."""

    # OpenCV pads with black to the right and below.
    HABIT: ClassVar[PixelHabit] = PixelHabit(resize="letterbox", color="bgr", pad_value=0)

    def check_graph(self, card: ModelCard) -> int:
        """Twelve outputs with the names and shapes of the module's text."""
        width, height = self._input_size
        if width % 32 or height % 32:
            raise ModelUnusableError(
                f"model: {card.family} expects an input whose sides divide by 32, "
                f"got {width}x{height}"
            )
        self._cells, self._cell_strides = grid(width, height, _STRIDES)
        outputs = {o.name: (at, o.shape) for at, o in enumerate(self._session.outputs)}
        wanted = [f"{kind}_{stride}" for kind in _WIDTHS for stride in _STRIDES]
        missing = [name for name in wanted if name not in outputs]
        if missing:
            raise ModelUnusableError(
                f"model: {card.family} expects the outputs {', '.join(wanted)}; "
                f"missing: {', '.join(missing)}"
            )
        for kind, size in _WIDTHS.items():
            for stride in _STRIDES:
                shape = outputs[f"{kind}_{stride}"][1]
                cells = (width // stride) * (height // stride)
                if len(shape) != 3 or shape[1] not in (None, cells) or shape[2] not in (None, size):
                    raise ModelUnusableError(
                        f"model: {card.family} expects {kind}_{stride} of (batch, {cells}, {size}) "
                        f"for an input of {width}x{height}, got {shape}"
                    )
        self._at = {kind: [outputs[f"{kind}_{s}"][0] for s in _STRIDES] for kind in _WIDTHS}
        return 1

    def decode(self, output: RawOutput) -> Candidates:
        """Grid offsets and log sizes to boxes and key points."""
        parts = {
            kind: np.concatenate([np.asarray(output[i], np.float32) for i in at]).reshape(-1, width)
            for (kind, at), width in zip(self._at.items(), _WIDTHS.values(), strict=True)
        }
        if any(len(part) != len(self._cells) for part in parts.values()):
            raise ModelUnusableError(
                f"model: expected {len(self._cells)} cells, the run gave "
                f"{[len(part) for part in parts.values()]}"
            )
        if not (np.isfinite(parts["cls"]).all() and np.isfinite(parts["obj"]).all()):
            raise NonFiniteOutputError("model: a score is NaN or infinite")
        # The graph's sigmoids may be off by rounding; OpenCV clamps them too.
        scores = np.sqrt(np.clip(parts["cls"], 0, 1) * np.clip(parts["obj"], 0, 1))
        center = (parts["bbox"][:, :2] + self._cells) * self._cell_strides
        # A wild log size overflows to infinity, which `select` refuses if the row matters.
        with np.errstate(over="ignore"):
            size = np.exp(parts["bbox"][:, 2:]) * self._cell_strides
        points = parts["kps"].reshape(-1, 5, 2) + self._cells[:, None, :]
        return Candidates(
            boxes_xyxy=np.concatenate([center - size / 2, center + size / 2], axis=1),
            scores=scores,
            key_points=points * self._cell_strides[:, None, :],
        )
