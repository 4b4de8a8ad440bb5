"""The catalogue: cards of published models, pinned by digest.

One YAML file per family, several documents in each. An entry without a `url` is pinned too: the
file is added from disk, and its digest alone brings the card.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import msgspec

from prelabel_models.cards import ModelCard, parse_card
from prelabel_models.errors import CardError, ModelNotFoundError, ModelUnusableError
from prelabel_models.files import hash_file, safe_name

_DOCUMENT_END = re.compile(r"^---\s*$", re.MULTILINE)


@functools.cache
def catalogue() -> Mapping[str, ModelCard]:
    """All entries by name, in alphabetical order.

    Example:
        >>> catalogue()["yunet"].license
        'MIT'
    """
    cards: dict[str, ModelCard] = {}
    for file in resources.files(__name__).iterdir():
        if not file.name.endswith(".yaml"):
            continue
        for document in _DOCUMENT_END.split(file.read_text(encoding="utf-8")):
            if document.strip():
                card = parse_card(document)
                if card.name in cards:
                    raise CardError(f"card: name: expected distinct names, got {card.name!r} twice")
                cards[card.name] = card
    return MappingProxyType(dict(sorted(cards.items())))


def catalogue_entry(name: str) -> ModelCard:
    """One entry.

    Raises:
        ModelNotFoundError: There is none of this name; the text lists those there are.
    """
    entry = catalogue().get(name)
    if entry is None:
        known = ", ".join(catalogue())
        raise ModelNotFoundError(
            f"model: expected an entry of the catalogue ({known}), got {name[:120]!r}"
        )
    return entry


def card_for_files(name: str, files: Mapping[str, Path]) -> ModelCard | None:
    """The catalogue's card for files on disk, recognised by their digests.

    Args:
        name: What the model is to be called.
        files: Role to path.

    Returns:
        The entry with these files, under `name`; None if the catalogue does not know them.

    Raises:
        ModelUnusableError: The catalogue has an entry `name` with other files, or a file cannot be
            read.
        OptionError: Not a name.
    """
    safe_name(name)
    digests = {role: hash_file(path, role)[0] for role, path in files.items()}
    named = catalogue().get(name)
    entries = [card for card in (named, *catalogue().values()) if card is not None]
    for entry in entries:
        if {role: ref.sha256 for role, ref in entry.files.items()} == digests:
            return msgspec.structs.replace(entry, name=name)
    if named is None:
        return None
    for role, ref in named.files.items():
        if digests.get(role) != ref.sha256:
            got = digests.get(role, "no file")
            raise ModelUnusableError(
                f"files.{role}: the catalogue's {name!r} has the digest {ref.sha256}, got {got}; "
                "choose another name for a model of your own, or give its card (--card)"
            )
    extra = ", ".join(sorted(set(digests) - set(named.files)))
    raise ModelUnusableError(
        f"files: the catalogue's {name!r} has the roles {', '.join(named.files)}, got also {extra}"
    )


def card_for_file(name: str, path: Path) -> ModelCard | None:
    """`card_for_files` for a model of one file, which has the role `model`."""
    return card_for_files(name, {"model": path})
