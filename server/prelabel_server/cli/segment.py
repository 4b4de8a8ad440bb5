"""`prelabel segment`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prelabel import Client, types
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
from prelabel_server.cli.runs import local_client
from prelabel_server.cli.tables import add_row, console, table


def segment(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    model: ModelOption,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point",
            metavar="X,Y[,-]",
            help="A click on the object in pixels, or with ',-' beside it; repeat for more.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", metavar="X1,Y1,X2,Y2", help="A box around it; repeat for parts."),
    ] = None,
    max_masks: Annotated[
        int,
        typer.Option("--max", min=0, max=3, help="Masks. 0: three for a single click, else one."),
    ] = 0,
    server: ServerOption = None,
    as_json: JsonOption = False,
    draw: Annotated[
        Path | None,
        typer.Option("--draw", metavar="FILE", help="Write a picture with the best mask here."),
    ] = None,
    store: StoreOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Masks for clicks and boxes on one image, in this process or on a server."""
    try:
        points = [parse_point(text) for text in point or []]
        boxes = [parse_box(text) for text in box or []]
    except ValueError as err:
        raise fail(str(err), EXIT_USAGE) from err
    options = types.SegmentOptions(max_masks=max_masks)
    with reported_errors():
        data = image.read_bytes()
        if server is not None:
            with Client(server) as client:
                result = client.segment(
                    data, model=model, points=points, boxes=boxes, options=options
                )
        else:
            with local_client(store, device) as local:
                result = local.segment(
                    data, model=model, points=points, boxes=boxes, options=options
                )
        if draw is not None and result.masks:
            PictureWriter(draw.parent).draw_one(data, [_as_proposal(result.masks[0])], draw)
    _show(image, result, as_json=as_json)
    if not result.masks:
        raise fail("the model sees nothing there", EXIT_FAILED)


def parse_point(text: str) -> tuple[float, float, bool]:
    """`X,Y` or `X,Y,-` (or `,+`).

    Raises:
        ValueError: Not of that form.

    Example:
        >>> parse_point("10,20.5,-")
        (10.0, 20.5, False)
    """
    parts = text.split(",")
    sign = parts.pop() if len(parts) == 3 else "+"
    numbers = _numbers(parts, 2)
    if numbers is None or sign not in ("+", "-"):
        raise ValueError(f"--point: expected X,Y or X,Y,-, got {text!r}")
    return numbers[0], numbers[1], sign == "+"


def parse_box(text: str) -> types.BoxXYXY:
    """`X1,Y1,X2,Y2`.

    Raises:
        ValueError: Not of that form.
    """
    numbers = _numbers(text.split(","), 4)
    if numbers is None:
        raise ValueError(f"--box: expected X1,Y1,X2,Y2, got {text!r}")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _numbers(parts: list[str], count: int) -> list[float] | None:
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return None
    return numbers if len(numbers) == count else None


def _as_proposal(mask: types.MaskProposal) -> types.Proposal:
    return types.Proposal(
        label="mask",
        class_id=0,
        score=mask.predicted_iou,
        confidence=None,
        box=mask.box,
        mask=mask.mask,
    )


def _show(image: Path, result: types.SegmentResult, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_record(image, result)))
        return
    shown = table(
        ("predicted IoU", "right"), ("stability", "right"), ("area px", "right"), ("box", "left")
    )
    for mask in result.masks:
        add_row(
            shown,
            f"{mask.predicted_iou:.3f}",
            f"{mask.stability_score:.3f}",
            str(mask.area_px),
            " ".join(f"{edge:g}" for edge in mask.box),
        )
    console().print(shown)


def _record(image: Path, result: types.SegmentResult) -> dict[str, object]:
    return {
        "path": str(image),
        "model": result.model.name,
        "model_digest": result.model.digest,
        "image_digest": result.image.digest,
        "masks": [
            {
                "predicted_iou": mask.predicted_iou,
                "stability_score": mask.stability_score,
                "area_px": mask.area_px,
                "box": list(mask.box),
                "rle": {"size": list(mask.mask.size or ()), "counts": mask.mask.rle},
            }
            for mask in result.masks
        ],
        "total_ms": result.timings.total_ms,
    }
