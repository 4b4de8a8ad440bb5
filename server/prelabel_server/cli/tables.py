"""What people see: tables on stdout, progress on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from prelabel.types import Proposal

T = TypeVar("T")

# Width of tables that no terminal limits, so that paths stay on one line.
_PIPE_WIDTH = 200
_SHOWN_LABELS = 5


def console() -> Console:
    """For stdout."""
    made = Console()
    return made if made.is_terminal else Console(width=_PIPE_WIDTH)


def table(*columns: tuple[str, Literal["left", "right"]], title: str | None = None) -> Table:
    """A table of named columns, each `left` or `right` aligned."""
    made = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for name, side in columns:
        made.add_column(name, justify=side, overflow="fold")
    return made


def add_row(target: Table, *cells: object) -> None:
    """Cells as they are: file names and texts may hold what rich would take for markup."""
    target.add_row(*(Text(str(cell)) for cell in cells))


def tracked(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items, with a bar on stderr where that is a terminal."""
    screen = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal or total < 2,
    )
    with bar:
        yield from bar.track(items, total=total, description=what)


def labels_in_words(proposals: Sequence[Proposal]) -> str:
    """How many of each class, most frequent first: `person 3, dog 1`."""
    counts = Counter(p.label for p in proposals).most_common()
    words = ", ".join(f"{label} {count}" for label, count in counts[:_SHOWN_LABELS])
    rest = len(counts) - _SHOWN_LABELS
    return f"{words}, {rest} more" if rest > 0 else words
