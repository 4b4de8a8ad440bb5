"""Prompts as the token lists of point-prompted decoders. Pure functions.

Coordinates here are continuous (the first pixel covers [0, 1), its centre is 0.5), while Segment
Anything's are pixel indices to which its prompt encoder adds 0.5 pixels of its input. The numbers
are handed on as they are, as every tool built on `SamPredictor` does: a click in the centre of a
pixel then lands half a pixel of the 1024 pixel input beside it, far below the 4 such pixels that
one cell of the answer covers, and given the same numbers the answers equal `SamPredictor`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import OptionError
from prelabel_models.segmenters.base import Prompts, Scribble
from prelabel_models.transforms import Transform

# Labels of the decoders' tokens.
BESIDE, ON, TOP_LEFT, BOTTOM_RIGHT, NOTHING = 0.0, 1.0, 2.0, 3.0, -1.0

# Segment Anything was trained with at most eleven rounds of points; a line sampled much more
# densely than that is unlike anything that the model has seen.
_SCRIBBLE_SAMPLES = 12
# SAM 2 turns a given mask into logits of -10 and 10 (`_use_mask_as_output`).
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one run of a decoder is told.

    Attributes:
        points_xy: (K, 2) float32, in pixels of the displayed image.
        labels: (K,) float32: 1 on the object, 0 beside it, 2 and 3 for the corners of a box.
    """

    points_xy: NDArray[np.float32]
    labels: NDArray[np.float32]


def token_lists(
    prompts: Prompts, *, corners_first: bool, most: int | None = None
) -> tuple[Tokens, ...]:
    """One token list for each box, or one for all clicks if there is no box.

    A decoder takes one box at a time. Clicks beside the object hold for every box; a click on the
    object goes to the boxes that it lies in, and to all if it lies in none.

    Args:
        prompts: With any number of boxes.
        corners_first: Boxes before clicks, as SAM 2 and EfficientSAM were trained.
        most: Tokens that the decoder takes; lines are sampled more thinly to stay below.
    """
    samples = _SCRIBBLE_SAMPLES
    if most is not None:
        boxed = 2 if len(prompts.boxes_xyxy) else 0
        samples = min(samples, most - boxed - len(prompts.points_xy))
    points, labels = _with_scribbles(prompts, samples)
    if len(prompts.boxes_xyxy) == 0:
        return (Tokens(points, labels.astype(np.float32)),)
    low, high = prompts.boxes_xyxy[:, None, :2], prompts.boxes_xyxy[:, None, 2:]
    inside = ((points >= low) & (points <= high)).all(axis=2)  # (boxes, clicks)
    wanted = inside | ~inside.any(axis=0) | ~labels
    lists = []
    for box, chosen in zip(prompts.boxes_xyxy, wanted, strict=True):
        parts = [(points[chosen], labels[chosen].astype(np.float32))]
        corners = (box.reshape(2, 2), np.array([TOP_LEFT, BOTTOM_RIGHT], np.float32))
        parts.insert(0 if corners_first else 1, corners)
        coordinates, kinds = zip(*parts, strict=True)
        lists.append(Tokens(np.concatenate(coordinates), np.concatenate(kinds)))
    return tuple(lists)


def sample_scribble(scribble: Scribble, count: int) -> NDArray[np.float32]:
    """Points at equal distances along a line.

    Args:
        scribble: The line.
        count: How many, >= 1.

    Returns:
        (count, 2) float32; the middles of `count` equal parts.

    Example:
        >>> sample_scribble(Scribble(np.array([[0, 0], [8, 0]], np.float32), True), 2).tolist()
        [[2.0, 0.0], [6.0, 0.0]]
    """
    points = scribble.points_xy.astype(np.float64)
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = (np.arange(count) + 0.5) / count * travelled[-1]
    xs, ys = (np.interp(at, travelled, points[:, axis]) for axis in (0, 1))
    return np.stack([xs, ys], axis=1).astype(np.float32)


def mask_logits(prompts: Prompts, transform: Transform, cells: int) -> NDArray[np.float32] | None:
    """The shape to refine on a decoder's grid, as (1, 1, cells, cells) float32; None if none.

    Args:
        prompts: Already compared with the image.
        transform: From image to input pixels.
        cells: Side of the grid, which covers the whole input with its padding.

    Raises:
        OptionError: An earlier answer of another model.
    """
    if prompts.low_res_logits is not None:
        given = prompts.low_res_logits
        if given.shape != (cells, cells) or not np.isfinite(given).all():
            raise OptionError(
                "prompts.shape",
                f"prompts.shape: expected {cells}x{cells} finite logits of an earlier answer, got "
                f"{'x'.join(map(str, given.shape))}",
            )
        return given.astype(np.float32, copy=False)[None, None]
    if prompts.mask is None:
        return None
    (width, height), (side_x, side_y) = transform.content_size, transform.input_size
    share = np.zeros((side_y, side_x), np.float32)
    # The mean over an area, not a sample: thin shapes survive as weak evidence.
    content = cv2.resize(
        prompts.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
    )
    share[:height, :width] = content
    grid = cv2.resize(share, (cells, cells), interpolation=cv2.INTER_AREA)
    return np.asarray(grid * _MASK_SCALE + _MASK_BIAS, np.float32)[None, None]


def _with_scribbles(
    prompts: Prompts, samples: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Clicks and `samples` points of all lines, at least one of each, with their labels."""
    points, labels = [prompts.points_xy], [prompts.point_labels]
    for scribble in prompts.scribbles:
        count = max(1, samples // len(prompts.scribbles))
        points.append(sample_scribble(scribble, count))
        labels.append(np.full(count, scribble.positive))
    return np.concatenate(points).astype(np.float32), np.concatenate(labels)
