"""The store of models on disk: weights named by their SHA-256, one card per model.

    <root>/blobs/sha256/<first 2 digits>/<64 digits>    read-only weight files
    <root>/cards/<name>.yaml                            what each model is
    <root>/views/<digest>/<role>                        graphs beside their external data
    <root>/tmp/                                         unfinished copies and downloads

A blob appears under its name only when it is complete, synced and hashed, so a copy that was cut
off is never taken for a model. Files are hashed again each time they are handed out.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
import platformdirs

from prelabel_models.cards import FileRef, ModelCard, dump_card, load_card
from prelabel_models.catalogue import catalogue
from prelabel_models.errors import (
    CardError,
    ModelNotFoundError,
    ModelsError,
    ModelUnusableError,
)
from prelabel_models.files import (
    SAFE_NAME,
    copy_hashed,
    hash_file,
    link_together,
    open_regular,
    package_file,
    publish,
    remove_stale,
    safe_name,
)
from prelabel_models.weights import check_weights, is_data_role

_log = logging.getLogger(__name__)


class ModelExistsError(ModelsError):
    """The store holds another model of this name."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that the store knows.

    Attributes:
        card: Its card.
        present: Roles whose files are there; their content is checked by `open_files` and `verify`.
        missing: Roles whose files are not.
        size: Bytes of the files that are there.
        origin: `store`, or `package` for a model whose weights come with an installed package.
    """

    card: ModelCard
    present: tuple[str, ...]
    missing: tuple[str, ...]
    size: int
    origin: Literal["store", "package"] = "store"

    @property
    def ready(self) -> bool:
        """All files are there."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found for one model.

    Attributes:
        name: The model.
        problems: One sentence per damaged or missing file; empty if all is well.
    """

    name: str
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Every file has the digest that the card states."""
        return not self.problems


def default_store_root() -> Path:
    """`$PRELABEL_STORE`, or the user's data folder."""
    chosen = os.environ.get("PRELABEL_STORE")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("prelabel"))


class ModelStore:
    """A folder of models. Several threads and processes may use one at once.

    Args:
        root: The folder; made when the first model is added. None takes `default_store_root()`.

    Example:
        >>> ModelStore(Path("/nonexistent")).get("../../etc/passwd")
        Traceback (most recent call last):
        ...
        prelabel_models.errors.OptionError: name: expected 1 to 100 letters, digits, ...
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_store_root() if root is None else root

    def add(self, card: ModelCard, files: Mapping[str, Path], replace: bool = False) -> StoredModel:
        """Copy a model's files into the store, then its card.

        Adding the same model again changes nothing and is no error.

        Args:
            card: What the model is; its digests must be those of the files.
            files: Role to path. Roles that the card takes from a package, or whose file the store
                has already, may be left out.
            replace: Take the place of another model of the same name.

        Raises:
            ModelUnusableError: A file is not what the card says, or not an ONNX graph.
            CardError: The roles of card and files differ.
            ModelExistsError: The name is taken by another model and `replace` is off.
            OptionError: The name or a role is not a plain name.
        """
        safe_name(card.name)
        for role in card.files:
            safe_name(role, "files")
        for role in files:
            if role not in card.files:
                roles = ", ".join(card.files)
                raise CardError(f"card: files: expected the roles {roles}, got also {role!r}")
        with contextlib.ExitStack() as stack:
            copies = {
                role: stack.enter_context(self._copy(role, card.files[role], path))
                for role, path in files.items()
            }
            complete = {**self._known_files(card, skip=copies), **copies}
            check_weights(complete)
            sizes = {role: path.stat().st_size for role, path in complete.items()}
            sized = _with_sizes(card, sizes)
            with self._lock():
                self._refuse_conflict(sized, replace)
                for role, copy in copies.items():
                    publish(copy, self._blob(card.files[role].sha256))
                self._write_card(sized)
        return self.get(card.name)

    def list(self) -> tuple[StoredModel, ...]:
        """All models, by name: those that were added, and those of installed packages.

        A card that cannot be read is left out with a warning; `verify` reports it.
        """
        found: dict[str, StoredModel] = {}
        for name in self._card_names():
            try:
                found[name] = self.get(name)
            except CardError as err:
                _log.warning("model %s left out: %s", name, err)
        for name, card in catalogue().items():
            if name not in found and _is_packaged(card):
                model = self._inspect(card, "package")
                if model.ready:
                    found[name] = model
        return tuple(found[name] for name in sorted(found))

    def get(self, name: str) -> StoredModel:
        """One model, without reading its weights.

        Raises:
            ModelNotFoundError: Neither added nor part of an installed package.
            CardError: Its card cannot be read.
            OptionError: Not a name.
        """
        path = self._card_path(name)
        if path.is_file():
            card = load_card(path)
            if card.name != name:
                raise CardError(f"card: name: expected {name!r} as the card's file, got another")
            return self._inspect(card, "store")
        entry = catalogue().get(name)
        if entry is not None and _is_packaged(entry):
            model = self._inspect(entry, "package")
            if model.ready:
                return model
        raise ModelNotFoundError(f"model: there is no model {name!r} in the store")

    def open_files(self, name: str) -> Mapping[str, Path]:
        """The model's files, each hashed now.

        Returns:
            Role to path. Graphs with external data lie beside it, under the names they expect.

        Raises:
            ModelNotFoundError: There is no such model.
            ModelUnusableError: A file is missing or differs from its digest; names the role.
            OptionError: Not a name.
        """
        card = self.get(name).card
        for role, ref in card.files.items():
            problem = self._problem(role, ref)
            if problem:
                raise ModelUnusableError(f"model {name}: {problem}")
        return MappingProxyType(self._laid_out(card))

    def verify(self, name: str | None = None) -> tuple[VerifyReport, ...]:
        """Hash every file of one model or of all.

        Raises:
            ModelNotFoundError: There is no such model.
            OptionError: Not a name.
        """
        if name is not None:
            return (self._verify_one(name),)
        names = {*self._card_names(), *(model.card.name for model in self.list())}
        return tuple(self._verify_one(each) for each in sorted(names))

    def remove(self, name: str) -> None:
        """Forget a model and delete the blobs that no other model uses.

        Raises:
            ModelNotFoundError: It was not added; a model of an installed package cannot be removed.
            ModelUnusableError: Another card cannot be read, so it is unknown which blobs it uses.
            OptionError: Not a name.
        """
        path = self._card_path(name)
        if not path.is_file():
            raise ModelNotFoundError(
                f"model: there is no model {name!r} in the store that could be removed"
            )
        with self._lock():
            kept: set[str] = set()
            for other in self._card_names():
                if other != name:
                    kept |= {ref.sha256 for ref in load_card(self._card_path(other)).files.values()}
            with contextlib.suppress(CardError):  # a broken card can be removed; its blobs stay
                card = load_card(path)
                for ref in card.files.values():
                    if ref.sha256 not in kept:
                        self._blob(ref.sha256).unlink(missing_ok=True)
                self._drop_view(card)
            path.unlink(missing_ok=True)

    def scratch(self) -> Path:
        """The folder for unfinished files, on the same file system as the blobs."""
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def has_file(self, role: str, ref: FileRef) -> bool:
        """The file is there and its content is right."""
        return not self._problem(role, ref)

    def _blob(self, sha256: str) -> Path:
        return self.root / "blobs" / "sha256" / sha256[:2] / sha256

    def _card_path(self, name: str) -> Path:
        return self.root / "cards" / f"{safe_name(name)}.yaml"

    def _card_names(self) -> tuple[str, ...]:
        stems = (path.stem for path in (self.root / "cards").glob("*.yaml"))
        return tuple(sorted(stem for stem in stems if SAFE_NAME.fullmatch(stem)))

    def _find(self, ref: FileRef) -> tuple[Path, bool]:
        """Where a file is or would be, and whether a link there may be followed."""
        blob = self._blob(ref.sha256)
        if ref.package and not blob.exists():
            # Installers may link packages from a cache.
            packaged = package_file(ref.package)
            return (packaged or blob), packaged is not None
        return blob, False

    def _inspect(self, card: ModelCard, origin: Literal["store", "package"]) -> StoredModel:
        sizes = {}
        for role, ref in card.files.items():
            with contextlib.suppress(OSError):
                sizes[role] = self._find(ref)[0].stat().st_size
        missing = tuple(role for role in card.files if role not in sizes)
        return StoredModel(card, tuple(sizes), missing, sum(sizes.values()), origin)

    def _problem(self, role: str, ref: FileRef) -> str:
        path, follow = self._find(ref)
        if not path.exists():
            where = f" in the package {ref.package.partition(':')[0]}" if ref.package else ""
            return f"files.{role}: the file is missing{where}"
        try:
            digest, _ = hash_file(path, role, follow=follow)
        except ModelUnusableError as err:
            return str(err)
        if digest != ref.sha256:
            return f"files.{role}: the file is damaged: expected {ref.sha256}, got {digest}"
        return ""

    def _verify_one(self, name: str) -> VerifyReport:
        try:
            card = self.get(name).card
        except CardError as err:
            return VerifyReport(name, (str(err),))
        problems = (self._problem(role, ref) for role, ref in card.files.items())
        return VerifyReport(name, tuple(problem for problem in problems if problem))

    def _known_files(self, card: ModelCard, skip: Mapping[str, Path]) -> dict[str, Path]:
        """Checked files of the roles that the caller did not bring."""
        known = {}
        for role, ref in card.files.items():
            if role in skip:
                continue
            problem = self._problem(role, ref)
            if problem:
                raise CardError(f"card: {problem}; give the file of this role")
            known[role] = self._find(ref)[0]
        return known

    @contextlib.contextmanager
    def _copy(self, role: str, ref: FileRef, source: Path) -> Iterator[Path]:
        """A private, synced copy with the expected digest; gone afterwards unless published."""
        remove_stale(self.scratch())
        with open_regular(source, role) as original:
            fd, temp = tempfile.mkstemp(dir=self.scratch(), prefix="copy-")
            try:
                with os.fdopen(fd, "wb") as target:
                    digest, size = copy_hashed(original, target)
                    target.flush()
                    os.fsync(target.fileno())
                if digest != ref.sha256:
                    raise ModelUnusableError(
                        f"files.{role}: the file is not the one of the card: expected "
                        f"{ref.sha256}, got {digest} ({size} bytes)"
                    )
                yield Path(temp)
            finally:
                Path(temp).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time: `remove` must not collect a blob whose card is about to come."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _refuse_conflict(self, card: ModelCard, replace: bool) -> None:
        path = self._card_path(card.name)
        if replace or not path.is_file():
            return
        if load_card(path) != card:
            raise ModelExistsError(
                f"name: the store holds another model {card.name!r}; choose another name, or "
                "replace it (--replace)"
            )

    def _write_card(self, card: ModelCard) -> None:
        path = self._card_path(card.name)
        fd, temp = tempfile.mkstemp(dir=self.scratch(), prefix="copy-")
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(dump_card(card))
            file.flush()
            os.fsync(file.fileno())
        publish(Path(temp), path, mode=0o644)

    def _laid_out(self, card: ModelCard) -> dict[str, Path]:
        paths = {role: self._find(ref)[0] for role, ref in card.files.items()}
        if not any(is_data_role(role) for role in card.files):
            return paths
        return link_together(self._view(card), paths)

    def _view(self, card: ModelCard) -> Path:
        named = "\n".join(f"{role} {ref.sha256}" for role, ref in sorted(card.files.items()))
        return self.root / "views" / hashlib.sha256(named.encode()).hexdigest()

    def _drop_view(self, card: ModelCard) -> None:
        view = self._view(card)
        for role in card.files:
            (view / safe_name(role, "files")).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            view.rmdir()


def _is_packaged(card: ModelCard) -> bool:
    return all(ref.package for ref in card.files.values())


def _with_sizes(card: ModelCard, sizes: Mapping[str, int]) -> ModelCard:
    files = {
        role: msgspec.structs.replace(ref, size=sizes[role]) for role, ref in card.files.items()
    }
    return msgspec.structs.replace(card, files=files)
