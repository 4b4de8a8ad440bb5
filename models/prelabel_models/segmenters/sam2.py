"""SAM 2 and 2.1 for single images, in the layouts of its two common exporters.

The image fills (1, 3, 1024, 1024) whatever its aspect ratio. The encoder gives an embedding of
64x64 cells and two finer feature maps of 256x256 and 128x128, named `image_embeddings`,
`high_res_features1`, `high_res_features2` or `image_embed`, `high_res_feats_0`,
`high_res_feats_1`.

Source: github.com/facebookresearch/sam2 (`SAM2Transforms`, `SAM2ImagePredictor`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel_models.detectors._onnx import PixelHabit
from prelabel_models.errors import ModelUnusableError
from prelabel_models.segmenters._onnx import Encoded, PointSegmenter
from prelabel_models.segmenters._prompts import NOTHING, Tokens
from prelabel_models.session import OnnxSession
from prelabel_models.transforms import Transform, stretch


class Sam2Segmenter(PointSegmenter):
    """SAM 2 in two ONNX graphs. Thread-safe."""

    HABIT = PixelHabit(
        resize="stretch",
        color="rgb",
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        default_size=(1024, 1024),
    )
    PROMPT_INPUTS = frozenset(
        ("point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")
    )

    def match_features(self, encoder: OnnxSession, decoder: OnnxSession) -> dict[str, int]:
        """See `PointSegmenter`; by name, and in order of fineness where the names differ."""
        given = _in_order([o.name for o in encoder.outputs])
        taken = _in_order([i.name for i in decoder.inputs if i.name not in self.PROMPT_INPUTS])
        if len(given) != 3 or len(taken) != 3:
            raise ModelUnusableError(
                "model: expected an embedding and two finer feature maps between the graphs, the "
                f"encoder gives {', '.join(given) or 'none'}, the decoder takes "
                f"{', '.join(taken) or 'none'}"
            )
        names = [o.name for o in encoder.outputs]
        return {to: names.index(source) for source, to in zip(given, taken, strict=True)}

    def transform(self, image_size: tuple[int, int]) -> Transform:
        """See `PointSegmenter`."""
        return stretch(image_size, (self._side, self._side))

    def run_decoder(
        self, encoded: Encoded, tokens: Tokens, shape: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `PointSegmenter`."""
        points, labels = encoded.transform.points_to_input(tokens.points_xy), tokens.labels
        if len(labels) == 0:  # `SAM2Base._forward_sam_heads` stands an empty point in
            points, labels = np.zeros((1, 2), np.float32), np.array([NOTHING], np.float32)
        cells = self._cells
        return self._decoder.run(
            {
                **encoded.features,
                "point_coords": points[None],
                "point_labels": labels[None],
                "mask_input": np.zeros((1, 1, cells, cells), np.float32)
                if shape is None
                else shape,
                "has_mask_input": np.array([shape is not None], np.float32),
                # The masks' own size: what the graph would resize stays as it is.
                "orig_im_size": np.array([cells, cells], np.int64),
            }
        )


def _in_order(names: list[str]) -> list[str]:
    """The embedding, then the features from fine to coarse; names of anything else left out."""
    features = sorted(name for name in names if name.startswith("high_res_feat"))
    return [name for name in names if name.startswith("image_embed")] + features
