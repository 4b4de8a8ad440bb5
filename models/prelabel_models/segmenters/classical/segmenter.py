"""The segmenter that needs no downloaded weights: superpixels, likely outlines, two perceptrons.

`embed` builds the graph of superpixels. `segment` turns prompts into distances and likenesses,
asks a small network for each superpixel, asks a second one that also sees the first answer, and
smooths the outline along the image's own edges.
The coefficients (some 20 000 numbers) come with this package; `fit.py` fits new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import ModelInfo
from prelabel_models.cards import ModelCard
from prelabel_models.errors import CardError, ModelUnusableError
from prelabel_models.masks import Mask, resize_logits_to_mask, stability_score
from prelabel_models.segmenters.base import Embedding, MaskCandidate, Prompts
from prelabel_models.segmenters.classical.features import (
    Evidence,
    click_features,
    context_features,
)
from prelabel_models.segmenters.classical.graph import SuperpixelGraph, build_graph
from prelabel_models.segmenters.classical.network import Network, sigmoid
from prelabel_models.segmenters.classical.prompting import Marks, read_prompts
from prelabel_models.session import SessionOptions
from prelabel_models.types import RgbImage

Array = NDArray[np.float32]

# Measured on held-out training images: an IoU of 0.490, 0.714 and 0.789 after 1, 3 and 5 clicks,
# against 0.459, 0.695 and 0.782 at 0.45. Missing a part costs more than a rim too much.
INSIDE = 0.2
# Alternatives, in logits around that threshold: a part and a whole.
_ALTERNATIVES = (0.0, 1.2, -1.2)
# Parts without a positive prompt are kept if they are this share of the mask.
_MIN_PART = 0.25
_SURE_LOGIT = 8.0
# Guided filter: window in reduced pixels, and the variance of lightness that counts as an edge.
_GUIDE_RADIUS, _GUIDE_EPS = 4, 1e-3


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Everything that was fitted.

    Attributes:
        edge: Outline or not, for a pair of superpixels.
        stages: Inside or not, for a superpixel; each but the first sees the answer before it.
        quality: Intersection over union of a mask, from `quality_features`.
    """

    edge: Network
    stages: tuple[Network, ...]
    quality: Network

    @classmethod
    def load(cls, path: Path) -> Coefficients:
        """Read the file that `fit.py` wrote.

        Raises:
            ModelUnusableError: Another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                content = dict(arrays)
            stages = sorted({k.partition(".")[0] for k in content if k.startswith("stage")})
            return cls(
                edge=Network.from_arrays("edge", content),
                stages=tuple(Network.from_arrays(s, content) for s in stages),
                quality=Network.from_arrays("quality", content),
            )
        except (OSError, ValueError, KeyError, BadZipFile) as err:
            raise ModelUnusableError("model: expected the coefficients that fit.py writes") from err

    def save(self, path: Path) -> None:
        """Write them, at half precision: the networks do not notice."""
        arrays = self.edge.to_arrays("edge") | self.quality.to_arrays("quality")
        for i, stage in enumerate(self.stages):
            arrays |= stage.to_arrays(f"stage{i}")
        half = {
            k: v if k.endswith((".mean", ".std")) else v.astype(np.float16)
            for k, v in arrays.items()
        }
        np.savez_compressed(path, **half)  # type: ignore[arg-type]  # numpy types only the flag


class ClassicalSegmenter:
    """See the module. Thread-safe: it keeps no state between calls."""

    def __init__(self, card: ModelCard, coefficients: Coefficients) -> None:
        self._coefficients = coefficients
        self._info = ModelInfo(card=card, digest=card.digest(), labels=(), gives_masks=True)

    @classmethod
    def from_files(
        cls, card: ModelCard, files: Mapping[str, Path], options: SessionOptions
    ) -> ClassicalSegmenter:
        """Load from the role `model`; it runs on the CPU, whatever `options` prefer.

        Raises:
            CardError: The role is missing.
            ModelUnusableError: The file holds something else.
        """
        if "model" not in files:
            raise CardError(f"card: files: expected the role 'model', got {', '.join(files)}")
        return cls(card, Coefficients.load(files["model"]))

    @property
    def info(self) -> ModelInfo:
        """See `base.Segmenter`."""
        return self._info

    def embed(self, image: RgbImage) -> Embedding:
        """See `base.Segmenter`."""
        graph = build_graph(image, self._coefficients.edge)
        size = (image.shape[1], image.shape[0])
        return Embedding(self._info.digest, size, graph, graph.nbytes)

    def segment(
        self, embedding: Embedding, prompts: Prompts, *, max_masks: int
    ) -> tuple[MaskCandidate, ...]:
        """See `base.Segmenter`."""
        embedding.check_model(self._info)
        prompts.check_inside(embedding.image_size)
        graph: SuperpixelGraph = embedding.data
        read = read_prompts(graph, prompts)
        if read is None:
            return ()
        evidence, marks = read
        inside = predict(graph, evidence, self._coefficients.stages)
        token = sketch(graph, inside)
        found = []
        for shift in _ALTERNATIVES[:max_masks]:
            threshold = float(sigmoid(float(_logit(INSIDE)) + shift))
            logits = paint(graph, inside, threshold, marks)
            features = quality_features(graph, inside, threshold, logits, evidence)
            quality = float(self._coefficients.quality.probability(features[None])[0, 0])
            width, height = embedding.image_size
            draw = partial(
                resize_logits_to_mask, logits, (0.0, 0.0, width, height), (width, height)
            )
            stable = stability_score(logits)
            found.append(MaskCandidate(draw, quality, stable, token))
        found.sort(key=lambda c: -c.predicted_iou)
        return tuple(found)

    def close(self) -> None:
        """See `base.Segmenter`; there is nothing to free."""


def predict(graph: SuperpixelGraph, evidence: Evidence, stages: tuple[Network, ...]) -> Array:
    """(N,) probability that each superpixel belongs to the object."""
    first = click_features(graph, evidence)
    inside = stages[0].probability(first)[:, 0]
    for stage in stages[1:]:
        inside = stage.probability(context_features(graph, first, inside))[:, 0]
    return inside


def paint(graph: SuperpixelGraph, inside: Array, threshold: float, marks: Marks) -> Array:
    """Superpixels to (h, w) logits of the reduced image, with smooth outlines; 0 is the border."""
    level = _logit(np.clip(inside, 1e-4, 1 - 1e-4)) - _logit(threshold)
    logits = np.clip(level, -_SURE_LOGIT, _SURE_LOGIT).astype(np.float32)[graph.labels]
    marks.pin(logits, graph.labels, _SURE_LOGIT)
    logits = np.where(_kept_parts(logits > 0, marks), logits, np.minimum(logits, -0.5))
    smooth = _guided(graph.lab[..., 0], np.tanh(logits / 2).astype(np.float32))
    smooth = np.clip(smooth, -0.999, 0.999)
    out: Array = (2 * np.arctanh(smooth)).astype(np.float32)
    marks.pin_pixels(out, _SURE_LOGIT)
    marks.clip_to_box(out, _SURE_LOGIT)
    return out


def quality_features(
    graph: SuperpixelGraph, inside: Array, threshold: float, logits: Array, evidence: Evidence
) -> Array:
    """What tells how good a mask is, (9,)."""
    chosen = inside >= threshold
    mass = graph.areas * inside
    area = float(graph.areas[chosen].sum())
    shared = float(mass[chosen].sum())
    expected = shared / max(area + float(mass.sum()) - shared, 1.0)
    a, b = graph.pairs[:, 0], graph.pairs[:, 1]
    rim = graph.barrier[chosen[a] & ~chosen[b]]
    inner = graph.barrier[chosen[a] & chosen[b]]
    size = area / float(graph.areas.sum())
    return np.array(
        [
            expected,
            np.log(size + 1e-3),
            min(evidence.clicks, 10),
            float(rim.mean()) if rim.size else 0.0,
            float(inner.mean()) if inner.size else 0.0,
            stability_score(logits),
            evidence.box is not None,
            _logit(threshold),
            float((inside[chosen]).mean()) if chosen.any() else 0.0,
        ],
        np.float32,
    )


def sketch(graph: SuperpixelGraph, inside: Array) -> Array:
    """The answer as a small picture, which `prompting.shares_of_logits` reads back."""
    level = _logit(np.clip(inside, 1e-3, 1 - 1e-3)).astype(np.float32)
    return level[graph.labels[::2, ::2]]


def _kept_parts(mask: Mask, marks: Marks) -> Mask:
    """The mask without small parts that no positive prompt lies on."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    if count <= 2:
        return mask
    areas = np.bincount(parts.ravel(), minlength=count)
    areas[0] = 0
    keep = areas >= _MIN_PART * areas.sum()
    keep[parts[marks.positive_pixels()]] = True
    keep[0] = False
    kept: Mask = keep[parts]
    return kept


def _guided(guide: Array, values: Array) -> Array:
    """Guided filter (He, Sun, Tang 2010): smooth `values`, but not across edges of `guide`."""
    size = (2 * _GUIDE_RADIUS + 1,) * 2
    mean_g, mean_v = cv2.blur(guide, size), cv2.blur(values, size)
    covariance = cv2.blur(guide * values, size) - mean_g * mean_v
    variance = cv2.blur(guide * guide, size) - mean_g * mean_g
    slope = covariance / (variance + np.float32(_GUIDE_EPS))
    offset = mean_v - slope * mean_g
    return np.asarray(cv2.blur(slope, size) * guide + cv2.blur(offset, size), np.float32)


def _logit(p: float | Array) -> Array:
    values = np.asarray(p, np.float64)
    return np.asarray(np.log(values) - np.log1p(-values))
