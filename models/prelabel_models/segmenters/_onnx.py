"""What the point-prompted families share: an encoder, a decoder, and the way between them.

A family subclasses `PointSegmenter`, states its pixels in `HABIT`, and writes `transform` (from
image to input), `features` (from the encoder's outputs to the decoder's feeds), `run_decoder`
and, where it differs, `draw`.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prelabel_models.base import ModelInfo
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import PixelHabit
from prelabel_models.errors import (
    CardError,
    ModelUnusableError,
    NonFiniteOutputError,
    OptionError,
)
from prelabel_models.masks import (
    Mask,
    mask_box_xyxy,
    resize_logits_to_mask,
    stability_score,
)
from prelabel_models.segmenters._graphs import Decoder, open_decoder
from prelabel_models.segmenters._prompts import Tokens, mask_logits, token_lists
from prelabel_models.segmenters.base import Embedding, MaskCandidate, Prompts
from prelabel_models.session import OnnxSession, SessionOptions, open_session
from prelabel_models.transforms import Transform
from prelabel_models.types import RgbImage

_MAX_MASKS = 3
# One mask for a prompt that leaves no doubt, then three for one that does (SAM, section 3).
_SAM_TOKENS = 4
# Scaling only the part that matters costs several times as much for each pixel as scaling all.
_SPARSE = 0.15
_GRID = 256  # cells of a mask along a side, in every published model of these families

Scored = tuple[NDArray[np.float32], float]
"""A mask's logits (cells, cells) and its predicted IoU."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The value inside an embedding.

    Attributes:
        features: The decoder's input names to what the encoder gave.
        transform: From image to input pixels.
    """

    features: Mapping[str, NDArray[Any]]
    transform: Transform


class PointSegmenter(ABC):
    """A segmenter of two graphs. Thread-safe."""

    HABIT: ClassVar[PixelHabit]
    PROMPT_INPUTS: ClassVar[frozenset[str]]
    CORNERS_FIRST: ClassVar[bool] = True
    MAX_TOKENS: ClassVar[int | None] = None

    def __init__(self, card: ModelCard, encoder: OnnxSession, decoder: OnnxSession) -> None:
        self._encoder = encoder
        self._habit = self.HABIT.with_card(card)
        self._side = self.find_side(card)
        self._features = self.match_features(encoder, decoder)
        self._decoder = Decoder(decoder, self.PROMPT_INPUTS | set(self._features))
        self._cells = self._decoder.side("mask_input") or _GRID
        self.check_decoder(self._decoder)
        self._info = ModelInfo(
            card=card,
            digest=card.digest(),
            labels=card.label_names(),
            device=encoder.device,
            provider=encoder.provider,
            input_size=(self._side, self._side),
            gives_masks=True,
        )

    @classmethod
    def from_files(
        cls, card: ModelCard, files: Mapping[str, Path], options: SessionOptions
    ) -> Self:
        """Open both graphs.

        Args:
            card: The model's card.
            files: Paths of the roles `encoder` and `decoder`, whose digests have been checked.
            options: Device and threads.

        Raises:
            CardError: A role is missing.
            ModelUnusableError: A graph does not fit the family.
            DeviceUnavailableError: The device cannot be had.
        """
        for role in ("encoder", "decoder"):
            if role not in files:
                raise CardError(
                    f"card: files: expected the roles 'encoder' and 'decoder', got "
                    f"{', '.join(files)}"
                )
        encoder = open_session(files["encoder"], options)
        try:
            return cls(card, encoder, open_decoder(files["decoder"], options))
        except BaseException:
            encoder.close()
            raise

    @property
    def info(self) -> ModelInfo:
        """See `base.Segmenter`."""
        return self._info

    def embed(self, image: RgbImage) -> Embedding:
        """See `base.Segmenter`.

        Raises:
            NonFiniteOutputError: The encoder produced NaN or infinity.
        """
        height, width = image.shape[:2]
        transform = self.transform((width, height))
        (name,) = (i.name for i in self._encoder.inputs)
        outputs = self._encoder.run({name: self.tensor(image, transform)})
        features = {name: outputs[index] for name, index in self._features.items()}
        if not all(np.isfinite(value).all() for value in features.values()):
            raise NonFiniteOutputError("model: the embedding holds NaN or infinity")
        nbytes = sum(value.nbytes for value in features.values())
        return Embedding(self._info.digest, (width, height), Encoded(features, transform), nbytes)

    def segment(
        self, embedding: Embedding, prompts: Prompts, *, max_masks: int
    ) -> tuple[MaskCandidate, ...]:
        """See `base.Segmenter`.

        A lone click is ambiguous and gets the best of the model's three readings; any more gets
        the mask that the model keeps for clear prompts, where it has one. Several boxes are
        answered one by one and united: one candidate, the mean of their predicted IoUs.
        """
        embedding.check_model(self._info)
        prompts.check_inside(embedding.image_size)
        if not 1 <= max_masks <= _MAX_MASKS:
            raise OptionError("max_masks", f"max_masks: expected 1 to 3, got {max_masks}")
        encoded: Encoded = embedding.data
        shape = mask_logits(prompts, encoded.transform, self._cells)
        lists = token_lists(prompts, corners_first=self.CORNERS_FIRST, most=self.MAX_TOKENS)
        count = max_masks if len(lists) == 1 else 1
        answers = [self._answer(encoded, tokens, shape, count) for tokens in lists]
        if len(answers) > 1:
            firsts = [answer[0] for answer in answers]
            united = np.maximum.reduce([logits for logits, _ in firsts])
            answers = [[(united, float(np.mean([iou for _, iou in firsts])))]]
        found = (self._candidate(scored, encoded.transform) for scored in answers[0])
        return tuple(candidate for candidate in found if candidate is not None)

    def close(self) -> None:
        """See `base.Segmenter`."""
        self._encoder.close()
        self._decoder.session.close()

    @abstractmethod
    def transform(self, image_size: tuple[int, int]) -> Transform:
        """From an image of (width, height) to the encoder's input."""

    @abstractmethod
    def match_features(self, encoder: OnnxSession, decoder: OnnxSession) -> dict[str, int]:
        """The decoder's input names to indices of the encoder's outputs.

        Raises:
            ModelUnusableError: They do not fit together.
        """

    @abstractmethod
    def run_decoder(
        self, encoded: Encoded, tokens: Tokens, shape: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits (M, cells, cells) and predicted IoUs (M,) for one token list.

        Raises:
            OptionError: A prompt of a kind that the model does not take.
        """

    def check_decoder(self, decoder: Decoder) -> None:
        """Compare the decoder with what the family needs beyond its inputs.

        Raises:
            ModelUnusableError: It does not fit.
        """
        missing = sorted(self.PROMPT_INPUTS - {"orig_im_size"} - set(decoder.inputs))
        if missing:
            raise ModelUnusableError(
                f"files.decoder: expected the inputs {', '.join(missing)}, got "
                f"{', '.join(decoder.inputs)}"
            )

    def tensor(self, image: RgbImage, transform: Transform) -> NDArray[np.float32]:
        """The encoder's input, (1, 3, side, side); zeros where the image does not reach."""
        content = self._habit.tensor(resized(image, transform.content_size))
        if transform.content_size == transform.input_size:
            return content[None]
        canvas = np.zeros((1, 3, self._side, self._side), np.float32)
        canvas[0, :, : content.shape[1], : content.shape[2]] = content
        return canvas

    def draw(self, logits: NDArray[np.float32], transform: Transform) -> Mask:
        """The mask of the image's size: bilinear, then compared with 0."""
        return scaled_mask(logits, transform.image_size)

    def find_side(self, card: ModelCard) -> int:
        """Side of the encoder's square input in pixels.

        Raises:
            ModelUnusableError: Not an image input, or not square.
        """
        shape = self._encoder.inputs[0].shape if len(self._encoder.inputs) == 1 else ()
        if len(shape) != 4 or shape[1] not in (3, None) or shape[2] != shape[3]:
            raise ModelUnusableError(
                "files.encoder: expected one image input of shape (1, 3, side, side), got "
                f"{', '.join(str(i.shape) for i in self._encoder.inputs)}"
            )
        return shape[2] or card.preprocess.width or self._habit.default_size[0]

    def _answer(
        self,
        encoded: Encoded,
        tokens: Tokens,
        shape: NDArray[np.float32] | None,
        count: int,
    ) -> list[Scored]:
        logits, ious = self.run_decoder(encoded, tokens, shape)
        if not (np.isfinite(logits).all() and np.isfinite(ious).all()):
            raise NonFiniteOutputError("model: a mask or its predicted IoU is NaN or infinite")
        lone = len(tokens.labels) == 1 and shape is None
        if len(ious) != _SAM_TOKENS:
            pool = np.arange(len(ious))
        elif count == 1 and not lone:
            pool = np.zeros(1, np.int64)
        else:
            pool = np.arange(1, _SAM_TOKENS)
        best = pool[np.argsort(-ious[pool], kind="stable")[:count]]
        # Copies: a candidate that lives on must not hold the other masks' memory.
        return [(logits[i].copy(), float(ious[i])) for i in best]

    def _candidate(self, scored: Scored, transform: Transform) -> MaskCandidate | None:
        """None if no pixel belongs to the mask."""
        logits, iou = scored
        columns, rows = (_cells_of(transform, axis, len(logits)) for axis in (0, 1))
        within = logits[:rows, :columns]
        if not (within > 0).any():
            return None
        return MaskCandidate(
            draw=functools.partial(self.draw, logits, transform),
            predicted_iou=min(max(iou, 0.0), 1.0),
            stability_score=stability_score(within),
            low_res_logits=logits,
        )


def resized(image: RgbImage, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bilinear with antialiasing, as the reference implementations resize (Pillow).

    Args:
        image: (H, W, 3) uint8.
        size: (width, height).
    """
    if (image.shape[1], image.shape[0]) == size:
        return image
    scaled = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(scaled, np.uint8)


def scaled_mask(logits: NDArray[np.float32], size: tuple[int, int]) -> Mask:
    """Where logits that cover an image are above 0 at its size: bilinear, half-pixel centres.

    Args:
        logits: (h, w) float32.
        size: (width, height) of the image in pixels.
    """
    box = mask_box_xyxy(logits > 0)
    share = 0.0 if box is None else (box[2] - box[0]) * (box[3] - box[1]) / logits.size
    if share < _SPARSE:
        return resize_logits_to_mask(logits, (0, 0, *size), size)
    return np.asarray(cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR) > 0)


def _cells_of(transform: Transform, axis: int, cells: int) -> int:
    """Cells of the decoder's grid that the image reaches along an axis (0 is x)."""
    return -(-transform.content_size[axis] * cells // transform.input_size[axis])
