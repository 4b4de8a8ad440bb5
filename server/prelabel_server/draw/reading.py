"""What was read, set beside the picture in the places where it stands."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel.types import Proposal
from prelabel_models.types import RgbImage
from prelabel_server.draw.lettering import render
from prelabel_server.draw.palette import Rgb
from prelabel_server.draw.proposals import Pen, corners_of, draw_proposals, stamp

# So faint that it places the words without competing with them.
_GHOST = 0.12
_INK: Rgb = (20, 20, 20)
# Below this a line of text cannot be read however well it is drawn.
_LEAST_FONT_PX = 6
# Letters take this share of a text line's height at most; detectors leave a small margin.
_LETTER_SHARE = 0.95


def draw_reading(pixels: RgbImage, proposals: Sequence[Proposal]) -> RgbImage:
    """The picture with outlines on the left, and the texts in their places on the right.

    Labels on the picture itself would hide the lines next to them.

    Args:
        pixels: (H, W, 3) uint8 RGB in the frame of the proposals.
        proposals: Those without a text are drawn on the left only.

    Returns:
        (H, 2 W + g, 3) uint8 RGB, with a gap of g pixels between the halves.
    """
    height, width = pixels.shape[:2]
    pen = Pen.for_size(width, height)
    thin = Pen(line_px=max(1, pen.line_px // 2), font_px=pen.font_px)
    left = draw_proposals(pixels, proposals, labels=False, pen=thin)
    right = np.round(255 - (255 - pixels.astype(np.float32)) * _GHOST).astype(np.uint8)
    # The faint letters below would blur those on top; all go first, since lines may overlap.
    areas = [np.round(corners_of(p)).astype(np.int32) for p in proposals if p.text]
    for area in areas:
        cv2.fillPoly(right, [area], (255, 255, 255))
    for proposal in proposals:
        if proposal.text:
            _write(right, proposal, proposal.text)
    gap = np.full((height, 4 * pen.line_px, 3), 128, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def _write(canvas: RgbImage, proposal: Proposal, text: str) -> None:
    (x, y), (width, height), angle = _frame(proposal)
    size = height * _LETTER_SHARE
    # As wide as the line in the picture, which is set in another font.
    size *= min(1.0, width / render(text, max(_LEAST_FONT_PX, round(size))).shape[1])
    ink = render(text, max(_LEAST_FONT_PX, int(size)))
    if abs(angle) >= 1.0:
        ink = _turned(ink, angle)
    corner = (round(x - ink.shape[1] / 2), round(y - ink.shape[0] / 2))
    stamp(canvas, ink, corner, _INK)


def _frame(proposal: Proposal) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Centre, (width, height) along and across the text, clockwise angle in degrees."""
    rotated = proposal.rotated_box
    if rotated is None:
        x1, y1, x2, y2 = proposal.box
        return ((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1), 0.0
    size, angle = (rotated.width, rotated.height), rotated.angle_degrees
    if size[1] > 1.5 * size[0] and proposal.text and len(proposal.text) > 1:
        # A tall box of several letters: the line runs along its longer side.
        size, angle = (size[1], size[0]), angle + 90.0
    return (rotated.center_x, rotated.center_y), size, angle


def _turned(ink: NDArray[np.uint8], angle: float) -> NDArray[np.uint8]:
    height, width = ink.shape
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle, 1.0)
    new_width = int(np.ceil(height * abs(turn[0, 1]) + width * abs(turn[0, 0])))
    new_height = int(np.ceil(height * abs(turn[0, 0]) + width * abs(turn[0, 1])))
    turn[:, 2] += ((new_width - width) / 2, (new_height - height) / 2)
    turned = cv2.warpAffine(ink, turn, (new_width, new_height), flags=cv2.INTER_LINEAR)
    return np.asarray(turned, np.uint8)
