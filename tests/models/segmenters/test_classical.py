from __future__ import annotations

import hashlib
import importlib.resources
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.catalogue import catalogue_entry
from prelabel_models.errors import CardError, ModelUnusableError, OptionError
from prelabel_models.evaluate_clicks import click_curve
from prelabel_models.masks import CocoRle, Mask, decode_rle, mask_iou
from prelabel_models.segmenters import load_segmenter
from prelabel_models.segmenters.base import Embedding, Prompts, Scribble, Segmenter
from prelabel_models.segmenters.classical.fit import fit, read_masks
from prelabel_models.types import RgbImage

FAMILIES = ["classical", "grabcut"]


def coefficients() -> Path:
    folder = importlib.resources.files("prelabel_models.segmenters.classical")
    return Path(str(folder / "coefficients.npz"))


def test_card_names_the_coefficients_that_are_there() -> None:
    card = catalogue_entry("classical")
    assert card.files["model"].sha256 == hashlib.sha256(coefficients().read_bytes()).hexdigest()
    assert card.files["model"].size == coefficients().stat().st_size


def load(family: str) -> Segmenter:
    digest = hashlib.sha256(coefficients().read_bytes()).hexdigest()
    card = ModelCard(
        name=family, task="segment", family=family, files={"model": FileRef(sha256=digest)}
    )
    return load_segmenter(card, {"model": coefficients()})


@pytest.fixture(scope="module", params=FAMILIES)
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    return load(request.param)


def scene(width: int = 320, height: int = 240) -> tuple[RgbImage, Mask]:
    """A reddish ellipse on a textured greenish ground."""
    rng = np.random.default_rng(3)
    mask = np.zeros((height, width), np.uint8)
    centre = (round(width * 0.4), round(height * 0.55))
    cv2.ellipse(mask, centre, (width // 5, height // 5), 20, 0, 360, 1, -1)
    image = np.where(mask[..., None] > 0, [190, 60, 50], [70, 130, 80])
    image = image + rng.normal(0, 8, (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8), mask > 0


IMAGE, TRUTH = scene()
CENTRE = (128.0, 132.0)


def clicks(*points: tuple[float, float, bool]) -> Prompts:
    return Prompts(
        points_xy=np.array([p[:2] for p in points], np.float32),
        point_labels=np.array([p[2] for p in points], bool),
    )


def answer(segmenter: Segmenter, prompts: Prompts, image: RgbImage = IMAGE) -> Mask:
    return segmenter.segment(segmenter.embed(image), prompts, max_masks=1)[0].draw()


PROMPTS = {
    "click": clicks((*CENTRE, True)),
    "clicks on both sides": clicks((*CENTRE, True), (20, 20, False)),
    "box": Prompts(boxes_xyxy=np.array([[62, 80, 194, 184]], np.float32)),
    "scribble": Prompts(
        scribbles=(Scribble(np.array([[100, 130], [160, 135]], np.float32), True, 6.0),)
    ),
    "mask": Prompts(mask=cv2.erode(TRUTH.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_every_kind_of_prompt_finds_the_object(segmenter: Segmenter, kind: str) -> None:
    mask = answer(segmenter, PROMPTS[kind])
    assert mask.shape == TRUTH.shape
    assert mask.dtype == np.bool_
    assert mask_iou(mask, TRUTH) > 0.8


def test_same_prompts_give_the_same_mask(segmenter: Segmenter) -> None:
    first = answer(segmenter, PROMPTS["click"])
    assert np.array_equal(first, answer(segmenter, PROMPTS["click"]))


def test_clicked_pixels_take_their_side(segmenter: Segmenter) -> None:
    inside = (110.5, 130.5, False)
    mask = answer(segmenter, clicks((*CENTRE, True), inside, (30.5, 200.5, True)))
    assert mask[132, 128]
    assert not mask[130, 110]
    assert mask[200, 30]


def test_earlier_answer_can_be_handed_back(segmenter: Segmenter) -> None:
    embedding = segmenter.embed(IMAGE)
    before = segmenter.segment(embedding, PROMPTS["click"], max_masks=1)[0]
    again = Prompts(
        points_xy=np.array([CENTRE], np.float32),
        point_labels=np.array([True]),
        low_res_logits=before.low_res_logits,
    )
    after = segmenter.segment(embedding, again, max_masks=1)[0]
    assert mask_iou(after.draw(), TRUTH) > 0.8
    alone = Prompts(low_res_logits=before.low_res_logits)
    refined = segmenter.segment(embedding, alone, max_masks=1)[0]
    assert mask_iou(refined.draw(), TRUTH) > 0.7


def test_nothing_to_segment_is_an_empty_answer(segmenter: Segmenter) -> None:
    only_negative = clicks((20, 20, False))
    assert segmenter.segment(segmenter.embed(IMAGE), only_negative, max_masks=3) == ()


def test_prompt_outside_the_image_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(OptionError, match="inside the image"):
        segmenter.segment(segmenter.embed(IMAGE), clicks((400, 20, True)), max_masks=1)


def test_embedding_of_another_model_is_refused(segmenter: Segmenter) -> None:
    made = segmenter.embed(IMAGE)
    foreign = Embedding("sha256:other", made.image_size, made.data, made.nbytes)
    with pytest.raises(ModelUnusableError, match="made by sha256:other"):
        segmenter.segment(foreign, PROMPTS["click"], max_masks=1)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 2), (17, 9)])
def test_tiny_and_narrow_images_are_segmented(segmenter: Segmenter, size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    image[: size[1] // 2] = 200
    found = segmenter.segment(
        segmenter.embed(image), clicks((size[0] / 2, size[1] / 2, True)), max_masks=3
    )
    assert found
    for candidate in found:
        assert candidate.draw().shape == (size[1], size[0])
        assert 0 <= candidate.predicted_iou <= 1
        assert 0 <= candidate.stability_score <= 1


def test_flat_image_and_edge_clicks_are_answered(segmenter: Segmenter) -> None:
    embedding = segmenter.embed(np.zeros((60, 80, 3), np.uint8))
    for x, y in ((0, 0), (80, 60), (-1, 61)):
        assert segmenter.segment(embedding, clicks((x, y, True)), max_masks=1)


def test_large_image_has_a_mask_of_its_own_size() -> None:
    image, truth = scene(2400, 1800)
    mask = answer(load("classical"), clicks((960, 990, True)), image)
    assert mask.shape == (1800, 2400)
    assert mask_iou(mask, truth) > 0.8


def test_candidates_come_best_first_and_differ() -> None:
    segmenter = load("classical")
    found = segmenter.segment(segmenter.embed(IMAGE), PROMPTS["click"], max_masks=3)
    scores = [c.predicted_iou for c in found]
    assert len(found) == 3
    assert scores == sorted(scores, reverse=True)


def test_box_bounds_the_mask() -> None:
    box = Prompts(boxes_xyxy=np.array([[62, 80, 130, 184]], np.float32))
    mask = answer(load("classical"), box)
    assert not mask[:, 140:].any()


def test_other_files_are_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "weights.npz"
    wrong.write_bytes(b"not an archive")
    card = ModelCard(
        name="c", task="segment", family="classical", files={"model": FileRef(sha256="0" * 64)}
    )
    with pytest.raises(ModelUnusableError, match="coefficients"):
        load_segmenter(card, {"model": wrong})
    with pytest.raises(CardError, match="role 'model'"):
        load_segmenter(card, {})


def test_fitting_without_objects_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 320, "height": 240}],
        "annotations": [],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(OptionError, match="annotations"):
        fit(tmp_path / "instances.json", tmp_path)


def test_masks_of_coco_are_read_in_all_three_forms(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 3}],
        "annotations": [
            {"image_id": 1, "area": 9, "segmentation": [[0, 0, 2, 0, 2, 3, 0, 3]]},
            {"image_id": 1, "area": 8, "segmentation": {"size": [3, 4], "counts": "066"}},
            {"image_id": 1, "area": 7, "segmentation": {"counts": [0, 6, 6]}, "iscrowd": 1},
        ],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    expected = np.zeros((3, 4), bool)
    expected[:, :2] = True
    read = read_masks(file)["a.jpg"]
    assert [crowd for _, crowd in read] == [False, False, True]
    assert all(np.array_equal(mask, expected) for mask, _ in read)
    assert np.array_equal(decode_rle(CocoRle(3, 4, "066")), expected)


def test_fitting_learns_from_a_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prelabel_models.masks import encode_rle
    from prelabel_models.segmenters.classical import fit as module
    from prelabel_models.segmenters.classical.learning import Recipe
    from prelabel_models.segmenters.classical.segmenter import ClassicalSegmenter

    recipe = Recipe((16,), 25, batch=2, dropout=0.0)
    monkeypatch.setattr(module, "_STAGES", (recipe, recipe))
    monkeypatch.setattr(module, "_FINAL_STAGES", module._STAGES)
    monkeypatch.setattr(module, "_ROUNDS", 1)
    images, annotations = [], []
    for number, size in enumerate([(160, 120), (150, 150), (170, 130)]):
        image, mask = scene(*size)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[..., ::-1])
        rle = {"size": list(mask.shape), "counts": encode_rle(mask).counts}
        images.append(
            {"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]}
        )
        annotations.append({"image_id": number, "area": int(mask.sum()), "segmentation": rle})
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    fit(file, tmp_path).save(tmp_path / "fitted.npz")
    card = ModelCard(
        name="c", task="segment", family="classical", files={"model": FileRef(sha256="0" * 64)}
    )
    segmenter = load_segmenter(card, {"model": tmp_path / "fitted.npz"})
    assert isinstance(segmenter, ClassicalSegmenter)
    assert click_curve(segmenter, [(image, [mask])], max_clicks=2).mean_iou(2) > 0.6


@pytest.mark.data
@pytest.mark.slow
def test_accuracy_on_photographs(data_dir: Path) -> None:
    masks = read_masks(data_dir / "coco" / "instances_val.json")
    objects = []
    for name, several in list(masks.items())[:25]:
        pixels = cv2.imread(str(data_dir / "coco" / "val" / name))
        assert pixels is not None
        wanted = [m for m, crowd in several if not crowd and m.sum() >= 64 * 64][:3]
        objects.append((np.ascontiguousarray(pixels[..., ::-1], np.uint8), wanted))
    curve = click_curve(load("classical"), objects, max_clicks=5)
    assert curve.mean_iou(1) > 0.38
    assert curve.mean_iou(3) > 0.6
    assert curve.mean_iou(5) > 0.68
