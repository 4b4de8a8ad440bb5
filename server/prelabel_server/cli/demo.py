"""`prelabel demo`."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from prelabel import Client, types
from prelabel.errors import InvalidRequest, PrelabelError
from prelabel_server.cli.common import fail, reported_errors
from prelabel_server.cli.runs import Engine, Outcome, missing_part, record, run
from prelabel_server.cli.tables import add_row, console, table

_MODEL = "rapidocr"
# Loading takes about a second; a laptop under load may need many.
_START_S = 60.0
_STOP_S = 10.0
_ANNOUNCED = "serving on "
_SHOWN_TEXT = 44


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where pictures and results go.")
    ] = Path("prelabel-demo"),
) -> None:
    """The two-minute tour: a real server, real pictures, no network."""
    started = time.monotonic()
    screen = console()
    with reported_errors():
        with missing_part("prelabel demo", "demo"):
            import onnxruntime  # noqa: F401 - asked for before the work, not in the middle of it
            import rapidocr  # noqa: F401

            from prelabel_server.cli.demo_pictures import make_pictures

            originals = out / "originals"
            originals.mkdir(parents=True, exist_ok=True)
            paths = make_pictures(originals)
        screen.print(f"Starting a server with the model {_MODEL} ...", highlight=False)
        with _server() as address, Client(address, timeout_s=_START_S) as client:
            screen.print(f"It answers on {address}. {len(paths)} pictures go to it.\n")
            outcomes = list(run(Engine(client), paths, _MODEL, types.DetectOptions()))
            refusal = _refused(client, paths[0])
        _write(out, outcomes)
    _print(outcomes)
    failed = sum(outcome.error is not None for outcome in outcomes)
    screen.print(f"\nA file that was cut off in half is refused, with the reason: {refusal}")
    screen.print(f"\nPictures with the proposals, and results.json: {out}/", highlight=False)
    screen.print(_next_steps(paths[0]), highlight=False, markup=False)
    screen.print(f"Done in {time.monotonic() - started:.0f} s; the server has stopped.")
    if failed:
        raise fail(f"{failed} of {len(outcomes)} images failed")


@contextmanager
def _server() -> Iterator[str]:
    """`prelabel serve` in a process of its own, on a free port; yields its address."""
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "prelabel_server", "serve", "--listen", "127.0.0.1:0"]
        command += ["--store", store, "--load", _MODEL, "--device", "cpu"]
        # What the user has set for a server of their own is not meant for this one.
        env = {k: v for k, v in os.environ.items() if not k.startswith("PRELABEL_")}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_forward, args=(process.stderr, lines), daemon=True)
        reader.start()
        try:
            yield _address(lines)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(_STOP_S)
            if process.stderr is not None:
                process.stderr.close()


def _forward(stream: IO[str] | None, lines: queue.Queue[str]) -> None:
    """Read on to the end, so that the server never waits for its log to be read."""
    for line in stream or ():
        lines.put(line)
    lines.put("")


def _address(lines: queue.Queue[str]) -> str:
    seen: list[str] = []
    until = time.monotonic() + _START_S
    while True:
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise PrelabelError(f"the server did not start within {_START_S:.0f} s") from None
        if not line:
            raise PrelabelError(f"the server did not start: {''.join(seen).strip()}")
        if _ANNOUNCED in line:
            return line.rpartition(_ANNOUNCED)[2].strip()
        seen.append(line)


def _refused(client: Client, path: Path) -> str:
    data = path.read_bytes()
    try:
        client.detect(data[: len(data) // 2], model=_MODEL)
    except InvalidRequest as err:
        return f"{err.reason}, {err}"
    raise PrelabelError("expected the server to refuse a file that was cut off, it did not")


def _write(out: Path, outcomes: Sequence[Outcome]) -> None:
    from prelabel_server.cli.pictures import PictureWriter

    writer = PictureWriter(out)
    for outcome in writer.drawn(outcomes):
        if outcome.error is not None:
            typer.echo(f"prelabel: {outcome.path}: {outcome.error}", err=True)
    records = json.dumps([record(o) for o in outcomes], ensure_ascii=False, indent=2)
    (out / "results.json").write_text(records + "\n", encoding="utf-8")


def _print(outcomes: Sequence[Outcome]) -> None:
    rows = table(
        ("image", "left"),
        ("proposals", "right"),
        ("most certain text", "left"),
        ("score", "right"),
        ("ms", "right"),
    )
    for outcome in outcomes:
        result = outcome.result
        if result is None:
            continue
        best = max(result.proposals, key=lambda p: p.score, default=None)
        text = "(no text found)" if best is None else (best.text or "")[:_SHOWN_TEXT]
        score = "" if best is None else f"{best.score:.2f}"
        milliseconds = f"{result.timings.total_ms - result.timings.queue_ms:.0f}"
        add_row(rows, outcome.path.name, len(result.proposals), text, score, milliseconds)
    console().print(rows)


def _next_steps(picture: Path) -> str:
    steps = {
        f"prelabel detect {picture} --model {_MODEL} --json": "the same without a server",
        f"prelabel serve --load {_MODEL}": "a server that stays",
        "prelabel models list": "models for other things",
    }
    width = max(map(len, steps))
    lines = (f"  {command:<{width}}   {what}" for command, what in steps.items())
    return "\n".join(("\nTry next:", *lines, ""))
