from __future__ import annotations

import numpy as np
import pytest

from prelabel_models.base import ModelInfo
from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.evaluate_clicks import ClickCurve, click_curve, next_click
from prelabel_models.masks import Mask
from prelabel_models.segmenters.base import Embedding, MaskCandidate, Prompts
from prelabel_models.types import RgbImage

TRUTH = np.zeros((20, 30), bool)
TRUTH[5:14, 5:14] = True
NONE = np.zeros_like(TRUTH)


class Discs:
    """Draws a square around each positive click, without those around negative ones."""

    def __init__(self, radius: int) -> None:
        self.radius = radius
        self.prompts: list[Prompts] = []
        card = ModelCard(
            name="d", task="segment", family="d", files={"model": FileRef(sha256="0" * 64)}
        )
        self.info = ModelInfo(card, card.digest(), ())

    def embed(self, image: RgbImage) -> Embedding:
        return Embedding(self.info.digest, (image.shape[1], image.shape[0]), None, 0)

    def segment(
        self, embedding: Embedding, prompts: Prompts, *, max_masks: int
    ) -> tuple[MaskCandidate, ...]:
        self.prompts.append(prompts)
        mask = np.zeros(embedding.image_size[::-1], bool)
        for (x, y), side in zip(prompts.points_xy.astype(int), prompts.point_labels, strict=True):
            r = self.radius
            mask[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1] = side
        return (MaskCandidate(lambda: mask, 0.7, 1.0, np.full((2, 2), len(self.prompts), "f4")),)

    def close(self) -> None:
        pass


def image() -> RgbImage:
    return np.zeros((20, 30, 3), np.uint8)


def test_first_click_is_the_innermost_point() -> None:
    assert next_click(NONE, TRUTH, NONE) == (9.5, 9.5, True)


def test_larger_mistake_is_clicked_first_with_its_own_sign() -> None:
    predicted = TRUTH.copy()
    predicted[5:8] = False
    predicted[:, 16:] = True
    click = next_click(predicted, TRUTH, NONE)
    assert click is not None
    assert click[0] > 16
    assert click[2] is False


def test_no_click_on_a_perfect_mask() -> None:
    assert next_click(TRUTH, TRUTH, NONE) is None


def test_used_pixels_are_not_clicked_again() -> None:
    used = NONE.copy()
    used[9, 9] = True
    click = next_click(NONE, TRUTH, used)
    assert click is not None
    assert click[:2] != (9.5, 9.5)


def test_trembling_click_stays_in_its_region() -> None:
    rng = np.random.default_rng(0)
    spots = {next_click(NONE, TRUTH, NONE, jitter_px=4.0, rng=rng) for _ in range(50)}
    assert len(spots) > 10
    assert all(c is not None and TRUTH[int(c[1]), int(c[0])] for c in spots)


def test_curve_counts_clicks_and_hands_logits_back() -> None:
    segmenter = Discs(4)
    curve = click_curve(segmenter, [(image(), [TRUTH, ~TRUTH])], max_clicks=3)
    assert curve.iou.shape == (2, 3)
    # The square fits at once: no more clicks are needed, and the value stays.
    assert curve.iou[0].tolist() == [1.0, 1.0, 1.0]
    assert np.isnan(curve.seconds[0, 1:]).all()
    assert curve.iou[1, 2] > curve.iou[1, 0]
    assert curve.predicted_iou[0].tolist() == [0.7] * 3
    assert len(curve.embed_seconds) == 1
    lengths = [len(p.points_xy) for p in segmenter.prompts]
    assert lengths == [1, 1, 2, 3]
    first = [p.low_res_logits is None for p in segmenter.prompts]
    assert first == [True, True, False, False]


def test_number_of_clicks_to_a_target() -> None:
    iou = np.array([[0.5, 0.9, 0.9], [0.1, 0.2, 0.3]])
    curve = ClickCurve(iou, iou, iou, np.zeros(1))
    assert curve.clicks_to(0.8) == pytest.approx((2 + 3) / 2)
    assert curve.mean_iou(2) == pytest.approx(0.55)


def test_nothing_to_evaluate_gives_an_empty_curve() -> None:
    curve = click_curve(Discs(1), [], max_clicks=4)
    assert curve.iou.shape == (0, 4)


def test_type_of_masks() -> None:
    mask: Mask = (
        Discs(1)
        .segment(
            Discs(1).embed(image()),
            Prompts(points_xy=np.ones((1, 2), np.float32), point_labels=np.ones(1, bool)),
            max_masks=1,
        )[0]
        .draw()
    )
    assert mask.sum() == 9
