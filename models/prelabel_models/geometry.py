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
    boxes_xyxy: NDArray[np.floating], scores: NDArray[np.floating], iou_threshold: float
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression.

    A box is dropped if its IoU with a kept box of a higher score exceeds the threshold. Ties in
    score are broken by position: the earlier row wins.

    Args:
        boxes_xyxy: (N, 4) boxes.
        scores: (N,) scores.
        iou_threshold: In [0, 1].

    Returns:
        (K,) kept row indices, highest score first.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    boxes = np.asarray(boxes_xyxy, np.float64)[order]
    areas = box_areas(boxes)
    alive = np.ones(len(order), bool)
    kept: list[int] = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(int(order[i]))
        rest = np.flatnonzero(alive[i + 1 :]) + i + 1
        if rest.size == 0:
            break
        x1 = np.maximum(boxes[i, 0], boxes[rest, 0])
        y1 = np.maximum(boxes[i, 1], boxes[rest, 1])
        x2 = np.minimum(boxes[i, 2], boxes[rest, 2])
        y2 = np.minimum(boxes[i, 3], boxes[rest, 3])
        shared = np.clip(x2 - x1, 0, None) * np.clip(y2 - y1, 0, None)
        union = areas[i] + areas[rest] - shared
        # Multiplied out, so that empty boxes do not divide by zero.
        alive[rest[shared > iou_threshold * union]] = False
    return np.asarray(kept, np.int64)


def suppress_rows(found: Detections, options: DetectOptions) -> tuple[NDArray[np.int64], bool]:
    """Which rows survive suppression and the bound on the count, highest score first.

    Empty boxes (outside the image, or inverted by the model) never survive.

    Args:
        found: Candidates in any order, already above their thresholds.
        options: Uses `nms_iou`, `class_agnostic_nms` and `max_detections`.

    Returns:
        Row indices, and whether the bound cut any off.
    """
    solid = np.flatnonzero(box_areas(found.boxes_xyxy) > 0)
    scores = found.scores[solid]
    if options.nms_iou is None or len(solid) == 0:
        order = np.argsort(-scores, kind="stable")
    else:
        boxes = found.boxes_xyxy[solid].astype(np.float64)
        if not options.class_agnostic_nms:
            # Shift every class to a region of its own, so that one pass serves all.
            span = float(boxes.max()) - float(boxes.min()) + 1.0
            boxes = boxes + (found.class_ids[solid] * span)[:, None]
        order = nms(boxes, scores, options.nms_iou)
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
