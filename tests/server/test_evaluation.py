from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from prelabel.types import Proposal
from prelabel_server.evaluation import (
    EvalReport,
    evaluate,
    load_annotations,
    match_labels,
    parse_annotations,
    parse_label_map,
)

pytest.importorskip("pycocotools")

CATEGORIES = {1: "cat", 5: "dog"}


def coco(boxes: Sequence[tuple[int, int, Sequence[float]]], **more: Any) -> dict[str, Any]:
    """Annotations (image, category, x y width height) of images 1 to 4."""
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(1, 5)],
        "categories": [{"id": i, "name": name} for i, name in CATEGORIES.items()],
        "annotations": [
            {"id": 0, "image_id": image, "category_id": category, "bbox": list(box), **more}
            for image, category, box in boxes
        ],
    }


def proposal(label: str, score: float, x: float, y: float, w: float, h: float) -> Proposal:
    return Proposal(label, 0, score, None, (x, y, x + w, y + h))


def report(content: dict[str, Any], found: dict[int, list[Proposal]], **options: Any) -> EvalReport:
    truth = parse_annotations(content)
    match = match_labels(["cat", "dog"], truth.categories, {})
    return evaluate(found.items(), truth, match, **options)


def test_perfect_proposals_have_an_average_precision_of_1() -> None:
    boxes = [(1, 1, (10, 10, 40, 40)), (1, 5, (60, 10, 20, 20)), (2, 5, (5, 5, 200, 200))]
    found: dict[int, list[Proposal]] = {1: [], 2: [], 3: [], 4: []}
    for image, category, (x, y, w, h) in boxes:
        found[image].append(proposal(CATEGORIES[category], 0.9, x, y, w, h))

    made = report(coco(boxes), found)

    assert (made.ap, made.ap50, made.ap75, made.ar) == pytest.approx((1, 1, 1, 1))
    assert made.ap_by_area == pytest.approx({"small": 1, "medium": 1, "large": 1})
    assert made.best is not None
    assert (made.best.precision, made.best.recall, made.best.min_score) == (1, 1, 0.9)
    assert {c.name: c.ap for c in made.classes} == pytest.approx({"cat": 1, "dog": 1})
    assert (made.images, made.annotations, made.proposals) == (4, 3, 3)
    assert made.image_f1 == {1: 1.0, 2: 1.0}


def test_the_best_threshold_leaves_wrong_proposals_below_it() -> None:
    boxes = [(i, 1, (10, 10, 40, 40)) for i in (1, 2, 3, 4)]
    right = {i: [proposal("cat", 0.9 - i / 10, 10, 10, 40, 40)] for i in (1, 2, 3)}
    wrong = [proposal("cat", 0.3, 200, 200, 40, 40), proposal("cat", 0.2, 300, 200, 40, 40)]
    found = {**right, 4: wrong}

    best = report(coco(boxes), found).best

    assert best is not None
    assert best.min_score == pytest.approx(0.6)
    assert (best.precision, best.recall) == pytest.approx((1.0, 0.75))
    assert best.f1 == pytest.approx(6 / 7)


def test_proposals_of_equal_score_stand_or_fall_together() -> None:
    right, wrong = proposal("cat", 0.5, 10, 10, 40, 40), proposal("cat", 0.5, 99, 99, 9, 9)

    best = report(coco([(1, 1, (10, 10, 40, 40))]), {1: [right, wrong]}).best

    assert best is not None
    assert best.precision == 0.5


def test_a_proposal_on_a_crowd_is_neither_right_nor_wrong() -> None:
    content = coco([(1, 1, (10, 10, 40, 40))])
    crowd = coco([(1, 1, (100, 100, 100, 100))], iscrowd=1)["annotations"]
    content["annotations"] += crowd
    found = {1: [proposal("cat", 0.9, 110, 110, 30, 30), proposal("cat", 0.8, 10, 10, 40, 40)]}

    made = report(content, found)

    assert made.ap == pytest.approx(1)
    assert made.annotations == 1
    assert made.best is not None
    assert made.best.precision == 1


def test_images_without_a_result_do_not_count() -> None:
    content = coco([(1, 1, (10, 10, 40, 40)), (2, 1, (10, 10, 40, 40))])

    made = report(content, {1: [proposal("cat", 0.9, 10, 10, 40, 40)]})

    assert made.ap == pytest.approx(1)
    assert (made.images, made.annotations) == (1, 1)


def test_no_proposals_at_all_is_a_result_and_no_failure() -> None:
    made = report(coco([(1, 1, (10, 10, 40, 40))]), {1: [], 2: []})

    assert made.ap == 0
    assert made.best is None


def test_no_images_at_all_is_a_result_and_no_failure() -> None:
    made = report(coco([(1, 1, (10, 10, 40, 40))]), {})

    assert (made.images, made.ap, made.best) == (0, None, None)


def test_the_numbers_are_those_of_pycocotools() -> None:
    content, found = random_case(seed=5)
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = [
        {
            "image_id": image,
            "category_id": 1 if p.label == "cat" else 5,
            "bbox": [p.box[0], p.box[1], p.box[2] - p.box[0], p.box[3] - p.box[1]],
            "score": p.score,
        }
        for image, proposals in found.items()
        for p in proposals
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {**content, "annotations": [dict(a) for a in content["annotations"]]}
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(rows), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()

    made = report(content, found)

    ours = [made.ap, made.ap50, made.ap75, *made.ap_by_area.values()]
    assert ours == pytest.approx(judge.stats[:6].tolist())
    assert [made.ar, *made.ar_by_area.values()] == pytest.approx(judge.stats[8:].tolist())
    assert 0.1 < judge.stats[0] < 0.9


def random_case(seed: int) -> tuple[dict[str, Any], dict[int, list[Proposal]]]:
    """Boxes of all sizes; proposals a little off, some missing, some invented."""
    rng = np.random.default_rng(seed)
    found: dict[int, list[Proposal]] = {i: [] for i in range(1, 5)}
    annotations = []
    for number in range(1, 61):
        image, category = int(rng.integers(1, 5)), int(rng.choice([1, 5]))
        x, y, w, h = (float(v) for v in (*rng.uniform(0, 300, 2), *rng.uniform(8, 160, 2)))
        annotations.append(
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": int(number % 15 == 0),
            }
        )
        if rng.random() < 0.8:
            dx, dy = rng.normal(0, 0.06, 2) * (w, h)
            score = float(rng.uniform(0.3, 1))
            name = CATEGORIES[category]
            found[image].append(proposal(name, score, x + float(dx), y + float(dy), w, h))
        if rng.random() < 0.4:
            score = float(rng.uniform(0, 0.7))
            found[image].append(proposal("cat", score, x + 200, y, w, h))
    return {**coco([]), "annotations": annotations}, found


def test_labels_match_by_name_then_nearly_and_the_map_goes_first() -> None:
    categories = {1: "Traffic_Light", 2: "car", 3: "automobile", 4: "tree"}

    match = match_labels(["traffic light", "car", "bird"], categories, {"car": "automobile"})

    assert match.category_of == {"traffic light": 1, "car": 3}
    assert match.unknown_labels == ("bird",)
    assert match.unknown_categories == ("car", "tree")


def test_nearly_equal_categories_are_not_guessed_between() -> None:
    assert match_labels(["t v"], {1: "TV", 2: "tv"}, {}).category_of == {}


@pytest.mark.parametrize(
    ("label_map", "problem"),
    [({"cta": "cat"}, "the model has no label 'cta'"), ({"cat": "ct"}, "no category 'ct'")],
)
def test_a_map_to_nowhere_is_refused(label_map: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        match_labels(["cat"], CATEGORIES, label_map)


def test_label_maps_are_pairs() -> None:
    assert parse_label_map(["a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}
    with pytest.raises(ValueError, match="LABEL=CATEGORY"):
        parse_label_map(["a"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"images": None}, "images: expected a list"),
        ({"categories": [{"id": "1", "name": "a"}]}, "categories: id: expected a whole number"),
        ({"categories": [{"id": 1, "name": ""}]}, "name: expected a text"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "distinct names"),
        ({"images": [{"id": 9, "file_name": "x"}]}, "annotation 1: its image_id"),
        ({"categories": [{"id": 9, "name": "x"}]}, "annotation 1: its category_id"),
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, "annotation 1: bbox"),
        ({"annotations": ["x"]}, "annotation 1: image_id"),
    ],
)
def test_what_is_not_a_coco_file_is_refused_with_the_key(
    change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_annotations({**coco([(1, 1, (0, 0, 5, 5))]), **change})


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ValueError, match="expected JSON"):
        load_annotations(path)


def test_curves_and_examples_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from prelabel_server.evaluation.pictures import contact_sheet, save_curves

    content, found = random_case(seed=6)
    made = report(content, found)
    truth = parse_annotations(content)

    save_curves(made, "model", tmp_path / "curves.png")
    sheet = contact_sheet(made, truth, found, lambda _: np.full((400, 500, 3), 80, np.uint8))

    curves = cv2.imread(str(tmp_path / "curves.png"))
    assert curves is not None
    assert curves.shape[1] > 1000
    assert sheet is not None
    assert sheet.shape[1] > 3 * 480


def test_there_are_no_examples_of_nothing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from prelabel_server.evaluation.pictures import contact_sheet, save_curves

    content = coco([(1, 1, (10, 10, 40, 40))])
    made = report(content, {1: []})

    save_curves(made, "model", tmp_path / "curves.png")
    blank = np.zeros((9, 9, 3), np.uint8)
    assert contact_sheet(made, parse_annotations(content), {1: []}, lambda _: blank) is None
