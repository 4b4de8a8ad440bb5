from __future__ import annotations

import hashlib
import io
import os
import pickle
import resource
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from models.family_graphs import CASES, LABELS, save_case, yolov8
from models.graphs import make_card, save_constant_graph
from models.hostile_graphs import point_outside, save_loop
from prelabel_models import probe as probe_module
from prelabel_models import probe_child
from prelabel_models.base import Detector
from prelabel_models.cards import FileRef, ModelCard, parse_card
from prelabel_models.detectors import load_detector
from prelabel_models.errors import ModelUnusableError, OptionError
from prelabel_models.probe import ProbeReport, probe

HOLDS_MEMORY = 400 * 2**20


def refused(path: Path, **options: Any) -> str:
    """The problem of a model that must not pass; never with a path in it."""
    report = probe(path, **options)
    assert not report.ok
    assert report.problem
    assert str(path.parent) not in report.problem
    return report.problem


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_case(tmp_path, "yolov8")


def test_good_detector_gets_a_card_that_can_be_used_as_it_is(tmp_path: Path) -> None:
    path = save_case(tmp_path, "yolo-e2e", metadata={"names": str(dict(enumerate(LABELS)))})
    named = path.rename(tmp_path / "Bees & ants.onnx")
    report = probe(named)
    assert (report.ok, report.problem) == (True, "")
    assert report.labels == LABELS
    assert report.input_size == (64, 64)
    assert report.detections == (1, 1)
    assert report.provider == "CPUExecutionProvider"
    assert report.load_ms > 0
    assert report.run_ms > 0
    assert report.peak_bytes > 0
    assert report.identification is not None
    card = parse_card(report.card_yaml)
    assert (card.name, card.family, card.labels) == ("Bees-ants", "yolo-e2e", LABELS)
    digest = hashlib.sha256(named.read_bytes()).hexdigest()
    assert card.files == {"model": FileRef(sha256=digest, size=named.stat().st_size)}


@pytest.mark.parametrize("name", [n for n in CASES if n != "yolov8 transposed"])
def test_every_family_graph_passes_with_a_card(tmp_path: Path, name: str) -> None:
    report = probe(save_case(tmp_path, name), make_card(CASES[name][0], labels=LABELS))
    assert report.ok, report.problem
    assert report.detections == (1, 1)
    assert any("the card names another file" in note for note in report.notes)


def test_second_guess_is_tried_where_the_first_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = graph_of(tmp_path, {"logits": (1, 30, 4), "pred_boxes": (1, 30, 4)})

    def picky(card: ModelCard, files: dict[str, Path]) -> Detector:
        if card.family == "rtdetr":
            raise ModelUnusableError("model: not this one")
        return load_detector(card, files)

    monkeypatch.setattr(probe_child, "load_detector", picky)
    report = probe_child.Trial(path, None, lambda _: None).report()
    assert report.ok
    assert report.card is not None
    assert report.card.family == "detr"
    assert report.notes[0] == "not rtdetr: model: not this one"


def graph_of(folder: Path, shapes: dict[str, tuple[int, ...]], **options: Any) -> Path:
    outputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return save_constant_graph(folder / "m.onnx", outputs, **options)


def test_truncated_file_is_explained(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-200])
    assert "ONNX graph" in refused(model)


def test_wrong_input_rank_is_explained(tmp_path: Path) -> None:
    path = graph_of(tmp_path, {"out": (1, 7, 84)}, inputs={"x": (1, 64)})
    assert "x (1, 64) has 2 axes, but a detector takes an image of four" in refused(path)


def test_classifier_is_explained(tmp_path: Path) -> None:
    path = graph_of(tmp_path, {"prob": (1, 1000)})
    assert "a classifier (or an embedding model)" in refused(path)
    assert "yolov8 expects one output" in refused(path, card=make_card("yolov8"))


def test_half_of_a_segmenter_is_explained(tmp_path: Path) -> None:
    path = graph_of(tmp_path, {"image_embeddings": (1, 256, 4, 4)})
    assert "a graph of sam (its encoder)" in refused(path)


def test_non_finite_outputs_are_explained(tmp_path: Path) -> None:
    outputs = {"output0": np.full_like(yolov8()["output0"], np.nan)}
    assert "NaN or infinite" in refused(save_case(tmp_path, "yolov8", outputs=outputs))


def test_scores_that_are_logits_are_noted(tmp_path: Path) -> None:
    outputs = yolov8()
    outputs["output0"][0, 4:] -= 3
    report = probe(save_case(tmp_path, "yolov8", outputs=outputs))
    assert any("before its sigmoid" in note for note in report.notes)


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["pickle", "torch zip", "safetensors", "hdf5", "empty"])
def test_other_formats_are_refused_by_content_and_never_unpickled(
    tmp_path: Path, kind: str
) -> None:
    canary = tmp_path / "canary"
    payload = pickle.dumps(Canary(canary))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", payload)
    content = {
        "pickle": payload,
        "torch zip": archive.getvalue(),
        "safetensors": (2).to_bytes(8, "little") + b'{"a":1}',
        "hdf5": b"\x89HDF\r\n\x1a\n",
        "empty": b"",
    }[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert "expected an ONNX graph, got" in refused(path)
    assert not canary.exists()
    pickle.loads(payload)
    assert canary.exists()


def test_folder_and_missing_file_are_refused(tmp_path: Path) -> None:
    assert "regular file" in refused(tmp_path)
    assert "cannot open" in refused(tmp_path / "missing.onnx")


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../secret.bin",
        "sub/secret.bin",
        "link.bin",
        "hard.bin",
        "secret.bin",
        "missing.bin",
    ],
)
def test_external_data_that_no_card_lists_is_refused(
    tmp_path: Path, model: Path, location: str
) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"s" * 4096)
    (tmp_path / "link.bin").symlink_to(secret)
    os.link(secret, tmp_path / "hard.bin")
    point_outside(model, location)
    assert location in refused(model)


def external(folder: Path, model: Path) -> tuple[Path, FileRef]:
    """Move the model's one weight to `weights.bin` beside it."""
    data = onnx.load(str(model)).graph.initializer[0].raw_data
    weights = folder / "weights.bin"
    weights.write_bytes(data)
    point_outside(model, "weights.bin")
    return weights, FileRef(sha256=hashlib.sha256(data).hexdigest())


def test_external_data_that_the_card_lists_is_used_only_as_listed(
    tmp_path: Path, model: Path
) -> None:
    weights, ref = external(tmp_path, model)
    plain = make_card("yolov8", labels=LABELS)
    card = msgspec.structs.replace(plain, files={**plain.files, "weights.bin": ref})
    report = probe(model, card)
    assert report.ok, report.problem
    assert report.detections == (1, 1)

    kept = weights.rename(tmp_path / "elsewhere.bin")
    weights.symlink_to(kept)
    assert "files.weights.bin: cannot open" in refused(model, card=card)
    weights.unlink()
    weights.write_bytes(bytes(len(kept.read_bytes())))
    assert "not what the card says" in refused(model, card=card)


def test_endless_loop_ends_at_the_limit(tmp_path: Path) -> None:
    path = save_loop(tmp_path / "m.onnx", doublings=None)
    begin = time.monotonic()
    problem = refused(path, timeout_s=4.0)
    assert time.monotonic() - begin < 7
    assert "not finished after 4 s, while running the graph" in problem


def test_doubling_loop_ends_at_the_memory_limit_and_leaves_the_caller_alone(
    tmp_path: Path,
) -> None:
    path = save_loop(tmp_path / "m.onnx", doublings=31)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    problem = refused(path, memory_bytes=HOLDS_MEMORY)
    assert "memory" in problem
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_limit_is_what_stops_the_doubling_loop(tmp_path: Path) -> None:
    path = save_loop(tmp_path / "m.onnx", doublings=22)  # 256 MiB at the end, twice that in all
    assert probe(path, memory_bytes=4 * HOLDS_MEMORY).ok
    assert "memory" in refused(path, memory_bytes=HOLDS_MEMORY // 2)


def test_child_sees_an_empty_folder_and_no_secrets(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    real = subprocess.Popen

    def watching(command: list[str], **options: Any) -> Any:
        seen.update(options, entries=list(Path(options["cwd"]).iterdir()))
        return real(command, **options)

    monkeypatch.setenv("PRELABEL_TOKEN", "secret")
    monkeypatch.setattr(subprocess, "Popen", watching)
    assert probe(model).ok
    assert seen["entries"] == []
    assert "secret" not in str(seen["env"])
    assert not Path(seen["cwd"]).exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "not finished after 5 s"),
        (-signal.SIGXCPU, "not finished after 5 s"),
        (-signal.SIGKILL, "lack of memory"),
        (-signal.SIGABRT, "limit of 1 MiB"),
        (-signal.SIGSEGV, "crashed (SIGSEGV)"),
        (1, "exit code 1"),
        (0, "no readable report"),
    ],
)
def test_every_death_of_the_child_becomes_a_sentence(
    model: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, words: str
) -> None:
    output = (code, "#loading the graph\n")
    monkeypatch.setattr(probe_module, "_run_child", lambda *_: output)
    problem = refused(model, timeout_s=5.0, memory_bytes=2**20)
    assert words in problem
    assert code == 0 or "loading the graph" in problem


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"memory_bytes": 0}, "memory_bytes"),
    ],
)
def test_limits_out_of_range_name_the_field(
    model: Path, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(OptionError) as caught:
        probe(model, **options)
    assert caught.value.field == field


def test_report_without_a_card_has_no_yaml() -> None:
    assert ProbeReport(ok=False).card_yaml == ""


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("yolox-nano/yolox_nano.onnx", "yolox"),
        ("fastestdet/FastestDet.onnx", "fastestdet"),
        ("nanodet-m/nanodet_m_320.onnx", "nanodet"),
        ("ultraface/ultraface_rfb_320.onnx", "ultraface"),
    ],
)
def test_published_detectors_pass(data_dir: Path, file: str, family: str) -> None:
    report = probe(data_dir / "models" / file)
    assert report.ok, report.problem
    assert report.card is not None
    assert report.card.family == family
    assert report.labels
