"""`prelabel models`: what is in the store, what can be had, and whether a file fits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from prelabel_server.cli import export
from prelabel_server.cli.common import (
    EXIT_USAGE,
    JsonOption,
    StoreOption,
    fail,
    reported_errors,
)

if TYPE_CHECKING:  # imported where used: the light client shows the help without them
    from prelabel_models.cards import ModelCard
    from prelabel_models.probe import ProbeReport
    from prelabel_models.store import ModelStore, StoredModel

# Width of tables that no terminal limits; digests and addresses stay on one line.
_PIPE_WIDTH = 200

app = typer.Typer(
    help="Models: list, add, pull, verify, check, export, remove.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(export.app, name="export")


def _checked_name(value: str | None) -> str | None:
    if value is None:
        return None
    with _models_installed():
        from prelabel_models.errors import OptionError
        from prelabel_models.files import safe_name
    try:
        return safe_name(value)
    except OptionError as err:
        raise typer.BadParameter(str(err)) from err


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", callback=_checked_name, help="The model's name.")
]
OptionalName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", callback=_checked_name, help="All models if left out."),
]
CardOption = Annotated[
    Path | None,
    typer.Option("--card", exists=True, dir_okay=False, help="Card of the model, YAML or TOML."),
]
FileOption = Annotated[
    list[str],
    typer.Option(
        "--file",
        "-f",
        metavar="ROLE=PATH",
        help="A weight file: model=PATH for detectors; encoder=PATH and decoder=PATH for "
        "segmenters. PATH alone means model=PATH. Repeat for more.",
    ),
]


@app.command("list")
def list_models(
    store: StoreOption = None,
    only_ready: Annotated[
        bool, typer.Option("--ready", help="Leave out what would have to be fetched first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Models in the store, and those of the catalogue that can be had."""
    with reported_errors():
        rows = _overview(_open(store))
    rows = [row for row in rows if row["state"] == "ready"] if only_ready else rows
    if as_json:
        return _print_json(rows)
    table = _table("name", "task", "family", "state", "size", "license", "description")
    for row in rows:
        size = _bytes(row["size"])
        table.add_row(*(size if key == "size" else str(row[key]) for key in _headers(table)))
    _console().print(table)


@app.command()
def info(name: NameArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Everything that the card of one model says."""
    with reported_errors():
        from prelabel_models.catalogue import catalogue_entry
        from prelabel_models.errors import ModelNotFoundError

        stored: StoredModel | None = None
        try:
            stored = _open(store).get(name)
        except ModelNotFoundError:
            card = catalogue_entry(name)
        else:
            card = stored.card
    details = _details(card, stored)
    if as_json:
        return _print_json(details)
    table = _table("key", "value", header=False)
    for key, value in details.items():
        if value not in (None, "", [], {}):
            table.add_row(key, _in_words(value))
    _console().print(table)


@app.command()
def add(
    name: NameArgument,
    file: FileOption,
    card: CardOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of another model of this name.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy weights into the store. Without --card the model is recognised, or guessed and tried."""
    files = _parse_files(file)
    with reported_errors():
        target = _open(store)
        chosen = _card_for(name, files, card)
        stored = target.add(chosen, files, replace=replace)
    _say_added(stored, as_json)


@app.command()
def pull(
    name: NameArgument,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror",
            envvar="PRELABEL_MODEL_MIRROR",
            help="Look first for <mirror>/<sha256>: an http(s) address, file:// or a folder.",
            show_default=False,
        ),
    ] = None,
    accept_license: Annotated[
        bool,
        typer.Option("--accept-license", help="Accept a licence that restricts commercial use."),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model of the catalogue. No other command uses the network."""
    with reported_errors():
        from prelabel_models.pull import pull as fetch

        target = _open(store)
        with _progress() as bars:
            stored = fetch(target, name, mirror, accept_license, _Bars(bars).update)
    _say_added(stored, as_json)


@app.command()
def verify(
    name: OptionalName = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Hash every file again and compare it with its card. Exit 1 if one differs."""
    with reported_errors():
        reports = _open(store).verify(name)
    if as_json:
        _print_json([{"name": r.name, "ok": r.ok, "problems": list(r.problems)} for r in reports])
    else:
        table = _table("name", "state")
        for report in reports:
            table.add_row(report.name, "ok" if report.ok else "\n".join(report.problems))
        _console().print(table)
    if not all(report.ok for report in reports):
        raise fail(f"{sum(not r.ok for r in reports)} of {len(reports)} models are not usable")


@app.command()
def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="An .onnx file.")
    ],
    card: CardOption = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", min=1.0, help="Seconds that the trial may take.")
    ] = 20.0,
    as_json: JsonOption = False,
) -> None:
    """Try a detector in a guarded process; print its card, or why it does not fit."""
    with reported_errors(), _models_installed():
        from prelabel_models.adding import card_from_file
        from prelabel_models.probe import probe

        written = card_from_file(card, None, {"model": file}) if card else None
        report = probe(file, written, timeout_s)
    if as_json:
        _print_json(_report(report))
    else:
        for line in dict.fromkeys(_findings(report)):
            typer.echo(line, err=True)
        typer.echo(report.card_yaml, nl=False)
    if not report.ok:
        raise fail(report.problem)


@app.command()
def remove(name: NameArgument, store: StoreOption = None) -> None:
    """Forget a model; delete its files unless another model uses them."""
    with reported_errors():
        _open(store).remove(name)
    typer.echo(f"removed {name}", err=True)


def _open(root: Path | None) -> ModelStore:
    with _models_installed():
        from prelabel_models.store import ModelStore
    return ModelStore(root)


class _models_installed(AbstractContextManager[None]):  # noqa: N801 - reads as a statement
    """Says what to install where the light client asks for models."""

    def __exit__(self, kind: Any, err: BaseException | None, trace: Any) -> None:
        if isinstance(err, ModuleNotFoundError):
            raise fail(
                f"models need an optional part ({err.name}): pip install 'prelabel[cpu]'",
                EXIT_USAGE,
            ) from err


def _card_for(name: str, files: Mapping[str, Path], path: Path | None) -> ModelCard:
    """The card given, or the catalogue's for these digests, or a guess, which is announced."""
    from prelabel_models.adding import card_from_file, draft_card
    from prelabel_models.catalogue import card_for_files

    if path is not None:
        return card_from_file(path, name, files)
    known = card_for_files(name, files)
    if known is not None:
        return known
    guessed = draft_card(name, files)
    typer.echo("guessed; correct it with --card and --replace:", err=True)
    for reason in guessed.reasons:
        typer.echo(f"  {reason}", err=True)
    return guessed.card


def _parse_files(values: Iterable[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for value in values:
        role, equals, path = value.partition("=")
        if not equals:
            role, path = "model", value
        if not role or not path:
            raise typer.BadParameter(f"--file: expected ROLE=PATH, got {value!r}")
        if role in files:
            raise typer.BadParameter(f"--file: expected each role once, got {role!r} twice")
        files[role] = Path(path)
    return files


def _overview(store: ModelStore) -> list[dict[str, Any]]:
    from prelabel_models.catalogue import catalogue

    stored = {model.card.name: model for model in store.list()}
    cards = {**catalogue(), **{name: model.card for name, model in stored.items()}}
    return [_row(cards[name], stored.get(name)) for name in sorted(cards)]


def _row(card: ModelCard, stored: StoredModel | None) -> dict[str, Any]:
    return {
        "name": card.name,
        "task": card.task,
        "family": card.family,
        "state": _state(card, stored),
        "size": stored.size if stored else sum(ref.size for ref in card.files.values()),
        "license": card.license,
        "commercial": card.commercial,
        "description": card.description,
    }


def _state(card: ModelCard, stored: StoredModel | None) -> str:
    """`ready`, `files missing`, or how a catalogue model is had: `pull` or `add`."""
    if stored:
        return "ready" if stored.ready else "files missing"
    return "pull" if all(ref.url for ref in card.files.values()) else "add"


def _details(card: ModelCard, stored: StoredModel | None) -> dict[str, Any]:
    import msgspec

    details = {**_row(card, stored), "digest": card.digest(), **msgspec.to_builtins(card)}
    details["labels"] = list(card.label_names())
    details["preprocess"] = {k: v for k, v in details["preprocess"].items() if v is not None}
    details["origin"] = stored.origin if stored else "catalogue"
    details["missing"] = list(stored.missing) if stored else list(card.files)
    return details


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = (f"{k}: {_in_words(v)}" for k, v in value.items() if v not in (None, "", 0))
        return (
            "\n".join(parts)
            if any(isinstance(v, Mapping) for v in value.values())
            else ("  ".join(parts))
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _report(report: ProbeReport) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(report)
    return found


def _findings(report: ProbeReport) -> Iterator[str]:
    from prelabel_models.identify import tensors_in_words

    if report.identification is not None:
        yield report.identification.summary
        yield tensors_in_words(report.identification)
    if report.ok:
        width, height = report.input_size
        yield (
            f"runs: input {width}x{height}, {len(report.labels)} labels, up to {report.max_batch} "
            f"images at once; loaded in {report.load_ms:.0f} ms, one image in "
            f"{report.run_ms:.0f} ms, {report.peak_bytes / 1e6:.0f} MB at most"
        )
    yield from report.notes


def _say_added(stored: StoredModel, as_json: bool) -> None:
    if as_json:
        return _print_json(_details(stored.card, stored))
    card = stored.card
    typer.echo(f"{card.name}  {card.family}  {_bytes(stored.size)}  {card.license}")


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size else ""


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _table(*columns: str, header: bool = True) -> Table:
    table = Table(show_header=header, box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    return table


def _headers(table: Table) -> list[str]:
    return [str(column.header) for column in table.columns]


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


class _Bars:
    """One bar per file."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def update(self, role: str, done: int, total: int) -> None:
        if role not in self._tasks:
            self._tasks[role] = self._progress.add_task(role, total=total or None)
        self._progress.update(self._tasks[role], completed=done, total=total or None)
