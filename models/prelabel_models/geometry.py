"""Boxes as numpy arrays: overlap and suppression. Pure functions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.types import Detections, DetectOptions


def box_areas(boxes_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Areas in square pixels of (N, 4) boxes; 0 for inverted ones."""
    boxes = np.asarray(boxes_xyxy, np.float64)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None)
    areas: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return areas


def box_iou(a_xyxy: NDArray[np.floating], b_xyxy: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union of every pair.

    Args:
        a_xyxy: (N, 4) boxes.
        b_xyxy: (M, 4) boxes.

    Returns:
        (N, M) values in [0, 1]; 0 where both boxes are empty.

    Example:
        >>> box_iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2]])).round(3).tolist()
        [[0.333]]
    """
    a, b = np.asarray(a_xyxy, np.float64), np.asarray(b_xyxy, np.float64)
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0.0, None)
    shared = sides[..., 0] * sides[..., 1]
    union = box_areas(a)[:, None] + box_areas(b)[None, :] - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def nms(
    boxes_xyxy: NDArray[np.floating],
    scores: NDArray[np.floating],
    iou_threshold: float,
    *,
    groups: NDArray[np.integer] | None = None,
    limit: int | None = None,
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    A box is dropped if its IoU with a kept box of its group and of a higher score exceeds the
    threshold. Ties in score are broken by position: the earlier row wins.

    Args:
        boxes_xyxy: (N, 4) boxes.
        scores: (N,) scores.
        iou_threshold: In [0, 1].
        groups: (N,) group of each box, for example its class; None compares all with all.
        limit: Stop once so many are kept: the rest would be lower scores anyway.

    Returns:
        (K,) kept row indices, highest score first.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    boxes = np.asarray(boxes_xyxy, np.float64)[order]
    areas = box_areas(boxes)
    group_of = np.zeros(len(order), np.int64) if groups is None else np.asarray(groups)[order]
    # What is left of each group, in order of score: a kept box is compared with these only.
    left = {int(g): np.flatnonzero(group_of == g) for g in np.unique(group_of)}
    alive = np.ones(len(order), bool)
    kept: list[int] = []
    for i, group in enumerate(group_of.tolist()):
        if not alive[i]:
            continue
        kept.append(i)
        if limit is not None and len(kept) >= limit:
            break
        rest = left[group]
        rest = rest[(rest > i) & alive[rest]]
        top_left = np.maximum(boxes[i, :2], boxes[rest, :2])
        sides = np.clip(np.minimum(boxes[i, 2:], boxes[rest, 2:]) - top_left, 0, None)
        shared = sides[:, 0] * sides[:, 1]
        union = areas[i] + areas[rest] - shared
        # Multiplied out, so that empty boxes do not divide by zero.
        dropped = shared > iou_threshold * union
        alive[rest[dropped]] = False
        left[group] = rest[~dropped]
    return order[kept].astype(np.int64)


# Candidates that suppression looks at, the highest scores of the image: Ultralytics' bound. At
# thresholds near 0 a head of 2,100 cells and 80 classes gives 168,000.
_MAX_CANDIDATES = 30_000


def suppress_rows(found: Detections, options: DetectOptions) -> tuple[NDArray[np.int64], bool]:
    """Which rows survive suppression and the bound on the count, highest score first.

    Empty boxes (outside the image, or inverted by the model) never survive. Suppression looks at
    the 30,000 highest scores.

    Args:
        found: Candidates in any order, already above their thresholds.
        options: Uses `nms_iou`, `class_agnostic_nms` and `max_detections`.

    Returns:
        Row indices, and whether the bound cut any off.
    """
    solid = np.flatnonzero(box_areas(found.boxes_xyxy) > 0)
    scores = found.scores[solid]
    # One more than the bound shows that there were more.
    limit = options.max_detections + 1
    if options.nms_iou is None or len(solid) == 0:
        order = np.argsort(-scores, kind="stable")[:limit]
    else:
        if len(solid) > _MAX_CANDIDATES:
            solid = np.sort(solid[np.argsort(-scores, kind="stable")[:_MAX_CANDIDATES]])
            scores = found.scores[solid]
        groups = None if options.class_agnostic_nms else found.class_ids[solid]
        order = nms(found.boxes_xyxy[solid], scores, options.nms_iou, groups=groups, limit=limit)
    cut = len(order) > options.max_detections
    return solid[order[: options.max_detections]].astype(np.int64), found.truncated or cut


def suppress(found: Detections, options: DetectOptions) -> Detections:
    """The detections that `suppress_rows` keeps."""
    kept, truncated = suppress_rows(found, options)
    return found.take(kept, truncated=truncated)


def rotated_boxes(outlines: NDArray[np.floating]) -> NDArray[np.float64]:
    """The smallest rectangle, at any angle, around each outline.

    Args:
        outlines: (N, K, 2) corners in pixels, K >= 3.

    Returns:
        (N, 5): centre x, centre y, width, height in pixels, clockwise angle in degrees in
        [-90, 90). Of the two ways to name a rectangle the one with |angle| <= 45 is taken, so that
        a level line of text is wide and not tall.
    """
    boxes = np.zeros((len(outlines), 5), np.float64)
    for row, corners in enumerate(outlines):
        (x, y), (width, height), angle = cv2.minAreaRect(np.asarray(corners, np.float32))
        turns = round(angle / 90.0)  # OpenCV's range has changed between its versions
        if turns % 2:
            width, height = height, width
        boxes[row] = x, y, width, height, angle - 90.0 * turns
    return boxes
