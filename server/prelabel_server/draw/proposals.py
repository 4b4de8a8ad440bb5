"""Proposals drawn into their picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel.types import Proposal
from prelabel_models import masks
from prelabel_models.errors import ModelsError
from prelabel_models.types import RgbImage
from prelabel_server.draw.chips import Rect, place_chips
from prelabel_server.draw.lettering import one_line, render, shortened
from prelabel_server.draw.palette import Rgb, class_colors, ink_on

# Fractional bits of OpenCV's coordinates: a sixteenth of a pixel.
_SHIFT = 4
# Enough to see a mask's colour without hiding what lies below.
_MASK_ALPHA = 0.4
_CHIP_TEXT_LENGTH = 48


@dataclass(frozen=True, slots=True)
class Pen:
    """Widths that grow with the picture, so that a thumbnail of any picture looks alike.

    Attributes:
        line_px: Width of outlines.
        font_px: Size of letters.
    """

    line_px: int
    font_px: int

    @classmethod
    def for_size(cls, width: int, height: int) -> Pen:
        """For a picture of this size.

        The shares were chosen by eye on photographs of 300 to 4000 pixels; letters below 11
        pixels cannot be read.
        """
        side = (width * height) ** 0.5
        return cls(line_px=max(2, round(side / 300)), font_px=max(11, round(side * 0.024)))


def draw_proposals(
    pixels: RgbImage,
    proposals: Sequence[Proposal],
    *,
    labels: bool = True,
    pen: Pen | None = None,
) -> RgbImage:
    """Masks, outlines, boxes and key points, each with its label and score.

    Args:
        pixels: (H, W, 3) uint8 RGB in the frame of the proposals; left as it is.
        proposals: What to draw; the highest score lies on top and chooses its label's place first.
        labels: Write label, score and text beside each.
        pen: Widths; by default those for the size of the picture.

    Returns:
        (H, W, 3) uint8 RGB.

    Example:
        >>> from prelabel.types import Proposal
        >>> cat = Proposal("cat", 0, 0.9, None, (2, 2, 30, 30))
        >>> draw_proposals(np.zeros((40, 40, 3), np.uint8), [cat]).shape
        (40, 40, 3)
    """
    canvas = np.ascontiguousarray(pixels).copy()
    height, width = canvas.shape[:2]
    pen = pen or Pen.for_size(width, height)
    colors = class_colors(p.label for p in proposals)
    ranked = sorted(proposals, key=lambda p: -p.score)
    for proposal in reversed(ranked):
        _fill_mask(canvas, proposal, colors[proposal.label])
    for proposal in reversed(ranked):
        _draw_shape(canvas, proposal, colors[proposal.label], pen)
    if labels:
        _draw_chips(canvas, ranked, [colors[p.label] for p in ranked], pen)
    return canvas


def caption(proposal: Proposal) -> str:
    """What the label of a proposal says: class, score in hundredths, and the text read there."""
    words = f"{shortened(one_line(proposal.label), _CHIP_TEXT_LENGTH)} {proposal.score:.2f}"
    if proposal.text:
        words += f": {shortened(one_line(proposal.text), _CHIP_TEXT_LENGTH)}"
    return words


def mask_array(proposal: Proposal, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """A proposal's mask as (height, width) booleans, from whichever encoding it came in.

    Args:
        proposal: The proposal.
        size: (width, height) of the picture in pixels.

    Returns:
        None if it has no mask, or one that is not of this picture.
    """
    mask = proposal.mask
    if mask is None:
        return None
    try:
        if mask.polygons is not None:
            rings = [
                masks.Polygon(_points(p.exterior), tuple(_points(h) for h in p.holes))
                for p in mask.polygons
            ]
            return masks.from_polygons(rings, size)
        array = mask.to_array() if mask.rle is not None else masks.decode_png(mask.png or b"")
    except (ModelsError, ValueError):
        return None
    return array if array.shape == (size[1], size[0]) else None


def corners_of(proposal: Proposal) -> NDArray[np.float64]:
    """Corners (K, 2) of the narrowest shape that a proposal has besides its mask."""
    corners = _corners(proposal)
    if corners is not None:
        return corners
    x1, y1, x2, y2 = proposal.box
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)


def _points(ring: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    return np.asarray(ring, np.float32).reshape(-1, 2)


def _fill_mask(canvas: RgbImage, proposal: Proposal, color: Rgb) -> None:
    height, width = canvas.shape[:2]
    mask = mask_array(proposal, (width, height))
    if mask is None:
        return
    tinted = canvas[mask] * (1 - _MASK_ALPHA) + np.asarray(color) * _MASK_ALPHA
    canvas[mask] = np.round(tinted).astype(np.uint8)
    borders, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, borders, -1, color, 1, cv2.LINE_AA)


def _draw_shape(canvas: RgbImage, proposal: Proposal, color: Rgb, pen: Pen) -> None:
    halo = ink_on(color)
    # A dark or light rim keeps a line visible on a ground of its own colour; beside a line of one
    # pixel it would be all that is seen.
    rim_px = max(1, round(pen.line_px / 3))
    rim = [(halo, pen.line_px + 2 * rim_px)] if pen.line_px > 1 else []
    strokes = [*rim, (color, pen.line_px)]
    corners = _corners(proposal)
    if corners is None:
        x1, y1, x2, y2 = _whole(proposal.box)
        for tone, line in strokes:
            cv2.rectangle(canvas, (x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1)), tone, line)
    else:
        ring = np.round(corners * (1 << _SHIFT)).astype(np.int32)
        for tone, line in strokes:
            cv2.polylines(canvas, [ring], True, tone, line, cv2.LINE_AA, _SHIFT)
    for x, y in proposal.key_points:
        spot = (round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT)))
        radius = pen.line_px << _SHIFT
        cv2.circle(canvas, spot, radius + (1 << _SHIFT), halo, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(canvas, spot, radius, color, -1, cv2.LINE_AA, _SHIFT)


def _corners(proposal: Proposal) -> NDArray[np.float64] | None:
    """The outline, or the rotated box's corners; None where the upright box says it all."""
    if proposal.outline:
        return np.asarray(proposal.outline, np.float64)
    rotated = proposal.rotated_box
    if rotated is None:
        return None
    angle = np.deg2rad(rotated.angle_degrees)
    along = np.array([np.cos(angle), np.sin(angle)]) * rotated.width / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * rotated.height / 2
    middle = np.array([rotated.center_x, rotated.center_y])
    return np.stack(
        [
            middle - along - across,
            middle + along - across,
            middle + along + across,
            middle - along + across,
        ]
    )


def _draw_chips(
    canvas: RgbImage, ranked: Sequence[Proposal], colors: Sequence[Rgb], pen: Pen
) -> None:
    height, width = canvas.shape[:2]
    pad = max(2, pen.font_px // 4)
    inks = [render(caption(p), pen.font_px) for p in ranked]
    boxes = [_on_line(_bounds(p), pen.line_px) for p in ranked]
    sizes = [(ink.shape[1] + 2 * pad, ink.shape[0] + pad // 2) for ink in inks]
    spots = place_chips(boxes, sizes, (width, height))
    for (x1, y1, x2, y2), ink, color in reversed(list(zip(spots, inks, colors, strict=True))):
        ground = canvas[max(y1, 0) : y2, max(x1, 0) : x2]
        ground[:] = color
        stamp(canvas, ink, (x1 + pad, y1 + pad // 4), ink_on(color))


def stamp(canvas: RgbImage, ink: NDArray[np.uint8], corner: tuple[int, int], color: Rgb) -> None:
    """Print `ink` onto the canvas, in place, cut off at its borders.

    Args:
        canvas: (H, W, 3) uint8.
        ink: (h, w) coverage, 0 to 255.
        corner: (x, y) of its upper left pixel; may be outside.
        color: Of the ink.
    """
    x, y = corner
    left, top = max(0, -x), max(0, -y)
    part = canvas[y + top : y + ink.shape[0], x + left : x + ink.shape[1]]
    alpha = ink[top : top + part.shape[0], left : left + part.shape[1], None] / 255.0
    part[:] = np.round(part * (1 - alpha) + np.asarray(color) * alpha).astype(np.uint8)


def _bounds(proposal: Proposal) -> Rect:
    corners = corners_of(proposal)
    x1, y1 = corners.min(axis=0).tolist()
    x2, y2 = corners.max(axis=0).tolist()
    return _whole((x1, y1, x2, y2))


def _on_line(box: Rect, line_px: int) -> Rect:
    half = line_px // 2 + 1
    return box[0] - half, box[1] - half, box[2] + half, box[3] + half


def _whole(box: tuple[float, float, float, float]) -> Rect:
    return round(box[0]), round(box[1]), round(box[2]), round(box[3])
