"""EXIF orientation: pixels, points, boxes and masks between the stored and the displayed frame.

Stored is the pixel array in the file; displayed is what a person sees. Both have their origin at
the top left and continuous coordinates: the first pixel covers [0, 1). Definition: EXIF 2.32
(CIPA DC-008), tag 0x0112.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.images.header import ImageHeader
from prelabel_models.types import RgbImage

# Orientation to (swap x and y, then mirror x, mirror y): the way from stored to displayed.
_STEPS: Mapping[int, tuple[bool, bool, bool]] = MappingProxyType(
    {
        1: (False, False, False),
        2: (False, True, False),
        3: (False, True, True),
        4: (False, False, True),
        5: (True, False, False),
        6: (True, True, False),
        7: (True, True, True),
        8: (True, False, True),
    }
)


def orient(pixels: RgbImage, orientation: int) -> RgbImage:
    """Stored pixels to displayed ones.

    Args:
        pixels: (H, W, 3) uint8.
        orientation: 1 to 8.

    Returns:
        `pixels` itself for 1, else a new C-contiguous array.
    """
    swap, mirror_x, mirror_y = _STEPS[orientation]
    # One native pass each; numpy's views would be copied pixel by pixel later.
    turns = {
        (True, True, False): cv2.ROTATE_90_CLOCKWISE,
        (True, False, True): cv2.ROTATE_90_COUNTERCLOCKWISE,
        (False, True, True): cv2.ROTATE_180,
    }
    steps = (swap, mirror_x, mirror_y)
    if steps in turns:
        return cv2.rotate(pixels, turns[steps]).astype(np.uint8, copy=False)
    out = cv2.transpose(pixels) if swap else pixels
    if mirror_x or mirror_y:
        out = cv2.flip(out, -1 if mirror_x and mirror_y else 1 if mirror_x else 0)
    return out.astype(np.uint8, copy=False)


def points_to_displayed(
    points_xy: NDArray[np.floating], header: ImageHeader
) -> NDArray[np.float32]:
    """Stored to displayed coordinates in pixels; any shape that ends in 2."""
    swap, mirror_x, mirror_y = _STEPS[header.exif_orientation]
    out = np.array(points_xy, np.float64)
    if swap:
        out = out[..., ::-1].copy()
    if mirror_x:
        out[..., 0] = header.width - out[..., 0]
    if mirror_y:
        out[..., 1] = header.height - out[..., 1]
    return out.astype(np.float32)


def points_to_stored(points_xy: NDArray[np.floating], header: ImageHeader) -> NDArray[np.float32]:
    """Displayed to stored coordinates in pixels; any shape that ends in 2."""
    swap, mirror_x, mirror_y = _STEPS[header.exif_orientation]
    out = np.array(points_xy, np.float64)
    if mirror_x:
        out[..., 0] = header.width - out[..., 0]
    if mirror_y:
        out[..., 1] = header.height - out[..., 1]
    if swap:
        out = out[..., ::-1]
    return out.astype(np.float32)


def boxes_to_displayed(
    boxes_xyxy: NDArray[np.floating], header: ImageHeader
) -> NDArray[np.float32]:
    """Stored to displayed boxes in pixels, shape (N, 4), half-open, x1 <= x2 and y1 <= y2."""
    return _boxes(points_to_displayed(np.reshape(boxes_xyxy, (-1, 2, 2)), header))


def boxes_to_stored(boxes_xyxy: NDArray[np.floating], header: ImageHeader) -> NDArray[np.float32]:
    """Displayed to stored boxes in pixels, shape (N, 4), half-open, x1 <= x2 and y1 <= y2.

    Example:
        >>> from prelabel_models.images.header import ImageFormat
        >>> header = ImageHeader(
        ...     ImageFormat.JPEG, 40, 20, 6, "RGB", 8, 1, False, 4800
        ... )  # turned clockwise: displayed as 20 x 40
        >>> boxes_to_stored(np.array([[15.0, 0.0, 20.0, 10.0]]), header).tolist()
        [[0.0, 0.0, 10.0, 5.0]]
    """
    return _boxes(points_to_stored(np.reshape(boxes_xyxy, (-1, 2, 2)), header))


def _boxes(corners: NDArray[np.float32]) -> NDArray[np.float32]:
    # A mirrored box has its corners the other way round.
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def mask_to_displayed(mask: NDArray[np.bool_], header: ImageHeader) -> NDArray[np.bool_]:
    """Stored to displayed mask: (stored_height, stored_width) to (height, width), a new array."""
    swap, mirror_x, mirror_y = _STEPS[header.exif_orientation]
    out = mask.T if swap else mask
    return _mirror(out, mirror_x, mirror_y)


def mask_to_stored(mask: NDArray[np.bool_], header: ImageHeader) -> NDArray[np.bool_]:
    """Displayed to stored mask: (height, width) to (stored_height, stored_width), a new array."""
    swap, mirror_x, mirror_y = _STEPS[header.exif_orientation]
    out = _mirror(mask, mirror_x, mirror_y)
    return np.array(out.T if swap else out, order="C")


def _mirror(mask: NDArray[np.bool_], mirror_x: bool, mirror_y: bool) -> NDArray[np.bool_]:
    return np.array(mask[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1], order="C")
