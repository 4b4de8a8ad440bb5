"""YOLOv8 instance masks: boxes, classes and 32 weights of shared mask prototypes.

Graph: the input of `yolov8`; outputs `(N, 4 + classes + M, boxes)` or its transpose, and the
prototypes `(N, M, h, w)`, M = 32, usually a quarter of the input's size. A mask is
sigmoid(weights x prototypes) > 0.5 inside its box.

Source: ultralytics/ultralytics `engine/exporter.py` and `utils/ops.py` (`process_mask_native`:
weighted sum, enlarge, crop, threshold). Where that enlarges every mask to the whole image, here
only the part under the box is made, and only for the detections that are kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import Prepared, RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._decode import shapes
from prelabel_models.detectors.yolo import Yolov8Detector
from prelabel_models.errors import ModelUnusableError, NonFiniteOutputError
from prelabel_models.transforms import Transform
from prelabel_models.types import Detections, DetectOptions

_PROTOTYPES = 32

# One byte per pixel and mask: 21 masks of a 12-megapixel photograph, 600 of a 640x640 one. What
# exceeds it is cut off from the low-score end and reported as `truncated`.
_MASK_BYTES = 256 * 2**20


class Yolov8SegDetector(Yolov8Detector):
    """Boxes and masks."""

    GIVES_MASKS: ClassVar[bool] = True
    EXTRA_CHANNELS: ClassVar[int] = _PROTOTYPES

    def check_graph(self, card: ModelCard) -> int:
        """Rows of rank 3 and prototypes of rank 4, in that order."""
        outputs = self._session.outputs
        if (
            len(outputs) != 2
            or len(outputs[0].shape) != 3
            or len(outputs[1].shape) != 4
            or outputs[1].shape[1] not in (_PROTOTYPES, None)
        ):
            raise ModelUnusableError(
                f"model: {card.family} expects the outputs (batch, 4 + classes + {_PROTOTYPES}, "
                f"boxes) and (batch, {_PROTOTYPES}, height, width), got {shapes(outputs)}"
            )
        return self.find_layout(card)

    def postprocess(
        self, output: RawOutput, prepared: Prepared, options: DetectOptions
    ) -> Detections:
        """See `base.Detector`; masks are made for the rows that are kept, within 256 MiB."""
        candidates = self.decode(output)
        found, rows = self.select(candidates, prepared.transform, options)
        weights = candidates.mask_coefficients
        if weights is None:
            raise ModelUnusableError("model: the run gave no mask weights")
        width, height = prepared.transform.image_size
        room = max(1, _MASK_BYTES // (width * height))
        if len(found) > room:
            found, rows = found.take(slice(room), truncated=True), rows[:room]
        prototypes = np.asarray(output[1], np.float32)
        masks = tuple(
            box_mask(weights[row], prototypes, box, prepared.transform)
            for row, box in zip(rows, found.boxes_xyxy, strict=True)
        )
        return replace(found, masks=masks)


def box_mask(
    weights: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    box_xyxy: NDArray[np.float32],
    transform: Transform,
) -> NDArray[np.bool_]:
    """One object's mask, false outside its box.

    A pixel belongs to the box if its centre does.

    Args:
        weights: (M,) weights of the prototypes.
        prototypes: (M, h, w), covering the whole input.
        box_xyxy: (4,) in pixels of the image.
        transform: Between image and input.

    Returns:
        (height, width) of the image.

    Raises:
        NonFiniteOutputError: The mask's values are NaN or infinite.
    """
    width, height = transform.image_size
    mask = np.zeros((height, width), bool)
    # A centre lies half a pixel in, so the first pixel at or after x - 0.5 is the first inside.
    x1, y1, x2, y2 = (int(np.ceil(v - 0.5)) for v in box_xyxy)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if x2 <= x1 or y2 <= y1:
        return mask
    _, rows, columns = prototypes.shape
    step_x, step_y = columns / transform.input_size[0], rows / transform.input_size[1]
    # Prototype position u of image position x: u = (x * scale + offset) * step, centres at +0.5.
    scale_x, scale_y = transform.scale[0] * step_x, transform.scale[1] * step_y
    u1 = (x1 + 0.5) * scale_x + transform.offset[0] * step_x - 0.5
    v1 = (y1 + 0.5) * scale_y + transform.offset[1] * step_y - 0.5
    left, right = _span(u1, u1 + (x2 - x1 - 1) * scale_x, columns)
    top, bottom = _span(v1, v1 + (y2 - y1 - 1) * scale_y, rows)
    logits = np.tensordot(weights, prototypes[:, top:bottom, left:right], axes=1)
    if not np.isfinite(logits).all():
        raise NonFiniteOutputError("model: a mask value is NaN or infinite")
    forward = np.array([[scale_x, 0.0, u1 - left], [0.0, scale_y, v1 - top]], np.float64)
    enlarged = cv2.warpAffine(
        logits.astype(np.float32),
        forward,
        (x2 - x1, y2 - y1),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    mask[y1:y2, x1:x2] = enlarged > 0  # sigmoid(x) > 0.5
    return mask


def _span(first: float, last: float, length: int) -> tuple[int, int]:
    """Half-open range of samples that interpolation between `first` and `last` reads."""
    start = min(max(int(np.floor(first)), 0), length - 1)
    return start, min(max(int(np.floor(last)) + 2, start + 1), length)
