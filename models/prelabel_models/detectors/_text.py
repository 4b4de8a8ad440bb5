"""Steps of a text reader: probability map to lines, line to strip, strip to text.

Sources: Liao et al., Real-time Scene Text Detection with Differentiable Binarization, 2020
(thresholds and expansion); Graves et al., Connectionist Temporal Classification, 2006 (decoding).
The values are those of PaddleOCR's configuration of PP-OCR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.types import RgbImage, Tensor

MAP_THRESHOLD = 0.3
LINE_THRESHOLD = 0.5
UNCLIP_RATIO = 1.6
MOST_LINES = 1000
_LEAST_SIDE = 3.0  # pixels of the map, before expansion; 5 after
_JOIN = np.ones((2, 2), np.uint8)  # closes gaps of a pixel between the parts of a letter

STRIP_HEIGHT = 48  # fixed by the recognisers
# Strips are padded to at least this, the width that the recognisers were trained at.
LEAST_STRIP_WIDTH = 320
# Lines longer than 100 heights are squeezed: a bound on memory that no line of print reaches.
MOST_STRIP_WIDTH = 100 * STRIP_HEIGHT
# A strip at least this many times taller than wide is read from the side.
_TALL = 1.5


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text in one image.

    Attributes:
        corners: (N, 4, 2) float32: top left, top right, bottom right, bottom left, as one reads.
        scores: (N,) float32, mean probability inside the line.
    """

    corners: NDArray[np.float32]
    scores: NDArray[np.float32]


def find_lines(probability: NDArray[np.float32]) -> Lines:
    """Lines in a probability map.

    A line is the smallest rectangle, at any angle, around a connected region above
    `MAP_THRESHOLD`, if the mean probability inside is at least `LINE_THRESHOLD`. The map shows
    shrunken lines: each side is moved outwards by `area * UNCLIP_RATIO / perimeter`.

    Args:
        probability: (H, W), in [0, 1].

    Returns:
        Corners in continuous pixels of the map; they may lie outside of it.

    Example:
        >>> page = np.zeros((64, 128), np.float32)
        >>> page[20:30, 20:100] = 1.0
        >>> len(find_lines(page).scores)
        1
    """
    mask = cv2.dilate((probability > MAP_THRESHOLD).astype(np.uint8), _JOIN)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    corners: list[NDArray[np.float32]] = []
    scores: list[float] = []
    for contour in contours[:MOST_LINES]:
        center, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < _LEAST_SIDE:
            continue
        score = _mean_inside(probability, center, (width - 1.0, height - 1.0), angle)
        if score < LINE_THRESHOLD:
            continue
        grow = 2.0 * (width * height * UNCLIP_RATIO) / (2.0 * (width + height))
        if min(width, height) + grow < _LEAST_SIDE + 2.0:
            continue
        box = cv2.boxPoints((center, (width + grow, height + grow), angle))
        # A contour runs through the middles of pixels, half a pixel inside each edge; `_JOIN` has
        # added one pixel to the right and below, so that it runs along the outer edges.
        corners.append(as_read(np.asarray(box, np.float32)))
        scores.append(min(score, 1.0))
    return Lines(np.asarray(corners, np.float32).reshape(-1, 4, 2), np.asarray(scores, np.float32))


def as_read(box: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four corners of a rectangle as top left, top right, bottom right, bottom left."""
    by_x = box[np.argsort(box[:, 0], kind="stable")]
    left = by_x[:2][np.argsort(by_x[:2, 1], kind="stable")]
    right = by_x[2:][np.argsort(by_x[2:, 1], kind="stable")]
    return np.stack([left[0], right[0], right[1], left[1]])


def cut_strip(image: RgbImage, corners: NDArray[np.float32]) -> RgbImage:
    """The line inside four corners, upright.

    Args:
        image: (H, W, 3) uint8.
        corners: (4, 2) in continuous pixels of the image, in the order of `as_read`.

    Returns:
        (height, width, 3) uint8. Lines that stand upright are turned a quarter to the left.
    """
    across = max(np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[2] - corners[3]))
    down = max(np.linalg.norm(corners[3] - corners[0]), np.linalg.norm(corners[2] - corners[1]))
    width, height = max(1, round(float(across))), max(1, round(float(down)))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    # OpenCV counts from the middle of the first pixel.
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32) - 0.5, target - 0.5)
    strip = cv2.warpPerspective(
        image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(strip)) if height >= _TALL * width else strip


def strip_width(strip: RgbImage) -> int:
    """Width of a strip once it is `STRIP_HEIGHT` high."""
    height, width = strip.shape[:2]
    upright: int = -(-STRIP_HEIGHT * width // height)
    return min(MOST_STRIP_WIDTH, max(1, upright))


def strip_tensor(strips: Sequence[RgbImage], height: int, width: int) -> Tensor:
    """Strips of one batch, scaled to `height`, padded with zeros to `width`.

    Returns:
        (N, 3, height, width) float32 BGR in [-1, 1]; 0 where a strip does not reach.
    """
    batch = np.zeros((len(strips), 3, height, width), np.float32)
    for row, strip in enumerate(strips):
        own = min(width, max(1, -(-height * strip.shape[1] // strip.shape[0])))
        resized = cv2.resize(strip, (own, height))[:, :, ::-1].astype(np.float32)
        batch[row, :, :, :own] = resized.transpose(2, 0, 1) / 127.5 - 1.0
    return batch


def read_characters(
    probabilities: NDArray[np.float32], characters: Sequence[str]
) -> tuple[str, float]:
    """Best path of one strip: repeats joined, blanks dropped.

    Args:
        probabilities: (steps, 1 + characters); column 0 is the blank.
        characters: What the other columns stand for.

    Returns:
        The text, and the mean probability of its characters; 0 for an empty text.

    Example:
        >>> steps = np.eye(3, dtype=np.float32)[[0, 1, 1, 0, 1, 2]]
        >>> read_characters(steps, "ab")
        ('aab', 1.0)
    """
    best = probabilities.argmax(axis=1)
    starts = np.ones(len(best), bool)
    starts[1:] = best[1:] != best[:-1]
    steps = np.flatnonzero(starts & (best > 0))
    if steps.size == 0:
        return "", 0.0
    text = "".join(characters[column - 1] for column in best[steps])
    return text, float(probabilities[steps, best[steps]].mean())


def _mean_inside(
    probability: NDArray[np.float32],
    center: Sequence[float],
    size: tuple[float, float],
    angle: float,
) -> float:
    """Mean of the pixels whose middles lie inside a rectangle, given by its outer edges less 1."""
    rows, columns = probability.shape
    middles = (center[0] - 0.5, center[1] - 0.5)
    box = np.rint(cv2.boxPoints((middles, size, angle))).astype(np.int32)
    low = np.clip(box.min(axis=0), 0, (columns - 1, rows - 1))
    high = np.clip(box.max(axis=0), 0, (columns - 1, rows - 1))
    mask = np.zeros((high[1] - low[1] + 1, high[0] - low[0] + 1), np.uint8)
    cv2.fillPoly(mask, [(box - low).astype(np.int32)], (1,))
    part = probability[low[1] : high[1] + 1, low[0] : high[0] + 1]
    return float(cv2.mean(part, mask)[0])
