"""`prelabel detect`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

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
from prelabel_server.cli.pictures import PictureWriter
from prelabel_server.cli.runs import Outcome, engine, find_images, record, run
from prelabel_server.cli.tables import add_row, console, labels_in_words, table, tracked

# A table of single proposals stays readable up to here; JSON has them all.
_SHOWN_PROPOSALS = 40


def detect(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
    model: ModelOption,
    server: ServerOption = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            min=0.0,
            max=1.0,
            help="Keep scores from here on. Lower it to miss less, raise it to correct less. "
            "[default: the model card's]",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", help="Keep only this class; repeat for more."),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            "--tile",
            metavar="PX",
            min=32,
            help="Look at the image in tiles of this side too, for small objects in large images.",
            show_default=False,
        ),
    ] = None,
    max_proposals: Annotated[
        int, typer.Option("--max", min=0, help="Proposals per image. 0: as many as allowed.")
    ] = 0,
    as_json: JsonOption = False,
    draw: Annotated[
        Path | None,
        typer.Option("--draw", metavar="DIR", help="Write pictures with the proposals here."),
    ] = None,
    store: StoreOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Pre-label images, in this process or on a server."""
    try:
        paths = find_images(images)
    except ValueError as err:
        raise fail(str(err), EXIT_USAGE) from err
    options = types.DetectOptions(
        min_score=min_score,
        labels=tuple(label or ()),
        max_proposals=max_proposals,
        tiling=None if tile is None else types.Tiling(tile_size_px=tile),
    )
    with reported_errors():
        writer = None if draw is None else PictureWriter(draw)
        with engine(server, store, device) as where:
            outcomes = tracked(run(where, paths, model, options), len(paths), "detect")
            if writer is not None:
                outcomes = writer.drawn(outcomes)
            failed = _print_json(outcomes) if as_json else _print_tables(outcomes, len(paths))
    if writer is not None:
        typer.echo(f"prelabel: {writer.count} pictures in {draw}", err=True)
    if failed:
        raise fail(f"{failed} of {len(paths)} images failed", EXIT_FAILED)


def _print_json(outcomes: Iterable[Outcome]) -> int:
    failed = 0
    for outcome in outcomes:
        failed += outcome.error is not None
        typer.echo(json.dumps(record(outcome), ensure_ascii=False))
    return failed


def _print_tables(outcomes: Iterable[Outcome], count: int) -> int:
    """One image: its proposals. Several: a row for each."""
    if count == 1:
        return sum(_print_one(outcome) for outcome in outcomes)
    failed, total, milliseconds = 0, 0, 0.0
    rows = table(
        ("image", "left"), ("size", "right"), ("proposals", "right"), ("ms", "right"), ("", "left")
    )
    for outcome in outcomes:
        result = outcome.result
        if result is None:
            failed += 1
            add_row(rows, outcome.path, "", "", "", f"failed: {outcome.error}")
            continue
        size = f"{result.image.width}x{result.image.height}"
        total += len(result.proposals)
        milliseconds += result.timings.total_ms
        words = _words(result)
        add_row(
            rows, outcome.path, size, len(result.proposals), f"{result.timings.total_ms:.0f}", words
        )
    screen = console()
    screen.print(rows)
    done = count - failed
    if done:
        screen.print(
            f"\n{total} proposals in {done} images, {milliseconds / done:.0f} ms each on average",
            highlight=False,
        )
    return failed


def _words(result: types.DetectResult) -> str:
    words = labels_in_words(result.proposals)
    return f"{words} (more than --max)" if result.truncated else words


def _print_one(outcome: Outcome) -> int:
    result = outcome.result
    if result is None:
        typer.echo(f"prelabel: {outcome.path}: {outcome.error}", err=True)
        return 1
    has_text = any(p.text for p in result.proposals)
    rows = table(
        ("label", "left"),
        ("score", "right"),
        ("x1", "right"),
        ("y1", "right"),
        ("x2", "right"),
        ("y2", "right"),
        ("text" if has_text else "", "left"),
    )
    for proposal in result.proposals[:_SHOWN_PROPOSALS]:
        corners = (f"{value:.1f}" for value in proposal.box)
        add_row(rows, proposal.label, f"{proposal.score:.3f}", *corners, proposal.text or "")
    screen = console()
    if result.proposals:
        screen.print(rows)
    rest = len(result.proposals) - _SHOWN_PROPOSALS
    if rest > 0:
        screen.print(f"... and {rest} more, see --json", highlight=False)
    image, model = result.image, result.model
    screen.print(
        f"{len(result.proposals)} proposals by {model.name} in {image.width}x{image.height} "
        f"{image.format}, {result.timings.total_ms:.0f} ms",
        highlight=False,
        markup=False,
    )
    return 0
