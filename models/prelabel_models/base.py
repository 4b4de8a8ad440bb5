"""The seam between models and whoever runs them.

A detector is three steps, so that a scheduler can put each where it belongs: `preprocess` and
`postprocess` are CPU work that may run in any thread, `infer` is the device's. The scheduler
knows lists in and lists out, and no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from prelabel_models.cards import ModelCard
from prelabel_models.transforms import Transform
from prelabel_models.types import Detections, DetectOptions, RgbImage, Tensor

RawOutput = tuple[NDArray[Any], ...]
"""One image's outputs, in the order of the graph, without the batch axis."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image, ready for the model.

    Attributes:
        tensor: (C, H, W) float32.
        transform: Between image and input coordinates.
        image: The image itself, kept only by models that look at it again (text recognition).
    """

    tensor: Tensor
    transform: Transform
    image: RgbImage | None = None

    @property
    def pixels(self) -> int:
        """Input pixels: what the item costs the device."""
        return int(self.tensor.shape[-1] * self.tensor.shape[-2])


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model can do and what runs it.

    Attributes:
        card: The model's card.
        digest: `card.digest()`, computed once.
        labels: One name per class.
        device: The device that really runs it, for example `cpu` or `cuda:0`.
        provider: ONNX Runtime's execution provider in use; empty if it does not run there.
        input_size: (width, height) in pixels; (0, 0) if any size is taken.
        max_batch: Images that one run takes; 1 if the graph's batch axis is fixed.
        gives_masks: Detections carry masks.
        gives_text: Detections carry texts.
        suppresses_in_graph: The graph ends in its own non-maximum suppression, or the model needs
            none.
    """

    card: ModelCard
    digest: str
    labels: tuple[str, ...]
    device: str = "cpu"
    provider: str = ""
    input_size: tuple[int, int] = (0, 0)
    max_batch: int = 1
    gives_masks: bool = False
    gives_text: bool = False
    suppresses_in_graph: bool = False


@runtime_checkable
class Detector(Protocol):
    """Finds objects in images. Thread-safe: several threads may call any step at once."""

    @property
    def info(self) -> ModelInfo:
        """What the model can do; never changes."""
        ...

    def preprocess(self, image: RgbImage) -> Prepared:
        """Image to input tensor."""
        ...

    def infer(self, batch: Sequence[Prepared]) -> list[RawOutput]:
        """Run the model once.

        Args:
            batch: 1 to `info.max_batch` items of equal tensor shape.

        Returns:
            One output per item, in the same order.
        """
        ...

    def postprocess(
        self, output: RawOutput, prepared: Prepared, options: DetectOptions
    ) -> Detections:
        """One image's outputs to detections in pixels of the image.

        Raises:
            NonFiniteOutputError: The output holds NaN or infinity where a number must be.
        """
        ...

    def close(self) -> None:
        """Free the sessions; the detector is not used again."""
        ...


def detect(detector: Detector, image: RgbImage, options: DetectOptions) -> Detections:
    """All three steps for one image, in this thread.

    Args:
        detector: Any detector.
        image: (H, W, 3) uint8 RGB in the displayed orientation.
        options: What to keep.
    """
    prepared = detector.preprocess(image)
    (output,) = detector.infer([prepared])
    return detector.postprocess(output, prepared, options)
