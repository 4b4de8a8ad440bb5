"""UltraFace (Linzaer, 2019): light face detector whose graph decodes its own priors.

Graph: `(N, 3, 240, 320)` RGB `(pixel - 127) / 128`, stretched, to scores `(N, priors, 2)` of
(background, face) probabilities and boxes `(N, priors, 4)` of corners relative to the input.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from prelabel_models.base import RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.errors import ModelUnusableError


class UltraFaceDetector(OnnxDetector):
    """Scores and boxes are told apart by their last axis, 2 or 4."""

    HABIT: ClassVar[PixelHabit] = PixelHabit(
        resize="stretch",
        color="rgb",
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        default_size=(320, 240),
    )

    def check_graph(self, card: ModelCard) -> int:
        """Two outputs, `(batch, priors, 2)` and `(batch, priors, 4)`, in either order."""
        shapes = [o.shape for o in self._session.outputs]
        lasts = [shape[-1] if len(shape) == 3 else None for shape in shapes]
        priors = {shape[1] for shape in shapes if len(shape) == 3} - {None}
        if sorted(last or 0 for last in lasts) != [2, 4] or len(priors) > 1:
            raise ModelUnusableError(
                f"model: {card.family} expects scores (batch, priors, 2) and boxes "
                f"(batch, priors, 4), got {shapes}"
            )
        self._scores_at, self._boxes_at = lasts.index(2), lasts.index(4)
        return 1

    def decode(self, output: RawOutput) -> Candidates:
        """The face column, and boxes scaled to the input."""
        scores = np.asarray(output[self._scores_at], np.float32)[:, 1:]
        corners = np.asarray(output[self._boxes_at], np.float32)
        boxes = corners * np.tile(np.asarray(self._input_size, np.float32), 2)
        return Candidates(boxes, scores)
