from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from prelabel_models.store import ModelStore
from prelabel_server.cli.root import app
from server.conftest import photo

pytest.importorskip("pycocotools")
pytest.importorskip("matplotlib")

# Where the constant model sees its dog and its cat in every image of 128 x 96.
DOG, CAT = [16, 24, 32, 16], [88, 64, 16, 32]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(photo(seed=ord(name[0])))
    return tmp_path


def annotate(folder: Path, categories: tuple[str, str] = ("dog", "cat"), images: int = 2) -> Path:
    boxes = [(i, c, b) for i in range(1, images + 1) for c, b in ((1, DOG), (2, CAT))]
    content = {
        "images": [{"id": i, "file_name": f"{'abc'[i - 1]}.jpg"} for i in range(1, images + 1)],
        "categories": [{"id": 1, "name": categories[0]}, {"id": 2, "name": categories[1]}],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b}
            for n, (i, c, b) in enumerate(boxes)
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def evaluate(store: ModelStore, folder: Path, annotations: Path, *more: str | Path) -> Result:
    words = ["eval", "--model", "constant", "--images", folder, "--annotations", annotations, *more]
    environment = {"PRELABEL_STORE": str(store.root), "PRELABEL_DEVICE": "cpu", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, [str(word) for word in words], env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def numbers(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_model_that_finds_everything_has_an_ap_of_1(store: ModelStore, folder: Path) -> None:
    result = evaluate(store, folder, annotate(folder), "--json")

    found = numbers(result)
    assert result.exit_code == 0, result.stderr
    assert found["ap"] == pytest.approx(1)
    assert (found["images"], found["annotations"], found["missing"]) == (2, 4, [])
    assert found["best"]["min_score"] == pytest.approx(0.4)
    assert found["model"]["digest"].startswith("sha256:")
    assert "bird" in result.stderr


def test_the_tables_show_classes_and_the_best_threshold(store: ModelStore, folder: Path) -> None:
    out = evaluate(store, folder, annotate(folder)).stdout

    assert "constant on 2 images, 4 annotations" in out
    assert "dog" in out
    assert "At min_score 0.40" in out
    assert "100% of the annotations" in out


def test_missing_images_are_named_and_end_with_1(store: ModelStore, folder: Path) -> None:
    (folder / "b.jpg").write_bytes(b"no picture")

    result = evaluate(store, folder, annotate(folder, images=3), "--json")

    found = numbers(result)
    assert result.exit_code == 1
    assert (found["images"], found["missing"], list(found["failed"])) == (1, ["c.jpg"], ["b.jpg"])
    assert found["ap"] == pytest.approx(1)
    assert "2 of 3 images were not evaluated: 1 missing, 1 failed" in result.stderr


def test_categories_without_a_label_are_left_out_and_named(store: ModelStore, folder: Path) -> None:
    result = evaluate(store, folder, annotate(folder, ("dog", "Katze")), "--json")

    assert result.exit_code == 0
    assert numbers(result)["annotations"] == 2
    assert "left out 2 annotations" in result.stderr
    assert "Katze" in result.stderr


def test_a_label_map_brings_them_back(store: ModelStore, folder: Path) -> None:
    path = annotate(folder, ("dog", "Katze"))

    result = evaluate(store, folder, path, "--json", "--label-map", "cat=Katze")

    assert numbers(result)["annotations"] == 4
    assert numbers(result)["ap"] == pytest.approx(1)


def test_nothing_in_common_is_a_usage_error(store: ModelStore, folder: Path) -> None:
    result = evaluate(store, folder, annotate(folder, ("Hund", "Katze")))

    assert result.exit_code == 2
    assert "--label-map" in result.stderr
    assert "Hund, Katze" in result.stderr


def test_annotations_that_are_none_are_a_usage_error(store: ModelStore, folder: Path) -> None:
    path = folder / "annotations.json"
    path.write_text("[]", encoding="utf-8")

    result = evaluate(store, folder, path)

    assert result.exit_code == 2
    assert "images: expected a list" in result.stderr


def test_out_holds_report_and_pictures(store: ModelStore, folder: Path, tmp_path: Path) -> None:
    result = evaluate(store, folder, annotate(folder), "--out", tmp_path / "out")

    assert result.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "curves.png",
        "examples.jpg",
        "report.json",
    ]
    assert json.loads((tmp_path / "out" / "report.json").read_text())["ap50"] == pytest.approx(1)
