from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models.graphs import save_constant_graph
from prelabel_models.cards import FileRef, ModelCard, Preprocess
from prelabel_models.catalogue import catalogue_entry
from prelabel_models.errors import (
    CardError,
    ModelNotFoundError,
    ModelUnusableError,
    OptionError,
)
from prelabel_models.files import hash_file, package_file
from prelabel_models.session import open_session
from prelabel_models.store import ModelExistsError, ModelStore, default_store_root


def graph(path: Path, value: float = 1.0) -> Path:
    return save_constant_graph(path, {"output": np.full((1, 2, 6), value, np.float32)})


def card_for(name: str, **files: Path) -> ModelCard:
    refs = {role: FileRef(sha256=hash_file(path)[0]) for role, path in files.items()}
    return ModelCard(name=name, task="detect", family="yolox", files=refs)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return graph(tmp_path / "m.onnx")


def blobs(store: ModelStore) -> list[Path]:
    return sorted(p for p in (store.root / "blobs").rglob("*") if p.is_file())


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_added_model_is_listed_and_opened_with_its_bytes(store: ModelStore, model: Path) -> None:
    stored = store.add(card_for("mine", model=model), {"model": model})

    assert stored.ready
    assert stored.size == model.stat().st_size
    assert [m.card.name for m in store.list() if m.origin == "store"] == ["mine"]
    assert store.open_files("mine")["model"].read_bytes() == model.read_bytes()
    assert store.verify("mine")[0].ok


def test_card_comes_back_equal_and_knows_the_size(store: ModelStore, model: Path) -> None:
    card = msgspec.structs.replace(
        card_for("mine", model=model),
        labels=("a", "b"),
        preprocess=Preprocess(pad_value=0, mean=(0.0, 0.0, 0.0), scale=0.5),
        min_score=0.0,
        description="Zwölf Boxkämpfer: - [x]",
    )

    stored = store.add(card, {"model": model}).card

    assert stored.files["model"].size == model.stat().st_size
    assert msgspec.structs.replace(stored, files=card.files) == card


def test_blob_lies_under_its_digest_and_is_read_only(store: ModelStore, model: Path) -> None:
    store.add(card_for("mine", model=model), {"model": model})

    digest = hash_file(model)[0]
    (blob,) = blobs(store)
    assert blob == store.root / "blobs" / "sha256" / digest[:2] / digest
    assert stat.S_IMODE(blob.stat().st_mode) == 0o444


def test_two_models_share_one_blob_until_the_last_is_removed(
    store: ModelStore, model: Path
) -> None:
    for name in ("a", "b"):
        store.add(card_for(name, model=model), {"model": model})
    assert len(blobs(store)) == 1

    store.remove("a")
    assert store.open_files("b")
    store.remove("b")
    assert blobs(store) == []
    with pytest.raises(ModelNotFoundError):
        store.get("b")


def test_file_that_is_not_the_cards_is_refused_with_both_digests(
    store: ModelStore, model: Path, tmp_path: Path
) -> None:
    other = graph(tmp_path / "other.onnx", 2.0)

    with pytest.raises(ModelUnusableError) as caught:
        store.add(card_for("mine", model=model), {"model": other})

    for path in (model, other):
        assert hash_file(path)[0] in str(caught.value)
    assert "files.model" in str(caught.value)
    assert blobs(store) == []


def test_another_model_of_the_same_name_needs_replace(
    store: ModelStore, model: Path, tmp_path: Path
) -> None:
    other = graph(tmp_path / "other.onnx", 2.0)
    store.add(card_for("mine", model=model), {"model": model})

    with pytest.raises(ModelExistsError, match="mine"):
        store.add(card_for("mine", model=other), {"model": other})
    assert store.open_files("mine")["model"].read_bytes() == model.read_bytes()

    store.add(card_for("mine", model=other), {"model": other}, replace=True)
    assert store.open_files("mine")["model"].read_bytes() == other.read_bytes()


def test_adding_again_heals_a_damaged_blob(store: ModelStore, model: Path) -> None:
    store.add(card_for("mine", model=model), {"model": model})
    overwrite(blobs(store)[0], b"rot")

    store.add(card_for("mine", model=model), {"model": model})

    assert store.open_files("mine")["model"].read_bytes() == model.read_bytes()


def test_roles_of_card_and_files_must_agree(store: ModelStore, model: Path) -> None:
    card = card_for("mine", encoder=model, decoder=graph(model.with_name("d.onnx"), 3.0))

    with pytest.raises(CardError, match=r"files\.decoder: the file is missing"):
        store.add(card, {"encoder": model})
    with pytest.raises(CardError, match="also 'model'"):
        store.add(card, {"model": model})


HOSTILE = (
    "",
    ".",
    "..",
    "...",
    "../m",
    "../../etc/passwd",
    "m/../../x",
    "/etc/passwd",
    "m/",
    "m/1",
    "m\\..\\x",
    "..\\m",
    ".hidden",
    "~root",
    "-rf",
    "m\n",
    "m\x00",
    "m\x00.yaml",
    "m ",
    "m%2f..",
    "file:m",
    "m\u2024\u2024",
    "\uff0e\uff0e\uff0fm",
    "m\u2215x",
    "$(id)",
    "m;id",
    "m*",
    "\u202em",
    "a" * 101,
)


@pytest.mark.parametrize("name", HOSTILE)
def test_name_that_could_leave_the_folder_is_refused_everywhere(
    store: ModelStore, model: Path, name: str
) -> None:
    card = msgspec.structs.replace(card_for("ok", model=model), name=name)

    with pytest.raises(OptionError) as caught:
        store.add(card, {"model": model})
    assert caught.value.field == "name"
    for call in (store.get, store.open_files, store.verify, store.remove):
        with pytest.raises(OptionError):
            call(name)
    assert not store.root.exists()


@pytest.mark.parametrize("name", ["m..1", "m...", "m.", "1", "v1.0-rc_2", "a..b", "CON", "a" * 100])
def test_name_that_only_looks_odd_is_accepted(store: ModelStore, model: Path, name: str) -> None:
    store.add(card_for(name, model=model), {"model": model})

    assert store.open_files(name)["model"].is_relative_to(store.root)


def test_role_that_could_leave_the_folder_is_refused(store: ModelStore, model: Path) -> None:
    card = card_for("mine", **{"../x": model})

    with pytest.raises(OptionError, match="files"):
        store.add(card, {"../x": model})


def test_card_file_under_another_models_name_is_refused(store: ModelStore, model: Path) -> None:
    store.add(card_for("mine", model=model), {"model": model})
    (store.root / "cards" / "mine.yaml").rename(store.root / "cards" / "other.yaml")

    with pytest.raises(CardError, match="name"):
        store.get("other")


def test_each_of_1000_single_bit_flips_is_refused(store: ModelStore, model: Path) -> None:
    store.add(card_for("mine", model=model), {"model": model})
    (blob,) = blobs(store)
    good = blob.read_bytes()
    blob.chmod(0o644)
    positions = np.linspace(0, len(good) * 8 - 1, 1000).astype(int)
    assert len(set(positions)) == 1000

    for position in positions:
        flipped = bytearray(good)
        flipped[position // 8] ^= 1 << (position % 8)
        blob.write_bytes(flipped)
        with pytest.raises(ModelUnusableError, match=r"files\.model"):
            store.open_files("mine")

    blob.write_bytes(good)
    assert store.open_files("mine")


def test_missing_file_is_reported_and_not_opened(store: ModelStore, model: Path) -> None:
    store.add(card_for("mine", model=model), {"model": model})
    blobs(store)[0].unlink()

    stored = store.get("mine")
    assert (stored.present, stored.missing, stored.ready) == ((), ("model",), False)
    with pytest.raises(ModelUnusableError, match=r"files\.model: the file is missing"):
        store.open_files("mine")
    assert not store.verify("mine")[0].ok


def test_blob_replaced_by_a_link_is_refused(store: ModelStore, model: Path) -> None:
    store.add(card_for("mine", model=model), {"model": model})
    (blob,) = blobs(store)
    blob.unlink()
    blob.symlink_to(model)

    with pytest.raises(ModelUnusableError, match=r"files\.model"):
        store.open_files("mine")


def test_broken_card_spoils_only_its_own_model(
    store: ModelStore, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.add(card_for("good", model=model), {"model": model})
    (store.root / "cards" / "bad.yaml").write_text("name: [", encoding="utf-8")

    assert [m.card.name for m in store.list() if m.origin == "store"] == ["good"]
    assert "bad" in caplog.text
    reports = {report.name: report.ok for report in store.verify()}
    assert reports["good"]
    assert not reports["bad"]
    store.remove("bad")
    assert store.open_files("good")


class Canary:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def foreign_files(folder: Path) -> dict[str, Path]:
    import pickle
    import tarfile
    import zipfile

    canary = Canary(folder / "canary")
    files = {f"pickle{n}": pickle.dumps(canary, protocol=n) for n in range(6)}
    files |= {
        "safetensors": (64).to_bytes(8, "little") + b'{"w":{"dtype":"F32"}}' + b" " * 64,
        "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 600,
        "tflite": b"\x1c\0\0\0TFL3" + b"\0" * 600,
        "gzip": b"\x1f\x8b\x08" + b"\0" * 60,
        "npy": b"\x93NUMPY\x01\0",
        "html": b"<!DOCTYPE html><html>404</html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "empty": b"",
        "random": np.random.default_rng(0).bytes(4096),
        "text": b"hello",
        "zeros": b"\0" * 4096,
    }
    paths = {}
    for name, content in files.items():
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(content)
    paths["torch-zip"] = folder / "torch.onnx"
    with zipfile.ZipFile(paths["torch-zip"], "w") as archive:
        archive.writestr("data.pkl", files["pickle2"])
    paths["tar"] = folder / "tar.onnx"
    with tarfile.open(paths["tar"], "w") as tar:
        tar.add(paths["text"], "m")
    return paths


def test_everything_but_onnx_is_refused_by_its_content(store: ModelStore, tmp_path: Path) -> None:
    for kind, path in foreign_files(tmp_path).items():
        with pytest.raises(ModelUnusableError, match=r"files\.model: expected"):
            store.add(card_for(kind, model=path), {"model": path})

    assert not (tmp_path / "canary").exists()
    assert blobs(store) == []
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "absent"])
def test_only_regular_files_are_read(store: ModelStore, model: Path, kind: str) -> None:
    path = {"device": Path("/dev/zero"), "folder": model.parent}.get(kind, model.with_name("x"))
    if kind == "fifo":
        os.mkfifo(path)

    with pytest.raises(ModelUnusableError, match=r"files\.model") as caught:
        store.add(card_for("mine", model=model), {"model": path})
    assert str(path.parent) not in str(caught.value)


def split_graph(folder: Path, location: str) -> tuple[Path, Path]:
    """A graph `x + w` whose w lies in the file `location`."""
    weights = np.arange(300, dtype=np.float32)
    tensor = numpy_helper.from_array(weights, "w")
    onnx.external_data_helper.set_external_data(tensor, location=location)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "split",
        [value("x", onnx.TensorProto.FLOAT, [300])],
        [value("y", onnx.TensorProto.FLOAT, [300])],
        initializer=[tensor],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path, data = folder / "split.onnx", folder / "data"
    path.write_bytes(model.SerializeToString())
    data.write_bytes(weights.tobytes())
    return path, data


def test_listed_external_data_runs(store: ModelStore, tmp_path: Path) -> None:
    path, data = split_graph(tmp_path, "weights.bin")
    files = {"model": path, "weights.bin": data}
    store.add(card_for("split", **files), files)

    opened = store.open_files("split")
    assert store.open_files("split") == opened
    (y,) = open_session(opened["model"]).run({"x": np.ones(300, np.float32)})
    np.testing.assert_array_equal(y, np.arange(300) + 1)

    overwrite(opened["weights.bin"], b"\0" * 1200)
    with pytest.raises(ModelUnusableError, match=r"files\.weights\.bin"):
        store.open_files("split")
    store.remove("split")
    assert not any((store.root / "views").iterdir())


@pytest.mark.parametrize(
    "location",
    ["weights.bin", "/etc/passwd", "../weights.bin", "a/b.bin", "..", "./w", "w\x00", "model"],
)
def test_unlisted_or_outside_external_data_is_refused(
    store: ModelStore, tmp_path: Path, location: str
) -> None:
    path, _ = split_graph(tmp_path, location)

    with pytest.raises(ModelUnusableError, match=r"separate file|plain file name"):
        store.add(card_for("split", model=path), {"model": path})
    assert blobs(store) == []


def test_external_data_inside_a_subgraph_is_found(store: ModelStore, tmp_path: Path) -> None:
    model = onnx.load(str(graph(tmp_path / "m.onnx")))
    inner = onnx.load(str(split_graph(tmp_path, "hidden.bin")[0]), load_external_data=False).graph
    node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    model.graph.node.append(node)
    path = tmp_path / "nested.onnx"
    path.write_bytes(model.SerializeToString())

    with pytest.raises(ModelUnusableError, match=r"hidden\.bin"):
        store.add(card_for("nested", model=path), {"model": path})


def test_eight_threads_add_the_same_model(store: ModelStore, model: Path) -> None:
    card = card_for("mine", model=model)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(store.add, card, {"model": model}) for _ in range(8)]
        cards = {job.result().card.digest() for job in jobs}

    assert cards == {card.digest()}
    assert len(blobs(store)) == 1
    assert list((store.root / "tmp").iterdir()) == []
    assert store.open_files("mine")


def test_adding_and_removing_at_once_leaves_no_card_without_its_blob(
    store: ModelStore, model: Path
) -> None:
    def churn(name: str) -> None:
        for _ in range(15):
            store.add(card_for(name, model=model), {"model": model})
            store.open_files("steady")
            store.remove(name)

    store.add(card_for("steady", model=model), {"model": model})
    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(churn, f"m{i}") for i in range(4)]:
            job.result()

    assert store.open_files("steady")
    assert len(blobs(store)) == 1


ADD_FOREVER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.files import hash_file
from prelabel_models.store import ModelStore
store, a, b = ModelStore(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
cards = [
    ModelCard(name="m", task="detect", family="yolox",
              files={"model": FileRef(sha256=hash_file(p)[0])}) for p in (a, b)
]
import onnx
print("ready", flush=True)
while True:
    for card, path in zip(cards, (a, b)):
        store.add(card, {"model": path}, replace=True)
"""


def test_killed_writer_leaves_only_whole_blobs_and_cards(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "store")
    files = []
    for value in (1.0, 2.0):
        shape = (1, 200_000, 6)
        path = tmp_path / f"{value}.onnx"
        files.append(save_constant_graph(path, {"o": np.full(shape, value, np.float32)}))
    command = [sys.executable, "-c", ADD_FOREVER, str(store.root), *map(str, files), *sys.path]
    random = np.random.default_rng(5)

    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(float(random.uniform(0.0, 0.15)))  # the moment of the kill, not a wait
            writer.send_signal(signal.SIGKILL)
        for blob in blobs(store):
            assert hash_file(blob)[0] == blob.name
        reports = [r for r in store.verify() if r.name == "m"]
        assert all(report.ok for report in reports)

    store.add(card_for("m", model=files[0]), {"model": files[0]}, replace=True)
    assert store.open_files("m")


def test_leftovers_of_killed_writers_are_swept_after_a_day(store: ModelStore, model: Path) -> None:
    fresh, stale = store.scratch() / "copy-fresh", store.scratch() / "copy-stale"
    for path in (fresh, stale):
        path.write_bytes(b"half")
    os.utime(stale, (time.time() - 90_000,) * 2)

    store.add(card_for("mine", model=model), {"model": model})

    assert fresh.exists()
    assert not stale.exists()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site" / "heavy_package"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    graph(folder / "models" / "m.onnx")
    return folder


def packaged_card(package: Path) -> ModelCard:
    ref = FileRef(
        sha256=hash_file(package / "models" / "m.onnx")[0], package="heavy_package:models/m.onnx"
    )
    return ModelCard(name="mine", task="detect", family="yolox", files={"model": ref})


def test_file_of_a_package_is_found_without_importing_it(store: ModelStore, package: Path) -> None:
    store.add(packaged_card(package), {})

    assert store.open_files("mine")["model"] == package / "models" / "m.onnx"
    assert "heavy_package" not in sys.modules
    assert blobs(store) == []


def test_file_of_a_package_is_verified_like_any_other(store: ModelStore, package: Path) -> None:
    store.add(packaged_card(package), {})
    with (package / "models" / "m.onnx").open("ab") as file:
        file.write(b"\0")

    with pytest.raises(ModelUnusableError, match=r"files\.model: the file is damaged"):
        store.open_files("mine")
    (package / "models" / "m.onnx").unlink()
    with pytest.raises(ModelUnusableError, match="missing in the package heavy_package"):
        store.open_files("mine")


@pytest.mark.parametrize(
    "reference",
    ["heavy_package:../../secret", "heavy_package:/etc/passwd", "heavy_package:", "a.b:c", ":x"],
)
def test_reference_that_leaves_the_package_is_refused(reference: str) -> None:
    with pytest.raises(CardError, match="package"):
        package_file(reference)


def test_rapidocr_is_there_without_being_added(store: ModelStore) -> None:
    entry = catalogue_entry("rapidocr")
    if package_file(entry.files["det"].package) is None:
        pytest.skip("the extra `ocr` is not installed")

    stored = store.get("rapidocr")

    assert (stored.origin, stored.ready) == ("package", True)
    assert [m.card.name for m in store.list()] == ["classical", "rapidocr"]
    assert set(store.open_files("rapidocr")) == {"det", "rec", "cls"}
    with pytest.raises(ModelNotFoundError, match="could be removed"):
        store.remove("rapidocr")


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRELABEL_STORE", str(tmp_path))
    assert default_store_root() == tmp_path
    monkeypatch.delenv("PRELABEL_STORE")
    assert default_store_root().name == "prelabel"


def test_reading_an_absent_store_makes_no_folder(store: ModelStore) -> None:
    store.list()
    store.verify()
    with pytest.raises(ModelNotFoundError):
        store.open_files("mine")

    assert not store.root.exists()
