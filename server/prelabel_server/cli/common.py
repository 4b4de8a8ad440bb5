"""What commands share: options, settings, and errors as one line on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from prelabel.errors import PrelabelError

EXIT_FAILED = 1
EXIT_USAGE = 2

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        envvar="PRELABEL_STORE",
        help="Folder of the model store. [default: the user's data folder]",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        envvar="PRELABEL_DEVICE",
        help="auto | cpu | cuda[:N] | tensorrt[:N]. A device named here is used or refused, never "
        "replaced.",
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="PRELABEL_SERVER",
        help="Ask the server at HOST:PORT instead of running the model in this process.",
        show_default=False,
    ),
]
ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", envvar="PRELABEL_MODEL", help="Name of the model."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def fail(message: str, code: int = EXIT_FAILED) -> typer.Exit:
    """Print one line on stderr; raise what this returns."""
    typer.echo(f"prelabel: {message}", err=True)
    return typer.Exit(code)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Errors made on purpose end the command with their sentence; defects keep their traceback."""
    expected: tuple[type[Exception], ...] = (PrelabelError, OSError)
    try:
        from prelabel_models.errors import ModelsError

        expected = (*expected, ModelsError)
    except ImportError:  # the light client has no models
        pass
    try:
        yield
    except expected as err:
        raise fail(str(err)) from err
