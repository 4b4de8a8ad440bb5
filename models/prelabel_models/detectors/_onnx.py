"""What the ONNX detector families share: one graph, one image input, three steps.

A family subclasses `OnnxDetector`, states its habits in `HABIT`, checks the graph in
`check_graph`, and writes `decode`: from one image's raw outputs to candidates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import ModelInfo, Prepared, RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.errors import CardError, ModelUnusableError, NonFiniteOutputError
from prelabel_models.geometry import suppress_rows
from prelabel_models.session import OnnxSession
from prelabel_models.transforms import Transform, letterbox, stretch
from prelabel_models.types import Detections, DetectOptions, RgbImage, Tensor

# More images than this per run gain nothing on the GPUs that were measured and cost latency.
_MAX_BATCH = 16


@dataclass(frozen=True, slots=True)
class PixelHabit:
    """A family's way from pixels to the input tensor; see `cards.Preprocess` for the fields."""

    resize: Literal["letterbox", "letterbox_center", "stretch"]
    color: Literal["rgb", "bgr"]
    pad_value: int = 114
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    default_size: tuple[int, int] = (640, 640)

    def with_card(self, card: ModelCard) -> PixelHabit:
        """The habit with the card's own values in place."""
        own = card.preprocess
        return PixelHabit(
            resize=own.resize or self.resize,
            color=own.color or self.color,
            pad_value=self.pad_value if own.pad_value is None else own.pad_value,
            scale=self.scale if own.scale is None else own.scale,
            mean=self.mean if own.mean is None else own.mean,
            std=self.std if own.std is None else own.std,
            default_size=self.default_size,
        )

    def transform(self, image_size: tuple[int, int], input_size: tuple[int, int]) -> Transform:
        """The transform for an image of `image_size` (width, height)."""
        if self.resize == "stretch":
            return stretch(image_size, input_size)
        return letterbox(image_size, input_size, centered=self.resize == "letterbox_center")

    def tensor(self, canvas: NDArray[np.uint8]) -> Tensor:
        """(H, W, 3) uint8 RGB to (3, H, W) float32, in one pass over the pixels where it can."""
        plain = self.mean == (0.0, 0.0, 0.0) and self.std == (1.0, 1.0, 1.0)
        swap = self.color == "bgr"
        chw: Tensor
        if plain:
            # blobFromImage reorders, scales and swaps in one native pass.
            chw = cv2.dnn.blobFromImage(canvas, self.scale, swapRB=swap)[0]
            return chw
        chw = cv2.dnn.blobFromImage(canvas, 1.0, swapRB=swap)[0]
        std = np.asarray(self.std, np.float32)[:, None, None]
        mean = np.asarray(self.mean, np.float32)[:, None, None]
        chw *= self.scale / std
        chw -= mean / std
        return chw


@dataclass(frozen=True, slots=True)
class Candidates:
    """Decoded rows of one image, before thresholds and suppression, in input pixels.

    Attributes:
        boxes_xyxy: (N, 4), in pixels of the model's input.
        scores: (N, classes); or (N,) with `class_ids`. A row whose one score is 0 or less is
            padding.
        class_ids: (N,), for graphs that name one class per row.
        key_points: (N, K, 2), in pixels of the model's input.
        mask_coefficients: (N, M), weights of the mask prototypes.
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64] | None = None
    key_points: NDArray[np.float32] | None = None
    mask_coefficients: NDArray[np.float32] | None = None


class OnnxDetector(ABC):
    """A detector with one graph and one image input. Thread-safe.

    Families with `SUPPRESSES_IN_GRAPH` never run suppression here, whatever a request asks for.
    """

    HABIT: ClassVar[PixelHabit]
    SUPPRESSES_IN_GRAPH: ClassVar[bool] = False
    GIVES_MASKS: ClassVar[bool] = False

    def __init__(self, card: ModelCard, session: OnnxSession) -> None:
        self._session = session
        self._habit = self.HABIT.with_card(card)
        self._input_size = self._find_input_size(card)
        class_count = self.check_graph(card)
        self._info = ModelInfo(
            card=card,
            digest=card.digest(),
            labels=_labels(card, class_count),
            device=session.device,
            provider=session.provider,
            input_size=self._input_size,
            max_batch=_MAX_BATCH if session.batchable else 1,
            gives_masks=self.GIVES_MASKS,
            suppresses_in_graph=self.SUPPRESSES_IN_GRAPH,
        )

    @property
    def info(self) -> ModelInfo:
        """See `base.Detector`."""
        return self._info

    def preprocess(self, image: RgbImage) -> Prepared:
        """See `base.Detector`."""
        transform = self._habit.transform((image.shape[1], image.shape[0]), self._input_size)
        canvas = transform.apply(image, pad_value=self._habit.pad_value)
        return Prepared(self._habit.tensor(canvas), transform)

    def infer(self, batch: Sequence[Prepared]) -> list[RawOutput]:
        """See `base.Detector`."""
        return self._session.run_stacked([item.tensor for item in batch])

    def postprocess(
        self, output: RawOutput, prepared: Prepared, options: DetectOptions
    ) -> Detections:
        """See `base.Detector`."""
        found, _ = self.select(self.decode(output), prepared.transform, options)
        return found

    def close(self) -> None:
        """See `base.Detector`."""
        self._session.close()

    @abstractmethod
    def check_graph(self, card: ModelCard) -> int:
        """Compare the graph's outputs with what the family expects.

        Returns:
            The number of classes; 0 if the graph does not tell.

        Raises:
            ModelUnusableError: They do not fit; the text says what was expected and what came.
        """

    @abstractmethod
    def decode(self, output: RawOutput) -> Candidates:
        """One image's raw outputs to candidates."""

    def select(
        self, candidates: Candidates, transform: Transform, options: DetectOptions
    ) -> tuple[Detections, NDArray[np.int64]]:
        """`select` with this model's labels and suppression."""
        if self.SUPPRESSES_IN_GRAPH:
            options = replace(options, nms_iou=None)
        return select(candidates, transform, options, len(self._info.labels))

    def _find_input_size(self, card: ModelCard) -> tuple[int, int]:
        shape = self._session.inputs[0].shape
        if len(shape) != 4 or shape[1] not in (3, None):
            raise ModelUnusableError(
                f"model: expected one image input of shape (batch, 3, height, width), got {shape}"
            )
        return self._agreed_size(card, shape[3], shape[2])

    def _agreed_size(
        self, card: ModelCard, graph_width: int | None, graph_height: int | None
    ) -> tuple[int, int]:
        """(width, height) from the graph, else the card, else the family's habit."""
        own = card.preprocess
        width, height = self.HABIT.default_size
        for axis, graph_value, card_value in (
            ("width", graph_width, own.width),
            ("height", graph_height, own.height),
        ):
            if graph_value is not None and card_value not in (None, graph_value):
                raise CardError(
                    f"card: preprocess.{axis}: the graph takes {graph_value}, got {card_value}"
                )
        return graph_width or own.width or width, graph_height or own.height or height


def _labels(card: ModelCard, class_count: int) -> tuple[str, ...]:
    names = card.label_names()
    if not names:
        return tuple(f"class {i}" for i in range(class_count))
    if class_count and len(names) != class_count:
        raise CardError(f"card: labels: the graph has {class_count} classes, got {len(names)}")
    return names


def select(
    candidates: Candidates, transform: Transform, options: DetectOptions, class_count: int
) -> tuple[Detections, NDArray[np.int64]]:
    """Thresholds, suppression, and back to image pixels.

    Every (row, class) pair above its threshold is a detection of its own, as in the reference
    implementations' evaluation code.

    Args:
        candidates: Decoded rows.
        transform: Between image and input.
        options: What to keep.
        class_count: Labels of the model.

    Returns:
        The detections, and the candidate row that each came from.

    Raises:
        NonFiniteOutputError: A score, or a box that would be kept, is NaN or infinite.
        ModelUnusableError: The graph names a class that the model has no label for.
    """
    scores = candidates.scores
    if not np.isfinite(scores).all():
        raise NonFiniteOutputError("model: a score is NaN or infinite")
    rows, class_ids = _above(scores, candidates.class_ids, options.thresholds(class_count))
    boxes = candidates.boxes_xyxy[rows]
    if not np.isfinite(boxes).all():
        raise NonFiniteOutputError("model: a box is NaN or infinite")
    kept_scores = scores[rows] if scores.ndim == 1 else scores[rows, class_ids]
    key_points = None
    if candidates.key_points is not None:
        key_points = transform.points_to_image(candidates.key_points[rows])
    found = Detections(
        boxes_xyxy=transform.boxes_to_image(boxes),
        scores=np.clip(kept_scores, 0.0, 1.0).astype(np.float32),
        class_ids=class_ids.astype(np.int64),
        key_points=key_points,
    )
    kept, truncated = suppress_rows(found, options)
    return found.take(kept, truncated=truncated), rows[kept].astype(np.int64)


def _above(
    scores: NDArray[np.float32], named: NDArray[np.int64] | None, least: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and classes at or above the thresholds `least`, shape (classes,)."""
    if named is None:
        if scores.shape[1] != len(least):
            raise ModelUnusableError(
                f"model: expected scores for {len(least)} classes, the run gave {scores.shape[1]}"
            )
        rows, class_ids = np.nonzero(scores >= least[None, :])
        return rows, class_ids
    live = np.flatnonzero(scores > 0)
    wrong = live[(named[live] < 0) | (named[live] >= len(least))]
    if wrong.size:
        raise ModelUnusableError(
            f"model: the graph named class {int(named[wrong[0]])}, but the model has "
            f"{len(least)} labels"
        )
    rows = live[scores[live] >= least[named[live]]]
    return rows, named[rows]
