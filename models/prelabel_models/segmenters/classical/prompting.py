"""From prompts in pixels of the image to superpixels, and back as hard constraints."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.masks import Mask
from prelabel_models.segmenters.base import Prompts, Scribble
from prelabel_models.segmenters.classical.features import Evidence
from prelabel_models.segmenters.classical.graph import SuperpixelGraph
from prelabel_models.segmenters.classical.network import sigmoid

Array = NDArray[np.float32]

# Boxes are drawn by hand: the object may reach over them by this share of a side.
_BOX_SLACK = 0.05
# A mask that comes from outside is believed to this degree, as the networks' own answers are.
_MASK_BELIEF = 0.97
# Pixels around a click that take its side, whatever the superpixel says.
_CLICK_RADIUS = 1


@dataclass(frozen=True, slots=True)
class Marks:
    """Pixels of the reduced image whose side is given.

    Attributes:
        xy: (K, 2) int64 columns and rows.
        positive: (K,) bool.
        box: (x1, y1, x2, y2) in reduced pixels that the object must stay in, or None.
    """

    xy: NDArray[np.int64]
    positive: NDArray[np.bool_]
    box: tuple[float, float, float, float] | None

    def positive_pixels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the positive marks."""
        return self.xy[self.positive, 1], self.xy[self.positive, 0]

    def pin(self, logits: Array, labels: NDArray[np.int32], sure: float) -> None:
        """Marked superpixels take their mark's side; those with both are split between them."""
        nodes = labels[self.xy[:, 1], self.xy[:, 0]]
        for node in np.unique(nodes):
            here = nodes == node
            signs = np.where(self.positive[here], sure, -sure)
            rows, columns = np.nonzero(labels == node)
            if (signs == signs[0]).all():
                logits[rows, columns] = signs[0] * 0.5
                continue
            marks = self.xy[here]
            far = (columns[:, None] - marks[:, 0]) ** 2 + (rows[:, None] - marks[:, 1]) ** 2
            # The later mark wins where two are equally near.
            nearest = far.shape[1] - 1 - far[:, ::-1].argmin(axis=1)
            logits[rows, columns] = signs[nearest] * 0.5

    def pin_pixels(self, logits: Array, sure: float) -> None:
        """The marked pixels themselves, after smoothing; later marks over earlier ones."""
        for (x, y), positive in zip(self.xy.tolist(), self.positive.tolist(), strict=True):
            r = _CLICK_RADIUS
            logits[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1] = (
                sure if positive else -sure
            )

    def clip_to_box(self, logits: Array, sure: float) -> None:
        """Outside the box nothing belongs to the object."""
        if self.box is None:
            return
        x1, y1, x2, y2 = self.box
        outside = np.ones(logits.shape, bool)
        outside[max(0, int(y1)) : int(np.ceil(y2)), max(0, int(x1)) : int(np.ceil(x2))] = False
        logits[outside] = -sure


def read_prompts(graph: SuperpixelGraph, prompts: Prompts) -> tuple[Evidence, Marks] | None:
    """Prompts as superpixels and as pixels; None if nothing says where the object is."""
    previous = _previous(graph, prompts)
    xy = _to_reduced(graph, prompts.points_xy)
    sides = prompts.point_labels
    for scribble in prompts.scribbles:
        stroke = _stroke(graph, scribble)
        xy = np.concatenate([xy, stroke])
        sides = np.concatenate([sides, np.full(len(stroke), scribble.positive)])
    pixels = _to_pixels(graph, xy)
    nodes = graph.labels[pixels[:, 1], pixels[:, 0]].astype(np.int64)
    positive, negative = np.unique(nodes[sides]), np.unique(nodes[~sides])
    box = slack = None
    if len(prompts.boxes_xyxy):
        corners = _to_reduced(graph, prompts.boxes_xyxy.reshape(-1, 2)).reshape(-1, 4)
        x1, y1 = corners[:, :2].min(axis=0).tolist()
        x2, y2 = corners[:, 2:].max(axis=0).tolist()
        dx, dy = _BOX_SLACK * (x2 - x1) + 1, _BOX_SLACK * (y2 - y1) + 1
        box, slack = (x1, y1, x2, y2), (x1 - dx, y1 - dy, x2 + dx, y2 + dy)
    if sides.any():
        anchor = xy[sides][0]
    elif box is not None:
        anchor = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    elif previous is not None and (previous > 0.5).any():
        anchor = _deepest(graph, previous)
        positive = graph.labels[int(anchor[1]), int(anchor[0])].astype(np.int64)[None]
    else:
        return None
    clicks = len(prompts.points_xy) + len(prompts.scribbles)
    place = (float(anchor[0]), float(anchor[1]))
    evidence = Evidence(positive, negative, place, clicks, box, previous)
    return evidence, Marks(pixels, sides.astype(bool), slack)


def shares_of_mask(graph: SuperpixelGraph, mask: Mask) -> Array:
    """(N,) share of each superpixel that a full-size mask covers."""
    height, width = graph.labels.shape
    reduced = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    sums = np.bincount(graph.labels.ravel(), reduced.ravel(), minlength=len(graph.areas))
    return (sums / np.maximum(graph.areas, 1)).astype(np.float32)


def shares_of_logits(graph: SuperpixelGraph, logits: Array) -> Array:
    """(N,) mean probability in each superpixel of a small picture of logits."""
    height, width = graph.labels.shape
    full = cv2.resize(sigmoid(logits), (width, height), interpolation=cv2.INTER_NEAREST)
    sums = np.bincount(graph.labels.ravel(), full.ravel(), minlength=len(graph.areas))
    return (sums / np.maximum(graph.areas, 1)).astype(np.float32)


def _previous(graph: SuperpixelGraph, prompts: Prompts) -> Array | None:
    if prompts.mask is not None:
        share = shares_of_mask(graph, prompts.mask)
        return (share * (2 * _MASK_BELIEF - 1) + (1 - _MASK_BELIEF)).astype(np.float32)
    if prompts.low_res_logits is not None:
        return shares_of_logits(graph, prompts.low_res_logits)
    return None


def _to_reduced(graph: SuperpixelGraph, points_xy: NDArray[np.floating]) -> Array:
    return (np.asarray(points_xy, np.float32) * np.asarray(graph.scale, np.float32)).reshape(-1, 2)


def _to_pixels(graph: SuperpixelGraph, xy: Array) -> NDArray[np.int64]:
    height, width = graph.labels.shape
    return np.clip(np.floor(xy), 0, [width - 1, height - 1]).astype(np.int64)


def _stroke(graph: SuperpixelGraph, scribble: Scribble) -> Array:
    """Pixels under a stroke, thinned to one in nine: superpixels are larger."""
    height, width = graph.labels.shape
    canvas = np.zeros((height, width), np.uint8)
    corners = _to_pixels(graph, _to_reduced(graph, scribble.points_xy)).astype(np.int32)
    thickness = max(1, round(scribble.width_px * min(graph.scale)))
    cv2.polylines(canvas, [corners[:, None, :]], False, 1, thickness)
    rows, columns = np.nonzero(canvas)
    keep = slice(None, None, 9) if len(rows) > 90 else slice(None)
    found = np.stack([columns, rows], axis=1)[keep].astype(np.float32) + np.float32(0.5)
    # The first corner leads: it becomes the anchor.
    return np.concatenate([corners[:1].astype(np.float32) + np.float32(0.5), found])


def _deepest(graph: SuperpixelGraph, previous: Array) -> Array:
    region = np.pad((previous > 0.5)[graph.labels], 1).astype(np.uint8)
    depth = cv2.distanceTransform(region, cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = divmod(int(depth.argmax()), depth.shape[1])
    return np.array([x + 0.5, y + 0.5], np.float32)
