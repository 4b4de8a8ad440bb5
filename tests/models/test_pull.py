from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.graphs import save_constant_graph
from prelabel_models import pull as pull_module
from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.errors import ModelNotFoundError, ModelUnusableError
from prelabel_models.files import hash_file
from prelabel_models.pull import MIRROR_VARIABLE, LicenseNotAcceptedError, PullError, pull
from prelabel_models.store import ModelStore


@dataclass
class Mirror:
    """A mirror on the loopback interface; `files` maps path to content."""

    address: str
    files: dict[str, bytes]
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    cut_after: int | None = None
    redirect_to: str = ""
    ignores_range: bool = False


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", MIRROR_VARIABLE):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    state = Mirror("", {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):  # a puller that has seen enough hangs up
                answer(self, state)

        def log_message(self, *args: object) -> None:
            """Not on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def answer(handler: BaseHTTPRequestHandler, state: Mirror) -> None:
    wanted = handler.headers.get("Range")
    state.requests.append((handler.path, wanted))
    content = state.files.get(handler.path)
    if state.redirect_to:
        handler.send_response(302)
        handler.send_header("Location", state.redirect_to)
        handler.end_headers()
        return
    if content is None:
        handler.send_error(404)
        return
    start = 0
    if wanted and not state.ignores_range:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    end = len(content) if state.cut_after is None else state.cut_after
    handler.wfile.write(content[start:end])


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    # Large enough for several chunks.
    value = np.random.default_rng(0).random((1, 30_000, 6)).astype(np.float32)
    return save_constant_graph(tmp_path / "m.onnx", {"o": value})


Offer = Callable[..., ModelCard]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch, weights: Path) -> Offer:
    """Puts a model into the catalogue."""

    def make(*, size: bool = True, url: str = "", commercial: str = "yes") -> ModelCard:
        digest, length = hash_file(weights)
        raw = {
            "name": "offered",
            "task": "detect",
            "family": "yolox",
            "license": "Apache-2.0" if commercial == "yes" else "CC-BY-NC-4.0",
            "license_url": "https://example.org/license",
            "commercial": commercial,
            "files": {"model": {"sha256": digest, "size": length if size else 0, "url": url}},
        }
        card = msgspec.convert(raw, ModelCard)

        def entry(name: str) -> ModelCard:
            if name != card.name:
                raise ModelNotFoundError(name)
            return card

        monkeypatch.setattr(pull_module, "catalogue_entry", entry)
        return card

    return make


def leftovers(store: ModelStore) -> list[str]:
    return [p.name for p in (store.root / "tmp").iterdir() if not p.name.endswith(".lock")]


def blobs(store: ModelStore) -> list[Path]:
    return [p for p in (store.root / "blobs").rglob("*") if p.is_file()]


@pytest.mark.parametrize("size_known", [True, False])
def test_file_comes_from_the_mirror_by_its_digest(
    store: ModelStore, weights: Path, offer: Offer, mirror: Mirror, size_known: bool
) -> None:
    ref = offer(size=size_known).files["model"]
    mirror.files[f"/models/{ref.sha256}"] = weights.read_bytes()
    seen: list[tuple[str, int, int]] = []

    stored = pull(
        store,
        "offered",
        mirror=f"{mirror.address}/models/",
        progress=lambda role, done, total: seen.append((role, done, total)),
    )

    length = weights.stat().st_size
    assert stored.ready
    assert store.open_files("offered")["model"].read_bytes() == weights.read_bytes()
    assert seen[0] == ("model", 0, length)
    assert seen[-1] == ("model", length, length)
    assert leftovers(store) == []


def test_second_pull_fetches_nothing(
    store: ModelStore, weights: Path, offer: Offer, mirror: Mirror
) -> None:
    ref = offer().files["model"]
    mirror.files[f"/{ref.sha256}"] = weights.read_bytes()

    for _ in range(2):
        assert pull(store, "offered", mirror=mirror.address).ready

    assert len(mirror.requests) == 1


def test_damaged_blob_is_fetched_again(
    store: ModelStore, weights: Path, offer: Offer, mirror: Mirror
) -> None:
    ref = offer().files["model"]
    mirror.files[f"/{ref.sha256}"] = weights.read_bytes()
    pull(store, "offered", mirror=mirror.address)
    (blob,) = blobs(store)
    blob.chmod(0o644)
    blob.write_bytes(b"rot")

    pull(store, "offered", mirror=mirror.address)

    assert store.open_files("offered")


@pytest.mark.parametrize("form", ["folder", "file-url", "environment"])
def test_mirror_may_be_a_folder(
    store: ModelStore,
    weights: Path,
    offer: Offer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    ref = offer().files["model"]
    folder = tmp_path / "usb stick"
    folder.mkdir()
    (folder / ref.sha256).write_bytes(weights.read_bytes())
    if form == "environment":
        monkeypatch.setenv(MIRROR_VARIABLE, str(folder))
    source = {"folder": str(folder), "file-url": folder.as_uri(), "environment": None}[form]

    assert pull(store, "offered", mirror=source).ready


@pytest.mark.parametrize("size_known", [True, False])
def test_wrong_bytes_never_reach_the_store(
    store: ModelStore, weights: Path, offer: Offer, mirror: Mirror, size_known: bool
) -> None:
    ref = offer(size=size_known).files["model"]
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    mirror.files[f"/{ref.sha256}"] = bytes(content)

    with pytest.raises(PullError) as caught:
        pull(store, "offered", mirror=mirror.address)

    assert ref.sha256 in str(caught.value)
    assert "with digest" in str(caught.value)
    assert blobs(store) == []
    assert leftovers(store) == []


def test_longer_answer_than_the_card_says_is_cut_off(
    store: ModelStore, weights: Path, offer: Offer, mirror: Mirror
) -> None:
    ref = offer().files["model"]
    mirror.files[f"/{ref.sha256}"] = weights.read_bytes() + b"\0" * 5_000_000
    seen: list[int] = []

    with pytest.raises(PullError, match=f"at most {ref.size} bytes"):
        pull(store, "offered", mirror.address, progress=lambda _, done, __: seen.append(done))
    assert max(seen) <= ref.size


@pytest.mark.parametrize("size_known", [True, False])
@pytest.mark.parametrize("ignores_range", [False, True])
def test_cut_off_download_goes_on_where_it_stopped(
    store: ModelStore,
    weights: Path,
    offer: Offer,
    mirror: Mirror,
    size_known: bool,
    ignores_range: bool,
) -> None:
    ref = offer(size=size_known).files["model"]
    mirror.files[f"/{ref.sha256}"] = weights.read_bytes()
    mirror.cut_after = 300_000
    with pytest.raises(PullError, match="300000 of"):
        pull(store, "offered", mirror=mirror.address)
    assert blobs(store) == []

    mirror.cut_after, mirror.ignores_range = None, ignores_range
    pull(store, "offered", mirror=mirror.address)

    assert mirror.requests[-1] == (f"/{ref.sha256}", "bytes=300000-")
    assert store.open_files("offered")["model"].read_bytes() == weights.read_bytes()


@pytest.mark.parametrize("length", [1000, 10**6])
def test_leftover_of_another_file_does_not_spoil_the_download(
    store: ModelStore, weights: Path, offer: Offer, mirror: Mirror, length: int
) -> None:
    ref = offer().files["model"]
    mirror.files[f"/{ref.sha256}"] = weights.read_bytes()
    (store.scratch() / f"{ref.sha256}.part").write_bytes(b"x" * length)

    assert pull(store, "offered", mirror=mirror.address).ready


def test_both_roles_come_or_none_does(
    store: ModelStore, weights: Path, offer: Offer, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = offer()
    pair = msgspec.structs.replace(
        one, files={"encoder": one.files["model"], "decoder": FileRef(sha256="ab" * 32)}
    )
    monkeypatch.setattr(pull_module, "catalogue_entry", lambda _: pair)
    mirror.files[f"/{one.files['model'].sha256}"] = weights.read_bytes()

    with pytest.raises(PullError, match=r"files\.decoder.*answered 404"):
        pull(store, "offered", mirror=mirror.address)

    with pytest.raises(ModelNotFoundError):
        store.get("offered")
    assert blobs(store) == []


def test_restricted_licence_must_be_accepted_before_anything_is_fetched(
    store: ModelStore, weights: Path, offer: Offer, mirror: Mirror
) -> None:
    for commercial in ("no", "ask"):
        ref = offer(commercial=commercial).files["model"]
        mirror.files[f"/{ref.sha256}"] = weights.read_bytes()
        with pytest.raises(LicenseNotAcceptedError, match=r"CC-BY-NC-4\.0.*example\.org"):
            pull(store, "offered", mirror=mirror.address)
    assert mirror.requests == []

    assert pull(store, "offered", mirror=mirror.address, accept_license=True).ready


def test_plain_http_is_for_mirrors_only(store: ModelStore, offer: Offer, mirror: Mirror) -> None:
    offer(url=f"{mirror.address}/m.onnx")

    with pytest.raises(PullError, match="expected an https address"):
        pull(store, "offered")
    assert mirror.requests == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_mirror_cannot_lead_to_another_kind_of_address(
    store: ModelStore, offer: Offer, mirror: Mirror, target: str
) -> None:
    offer()
    mirror.redirect_to = target

    with pytest.raises(PullError, match=r"redirected from http|answered 302"):
        pull(store, "offered", mirror=mirror.address)


def test_https_does_not_fall_back_to_http() -> None:
    import urllib.request
    from email.message import Message
    from http.client import HTTPMessage
    from io import BytesIO

    handler = pull_module._SameSecurity("https")
    request = urllib.request.Request("https://example.org/m.onnx")
    headers = HTTPMessage()
    assert isinstance(headers, Message)

    with pytest.raises(PullError, match="from https to http"):
        handler.redirect_request(request, BytesIO(), 302, "", headers, "http://example.org/m")
    assert handler.redirect_request(request, BytesIO(), 302, "", headers, "https://example.net/m")


def test_closed_port_is_reported_in_words_with_a_way_on(store: ModelStore, offer: Offer) -> None:
    offer()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(PullError, match=r"Connection refused.*prelabel models add"):
        pull(store, "offered", mirror=f"http://127.0.0.1:{port}")


def test_unresolvable_name_is_reported_as_no_network(
    store: ModelStore, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    offer(url="https://models.example.org/m.onnx")

    with pytest.raises(PullError, match=r"models\.example\.org: the name cannot be resolved"):
        pull(store, "offered")


def test_entry_without_an_address_says_to_add_the_file(store: ModelStore) -> None:
    with pytest.raises(PullError, match=r"knows no address.*models add"):
        pull(store, "nanodet-m")
    with pytest.raises(ModelNotFoundError):
        pull(store, "no-such-model")


def test_web_page_in_place_of_a_model_is_refused(
    store: ModelStore, offer: Offer, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = b"<!DOCTYPE html><html>please log in</html>"
    path = tmp_path / "page"
    path.write_bytes(page)
    digest = hash_file(path)[0]
    card = msgspec.structs.replace(offer(), files={"model": FileRef(sha256=digest)})
    monkeypatch.setattr(pull_module, "catalogue_entry", lambda _: card)
    mirror.files[f"/{digest}"] = page

    with pytest.raises(ModelUnusableError, match="a web page"):
        pull(store, "offered", mirror=mirror.address)
    assert blobs(store) == []
    assert leftovers(store) == []
