"""GrabCut (Rother, Kolmogorov, Blake 2004): colour mixtures and a graph cut, nothing fitted.

Kept beside the superpixel segmenter as the reference that everybody knows; it is less accurate and
slower, but makes no use of any training image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import ModelInfo
from prelabel_models.cards import ModelCard
from prelabel_models.masks import Mask, resize_logits_to_mask, stability_score
from prelabel_models.segmenters.base import Embedding, MaskCandidate, Prompts
from prelabel_models.session import SessionOptions
from prelabel_models.types import RgbImage

# A cut at 320 px takes a quarter of the time of one at 640 px and differs at the outline only.
_WORK_SIDE = 320
_ROUNDS = 2
# Likely object and likely background around a click, as shares of the shorter side: the median
# object of a photograph is about a third of it wide.
_LIKELY_RADIUS, _SURE_RADIUS = 0.16, 0.015
# GrabCut says nothing about its quality; this is its mean IoU after a few clicks.
_TYPICAL_IOU = 0.45


@dataclass(frozen=True, slots=True)
class _Reduced:
    pixels: NDArray[np.uint8]
    scale: tuple[float, float]


class GrabCutSegmenter:
    """See the module. Thread-safe: it keeps no state between calls."""

    def __init__(self, card: ModelCard) -> None:
        self._info = ModelInfo(card=card, digest=card.digest(), labels=(), gives_masks=True)

    @classmethod
    def from_files(
        cls, card: ModelCard, files: Mapping[str, Path], options: SessionOptions
    ) -> GrabCutSegmenter:
        """Needs no file and runs on the CPU, whatever `options` prefer."""
        return cls(card)

    @property
    def info(self) -> ModelInfo:
        """See `base.Segmenter`."""
        return self._info

    def embed(self, image: RgbImage) -> Embedding:
        """See `base.Segmenter`; only reduces the image."""
        height, width = image.shape[:2]
        ratio = min(1.0, _WORK_SIDE / max(height, width))
        size = (max(4, round(width * ratio)), max(4, round(height * ratio)))
        pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        data = _Reduced(pixels, (size[0] / width, size[1] / height))
        return Embedding(self._info.digest, (width, height), data, pixels.nbytes)

    def segment(
        self, embedding: Embedding, prompts: Prompts, *, max_masks: int
    ) -> tuple[MaskCandidate, ...]:
        """See `base.Segmenter`; one candidate at most."""
        embedding.check_model(self._info)
        prompts.check_inside(embedding.image_size)
        data: _Reduced = embedding.data
        trimap = _trimap(data, prompts)
        object_given = bool(((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).any())
        background_given = bool(((trimap == cv2.GC_BGD) | (trimap == cv2.GC_PR_BGD)).any())
        if not object_given:
            return ()
        if background_given:
            # The mixtures start from k-means, which draws from OpenCV's generator.
            cv2.setRNGSeed(0)
            objects, background = np.zeros((1, 65)), np.zeros((1, 65))
            unused = (0, 0, 1, 1)
            cv2.grabCut(
                data.pixels, trimap, unused, background, objects, _ROUNDS, cv2.GC_INIT_WITH_MASK
            )
        mask = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
        mask = _parts_of_the_object(mask, data, prompts)
        flat = np.where(mask, 4.0, -4.0).astype(np.float32)
        logits = cv2.GaussianBlur(flat, (0, 0), 0.7).astype(np.float32, copy=False)
        width, height = embedding.image_size
        box = (0.0, 0.0, float(width), float(height))
        draw = partial(resize_logits_to_mask, logits, box, (width, height))
        return (MaskCandidate(draw, _TYPICAL_IOU, stability_score(logits), logits),)

    def close(self) -> None:
        """See `base.Segmenter`; there is nothing to free."""


def _trimap(data: _Reduced, prompts: Prompts) -> NDArray[np.uint8]:
    height, width = data.pixels.shape[:2]
    short = min(height, width)
    scale = np.asarray(data.scale, np.float32)
    trimap = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    if len(prompts.boxes_xyxy):
        trimap[:] = cv2.GC_BGD
        for box in prompts.boxes_xyxy.reshape(-1, 2, 2) * scale:
            (x1, y1), (x2, y2) = np.rint(box).astype(int).tolist()
            trimap[max(0, y1) : y2, max(0, x1) : x2] = cv2.GC_PR_FGD
    previous = _previous(data, prompts)
    if previous is not None:
        trimap[previous & (trimap != cv2.GC_BGD)] = cv2.GC_PR_FGD
    likely = max(2, round(_LIKELY_RADIUS * short))
    sure = max(1, round(_SURE_RADIUS * short))
    clicks = [
        (np.floor(p).astype(int).tolist(), bool(side))
        for p, side in zip(prompts.points_xy * scale, prompts.point_labels, strict=True)
    ]
    if previous is None and not len(prompts.boxes_xyxy):
        for point, side in clicks:
            if side:
                cv2.circle(trimap, point, likely, cv2.GC_PR_FGD, -1)
    for point, side in clicks:
        if not side:
            cv2.circle(trimap, point, max(2, likely // 2), cv2.GC_PR_BGD, -1)
    for scribble in prompts.scribbles:
        corners = np.floor(scribble.points_xy * scale).astype(np.int32)
        value = cv2.GC_FGD if scribble.positive else cv2.GC_BGD
        thickness = max(1, round(scribble.width_px * float(scale.min())))
        cv2.polylines(trimap, [corners[:, None, :]], False, value, thickness)
    for point, side in clicks:
        cv2.circle(trimap, point, sure, cv2.GC_FGD if side else cv2.GC_BGD, -1)
    return trimap


def _previous(data: _Reduced, prompts: Prompts) -> Mask | None:
    height, width = data.pixels.shape[:2]
    if prompts.mask is not None:
        share = cv2.resize(prompts.mask.astype(np.float32), (width, height), interpolation=3)
        return np.asarray(share > 0.5)
    if prompts.low_res_logits is not None:
        return np.asarray(cv2.resize(prompts.low_res_logits, (width, height)) > 0)
    return None


def _parts_of_the_object(mask: Mask, data: _Reduced, prompts: Prompts) -> Mask:
    """Connected parts under a positive click; everything where there is none."""
    clicked = prompts.points_xy[prompts.point_labels] * np.asarray(data.scale, np.float32)
    if len(clicked) == 0 or prompts.scribbles or len(prompts.boxes_xyxy):
        return mask
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    limit = [mask.shape[1] - 1, mask.shape[0] - 1]
    columns, rows = np.clip(np.floor(clicked), 0, limit).astype(int).T
    wanted = np.setdiff1d(parts[rows, columns], [0])
    return np.asarray(np.isin(parts, wanted))
