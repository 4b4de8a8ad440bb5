"""How well proposals fit annotations: COCO's numbers, and the threshold that serves best."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel.types import Proposal
from prelabel_server.evaluation.annotations import Annotations, LabelMatch

Floats = NDArray[np.float64]

# Rows of COCOeval's tables: IoU .50, .55 ... .95, and the area ranges in its order.
_IOU_50, _IOU_75 = 0, 5
_AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a threshold on the score gives, at IoU .5.

    Attributes:
        min_score: The threshold.
        precision: Share of the proposals kept that fit an annotation.
        recall: Share of the annotations that are found.
    """

    min_score: float
    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall at each threshold that makes a difference, highest first.

    Attributes:
        iou: Overlap from which a proposal fits an annotation.
        scores: (K,) thresholds.
        precision: (K,) at each.
        recall: (K,) at each, never falling.
    """

    iou: float
    scores: Floats
    precision: Floats
    recall: Floats

    def best(self) -> OperatingPoint | None:
        """The threshold with the highest F1; None without a proposal or an annotation."""
        if len(self.scores) == 0:
            return None
        both = self.precision + self.recall
        f1 = 2 * self.precision * self.recall / np.where(both > 0, both, 1.0)
        i = int(np.argmax(f1))
        return OperatingPoint(
            float(self.scores[i]), float(self.precision[i]), float(self.recall[i])
        )


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One category.

    Attributes:
        name: The category's.
        annotations: How many, without crowds.
        proposals: How many, at any score.
        ap: Mean over IoU .50 to .95; None without annotations.
        ap50: At IoU .5; None without annotations.
        best: The threshold with the highest F1.
    """

    name: str
    annotations: int
    proposals: int
    ap: float | None
    ap50: float | None
    best: OperatingPoint | None


@dataclass(frozen=True, slots=True)
class EvalReport:
    """How good a model is on these annotations.

    A number is None where nothing is annotated that it could be measured on.

    Attributes:
        images: Images evaluated.
        annotations: Annotations of categories that the model knows, without crowds.
        proposals: Proposals of those categories.
        ap: COCO's AP: mean over IoU .50 to .95 and over categories.
        ap50: At IoU .5.
        ap75: At IoU .75.
        ap_by_area: `small` (below 32² square pixels), `medium` (below 96²), `large`.
        ar: Recall at `max_proposals`, mean over IoU and categories.
        ar_by_area: Likewise.
        max_proposals: Per image and category, highest scores first.
        classes: Every category that the model knows, most annotations first.
        curves: All categories pooled, at IoU .5, .75 and .9.
        image_f1: Image id to F1 at IoU .5 and the best threshold.
        match: Labels and categories.
    """

    images: int
    annotations: int
    proposals: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_by_area: Mapping[str, float | None]
    ar: float | None
    ar_by_area: Mapping[str, float | None]
    max_proposals: int
    classes: tuple[ClassResult, ...]
    curves: tuple[Curve, ...]
    image_f1: Mapping[int, float]
    match: LabelMatch

    @property
    def best(self) -> OperatingPoint | None:
        """The threshold with the highest F1 at IoU .5, all categories pooled."""
        return self.curves[0].best()


def evaluate(
    results: Iterable[tuple[int, Sequence[Proposal]]],
    annotations: Annotations,
    match: LabelMatch,
    *,
    max_proposals: int = 100,
) -> EvalReport:
    """Compare proposals with annotations as COCO does, boxes against boxes.

    Images without a result are not evaluated. A proposal that lies on a crowd counts neither as
    right nor as wrong.

    Args:
        results: Image id and proposals, in pixels of the frame of the annotations.
        annotations: What is there.
        match: Which label means which category; see `match_labels`.
        max_proposals: Per image and category; 100 is COCO's choice.

    Raises:
        ImportError: pycocotools is not installed.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows, image_ids = _detections(results, match.category_of)
    category_ids = sorted(set(match.category_of.values()))
    truth = annotations.of_images(image_ids)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports on stdout, which is for data
        known, found = COCO(), COCO()
        known.dataset = _dataset(truth, [dict(box) for box in truth.boxes])
        found.dataset = _dataset(truth, rows)
        known.createIndex()
        found.createIndex()
        judge = COCOeval(known, found, "bbox")
        judge.params.imgIds = sorted(image_ids)
        judge.params.catIds = category_ids
        judge.params.maxDets = [1, 10, max_proposals]
        if category_ids and image_ids:
            judge.evaluate()
            judge.accumulate()
    return _report(judge, annotations, match, category_ids, sorted(image_ids), max_proposals)


def _detections(
    results: Iterable[tuple[int, Sequence[Proposal]]], category_of: Mapping[str, int]
) -> tuple[list[dict[str, Any]], list[int]]:
    rows: list[dict[str, Any]] = []
    image_ids = []
    for image_id, proposals in results:
        image_ids.append(image_id)
        for proposal in proposals:
            if proposal.label not in category_of:
                continue
            x1, y1, x2, y2 = proposal.box
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image_id,
                    "category_id": category_of[proposal.label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "score": proposal.score,
                    "iscrowd": 0,
                }
            )
    return rows, image_ids


def _dataset(truth: Annotations, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [{"id": i} for i in truth.images],
        "categories": [{"id": i, "name": name} for i, name in truth.categories.items()],
        "annotations": rows,
    }


def _report(
    judge: Any,
    annotations: Annotations,
    match: LabelMatch,
    category_ids: Sequence[int],
    image_ids: Sequence[int],
    max_proposals: int,
) -> EvalReport:
    # (IoU, recall, category, area, limit) and (IoU, category, area, limit); -1 where undefined.
    count = len(category_ids)
    precision = judge.eval.get("precision", np.full((10, 101, count, 4, 3), -1.0))
    recall = judge.eval.get("recall", np.full((10, count, 4, 3), -1.0))
    cells = _Cells(judge.evalImgs, count, len(image_ids))
    classes = []
    for k, category_id in enumerate(category_ids):
        curve, positives, found = cells.curve(_IOU_50, [k])
        classes.append(
            ClassResult(
                name=annotations.categories[category_id],
                annotations=positives,
                proposals=found,
                ap=_mean(precision[:, :, k, 0, 2]),
                ap50=_mean(precision[_IOU_50, :, k, 0, 2]),
                best=curve.best(),
            )
        )
    everything = range(count)
    curves = tuple(cells.curve(t, everything)[0] for t in (_IOU_50, _IOU_75, 8))
    best = curves[0].best()
    threshold = np.inf if best is None else best.min_score
    return EvalReport(
        images=len(image_ids),
        annotations=sum(c.annotations for c in classes),
        proposals=sum(c.proposals for c in classes),
        ap=_mean(precision[:, :, :, 0, 2]),
        ap50=_mean(precision[_IOU_50, :, :, 0, 2]),
        ap75=_mean(precision[_IOU_75, :, :, 0, 2]),
        ap_by_area={n: _mean(precision[:, :, :, a, 2]) for a, n in enumerate(_AREAS) if a},
        ar=_mean(recall[:, :, 0, 2]),
        ar_by_area={n: _mean(recall[:, :, a, 2]) for a, n in enumerate(_AREAS) if a},
        max_proposals=max_proposals,
        classes=tuple(sorted(classes, key=lambda c: (-c.annotations, c.name))),
        curves=curves,
        image_f1={i: f1 for n, i in enumerate(image_ids) if (f1 := cells.f1(n, threshold)) >= 0},
        match=match,
    )


class _Cells:
    """COCOeval's matches, one cell for each category, area range and image, in that order."""

    def __init__(self, cells: Sequence[Any], categories: int, images: int) -> None:
        self._cells = cells
        self._categories = categories
        self._images = images

    def curve(self, t: int, categories: Iterable[int]) -> tuple[Curve, int, int]:
        """Precision and recall over all images; the number of annotations and of proposals."""
        scores: list[Floats] = [np.zeros(0)]
        hits: list[NDArray[np.bool_]] = [np.zeros(0, bool)]
        positives = 0
        for k in categories:
            for i in range(self._images):
                found = self._cell(k, i, t)
                if found is not None:
                    scores.append(found[0])
                    hits.append(found[1])
                    positives += found[2]
        score, hit = np.concatenate(scores), np.concatenate(hits)
        order = np.argsort(-score, kind="stable")
        score, hit = score[order], hit[order]
        right = np.cumsum(hit)
        # A threshold keeps all proposals of its score: only the last of equals counts.
        last = np.flatnonzero(np.diff(score, append=-1.0)) if positives else np.zeros(0, np.int64)
        curve = Curve(
            iou=0.5 + 0.05 * t,
            scores=score[last],
            precision=right[last] / (last + 1.0),
            recall=right[last] / max(positives, 1),
        )
        return curve, positives, len(score)

    def f1(self, image: int, threshold: float) -> float:
        """Of one image at IoU .5; -1 where there is nothing to find and nothing was found."""
        right = kept = positives = 0
        for k in range(self._categories):
            found = self._cell(k, image, _IOU_50)
            if found is not None:
                above = found[0] >= threshold
                right += int(found[1][above].sum())
                kept += int(above.sum())
                positives += found[2]
        return 2 * right / (kept + positives) if kept + positives else -1.0

    def _cell(
        self, category: int, image: int, t: int
    ) -> tuple[Floats, NDArray[np.bool_], int] | None:
        """Scores, whether each fits an annotation, and the number of annotations."""
        if not self._cells:
            return None
        cell = self._cells[category * len(_AREAS) * self._images + image]
        if cell is None:
            return None
        counted = ~np.asarray(cell["dtIgnore"][t], bool)
        scores = np.asarray(cell["dtScores"], np.float64)[counted]
        hits = np.asarray(cell["dtMatches"][t])[counted] > 0
        return scores, hits, int(np.sum(np.asarray(cell["gtIgnore"]) == 0))


def _mean(values: Floats) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
