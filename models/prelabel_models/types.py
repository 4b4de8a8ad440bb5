"""Values that pass between images, models and the engine: numpy inside, frozen outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import OptionError

RgbImage = NDArray[np.uint8]
"""An image as (height, width, 3), uint8, RGB, C-contiguous, in the displayed orientation."""

Tensor = NDArray[np.float32]

_NO_THRESHOLDS: Mapping[int, float] = MappingProxyType({})


def _rows(name: str, array: NDArray[np.generic] | None, expected: tuple[int, ...]) -> None:
    if array is not None and array.shape != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {array.shape}")


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one image, one row per object, highest score first.

    Attributes:
        boxes_xyxy: (N, 4) float32, half-open boxes in pixels of the displayed image.
        scores: (N,) float32 in [0, 1].
        class_ids: (N,) int64, index into the model's labels.
        outlines: (N, K, 2) float32 corners in pixels, for models that give them.
        key_points: (N, K, 2) float32 named positions in pixels, for models that give them.
        texts: N strings, for models that read.
        masks: N boolean arrays of the image's (height, width), for models that give masks.
        truncated: More objects were found than `max_detections` let through.

    Example:
        >>> d = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
        >>> len(d)
        0
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    outlines: NDArray[np.float32] | None = None
    key_points: NDArray[np.float32] | None = None
    texts: tuple[str, ...] | None = None
    masks: tuple[NDArray[np.bool_], ...] | None = None
    truncated: bool = False

    def __post_init__(self) -> None:
        n = len(self.scores)
        _rows("boxes_xyxy", self.boxes_xyxy, (n, 4))
        _rows("scores", self.scores, (n,))
        _rows("class_ids", self.class_ids, (n,))
        for name, rows in (
            ("outlines", self.outlines),
            ("key_points", self.key_points),
            ("texts", self.texts),
            ("masks", self.masks),
        ):
            if rows is not None and len(rows) != n:
                raise ValueError(f"{name}: expected {n} rows, got {len(rows)}")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> Detections:
        """No objects."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def take(
        self, rows: NDArray[np.integer] | slice, *, truncated: bool | None = None
    ) -> Detections:
        """The given rows, in the given order.

        Args:
            rows: Integer indices, shape (M,), or a slice.
            truncated: New value of `truncated`; unchanged if None.
        """
        index = np.arange(len(self))[rows]
        return Detections(
            boxes_xyxy=self.boxes_xyxy[index],
            scores=self.scores[index],
            class_ids=self.class_ids[index],
            outlines=None if self.outlines is None else self.outlines[index],
            key_points=None if self.key_points is None else self.key_points[index],
            texts=None if self.texts is None else tuple(self.texts[i] for i in index),
            masks=None if self.masks is None else tuple(self.masks[i] for i in index),
            truncated=self.truncated if truncated is None else truncated,
        )


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """What to keep of a detector's output. Classes are named by index.

    Attributes:
        min_score: Keep scores >= this, in [0, 1].
        class_min_scores: Thresholds for single classes, in place of `min_score`.
        class_ids: Keep only these classes; None keeps all.
        nms_iou: Intersection over union above which two boxes count as one object; None turns
            suppression off.
        class_agnostic_nms: Compare boxes of different classes too.
        max_detections: Keep at most this many, highest scores first; >= 1.

    Raises:
        OptionError: A value is out of range.
    """

    min_score: float = 0.25
    class_min_scores: Mapping[int, float] = field(default_factory=lambda: _NO_THRESHOLDS)
    class_ids: frozenset[int] | None = None
    nms_iou: float | None = 0.65
    class_agnostic_nms: bool = False
    max_detections: int = 1000

    def __post_init__(self) -> None:
        _in_unit_interval("min_score", self.min_score)
        for value in self.class_min_scores.values():
            _in_unit_interval("label_min_scores", value)
        if self.nms_iou is not None:
            _in_unit_interval("nms.iou_threshold", self.nms_iou)
        if self.max_detections < 1:
            raise OptionError(
                "max_proposals", f"expected at least 1 proposal, got {self.max_detections}"
            )

    def thresholds(self, class_count: int) -> NDArray[np.float32]:
        """Smallest score to keep for each class: shape (class_count,), inf for unwanted ones."""
        least = np.full(class_count, self.min_score, np.float32)
        for class_id, value in self.class_min_scores.items():
            least[class_id] = value
        if self.class_ids is not None:
            unwanted = np.ones(class_count, bool)
            unwanted[list(self.class_ids)] = False
            least[unwanted] = np.inf
        return least


def _in_unit_interval(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:  # also false for NaN
        raise OptionError(name, f"{name}: expected a number in [0, 1], got {value:g}")
