"""Published detectors on photographs: the numbers that they must reach, by wire and in process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prelabel import Client
from prelabel.types import DetectOptions, DetectResult, Timings
from prelabel_models.catalogue import card_for_file
from prelabel_models.store import ModelStore
from prelabel_server.cli.runs import Engine, run
from prelabel_server.config import Settings
from prelabel_server.evaluation import evaluate, load_annotations, match_labels
from prelabel_server.local import LocalClient
from server.serving import serving

pytest.importorskip("pycocotools")
pytestmark = pytest.mark.data

# As the literature evaluates: every score, suppression at .65.
OPTIONS = DetectOptions(min_score=0.001, nms_iou=0.65)
# AP and AP50 on these 79 images; those of yolox-nano come from an independent implementation, the
# others were measured here, to notice a change.
EXPECTED = {
    "yolox-nano": ("yolox-nano/yolox_nano.onnx", 0.318, 0.487),
    "fastestdet": ("fastestdet/FastestDet.onnx", 0.205, 0.363),
    "nanodet-m": ("nanodet-m/nanodet_m_320.onnx", 0.274, 0.415),
}


@pytest.fixture(scope="module")
def settings(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    store = ModelStore(tmp_path_factory.mktemp("store"))
    for name, (file, _, _) in EXPECTED.items():
        path = data_dir / "models" / file
        card = card_for_file(name, path)
        assert card is not None
        store.add(card, {"model": path})
    return Settings(listen="127.0.0.1:0", store_root=store.root, device="cpu", workers=2)


@pytest.fixture(scope="module")
def address(settings: Settings) -> Iterator[str]:
    with serving(settings) as made:
        yield made


def results(engine: Engine, data_dir: Path, model: str) -> dict[int, DetectResult]:
    truth = load_annotations(data_dir / "coco" / "instances_val.json")
    paths = [data_dir / "coco" / "val" / name for name in truth.images.values()]
    found = {}
    for image_id, outcome in zip(truth.images, run(engine, paths, model, OPTIONS), strict=True):
        assert outcome.result is not None, outcome.error
        found[image_id] = outcome.result
    return found


@pytest.mark.parametrize("model", EXPECTED)
def test_average_precision_over_the_wire(data_dir: Path, address: str, model: str) -> None:
    _, ap, ap50 = EXPECTED[model]
    truth = load_annotations(data_dir / "coco" / "instances_val.json")
    with Client(address, timeout_s=60) as client:
        found = results(Engine(client), data_dir, model)
        labels = client.model(model).labels

    match = match_labels(labels, truth.categories, {})
    report = evaluate(((i, r.proposals) for i, r in found.items()), truth, match)

    assert match.unknown_categories == ()
    assert report.ap == pytest.approx(ap, abs=0.003)
    assert report.ap50 == pytest.approx(ap50, abs=0.005)


def test_a_server_and_this_process_give_the_same_proposals_to_the_last_bit(
    data_dir: Path, address: str, settings: Settings
) -> None:
    with Client(address, timeout_s=60) as client:
        there = results(Engine(client), data_dir, "yolox-nano")
    with LocalClient(settings) as local:
        here = results(Engine(local), data_dir, "yolox-nano")

    assert sum(len(r.proposals) for r in here.values()) > 1000
    for image_id, result in here.items():
        # repr() of a float names it exactly.
        same = replace(there[image_id], timings=Timings())
        assert repr(replace(result, timings=Timings())) == repr(same)
