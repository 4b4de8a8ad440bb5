"""How good a segmenter is at click after click: the protocol of RITM (Sofiiuk et al. 2021).

The first click lies as deep inside the object as possible; each further one as deep as possible
inside the largest region that is still wrong, positive if it is missing and negative if it is too
much. The score is the intersection over union after every click.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.masks import Mask, mask_iou
from prelabel_models.segmenters.base import Embedding, Prompts, Segmenter
from prelabel_models.types import RgbImage

Click = tuple[float, float, bool]


@dataclass(frozen=True, slots=True)
class ClickCurve:
    """Results of `click_curve`, one row per object and one column per click.

    Attributes:
        iou: (objects, clicks) in [0, 1]; a finished object keeps its last value.
        predicted_iou: Likewise, what the segmenter said.
        seconds: (objects, clicks) spent in `segment`, the mask included; NaN where no click was
            needed any more.
        embed_seconds: (images,) spent in `embed`.
    """

    iou: NDArray[np.float64]
    predicted_iou: NDArray[np.float64]
    seconds: NDArray[np.float64]
    embed_seconds: NDArray[np.float64]

    def mean_iou(self, clicks: int) -> float:
        """Mean over all objects after so many clicks, >= 1."""
        return float(self.iou[:, clicks - 1].mean())

    def clicks_to(self, iou: float) -> float:
        """Mean number of clicks to reach an IoU (NoC); objects that never do count with all."""
        reached = self.iou >= iou
        most = self.iou.shape[1]
        needed = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, most)
        return float(needed.mean())


def next_click(
    predicted: Mask,
    truth: Mask,
    used: Mask,
    *,
    jitter_px: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Click | None:
    """Where a careful annotator clicks next.

    Args:
        predicted: (H, W) bool, the mask so far; empty before the first click.
        truth: (H, W) bool, what the annotator wants.
        used: (H, W) bool, pixels that have been clicked on.
        jitter_px: Standard deviation of the hand, in pixels; the click stays in its region.
        rng: Source of the jitter.

    Returns:
        (x, y, positive) at the centre of a pixel; None if nothing is wrong.
    """
    missing, excess = truth & ~predicted, predicted & ~truth
    depths = [_depth(missing) * ~used, _depth(excess) * ~used]
    positive = bool(depths[0].max() > depths[1].max())
    depth, region = (depths[0], missing) if positive else (depths[1], excess)
    if depth.max() <= 0:
        return None
    y, x = divmod(int(depth.argmax()), depth.shape[1])
    if jitter_px > 0 and rng is not None:
        dx, dy = np.rint(rng.normal(0.0, jitter_px, 2)).astype(int)
        moved_x = int(np.clip(x + dx, 0, depth.shape[1] - 1))
        moved_y = int(np.clip(y + dy, 0, depth.shape[0] - 1))
        if region[moved_y, moved_x]:
            x, y = moved_x, moved_y
    return x + 0.5, y + 0.5, positive


def click_curve(
    segmenter: Segmenter,
    objects: Iterable[tuple[RgbImage, Iterable[Mask]]],
    *,
    max_clicks: int = 10,
    jitter_px: float = 0.0,
    seed: int = 0,
) -> ClickCurve:
    """Click on every object, with the segmenter's own last answer as mask input.

    Args:
        segmenter: Any segmenter.
        objects: Images (H, W, 3) uint8 RGB, each with its objects' (H, W) bool masks.
        max_clicks: Clicks on each object, >= 1.
        jitter_px: See `next_click`.
        seed: Of the jitter.
    """
    rng = np.random.default_rng(seed)
    rows: list[NDArray[np.float64]] = []
    embed_seconds = []
    for image, truths in objects:
        start = time.perf_counter()
        embedding = segmenter.embed(image)
        embed_seconds.append(time.perf_counter() - start)
        for truth in truths:
            rows.append(_one_object(segmenter, embedding, truth, max_clicks, jitter_px, rng))
    table = np.array(rows).reshape(-1, 3, max_clicks)
    return ClickCurve(table[:, 0], table[:, 1], table[:, 2], np.array(embed_seconds))


def _one_object(
    segmenter: Segmenter,
    embedding: Embedding,
    truth: Mask,
    max_clicks: int,
    jitter_px: float,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """(3, max_clicks): IoU, predicted IoU and seconds."""
    predicted, used = np.zeros_like(truth), np.zeros_like(truth)
    clicks: list[Click] = []
    previous = None
    row = np.full((3, max_clicks), np.nan)
    for k in range(max_clicks):
        click = next_click(predicted, truth, used, jitter_px=jitter_px, rng=rng)
        if click is None:
            row[:2, k:] = row[:2, k - 1 : k] if k else 1.0
            break
        clicks.append(click)
        used[int(click[1]), int(click[0])] = True
        start = time.perf_counter()
        prompts = Prompts(
            points_xy=np.array([c[:2] for c in clicks], np.float32),
            point_labels=np.array([c[2] for c in clicks], bool),
            low_res_logits=previous,
        )
        answers = segmenter.segment(embedding, prompts, max_masks=1)
        predicted = answers[0].draw() if answers else np.zeros_like(truth)
        row[2, k] = time.perf_counter() - start
        previous = answers[0].low_res_logits if answers else None
        row[0, k] = mask_iou(predicted, truth)
        row[1, k] = answers[0].predicted_iou if answers else 0.0
    return row


def _depth(region: Mask) -> NDArray[np.float32]:
    """Distance to the region's border; the image's edge counts as border."""
    padded = np.pad(region, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 0)[1:-1, 1:-1]
    return distance.astype(np.float32, copy=False)
