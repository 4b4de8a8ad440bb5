"""A card for files that are about to be added: from what a person wrote, or from the graphs."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from prelabel_models.cards import FileRef, ModelCard, parse_card
from prelabel_models.errors import CardError, ModelUnusableError
from prelabel_models.files import hash_file, safe_name
from prelabel_models.identify import identify
from prelabel_models.probe import probe
from prelabel_models.weights import is_data_role


def card_from_file(path: Path, name: str | None, files: Mapping[str, Path]) -> ModelCard:
    """Read a card, with digests filled in where the writer left them out.

    A digest that the card does state is kept, and `ModelStore.add` compares it with the file.

    Args:
        path: The card, `.toml` or YAML; `name` and `files` may be missing in it.
        name: What the model is to be called, whatever the card says; None leaves it to the card.
        files: Role to path of the files to be added.

    Raises:
        CardError: Unreadable or not valid; the text names the key.
        ModelUnusableError: A file cannot be read.
        OptionError: Not a name.
    """
    raw = _read(path)
    if name is None:
        raw.setdefault("name", "unnamed")
    else:
        raw["name"] = safe_name(name)
    stated = raw.setdefault("files", {})
    if not isinstance(stated, dict):
        raise CardError("card: files: expected roles with their files, for example 'model: {}'")
    for role, file in files.items():
        entry = stated.get(role)
        entry = {} if entry is None else entry
        if isinstance(entry, dict) and "sha256" not in entry:
            stated[role] = {**entry, "sha256": hash_file(file, role)[0]}
    return parse_card(yaml.safe_dump(raw))


_NO_LICENSE = "license: not known; state it in a card"


@dataclass(frozen=True, slots=True)
class GuessedCard:
    """A card that nobody wrote.

    Attributes:
        card: The card.
        reasons: What was guessed and why, one sentence each, for a person to check.
    """

    card: ModelCard
    reasons: tuple[str, ...]


def draft_card(name: str, files: Mapping[str, Path]) -> GuessedCard:
    """A card for files that come without one: a lone detector is tried, others are only read.

    Args:
        name: What the model is to be called.
        files: Role to path.

    Raises:
        CardError: No family fits; the text says what the graphs are.
        ModelUnusableError: A file is not an ONNX graph, or the trial run failed.
        OptionError: Not a name.
    """
    safe_name(name)
    if set(files) != {"model"}:
        return guess_card(name, files)
    report = probe(files["model"])
    if not report.ok or report.card is None:
        raise ModelUnusableError(
            f"files.model: a trial run failed: {report.problem or 'no family fits'}; if the file "
            "is good, describe it in a card (--card)"
        )
    what = (report.identification.summary,) if report.identification else ()
    card = msgspec.structs.replace(report.card, name=name)
    return GuessedCard(card, tuple(dict.fromkeys((*what, *report.notes, _NO_LICENSE))))


def guess_card(name: str, files: Mapping[str, Path]) -> GuessedCard:
    """The card that fits the graphs best. Nothing runs.

    Args:
        name: What the model is to be called.
        files: Role to path; the family is the one that fits all of them.

    Raises:
        CardError: No family fits; the text says what the graphs are.
        ModelUnusableError: A file is not an ONNX graph.
        OptionError: Not a name.
    """
    safe_name(name)
    found = {role: identify(path) for role, path in files.items() if not is_data_role(role)}
    fitting = {
        role: {guess.family: guess for guess in one.guesses if guess.role == role}
        for role, one in found.items()
    }
    families = set.intersection(*map(set, fitting.values())) if fitting else set()
    if not families:
        what = "; ".join(f"files.{role}: {one.summary}" for role, one in found.items())
        raise CardError(f"card: family: no family is known for these files ({what}); give a card")
    # Sorted first, so that a draw has the same winner each time.
    family = max(sorted(families), key=lambda f: min(g[f].confidence for g in fitting.values()))
    guesses = {role: one[family] for role, one in fitting.items()}
    first = next(iter(guesses.values()))
    labels = next((guess.labels for guess in guesses.values() if guess.labels), ())
    digests = {role: FileRef(sha256=hash_file(path, role)[0]) for role, path in files.items()}
    card = ModelCard(name=name, task=first.task, family=family, files=digests, labels=labels)
    reasons = [f"{role}: {family}, because {guess.reason}" for role, guess in guesses.items()]
    origin = {"count": "by their number alone", "metadata": "from the file's metadata"}
    if first.labels_from in origin:
        shown = labels if isinstance(labels, str) else f"{len(labels)} names"
        reasons.append(f"labels: {shown}, {origin[first.labels_from]}")
    reasons.append(_NO_LICENSE)
    return GuessedCard(card, tuple(reasons))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        raw = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as err:
        raise CardError(f"card: cannot read {path.name}") from err
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as err:
        raise CardError(f"card: {path.name} is not valid: {' '.join(str(err).split())}") from err
    if not isinstance(raw, dict):
        raise CardError(f"card: expected keys and values in {path.name}")
    return raw
