"""An evaluation to look at: curves, and the images that went best and worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel.types import Proposal
from prelabel_models.types import RgbImage
from prelabel_server.draw import Pen, draw_proposals
from prelabel_server.draw.lettering import render, shortened
from prelabel_server.draw.palette import PALETTE
from prelabel_server.draw.proposals import stamp
from prelabel_server.evaluation.annotations import Annotations
from prelabel_server.evaluation.metrics import Curve, EvalReport, OperatingPoint

_DPI = 110
_GREY = "#666666"
# Columns and width of a contact sheet: three photographs side by side fill a screen.
_COLUMNS = 3
_CELL_PX = 480
_MARGIN_PX = 12
_TITLE_PX = 18


def save_curves(report: EvalReport, title: str, path: Path) -> None:
    """Precision against recall, and both against the threshold, as PNG.

    Args:
        report: The evaluation.
        title: Of the picture, for example the model's name.
        path: The file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    best = report.best
    _precision_recall(left, report.curves, best)
    _against_threshold(right, report.curves[0], best)
    for axes in (left, right):
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    summary = f"{report.images} images, {report.annotations} annotations"
    if report.ap is not None and report.ap50 is not None:
        summary += f", AP {report.ap:.3f}, AP50 {report.ap50:.3f}"
    figure.suptitle(f"{title}: {summary}", fontsize=11)
    figure.savefig(path, dpi=_DPI)


def _precision_recall(axes: Any, curves: Sequence[Curve], best: OperatingPoint | None) -> None:
    # Lines of equal F1: a curve is better the more of them it crosses.
    recall = np.linspace(0.01, 1, 200)
    for f1 in (0.2, 0.4, 0.6, 0.8):
        reached = recall > f1 / 2
        precision = f1 * recall[reached] / (2 * recall[reached] - f1)
        shown = precision <= 1.02
        axes.plot(recall[reached][shown], precision[shown], color="#cccccc", linewidth=0.8)
        axes.text(1.0, f1 / (2 - f1), f" F1 {f1:.1f}", color=_GREY, fontsize=7, va="center")
    for curve, color, style in zip(curves, _tones(), ("-", "--", ":"), strict=False):
        axes.plot(curve.recall, curve.precision, style, color=color, label=f"IoU {curve.iou:.2f}")
    if best is not None:
        axes.plot(best.recall, best.precision, "o", color=_tones()[0], markeredgecolor="black")
        axes.annotate(
            f"best F1 {best.f1:.2f}\nat score {best.min_score:.2f}",
            (best.recall, best.precision),
            xytext=(10, 12),
            textcoords="offset points",
            fontsize=9,
        )
    axes.set(xlabel="recall: share of the annotations found", ylabel="precision: share that fits")
    axes.set_title("All classes together", fontsize=10)
    _legend_below(axes)


def _against_threshold(axes: Any, curve: Curve, best: OperatingPoint | None) -> None:
    both = curve.precision + curve.recall
    f1 = 2 * curve.precision * curve.recall / np.where(both > 0, both, 1.0)
    lines = (("precision", curve.precision), ("recall", curve.recall), ("F1", f1))
    for (name, values), color, style in zip(lines, _tones(), ("-", "--", "-."), strict=False):
        axes.plot(curve.scores, values, style, color=color, label=name)
    if best is not None:
        axes.axvline(best.min_score, color=_GREY, linewidth=0.8)
        axes.annotate(
            f"{best.min_score:.2f}",
            (best.min_score, 0.01),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=9,
            color=_GREY,
        )
    axes.set(xlabel="min_score: threshold on the score")
    axes.set_title("What a threshold gives, at IoU 0.50", fontsize=10)
    _legend_below(axes)


def _legend_below(axes: Any) -> None:
    """Where no curve can run through it."""
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=9)


def _tones() -> tuple[str, ...]:
    """Blue, vermilion, green: apart in hue and in lightness."""
    return tuple("#{:02x}{:02x}{:02x}".format(*PALETTE[i]) for i in (4, 5, 2))


def contact_sheet(
    report: EvalReport,
    annotations: Annotations,
    proposals: Mapping[int, Sequence[Proposal]],
    load: Callable[[int], RgbImage],
) -> RgbImage | None:
    """The three images with the highest F1 above the three with the lowest.

    Annotations are white lines; proposals above the best threshold are coloured and named.

    Args:
        report: The evaluation.
        annotations: Its annotations.
        proposals: By image id.
        load: Image id to (H, W, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8 RGB; None if no threshold is best.
    """
    best = report.best
    ranked = sorted(report.image_f1, key=lambda i: (-report.image_f1[i], i))
    if best is None or not ranked:
        return None
    top = ranked[:_COLUMNS]
    bottom = [i for i in ranked[::-1][:_COLUMNS] if i not in top]
    rows = []
    for word, chosen in (("best", top), ("worst", bottom)):
        cells = []
        for image_id in chosen:
            kept = [
                p
                for p in proposals[image_id]
                if p.score >= best.min_score and p.label in report.match.category_of
            ]
            picture = _with_annotations(load(image_id), image_id, annotations, kept)
            name = shortened(Path(annotations.images[image_id]).name, 32)
            cells.append(_titled(picture, f"{word}: F1 {report.image_f1[image_id]:.2f}, {name}"))
        if cells:
            rows.append(_side_by_side(cells))
    return np.concatenate(rows, axis=0)


def _with_annotations(
    pixels: RgbImage, image_id: int, annotations: Annotations, proposals: Sequence[Proposal]
) -> RgbImage:
    """Scaled to a cell before drawing, so that lines and letters are the same in all cells."""
    scale = _CELL_PX / max(pixels.shape[:2])
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.asarray(small, np.uint8)
    for box in annotations.boxes:
        if box["image_id"] == image_id:
            x, y, width, height = (round(v * scale) for v in box["bbox"])
            for tone, line in (((0, 0, 0), 3), ((255, 255, 255), 1)):
                cv2.rectangle(canvas, (x, y), (x + width, y + height), tone, line)
    moved = [Proposal(p.label, p.class_id, p.score, None, _scaled(p.box, scale)) for p in proposals]
    return draw_proposals(canvas, moved, pen=Pen(line_px=2, font_px=12))


def _scaled(
    box: tuple[float, float, float, float], scale: float
) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (value * scale for value in box)
    return x1, y1, x2, y2


def _titled(picture: RgbImage, title: str) -> RgbImage:
    ink = render(title, _TITLE_PX)
    height, width = picture.shape[:2]
    cell = np.full((height + 2 * _TITLE_PX, _CELL_PX, 3), 255, np.uint8)
    cell[2 * _TITLE_PX :, (_CELL_PX - width) // 2 :][:, :width] = picture
    stamp(cell, ink, (0, _TITLE_PX // 2), (20, 20, 20))
    return cell


def _side_by_side(cells: Sequence[RgbImage]) -> RgbImage:
    height = max(cell.shape[0] for cell in cells) + 2 * _MARGIN_PX
    row: NDArray[np.uint8] = np.full(
        (height, _COLUMNS * (_CELL_PX + _MARGIN_PX) + _MARGIN_PX, 3), 255, np.uint8
    )
    for n, cell in enumerate(cells):
        x = _MARGIN_PX + n * (_CELL_PX + _MARGIN_PX)
        row[_MARGIN_PX : _MARGIN_PX + cell.shape[0], x : x + _CELL_PX] = cell
    return row
