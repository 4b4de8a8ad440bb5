"""Fetch the files of a catalogue model: the only code here that opens a connection.

Sources, in this order: the mirror, if one is set, under `<mirror>/<sha256>`; then the address in
the card, which must be https. A mirror may be http(s), `file://` or a folder, for machines
without a network. What arrives is used only if its digest is the card's, so a mirror need not be
trusted. A download that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

from prelabel_models.cards import FileRef
from prelabel_models.catalogue import catalogue_entry
from prelabel_models.errors import ModelNotFoundError, ModelsError
from prelabel_models.files import hash_file, open_regular
from prelabel_models.store import ModelStore, StoredModel
from prelabel_models.weights import MAX_GRAPH_BYTES

MIRROR_VARIABLE = "PRELABEL_MODEL_MIRROR"
_CHUNK = 1 << 18
# Without any byte; a download as a whole may take hours on a slow line.
_TIMEOUT_SECONDS = 30.0

Progress = Callable[[str, int, int], None]
"""Called with role, bytes so far, and bytes in all (0 if not known)."""


class PullError(ModelsError):
    """A file could not be fetched, or what came is not the card's."""


class LicenseNotAcceptedError(ModelsError):
    """The model's licence restricts its use and was not accepted."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def pull(
    store: ModelStore,
    name: str,
    mirror: str | None = None,
    accept_license: bool = False,
    progress: Progress | None = None,
) -> StoredModel:
    """Fetch a model's files and add it to the store. Files that are there already stay.

    Args:
        store: Where to put it.
        name: An entry of the catalogue, or a stored model whose card says where its files are.
        mirror: http(s) or file URL, or a folder; None takes `$PRELABEL_MODEL_MIRROR`.
        accept_license: The caller accepts a licence that restricts commercial use.
        progress: Told about each chunk.

    Raises:
        ModelNotFoundError: There is no such entry.
        LicenseNotAcceptedError: The licence is restricted and was not accepted.
        PullError: No source had a file, or it was not the right one.
        ModelUnusableError: The file is not an ONNX graph.
    """
    stored = _stored(store, name)
    card = stored.card if stored else catalogue_entry(name)
    if card.commercial != "yes" and not accept_license:
        terms = "does not allow" if card.commercial == "no" else "may not allow"
        raise LicenseNotAcceptedError(
            f"license: {name} is under {card.license}, which {terms} commercial use; read "
            f"{card.license_url or card.source or 'its terms'} and accept it (--accept-license)"
        )
    mirror = os.environ.get(MIRROR_VARIABLE, "") if mirror is None else mirror
    fetched: dict[str, Path] = {}
    try:
        for role, ref in card.files.items():
            if not store.has_file(role, ref):
                fetched[role] = _fetch(store, role, ref, mirror, progress or _silent)
        return store.add(card, fetched, replace=True) if fetched or not stored else stored
    finally:
        for path in fetched.values():
            path.unlink(missing_ok=True)


def _stored(store: ModelStore, name: str) -> StoredModel | None:
    try:
        return store.get(name)
    except ModelNotFoundError:
        return None


def _fetch(store: ModelStore, role: str, ref: FileRef, mirror: str, progress: Progress) -> Path:
    """One file with the right digest, from the first source that has it."""
    sources = [(f"{mirror.rstrip('/')}/{ref.sha256}", True)] if mirror else []
    sources += [(ref.url, False)] if ref.url else []
    if not sources:
        raise PullError(
            f"files.{role}: the catalogue knows no address of this file; get it from the model's "
            "source and add it (prelabel models add)"
        )
    problems = []
    for address, is_mirror in sources:
        try:
            return _from_source(store, address, is_mirror, role, ref, progress)
        except (PullError, OSError, http.client.HTTPException) as err:
            problems.append(f"{_place(address)}: {_reason(err)}")
    raise PullError(
        f"files.{role}: could not fetch the file with digest {ref.sha256}; {'; '.join(problems)}. "
        "Without a network, set a mirror (--mirror), or bring the file and add it "
        "(prelabel models add)"
    )


def _from_source(
    store: ModelStore, address: str, is_mirror: bool, role: str, ref: FileRef, progress: Progress
) -> Path:
    part = store.scratch() / f"{ref.sha256}.part"
    with _own(part):
        # What is left of an earlier try may come from a bad source: then once more from the start.
        for resumed in (True, False) if part.exists() else (False,):
            _download(address, is_mirror, part, role, ref, progress)
            digest, size = hash_file(part, role, follow=False)
            if digest == ref.sha256:
                fd, whole = tempfile.mkstemp(dir=store.scratch(), prefix="pulled-")
                os.close(fd)
                return part.replace(whole)
            part.unlink()
            if not resumed:
                raise PullError(f"got a file of {size} bytes with digest {digest}")
    raise PullError("got another file twice")


@contextlib.contextmanager
def _own(part: Path) -> Iterator[None]:
    """Refuse a second download of one file at the same time."""
    import fcntl

    with part.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise PullError("another process is fetching it now; try again later") from err
        yield


def _download(
    address: str, is_mirror: bool, part: Path, role: str, ref: FileRef, progress: Progress
) -> None:
    scheme = urlsplit(address).scheme.lower()
    if is_mirror and scheme in ("", "file"):
        path = Path(unquote(urlsplit(address).path)) if scheme else Path(address)
        with _from_disk(path, role) as source:
            _copy(source, part, 0, ref.size or path.stat().st_size, role, progress)
        return
    if scheme != "https" and not (is_mirror and scheme == "http"):
        raise PullError(f"expected an https address, got {scheme or 'none'}")
    have = part.stat().st_size if part.exists() else 0
    try:
        answer = _request(address, scheme, have)
    except urllib.error.HTTPError as err:
        if err.code != 416:  # Range Not Satisfiable: what is here is as long as the file, or longer
            raise
        err.close()
        have, answer = 0, _request(address, scheme, 0)
    with contextlib.closing(answer):
        resumes = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        start = have if resumes else 0
        length = answer.headers.get("Content-Length", "")
        total = ref.size or (start + int(length) if length.isdigit() else 0)
        _copy(answer, part, start, total, role, progress)


def _request(address: str, scheme: str, have: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    answer: http.client.HTTPResponse = _opener(scheme).open(request, timeout=_TIMEOUT_SECONDS)
    return answer


@contextlib.contextmanager
def _from_disk(path: Path, role: str) -> Iterator[IO[bytes]]:
    if not path.exists():
        raise PullError("not there")
    with open_regular(path, role) as source:
        yield source


def _copy(
    source: _Readable, part: Path, start: int, total: int, role: str, progress: Progress
) -> None:
    """Write `source` to `part` from byte `start` on; `total` is 0 if not known."""
    limit = min(total or MAX_GRAPH_BYTES, MAX_GRAPH_BYTES)
    with part.open("r+b" if start else "wb") as target:
        target.seek(start)
        target.truncate()
        done = start
        progress(role, done, total)
        while chunk := source.read(_CHUNK):
            done += len(chunk)
            if done > limit:
                target.truncate(0)  # not the file that was meant: nothing to go on with
                raise PullError(f"expected at most {limit} bytes, got more")
            target.write(chunk)
            progress(role, done, total)
    if done < total:
        raise PullError(f"the download ended after {done} of {total} bytes; it can be resumed")


class _SameSecurity(urllib.request.HTTPRedirectHandler):
    """An https address must not lead to plain http."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        target = urlsplit(newurl).scheme.lower()
        if target != "https" and target != self._scheme:
            raise PullError(f"redirected from {self._scheme} to {target or 'nowhere'}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(scheme: str) -> urllib.request.OpenerDirector:
    # Built by hand: the default one would also follow ftp and file addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _SameSecurity(scheme),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _place(address: str) -> str:
    parts = urlsplit(address)
    return parts.hostname or "the mirror's folder"


def _reason(err: Exception) -> str:
    if isinstance(err, urllib.error.HTTPError):
        code, text = err.code, err.reason
        err.close()
        return f"answered {code} {text}"
    if isinstance(err, urllib.error.URLError):
        err = err.reason if isinstance(err.reason, Exception) else err
    if isinstance(err, socket.gaierror):
        return "the name cannot be resolved; is there a network?"
    if isinstance(err, TimeoutError):
        return f"no answer in {_TIMEOUT_SECONDS:.0f} seconds"
    if isinstance(err, OSError) and err.strerror:
        return err.strerror
    return str(err) or type(err).__name__


def _silent(role: str, done: int, total: int) -> None:
    """Nobody asked."""
