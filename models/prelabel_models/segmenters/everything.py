"""Masks for everything in an image: a grid of clicks, thinned out by quality and overlap.

Source: Kirillov et al., Segment Anything, 2023, automatic mask generation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel_models import masks
from prelabel_models.geometry import nms
from prelabel_models.segmenters.base import Embedding, MaskCandidate, Prompts, Segmenter


def grid_points(image_size: tuple[int, int], points_per_side: int) -> NDArray[np.float32]:
    """Centres of equal cells, about as many along the longer side as asked for.

    Args:
        image_size: (width, height) in pixels.
        points_per_side: Points along the longer side, >= 1.

    Returns:
        (N, 2) x and y in pixels, row by row.

    Example:
        >>> grid_points((100, 50), 2).tolist()
        [[25.0, 25.0], [75.0, 25.0]]
    """
    width, height = image_size
    step = max(width, height) / points_per_side
    columns, rows = max(1, round(width / step)), max(1, round(height / step))
    xs = (np.arange(columns) + 0.5) * width / columns
    ys = (np.arange(rows) + 0.5) * height / rows
    x, y = np.meshgrid(xs, ys)
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def segment_everything(
    segmenter: Segmenter,
    embedding: Embedding,
    *,
    points_per_side: int = 16,
    min_predicted_iou: float = 0.7,
    min_stability_score: float = 0.8,
    nms_iou: float = 0.7,
    min_area_px: int = 0,
) -> tuple[MaskCandidate, ...]:
    """One click per grid point, all candidates, the good and different ones kept.

    Args:
        segmenter: Any segmenter.
        embedding: Made by it.
        points_per_side: Points along the longer side.
        min_predicted_iou: Keep candidates with at least this, [0, 1].
        min_stability_score: Keep candidates with at least this, [0, 1].
        nms_iou: Of two masks whose boxes overlap more than this the lesser is dropped, [0, 1].
        min_area_px: Drop masks of fewer pixels.

    Returns:
        The highest predicted IoU first.
    """
    found: list[MaskCandidate] = []
    boxes: list[tuple[int, int, int, int]] = []
    for point in grid_points(embedding.image_size, points_per_side):
        prompts = Prompts(points_xy=point[None], point_labels=np.ones(1, bool))
        for candidate in segmenter.segment(embedding, prompts, max_masks=3):
            if (
                candidate.predicted_iou < min_predicted_iou
                or candidate.stability_score < min_stability_score
            ):
                continue
            drawn = candidate.draw()
            box = masks.mask_box_xyxy(drawn)
            if box is not None and masks.mask_area(drawn) >= min_area_px:
                found.append(candidate)
                boxes.append(box)
    if not found:
        return ()
    scores = np.asarray([c.predicted_iou for c in found])
    kept = nms(np.asarray(boxes, np.float32), scores, nms_iou)
    return tuple(found[i] for i in kept)
