"""The command line: data on stdout, logs on stderr, exit 0 done, 1 some items failed, 2 usage."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Entry point of `prelabel`."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        # The base install is the light client: say what the command line needs, and why.
        print(
            "prelabel: the command line needs an optional part.\n"
            "  pip install 'prelabel[cpu]'   to run models here\n"
            "  pip install 'prelabel[cli]'   to use a server elsewhere",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from prelabel_server.cli.root import app

    app()
