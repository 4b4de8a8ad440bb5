"""`prelabel eval`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prelabel import types
from prelabel_server.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    DeviceOption,
    JsonOption,
    ModelOption,
    ServerOption,
    StoreOption,
    fail,
    reported_errors,
)
from prelabel_server.cli.runs import Engine, Outcome, engine, missing_part, run
from prelabel_server.cli.tables import add_row, console, table, tracked

if TYPE_CHECKING:  # imported where used: the light client shows the help without them
    from prelabel_models.types import RgbImage
    from prelabel_server.evaluation import Annotations, EvalReport, LabelMatch

# Names in a sentence about labels that do not match.
_SHOWN_NAMES = 8


@dataclass
class _Findings:
    """What became of the images of an evaluation."""

    results: dict[int, types.DetectResult] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def evaluate(
    model: ModelOption,
    images: Annotated[
        Path,
        typer.Option("--images", exists=True, file_okay=False, help="Folder of the images."),
    ],
    annotations: Annotated[
        Path,
        typer.Option(
            "--annotations", exists=True, dir_okay=False, help="Their annotations, COCO JSON."
        ),
    ],
    server: ServerOption = None,
    min_score: Annotated[
        float,
        typer.Option(
            "--min-score",
            min=0.0,
            max=1.0,
            help="Keep scores from here on. Average precision needs the low ones too.",
        ),
    ] = 0.001,
    nms_iou: Annotated[
        float, typer.Option("--nms-iou", min=0.0, max=1.0, help="Overlap of duplicates.")
    ] = 0.65,
    max_proposals: Annotated[
        int,
        typer.Option("--max-proposals", min=1, help="Counted per image and class; COCO says 100."),
    ] = 100,
    label_map: Annotated[
        list[str] | None,
        typer.Option(
            "--label-map",
            metavar="LABEL=CATEGORY",
            help="The model's label to the category's name, where they differ; repeat for more.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write report.json, curves.png and examples.jpg here."
        ),
    ] = None,
    as_json: JsonOption = False,
    store: StoreOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure a model on annotated images: average precision, and the best threshold."""
    options = types.DetectOptions(min_score=min_score, nms_iou=nms_iou)
    with reported_errors():
        with missing_part("prelabel eval", "cpu,eval"):
            import matplotlib
            import pycocotools  # noqa: F401 - asked for before the work, not after it

            from prelabel_server import evaluation

            matplotlib.use("agg")
        try:
            mapping = evaluation.parse_label_map(label_map or [])
            truth = evaluation.load_annotations(annotations)
            with engine(server, store, device) as where:
                findings = _detect_all(where, truth, images, model, options)
                labels = where.client.model(model).labels
            match = evaluation.match_labels(labels, truth.categories, mapping)
        except ValueError as err:
            raise fail(str(err), EXIT_USAGE) from err
        if not match.category_of:
            raise fail(_nothing_in_common(match), EXIT_USAGE)
        report = evaluation.evaluate(
            ((i, r.proposals) for i, r in findings.results.items()),
            truth,
            match,
            max_proposals=max_proposals,
        )
        summary = _as_json(report, model, findings)
        if out is not None:
            _write(out, report, truth, images, model, findings, summary)
    if as_json:
        typer.echo(json.dumps(summary, ensure_ascii=False))
    else:
        _print(report, model, out)
    _complain(report, truth, findings)


def _detect_all(
    where: Engine, truth: Annotations, folder: Path, model: str, options: types.DetectOptions
) -> _Findings:
    findings = _Findings()
    present = []
    for image_id, name in truth.images.items():
        if (folder / name).is_file():
            present.append((image_id, folder / name))
        else:
            findings.missing.append(name)
    outcomes: Iterable[Outcome] = run(where, [path for _, path in present], model, options)
    outcomes = tracked(outcomes, len(present), "detect")
    for (image_id, _), outcome in zip(present, outcomes, strict=True):
        if outcome.result is None:
            findings.failed[truth.images[image_id]] = str(outcome.error)
        else:
            findings.results[image_id] = outcome.result
    return findings


def _print(report: EvalReport, model: str, out: Path | None) -> None:
    screen = console()
    rows = table(
        ("", "left"),
        ("all", "right"),
        ("small", "right"),
        ("medium", "right"),
        ("large", "right"),
        title=f"{model} on {report.images} images, {report.annotations} annotations",
    )
    add_row(rows, "AP", _share(report.ap), *map(_share, report.ap_by_area.values()))
    add_row(rows, "AP50", _share(report.ap50))
    add_row(rows, "AP75", _share(report.ap75))
    recalled = f"AR, {report.max_proposals} per class"
    add_row(rows, recalled, _share(report.ar), *map(_share, report.ar_by_area.values()))
    screen.print(rows)
    screen.print()
    rows = table(
        ("class", "left"),
        ("annotations", "right"),
        ("AP", "right"),
        ("AP50", "right"),
        ("best F1", "right"),
        ("precision", "right"),
        ("recall", "right"),
        ("at score", "right"),
    )
    for found in report.classes:
        if found.annotations or found.proposals:
            add_row(
                rows,
                found.name,
                found.annotations,
                _share(found.ap),
                _share(found.ap50),
                *_point(found.best if found.annotations else None),
            )
    screen.print(rows)
    best = report.best
    if best is not None:
        screen.print(
            f"\nAt min_score {best.min_score:.2f}, the best F1 over all classes ({best.f1:.2f}): "
            f"{best.precision:.0%} of the proposals fit, {best.recall:.0%} of the annotations are "
            "found (IoU 0.5).",
            highlight=False,
        )
    if out is not None:
        screen.print(f"Report and pictures: {out}", highlight=False, markup=False)


def _complain(report: EvalReport, truth: Annotations, findings: _Findings) -> None:
    """Say on stderr what was left out; images that were end the command with 1."""
    match = report.match
    if match.unknown_categories:
        ids = {i for i, name in truth.categories.items() if name in match.unknown_categories}
        lost = sum(box["category_id"] in ids for box in truth.boxes)
        typer.echo(
            f"prelabel: left out {lost} annotations of categories that the model does not know "
            f"(see --label-map): {_names(match.unknown_categories)}",
            err=True,
        )
    if match.unknown_labels:
        typer.echo(
            "prelabel: left out what is proposed under labels without a category: "
            f"{_names(match.unknown_labels)}",
            err=True,
        )
    for name, reason in findings.failed.items():
        typer.echo(f"prelabel: {name}: {reason}", err=True)
    if findings.missing:
        typer.echo(f"prelabel: not in the folder: {_names(findings.missing)}", err=True)
    lost = len(findings.missing) + len(findings.failed)
    if lost:
        raise fail(
            f"{lost} of {len(truth.images)} images were not evaluated: {len(findings.missing)} "
            f"missing, {len(findings.failed)} failed",
            EXIT_FAILED,
        )


def _as_json(report: EvalReport, model: str, findings: _Findings) -> dict[str, Any]:
    def point(best: Any) -> dict[str, float] | None:
        if best is None:
            return None
        return {
            "min_score": best.min_score,
            "precision": best.precision,
            "recall": best.recall,
            "f1": best.f1,
        }

    answered = next(iter(findings.results.values()), None)
    return {
        "model": {"name": model, "digest": answered.model.digest if answered else ""},
        "images": report.images,
        "annotations": report.annotations,
        "proposals": report.proposals,
        "max_proposals": report.max_proposals,
        "ap": report.ap,
        "ap50": report.ap50,
        "ap75": report.ap75,
        "ap_by_area": dict(report.ap_by_area),
        "ar": report.ar,
        "ar_by_area": dict(report.ar_by_area),
        "best": point(report.best),
        "classes": [
            {
                "name": c.name,
                "annotations": c.annotations,
                "proposals": c.proposals,
                "ap": c.ap,
                "ap50": c.ap50,
                "best": point(c.best),
            }
            for c in report.classes
        ],
        "unknown_labels": list(report.match.unknown_labels),
        "unknown_categories": list(report.match.unknown_categories),
        "missing": findings.missing,
        "failed": findings.failed,
    }


def _write(
    out: Path,
    report: EvalReport,
    truth: Annotations,
    folder: Path,
    model: str,
    findings: _Findings,
    summary: dict[str, Any],
) -> None:
    from PIL import Image

    from prelabel_models import images
    from prelabel_server.config import image_limits
    from prelabel_server.evaluation import pictures

    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, ensure_ascii=False, indent=2)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    pictures.save_curves(report, model, out / "curves.png")
    limits = image_limits(["GIF", "TIFF"])

    def load(image_id: int) -> RgbImage:
        data = (folder / truth.images[image_id]).read_bytes()
        return images.decode(data, images.read_header(data, limits), limits).pixels

    found = {i: r.proposals for i, r in findings.results.items()}
    sheet = pictures.contact_sheet(report, truth, found, load)
    if sheet is not None:
        Image.fromarray(sheet).save(out / "examples.jpg", quality=90, subsampling=0)


def _nothing_in_common(match: LabelMatch) -> str:
    return (
        "no label of the model is the name of a category, see --label-map. "
        f"Labels: {_names(match.unknown_labels)}. Categories: {_names(match.unknown_categories)}"
    )


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _point(best: Any) -> tuple[str, ...]:
    if best is None:
        return ("-",) * 4
    return tuple(f"{v:.2f}" for v in (best.f1, best.precision, best.recall, best.min_score))
