"""`prelabel models export`: checkpoints to the ONNX graphs that the server runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prelabel_server.cli.common import (
    EXIT_USAGE,
    JsonOption,
    StoreOption,
    fail,
    reported_errors,
)

if TYPE_CHECKING:  # imported where used: the light client shows the help without them
    from prelabel_models.export import ExportReport

app = typer.Typer(
    help="Turn a checkpoint into ONNX files, proved against it. Needs 'prelabel[cpu,export]'.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _group() -> None:
    """Turn a checkpoint into ONNX files, proved against it. Needs 'prelabel[cpu,export]'."""


@app.command()
def sam(
    checkpoint: Annotated[
        Path,
        typer.Option("--checkpoint", exists=True, dir_okay=False, help="The .pth file."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", file_okay=False, help="Folder for encoder.onnx, decoder.onnx and card.yaml."
        ),
    ],
    model_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="vit_b | vit_l | vit_h. [default: as the checkpoint is]",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--add", metavar="NAME", help="Also add it to the store under this name."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of another model of this name.")
    ] = False,
    spdx: Annotated[
        str,
        typer.Option(
            "--license", help="Of the weights, as SPDX; Apache-2.0 for those that Meta published."
        ),
    ] = "unknown",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a Segment Anything checkpoint. Takes minutes for the largest."""
    with reported_errors():
        try:
            from prelabel_models.export import export_sam
            from prelabel_models.export.sam import sam_type
            from prelabel_models.store import ModelStore
        except ModuleNotFoundError as err:
            raise fail(
                f"exporting needs an optional part ({err.name}): pip install "
                "'prelabel[cpu,export]'",
                EXIT_USAGE,
            ) from err
        chosen = None if model_type is None else sam_type(model_type)
        report = export_sam(checkpoint, out, chosen, name=name or "sam", license=spdx)
        if name is not None:
            ModelStore(store).add(report.card, report.files, replace)
    _say(report, added=name is not None, as_json=as_json)


def _say(report: ExportReport, *, added: bool, as_json: bool) -> None:
    proof = report.proof
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "name": report.card.name,
                    "digest": report.card.digest(),
                    "checkpoint_sha256": report.checkpoint_sha256,
                    "files": {role: str(path) for role, path in report.files.items()},
                    "card": str(report.card_path),
                    "added": added,
                    "masks_compared": proof.masks,
                    "least_mask_iou": proof.mask_iou,
                    "largest_logit_difference": proof.logits,
                }
            )
        )
        return
    typer.echo(
        f"{proof.masks} masks of {proof.prompts} prompts agree with the checkpoint: IoU "
        f"{proof.mask_iou:.5f} or better, logits within {proof.logits:.1e}",
        err=True,
    )
    for path in (*report.files.values(), report.card_path):
        typer.echo(str(path))
    if added:
        typer.echo(f"added {report.card.name}", err=True)
