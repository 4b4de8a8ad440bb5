"""That an exported model answers as its checkpoint does: `SamSegmenter` against `SamPredictor`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import ModelUnusableError
from prelabel_models.masks import mask_iou
from prelabel_models.segmenters._prompts import mask_logits
from prelabel_models.segmenters.base import Embedding, MaskCandidate, Prompts
from prelabel_models.segmenters.sam import SamSegmenter
from prelabel_models.types import RgbImage

# (width, height): ordinary, a panorama, one pixel wide, upright and larger than the input. Each
# costs two runs of the encoder, which is most of the time that an export takes.
PROOF_SIZES = ((640, 480), (1204, 301), (1, 77), (1365, 2049))
# float32 graphs with other fusions differ by rounding: 1e-6 to 2e-5 of the largest logit.
MAX_RELATIVE_DIFFERENCE = 1e-4
MAX_IOU_DIFFERENCE = 1e-3
MIN_MASK_IOU = 0.999


@dataclass(frozen=True, slots=True)
class Proof:
    """How far an exported model was from its checkpoint, over all prompts tried.

    Attributes:
        prompts: How many were tried.
        masks: How many masks were compared.
        logits: Largest difference of a low-resolution logit.
        relative: The same, as a part of the largest logit of its mask.
        predicted_iou: Largest difference of a predicted IoU.
        mask_iou: Least IoU of two masks at the size of the image.
    """

    prompts: int = 0
    masks: int = 0
    logits: float = 0.0
    relative: float = 0.0
    predicted_iou: float = 0.0
    mask_iou: float = 1.0

    def merged(self, other: Proof) -> Proof:
        """Both together."""
        return Proof(
            self.prompts + other.prompts,
            self.masks + other.masks,
            max(self.logits, other.logits),
            max(self.relative, other.relative),
            max(self.predicted_iou, other.predicted_iou),
            min(self.mask_iou, other.mask_iou),
        )

    def check(self) -> None:
        """Compare with what rounding explains.

        Raises:
            ModelUnusableError: The graphs compute something else.
        """
        good = (
            self.masks > 0
            and self.relative <= MAX_RELATIVE_DIFFERENCE
            and self.predicted_iou <= MAX_IOU_DIFFERENCE
            and self.mask_iou >= MIN_MASK_IOU
        )
        if not good:
            raise ModelUnusableError(
                f"export: the graphs do not answer as the checkpoint does: of {self.masks} masks, "
                f"logits differ by up to {self.relative:.1e} of the largest, predicted IoUs by "
                f"{self.predicted_iou:.1e}, and masks agree to {self.mask_iou:.5f}"
            )


def prove(sam: Any, segmenter: SamSegmenter, sizes: Iterable[tuple[int, int]]) -> Proof:
    """Compare on images of noise.

    Args:
        sam: `segment_anything.modeling.Sam`, in evaluation mode.
        segmenter: The exported model.
        sizes: (width, height) of each image.

    Raises:
        ModelUnusableError: They differ by more than rounding.
    """
    random = np.random.default_rng(0)
    counts = itertools.cycle((1, 3))
    proof = Proof()
    for width, height in sizes:
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        prompts = _proof_prompts(random, (width, height))
        proof = proof.merged(compare(sam, segmenter, image, prompts, counts))
    proof.check()
    return proof


def compare(
    sam: Any,
    segmenter: SamSegmenter,
    image: RgbImage,
    prompts: Sequence[Prompts],
    counts: Iterator[int],
) -> Proof:
    """Answers of both to prompts of one box at most.

    Args:
        sam: `segment_anything.modeling.Sam`, in evaluation mode.
        segmenter: The exported model.
        image: (H, W, 3) uint8 RGB.
        prompts: Without scribbles.
        counts: How many masks to ask for, 1 or 3, for one prompt after the other.

    Raises:
        ModelUnusableError: They see another number of masks.
    """
    from prelabel_models.export._torch import segment_anything

    predictor = segment_anything().SamPredictor(sam)
    predictor.set_image(image)
    embedding = segmenter.embed(image)
    proof = Proof()
    for one in prompts:
        count = next(counts)
        expected = _reference(predictor, embedding, one, count)
        found = segmenter.segment(embedding, one, max_masks=count)
        proof = proof.merged(_differences(expected, found)).merged(Proof(prompts=1))
    return proof


@dataclass(frozen=True, slots=True)
class _Reference:
    mask: NDArray[np.bool_]
    predicted_iou: float
    logits: NDArray[np.float32]


def _reference(
    predictor: Any, embedding: Embedding, prompts: Prompts, count: int
) -> list[_Reference]:
    """`SamPredictor.predict`, asked as its authors advise: three readings of a lone click."""
    shape = mask_logits(prompts, embedding.data.transform, 256)
    boxes, points = prompts.boxes_xyxy, prompts.points_xy
    lone = len(points) == 1 and len(boxes) == 0 and shape is None
    masks, ious, logits = predictor.predict(
        point_coords=points if len(points) else None,
        point_labels=prompts.point_labels.astype(np.int64) if len(points) else None,
        box=boxes[0] if len(boxes) else None,
        mask_input=None if shape is None else shape[0],
        multimask_output=count > 1 or lone,
    )
    columns, rows = (-(-side * 256 // 1024) for side in embedding.data.transform.content_size)
    best = np.argsort(-ious, kind="stable")[:count]
    seen = [i for i in best if (logits[i, :rows, :columns] > 0).any()]
    return [_Reference(masks[i], float(ious[i]), logits[i]) for i in seen]


def _differences(expected: Sequence[_Reference], found: Sequence[MaskCandidate]) -> Proof:
    if len(expected) != len(found):
        raise ModelUnusableError(
            f"export: the graphs see {len(found)} masks where the checkpoint sees {len(expected)}"
        )
    proof = Proof()
    for reference, candidate in zip(expected, found, strict=True):
        logits = float(np.abs(reference.logits - candidate.low_res_logits).max())
        iou = min(max(reference.predicted_iou, 0.0), 1.0)
        one = Proof(
            masks=1,
            logits=logits,
            relative=logits / max(1.0, float(np.abs(reference.logits).max())),
            predicted_iou=abs(iou - candidate.predicted_iou),
            mask_iou=mask_iou(reference.mask, candidate.draw()),
        )
        proof = proof.merged(one)
    return proof


def _proof_prompts(random: np.random.Generator, size: tuple[int, int]) -> list[Prompts]:
    """Every kind of prompt and the combinations that change the decoder's tokens."""
    extent = np.asarray(size, np.float32)
    points = (random.random((5, 2)) * extent).astype(np.float32)
    labels = np.array([True, False, True, True, False])
    corners = np.sort(random.random((2, 2)), axis=0) * extent
    box = corners.reshape(1, 4).astype(np.float32)
    shape = random.normal(0, 5, (256, 256)).astype(np.float32)
    mask = np.zeros((size[1], size[0]), bool)
    mask[size[1] // 4 :, : max(1, size[0] // 2)] = True
    return [
        Prompts(points[:1], labels[:1]),
        Prompts(points, labels),
        Prompts(boxes_xyxy=box),
        Prompts(points[:2], labels[:2], box),
        Prompts(points[:1], labels[:1], low_res_logits=shape),
        Prompts(points[:2], labels[:2], box, mask=mask),
        Prompts(mask=mask),
    ]
