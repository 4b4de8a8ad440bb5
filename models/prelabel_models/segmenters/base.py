"""The seam between click-to-segment models and whoever runs them.

An image is encoded once (`embed`); each set of prompts after that (`segment`) costs a fraction of
it. The embedding knows which model made it and for which image, and no other model takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import ModelInfo
from prelabel_models.errors import ModelUnusableError, OptionError
from prelabel_models.types import RgbImage

# More clicks than any annotator makes on one object; each lengthens the decoder's token sequence.
MAX_POINTS = 64
MAX_BOXES = 16
MAX_SCRIBBLES = 32
# A freehand line at 60 Hz for half a minute.
MAX_SCRIBBLE_POINTS = 2000
# A click on the border's far side, or rounding in a zoomed view.
_OUTSIDE_TOLERANCE_PX = 1.0

_NO_POINTS = np.zeros((0, 2), np.float32)
_NO_LABELS = np.zeros(0, bool)
_NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class Scribble:
    """A free line drawn with a round brush.

    Attributes:
        points_xy: (K, 2) float32 corners in pixels of the displayed image, K >= 2.
        positive: Over the object, or over what is not.
        width_px: Diameter of the brush.
    """

    points_xy: NDArray[np.float32]
    positive: bool
    width_px: float = 1.0

    def __post_init__(self) -> None:
        _finite("prompts.scribbles", self.points_xy)
        count = len(self.points_xy)
        if self.points_xy.shape != (count, 2) or not 2 <= count <= MAX_SCRIBBLE_POINTS:
            raise OptionError(
                "prompts.scribbles",
                f"prompts.scribbles: expected 2 to {MAX_SCRIBBLE_POINTS} points, got {count}",
            )
        if not 0 < self.width_px < 1e4:
            raise OptionError(
                "prompts.scribbles",
                f"prompts.scribbles: expected a width in (0, 10000), got {self.width_px}",
            )


@dataclass(frozen=True, slots=True)
class Prompts:
    """All that points at one object, in pixels of the displayed image.

    Attributes:
        points_xy: (N, 2) float32, in the order in which they were made.
        point_labels: (N,) bool, True on the object.
        boxes_xyxy: (M, 4) float32 around the object.
        scribbles: Free lines.
        mask: (H, W) bool of the image's size: a shape to refine.
        low_res_logits: What an earlier answer's `MaskCandidate.low_res_logits` held: the same, at
            the model's own resolution.

    Raises:
        OptionError: Not finite, of another shape, too many, or nothing at all.
    """

    points_xy: NDArray[np.float32] = field(default_factory=lambda: _NO_POINTS)
    point_labels: NDArray[np.bool_] = field(default_factory=lambda: _NO_LABELS)
    boxes_xyxy: NDArray[np.float32] = field(default_factory=lambda: _NO_BOXES)
    scribbles: tuple[Scribble, ...] = ()
    mask: NDArray[np.bool_] | None = None
    low_res_logits: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        _finite("prompts.points", self.points_xy)
        _finite("prompts.boxes", self.boxes_xyxy)
        count = len(self.points_xy)
        if self.points_xy.shape != (count, 2) or self.point_labels.shape != (count,):
            raise OptionError(
                "prompts.points",
                f"prompts.points: expected N points and N labels, got {self.points_xy.shape} and "
                f"{self.point_labels.shape}",
            )
        if self.boxes_xyxy.shape != (len(self.boxes_xyxy), 4):
            raise OptionError(
                "prompts.boxes", f"prompts.boxes: expected (M, 4), got {self.boxes_xyxy.shape}"
            )
        _at_most("prompts.points", count, MAX_POINTS)
        _at_most("prompts.boxes", len(self.boxes_xyxy), MAX_BOXES)
        _at_most("prompts.scribbles", len(self.scribbles), MAX_SCRIBBLES)
        if (self.boxes_xyxy[:, :2] > self.boxes_xyxy[:, 2:]).any():
            raise OptionError("prompts.boxes", "prompts.boxes: expected x1 <= x2 and y1 <= y2")
        if self.mask is not None and self.low_res_logits is not None:
            raise OptionError(
                "prompts.shape", "prompts.shape: expected a mask or a previous mask, got both"
            )
        if self.empty:
            raise OptionError("prompts", "prompts: expected at least one prompt, got none")

    @property
    def empty(self) -> bool:
        """Nothing points at anything."""
        shapes = self.mask is not None or self.low_res_logits is not None
        return not (len(self.points_xy) or len(self.boxes_xyxy) or self.scribbles or shapes)

    def check_inside(self, image_size: tuple[int, int]) -> None:
        """Compare with the image.

        Args:
            image_size: (width, height) in pixels.

        Raises:
            OptionError: A point lies outside, or the mask has another size.
        """
        far = np.asarray(image_size, np.float32) + _OUTSIDE_TOLERANCE_PX
        for name, points in (
            ("prompts.points", self.points_xy),
            ("prompts.boxes", self.boxes_xyxy.reshape(-1, 2)),
            *(("prompts.scribbles", s.points_xy) for s in self.scribbles),
        ):
            if ((points < -_OUTSIDE_TOLERANCE_PX) | (points > far)).any():
                raise OptionError(
                    name,
                    f"{name}: expected positions inside the image of "
                    f"{image_size[0]}x{image_size[1]} pixels",
                )
        if self.mask is not None and self.mask.shape != (image_size[1], image_size[0]):
            raise OptionError(
                "prompts.mask",
                f"prompts.mask: expected {image_size[0]}x{image_size[1]} pixels, got "
                f"{self.mask.shape[1]}x{self.mask.shape[0]}",
            )


@dataclass(frozen=True, slots=True)
class Embedding:
    """An encoded image.

    Attributes:
        model_digest: Of the model that made it; no other takes it.
        image_size: (width, height) of the displayed image in pixels.
        data: The family's own value; opaque to everyone else.
        nbytes: Memory that it holds.
    """

    model_digest: str
    image_size: tuple[int, int]
    data: Any
    nbytes: int

    def check_model(self, info: ModelInfo) -> None:
        """Refuse another model's embedding.

        Raises:
            ModelUnusableError: `info` is not the model that made this.
        """
        if self.model_digest != info.digest:
            raise ModelUnusableError(
                f"embedding: made by {self.model_digest}, expected one of {info.digest}"
            )


@dataclass(frozen=True, slots=True)
class MaskCandidate:
    """One mask that a model suggests.

    Attributes:
        draw: Makes the (H, W) bool mask of the image's size. Deferred: a caller that wants one of
            three candidates does not pay for the others.
        predicted_iou: The model's estimate of intersection over union with what was meant, [0, 1].
        stability_score: IoU of the masks at a stricter and a laxer threshold, [0, 1].
        low_res_logits: The model's own grid, float32; hand it back in `Prompts.low_res_logits`.
    """

    draw: Callable[[], NDArray[np.bool_]]
    predicted_iou: float
    stability_score: float
    low_res_logits: NDArray[np.float32]


@runtime_checkable
class Segmenter(Protocol):
    """Masks from prompts. Thread-safe: several threads may call any step at once."""

    @property
    def info(self) -> ModelInfo:
        """What the model is and what runs it; never changes."""
        ...

    def embed(self, image: RgbImage) -> Embedding:
        """Encode an image; the expensive step, once per image."""
        ...

    def segment(
        self, embedding: Embedding, prompts: Prompts, *, max_masks: int
    ) -> tuple[MaskCandidate, ...]:
        """Masks for one set of prompts.

        Args:
            embedding: Made by this model.
            prompts: What points at the object.
            max_masks: 1 to 3.

        Returns:
            The highest predicted IoU first; empty if the model sees nothing there.

        Raises:
            OptionError: A prompt lies outside the image, or of a kind that the model does not take.
            ModelUnusableError: Another model's embedding.
            NonFiniteOutputError: The model produced NaN or infinity.
        """
        ...

    def close(self) -> None:
        """Free the sessions; the segmenter is not used again."""
        ...


def _finite(name: str, array: NDArray[np.float32]) -> None:
    if not np.isfinite(array).all():
        raise OptionError(name, f"{name}: expected finite numbers")


def _at_most(name: str, count: int, limit: int) -> None:
    if count > limit:
        raise OptionError(name, f"{name}: expected at most {limit}, got {count}")
