"""The root of the command line and the options that every command has."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from prelabel import __version__
from prelabel_server.cli import demo, detect, evaluate, models, segment, serve

app = typer.Typer(
    name="prelabel",
    help="The first pass of every annotation: models propose, people decide.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.command("segment")(segment.segment)
app.command("demo")(demo.demo)
app.command("detect")(detect.detect)
app.command("eval")(evaluate.evaluate)
app.add_typer(models.app, name="models")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prelabel {__version__}")
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens inside, on stderr.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """The first pass of every annotation: models propose, people decide."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
