"""EfficientSAM in two ONNX graphs, as its authors export them.

The encoder takes (1, 3, height, width) in [0, 1], normalises by itself and stretches the image
over 1024x1024; it is given that size, so that a photograph does not become 140 MB of floats. The
decoder takes at most six points, ignores any more, and has no idea of points beside the object.
Those prompts, and masks to refine, are refused rather than left out in silence.

Source: github.com/yformer/EfficientSAM (`EfficientSam.predict_masks`, `get_rescaled_pts`,
`PromptEncoder._embed_points`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel_models.detectors._onnx import PixelHabit
from prelabel_models.errors import ModelUnusableError, OptionError
from prelabel_models.segmenters._onnx import Encoded, PointSegmenter
from prelabel_models.segmenters._prompts import BESIDE, TOP_LEFT, Tokens
from prelabel_models.session import OnnxSession
from prelabel_models.transforms import Transform, stretch

_MOST = 6  # `decoder_max_num_input_points` of both published models


class EfficientSamSegmenter(PointSegmenter):
    """EfficientSAM in two ONNX graphs. Thread-safe."""

    HABIT = PixelHabit(resize="stretch", color="rgb", scale=1 / 255, default_size=(1024, 1024))
    PROMPT_INPUTS = frozenset(("batched_point_coords", "batched_point_labels", "orig_im_size"))
    MAX_TOKENS = _MOST

    def match_features(self, encoder: OnnxSession, decoder: OnnxSession) -> dict[str, int]:
        """See `PointSegmenter`."""
        if len(encoder.outputs) != 1 or "image_embeddings" not in {i.name for i in decoder.inputs}:
            raise ModelUnusableError(
                "model: expected one embedding between the graphs, the encoder gives "
                f"{', '.join(o.name for o in encoder.outputs)}, the decoder takes "
                f"{', '.join(i.name for i in decoder.inputs)}"
            )
        return {"image_embeddings": 0}

    def transform(self, image_size: tuple[int, int]) -> Transform:
        """See `PointSegmenter`."""
        return stretch(image_size, (self._side, self._side))

    def run_decoder(
        self, encoded: Encoded, tokens: Tokens, shape: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `PointSegmenter`.

        Raises:
            OptionError: Points beside the object, more than six points, or a mask.
        """
        _check(tokens, shape)
        cells = self._cells
        # Coordinates are those of an image of `orig_im_size`, which is also the size of the masks
        # that come back: the model's own grid for both, so that nothing is resized in the graph.
        grid = tokens.points_xy * (np.array([cells, cells]) / encoded.transform.image_size)
        # Negative numbers mean that there is no point.
        points = np.maximum(grid, 0).astype(np.float32)
        return self._decoder.run(
            {
                **encoded.features,
                "batched_point_coords": points[None, None],
                "batched_point_labels": tokens.labels[None, None],
                "orig_im_size": np.array([cells, cells], np.int64),
            }
        )


def _check(tokens: Tokens, shape: NDArray[np.float32] | None) -> None:
    if shape is not None:
        raise OptionError("prompts.shape", "prompts.shape: this model does not refine masks")
    if (tokens.labels == BESIDE).any():
        raise OptionError(
            "prompts.points", "prompts.points: this model takes only points on the object"
        )
    if len(tokens.labels) > _MOST:
        boxed = " and a box, which counts as two" if (tokens.labels == TOP_LEFT).any() else ""
        raise OptionError(
            "prompts.points",
            f"prompts.points: this model takes at most {_MOST} points, got "
            f"{len(tokens.labels) - (2 if boxed else 0)}{boxed}",
        )
