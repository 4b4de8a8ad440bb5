"""Files of the store: safe names, hashing, atomic appearance, and files inside packages."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import stat
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from prelabel_models.errors import CardError, ModelUnusableError, OptionError

_CHUNK = 1 << 20
# What a killed process left behind; a day is longer than any copy or download that still runs.
_STALE_SECONDS = 86_400
# Letters, digits, dots, dashes: no separator of any file system, no control character, and no
# leading dot or dash, so that neither `..` nor an option can be spelled.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(value: str, field: str = "name") -> str:
    """`value`, if it can stand as a file name on its own.

    Args:
        value: A model's or role's name.
        field: What to call it in the error.

    Raises:
        OptionError: It cannot.

    Example:
        >>> safe_name("m..1")
        'm..1'
    """
    if SAFE_NAME.fullmatch(value) is None:
        raise OptionError(
            field,
            f"{field}: expected 1 to 100 letters, digits, '.', '_' or '-', beginning with a letter "
            f"or digit, got {value[:120]!r}",
        )
    return value


def open_regular(path: Path, role: str, *, follow: bool = True) -> IO[bytes]:
    """Open a regular file for reading; never waits for a pipe or a device.

    Args:
        path: The file.
        role: Its role, for the error.
        follow: A symbolic link at the end of the path is followed.

    Raises:
        ModelUnusableError: Not there, not readable or not a regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError) as err:  # ValueError: a NUL in the path
        reason = getattr(err, "strerror", None) or "not a path"
        raise ModelUnusableError(f"files.{role}: cannot open the file: {reason}") from err
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ModelUnusableError(f"files.{role}: expected a regular file")
    return os.fdopen(fd, "rb")


def copy_hashed(source: IO[bytes], target: IO[bytes] | None = None) -> tuple[str, int]:
    """Read a file to its end, writing what was read to `target` if there is one.

    Returns:
        SHA-256 in hexadecimal, and the number of bytes.
    """
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return digest.hexdigest(), size


def hash_file(path: Path, role: str = "model", *, follow: bool = True) -> tuple[str, int]:
    """SHA-256 and size in bytes of a file; errors as `open_regular`."""
    with open_regular(path, role, follow=follow) as source:
        return copy_hashed(source)


def package_file(reference: str) -> Path | None:
    """The file that `module:path/in/module` names, found without importing the module.

    Returns:
        Its path, or None if the package or the file is not installed.

    Raises:
        CardError: Not of that form, or the path leaves the package.
    """
    module, _, inside = reference.partition(":")
    parts = PurePosixPath(inside).parts
    if not module.isidentifier() or not parts or ".." in parts or inside.startswith("/"):
        raise CardError(
            f"card: package: expected module:path/in/module without '..', got {reference!r}"
        )
    spec = importlib.util.find_spec(module)  # a top-level name is located, not imported
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *parts)
        if path.is_file():
            return path
    return None


def publish(temp: Path, final: Path, mode: int = 0o444) -> None:
    """Give a complete, synced file its name, in one step that survives a power cut."""
    temp.chmod(mode)
    final.parent.mkdir(parents=True, exist_ok=True)
    temp.replace(final)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the new name survives a power cut
    finally:
        os.close(folder)


def link_together(folder: Path, files: Mapping[str, Path]) -> dict[str, Path]:
    """Put files into one folder under the names that they know each other by.

    Hard links: ONNX Runtime refuses external data behind symbolic ones.

    Args:
        folder: Made if absent.
        files: Name to file, on the same file system.

    Returns:
        Name to path in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        placed = folder / name
        if not placed.exists() or not placed.samefile(path):
            placed.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):  # another thread was first
                placed.hardlink_to(path)
    return {name: folder / name for name in files}


def remove_stale(folder: Path) -> None:
    """Delete files that nobody has written to for a day."""
    oldest = time.time() - _STALE_SECONDS  # file times are wall-clock times
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process was first
            if path.stat().st_mtime < oldest:
                path.unlink()
