"""From image pixels to a model's input grid and back: one object for image, points and boxes.

Coordinates are continuous: the first pixel covers [0, 1), its centre is 0.5. Scaling an image by
`s` therefore scales coordinates by `s` and moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.types import RgbImage


@dataclass(frozen=True, slots=True)
class Transform:
    """An axis-aligned scaling and shift from image pixels to input pixels, with its inverse.

    Attributes:
        image_size: (width, height) of the image in pixels.
        input_size: (width, height) of the model's input in pixels.
        content_size: (width, height) that the image covers inside the input.
        offset: (x, y) of the image's top-left corner inside the input.
        scale: (x, y) input pixels per image pixel, used for coordinates.

    Example:
        >>> t = letterbox((640, 480), (416, 416))
        >>> t.content_size
        (416, 312)
        >>> t.boxes_to_image(np.array([[0.0, 0.0, 416.0, 312.0]])).tolist()
        [[0.0, 0.0, 640.0, 480.0]]
    """

    image_size: tuple[int, int]
    input_size: tuple[int, int]
    content_size: tuple[int, int]
    offset: tuple[int, int]
    scale: tuple[float, float]

    def apply(self, image: RgbImage, *, pad_value: int) -> NDArray[np.uint8]:
        """Resize (bilinear) and pad.

        Args:
            image: (H, W, 3) uint8.
            pad_value: Value of the input pixels that the image does not cover.

        Returns:
            (input height, input width, 3) uint8, in a new array or `image` itself where nothing
            has to change.
        """
        content = image
        if (image.shape[1], image.shape[0]) != self.content_size:
            content = cv2.resize(image, self.content_size, interpolation=cv2.INTER_LINEAR).astype(
                np.uint8, copy=False
            )
        if self.content_size == self.input_size:
            return content
        canvas = np.full((self.input_size[1], self.input_size[0], 3), pad_value, np.uint8)
        x, y = self.offset
        canvas[y : y + content.shape[0], x : x + content.shape[1]] = content
        return canvas

    def points_to_input(self, points_xy: NDArray[np.floating]) -> NDArray[np.float32]:
        """Image to input coordinates; any shape that ends in 2."""
        out = np.asarray(points_xy, np.float64) * self.scale + self.offset
        return out.astype(np.float32)

    def points_to_image(self, points_xy: NDArray[np.floating]) -> NDArray[np.float32]:
        """Input to image coordinates, clipped to the image; any shape that ends in 2."""
        out = (np.asarray(points_xy, np.float64) - self.offset) / self.scale
        return np.clip(out, 0.0, np.asarray(self.image_size, np.float64)).astype(np.float32)

    def boxes_to_input(self, boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float32]:
        """Image to input coordinates; shape (N, 4)."""
        pairs = np.asarray(boxes_xyxy).reshape(-1, 2, 2)
        return self.points_to_input(pairs).reshape(-1, 4)

    def boxes_to_image(self, boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float32]:
        """Input to image coordinates, clipped to the image; shape (N, 4)."""
        pairs = np.asarray(boxes_xyxy).reshape(-1, 2, 2)
        return self.points_to_image(pairs).reshape(-1, 4)


def letterbox(
    image_size: tuple[int, int],
    input_size: tuple[int, int],
    *,
    centered: bool = False,
    enlarge: bool = True,
) -> Transform:
    """Scale to fit, keep the aspect ratio, pad the rest.

    Args:
        image_size: (width, height) of the image in pixels, each >= 1.
        input_size: (width, height) of the model's input in pixels.
        centered: Pad on both sides (YOLOv5, YOLOv8); else right and below (YOLOX).
        enlarge: Also scale small images up.

    Returns:
        The transform; its content covers at least one pixel each way, however long the image is.
    """
    (width, height), (in_w, in_h) = image_size, input_size
    ratio = min(in_w / width, in_h / height)
    if not enlarge:
        ratio = min(ratio, 1.0)
    # YOLOX truncates and the others round; one pixel of 416 at most, so the detectors' own
    # coordinates (which use the unrounded ratio) stay right to less than a pixel.
    content = (max(1, int(width * ratio + 1e-6)), max(1, int(height * ratio + 1e-6)))
    offset = ((in_w - content[0]) // 2, (in_h - content[1]) // 2) if centered else (0, 0)
    return Transform(image_size, input_size, content, offset, (ratio, ratio))


def stretch(image_size: tuple[int, int], input_size: tuple[int, int]) -> Transform:
    """Scale each axis on its own so that the image fills the input (DETR family, UltraFace).

    Args:
        image_size: (width, height) of the image in pixels, each >= 1.
        input_size: (width, height) of the model's input in pixels.
    """
    scale = (input_size[0] / image_size[0], input_size[1] / image_size[1])
    return Transform(image_size, input_size, input_size, (0, 0), scale)
