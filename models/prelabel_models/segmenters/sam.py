"""Segment Anything and what keeps its interface: SAM, MobileSAM, 8-bit versions of both.

Roles: `encoder`, `decoder`, and as this project's exporter writes it `clicks`: the decoder for
prompts without a mask, which takes terms that the encoder has computed from the image alone.

The encoder takes (1, 3, 1024, 1024) normalised pixels, or (height, width, 3) raw ones where the
graph normalises and pads by itself (samexporter), and gives (1, 256, 64, 64). The decoder is the
stock exporter's, with or without the masks of the image's size, which are never computed here.

Source: github.com/facebookresearch/segment-anything (`ResizeLongestSide`, `SamPredictor`,
`Sam.postprocess_masks`, `SamOnnxModel`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import PixelHabit
from prelabel_models.errors import ModelUnusableError
from prelabel_models.masks import Mask
from prelabel_models.segmenters._graphs import Decoder, open_decoder
from prelabel_models.segmenters._onnx import Encoded, PointSegmenter, resized, scaled_mask
from prelabel_models.segmenters._prompts import BOTTOM_RIGHT, NOTHING, Tokens
from prelabel_models.session import OnnxSession, SessionOptions
from prelabel_models.transforms import Transform
from prelabel_models.types import RgbImage


class SamSegmenter(PointSegmenter):
    """SAM in two ONNX graphs. Thread-safe."""

    HABIT = PixelHabit(
        resize="letterbox",
        color="rgb",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        default_size=(1024, 1024),
    )
    PROMPT_INPUTS = frozenset(
        ("point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")
    )
    CORNERS_FIRST = False

    _clicks: Decoder | None = None

    @classmethod
    def from_files(
        cls, card: ModelCard, files: Mapping[str, Path], options: SessionOptions
    ) -> Self:
        """See `PointSegmenter`; also takes the role `clicks`."""
        segmenter = super().from_files(card, files, options)
        if "clicks" in files:
            try:
                segmenter._add_clicks(open_decoder(files["clicks"], options))
            except BaseException:
                segmenter.close()
                raise
        return segmenter

    def close(self) -> None:
        """See `base.Segmenter`."""
        super().close()
        if self._clicks is not None:
            self._clicks.session.close()

    def find_side(self, card: ModelCard) -> int:
        """See `PointSegmenter`; a graph of (height, width, 3) has the largest side it takes."""
        shape = self._encoder.inputs[0].shape
        if len(self._encoder.inputs) == 1 and len(shape) == 3 and shape[2] == 3:
            return card.preprocess.width or self._habit.default_size[0]
        return super().find_side(card)

    def match_features(self, encoder: OnnxSession, decoder: OnnxSession) -> dict[str, int]:
        """See `PointSegmenter`."""
        names = [o.name for o in encoder.outputs]
        index = names.index("image_embeddings") if "image_embeddings" in names else 0
        first = encoder.outputs[index]
        if (len(names) != 1 and first.name != "image_embeddings") or len(first.shape) != 4:
            raise ModelUnusableError(
                "files.encoder: expected one output of shape (1, 256, 64, 64), got "
                f"{', '.join(str(o.shape) for o in encoder.outputs)}"
            )
        wanted = next((i for i in decoder.inputs if i.name == "image_embeddings"), None)
        if wanted is None:
            raise ModelUnusableError(
                "files.decoder: expected an input 'image_embeddings', got "
                f"{', '.join(i.name for i in decoder.inputs)}"
            )
        pairs = zip(first.shape[1:], wanted.shape[1:], strict=False)
        if any(a != b for a, b in pairs if a is not None and b is not None):
            raise ModelUnusableError(
                f"files.decoder: expected an embedding of {first.shape} as the encoder gives it, "
                f"the graph takes {wanted.shape}"
            )
        return {"image_embeddings": index}

    def check_decoder(self, decoder: Decoder) -> None:
        """See `PointSegmenter`; padding makes masks of another size useless."""
        super().check_decoder(decoder)
        if not decoder.gives_low_res:
            raise ModelUnusableError("files.decoder: expected an output 'low_res_masks'")

    def transform(self, image_size: tuple[int, int]) -> Transform:
        """`ResizeLongestSide`: the longer side fills the input, the shorter one is rounded."""
        width, height = image_size
        fixed = self._fixed_size()
        limits = fixed or (self._side, self._side)
        ratio = min(limits[0] / width, limits[1] / height)
        content = (
            min(max(1, int(width * ratio + 0.5)), limits[0]),
            min(max(1, int(height * ratio + 0.5)), limits[1]),
        )
        scale = (content[0] / width, content[1] / height)
        return Transform(image_size, (self._side, self._side), content, (0, 0), scale)

    def tensor(self, image: RgbImage, transform: Transform) -> NDArray[np.float32]:
        """See `PointSegmenter`."""
        if len(self._encoder.inputs[0].shape) == 4:
            return super().tensor(image, transform)
        content = resized(image, transform.content_size).astype(np.float32)
        fixed = self._fixed_size()
        if fixed is None or transform.content_size == fixed:
            return content
        canvas = np.zeros((fixed[1], fixed[0], 3), np.float32)
        canvas[: content.shape[0], : content.shape[1]] = content
        return canvas

    def run_decoder(
        self, encoded: Encoded, tokens: Tokens, shape: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `PointSegmenter`."""
        points = encoded.transform.points_to_input(tokens.points_xy)
        labels = tokens.labels
        # `PromptEncoder._embed_points` ends clicks without a box in an empty token, and gives a
        # mask on its own no token at all.
        if len(labels) and not (labels == BOTTOM_RIGHT).any():
            points = np.concatenate([points, np.zeros((1, 2), np.float32)])
            labels = np.append(labels, np.float32(NOTHING))
        feeds = {**encoded.features, "point_coords": points[None], "point_labels": labels[None]}
        if shape is None and self._clicks is not None:
            return self._clicks.run(feeds)
        width, height = encoded.transform.content_size
        return self._decoder.run(
            {
                **feeds,
                "mask_input": self._no_mask() if shape is None else shape,
                "has_mask_input": np.array([shape is not None], np.float32),
                # Read only where the graph could not be cut; then as small as it gets.
                "orig_im_size": np.array([height, width], np.float32),
            }
        )

    def draw(self, logits: NDArray[np.float32], transform: Transform) -> Mask:
        """`Sam.postprocess_masks`: up to the input, padding off, then to the image."""
        columns, rows = transform.content_size
        large = cv2.resize(logits, transform.input_size, interpolation=cv2.INTER_LINEAR)
        return scaled_mask(np.asarray(large[:rows, :columns], np.float32), transform.image_size)

    def _add_clicks(self, session: OnnxSession) -> None:
        """Use a graph for prompts without a mask; its image terms are outputs of the encoder."""
        given = {o.name: index for index, o in enumerate(self._encoder.outputs)}
        terms = [i.name for i in session.inputs if i.name not in self.PROMPT_INPUTS]
        missing = [name for name in terms if name not in given]
        if missing:
            session.close()
            raise ModelUnusableError(
                f"files.clicks: expected inputs that the encoder gives, got {', '.join(missing)}"
            )
        self._clicks = Decoder(session, {"point_coords", "point_labels", *terms})
        self._features |= {name: given[name] for name in terms}

    def _no_mask(self) -> NDArray[np.float32]:
        return np.zeros((1, 1, self._cells, self._cells), np.float32)

    def _fixed_size(self) -> tuple[int, int] | None:
        """(width, height) of a (height, width, 3) input; None if it varies or is square."""
        shape = self._encoder.inputs[0].shape
        if len(shape) != 3 or shape[0] is None or shape[1] is None:
            return None
        return shape[1], shape[0]
