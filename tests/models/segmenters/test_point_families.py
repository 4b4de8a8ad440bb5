"""SAM, SAM 2 and EfficientSAM on graphs whose answers are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.segmenters import sam_graphs
from prelabel_models.errors import (
    CardError,
    ModelUnusableError,
    NonFiniteOutputError,
    OptionError,
)
from prelabel_models.masks import mask_iou
from prelabel_models.segmenters import load_segmenter
from prelabel_models.segmenters._graphs import cut_at_low_res
from prelabel_models.segmenters.base import Prompts, Scribble, Segmenter

SAM2_OSAM = ("image_embeddings", "high_res_features1", "high_res_features2")
SAM2_EXPORTER = ("high_res_feats_0", "high_res_feats_1", "image_embed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def sam(folder: Path) -> Segmenter:
    return load(
        "sam",
        sam_graphs.write_encoder(folder / "encoder.onnx"),
        sam_graphs.write_decoder(folder / "decoder.onnx"),
    )


@pytest.fixture(scope="module")
def segmenters(folder: Path, sam: Segmenter) -> Mapping[str, Segmenter]:
    """One of each layout that exporters write."""
    g, f = sam_graphs, folder
    return {
        "sam": sam,
        "sam stock": load("sam", f / "encoder.onnx", g.write_stock_decoder(f / "stock.onnx")),
        "sam in an old format": load(
            "sam", f / "encoder.onnx", g.write_stock_decoder(f / "old.onnx", old=True)
        ),
        "sam of samexporter": load("sam", g.write_hwc_encoder(f / "hwc.onnx"), f / "stock.onnx"),
        "sam2 of osam": load(
            "sam2",
            g.write_sam2_encoder(f / "encoder2.onnx", SAM2_OSAM),
            g.write_sam2_decoder(f / "decoder2.onnx", SAM2_OSAM, low_res=True),
        ),
        "sam2 of samexporter": load(
            "sam2",
            g.write_sam2_encoder(f / "encoder3.onnx", SAM2_EXPORTER),
            g.write_sam2_decoder(f / "decoder3.onnx", SAM2_EXPORTER, low_res=False),
        ),
        "efficientsam": load(
            "efficientsam",
            g.write_encoder(f / "encoder4.onnx", shape="1,3,height,width"),
            g.write_efficientsam_decoder(f / "decoder4.onnx"),
        ),
    }


LAYOUTS = (
    "sam",
    "sam stock",
    "sam in an old format",
    "sam of samexporter",
    "sam2 of osam",
    "sam2 of samexporter",
    "efficientsam",
)


def load(family: str, encoder: Path, decoder: Path) -> Segmenter:
    return load_segmenter(sam_graphs.card(family), {"encoder": encoder, "decoder": decoder})


def grey(width: int, height: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 128, np.uint8)


def click(*points: tuple[float, float], on: bool = True) -> Prompts:
    return Prompts(np.array(points, np.float32), np.full(len(points), on))


def centre(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of a mask's pixels, in coordinates."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.mean() + 0.5, ys.mean() + 0.5])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(640, 480), (300, 1200), (2000, 500), (1024, 1024), (97, 61)])
def test_the_mask_lies_around_the_click(
    segmenters: Mapping[str, Segmenter], layout: str, size: tuple[int, int]
) -> None:
    segmenter = segmenters[layout]
    where = (size[0] * 0.45, size[1] * 0.55)

    (found,) = segmenter.segment(segmenter.embed(grey(*size)), click(where), max_masks=1)

    mask = found.draw()
    assert mask.shape == (size[1], size[0])
    cell = max(size) / sam_graphs.CELLS
    assert np.abs(centre(mask) - where).max() < cell
    assert found.low_res_logits.shape == (sam_graphs.CELLS, sam_graphs.CELLS)


def test_radii_in_the_image_are_those_of_the_input_scaled_by_the_longer_side(
    sam: Segmenter,
) -> None:
    (found, *_) = sam.segment(sam.embed(grey(2000, 1000)), click((900, 500)), max_masks=3)

    radius = sam_graphs.RADII[2] * 2000 / sam_graphs.SIDE
    assert found.draw().sum() == pytest.approx(np.pi * radius**2, rel=0.01)


def test_a_lone_click_gets_the_readings_of_an_ambiguous_prompt_in_order(sam: Segmenter) -> None:
    found = sam.segment(sam.embed(grey(640, 480)), click((300, 200)), max_masks=3)

    assert [c.predicted_iou for c in found] == pytest.approx([0.8, 0.7, 0.5])


@pytest.mark.parametrize(
    "prompts",
    [
        click((300, 200), (310, 210)),
        Prompts(boxes_xyxy=np.array([[200, 100, 400, 300]], np.float32)),
        Prompts(
            np.array([[300, 200]], np.float32),
            np.array([True]),
            low_res_logits=np.ones((256, 256), np.float32),
        ),
    ],
    ids=["two clicks", "a box", "a click on an earlier mask"],
)
def test_clear_prompts_get_the_mask_that_the_model_keeps_for_them(
    sam: Segmenter, prompts: Prompts
) -> None:
    (found,) = sam.segment(sam.embed(grey(640, 480)), prompts, max_masks=1)

    assert found.predicted_iou == pytest.approx(sam_graphs.IOUS[0])


def test_a_click_beside_the_object_does_not_move_the_mask(sam: Segmenter) -> None:
    prompts = Prompts(np.array([[300, 200], [600, 400]], np.float32), np.array([True, False]))

    (found,) = sam.segment(sam.embed(grey(640, 480)), prompts, max_masks=1)

    assert np.abs(centre(found.draw()) - (300, 200)).max() < 3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_box_is_handed_on_as_its_corners(
    segmenters: Mapping[str, Segmenter], layout: str
) -> None:
    segmenter = segmenters[layout]
    prompts = Prompts(boxes_xyxy=np.array([[100, 300, 300, 400]], np.float32))

    (found,) = segmenter.segment(segmenter.embed(grey(640, 480)), prompts, max_masks=1)

    assert np.abs(centre(found.draw()) - (200, 350)).max() < 3


def test_several_boxes_are_united_and_clicks_go_to_the_box_they_lie_in(sam: Segmenter) -> None:
    embedding = sam.embed(grey(640, 480))
    boxes = np.array([[100, 100, 160, 160], [400, 300, 460, 360]], np.float32)
    alone = [
        sam.segment(embedding, prompts, max_masks=1)[0].draw()
        for prompts in (
            Prompts(np.array([[110, 110]], np.float32), np.array([True]), boxes[:1]),
            Prompts(boxes_xyxy=boxes[1:]),
        )
    ]

    found = sam.segment(
        embedding,
        Prompts(np.array([[110, 110]], np.float32), np.array([True]), boxes),
        max_masks=3,
    )

    assert len(found) == 1
    assert mask_iou(found[0].draw(), alone[0] | alone[1]) > 0.999
    assert found[0].predicted_iou == pytest.approx(sam_graphs.IOUS[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_line_becomes_points_along_it(segmenters: Mapping[str, Segmenter], layout: str) -> None:
    segmenter = segmenters[layout]
    bent = Scribble(np.array([[100, 100], [300, 100], [300, 300]], np.float32), True, 5.0)

    (found,) = segmenter.segment(
        segmenter.embed(grey(640, 480)), Prompts(scribbles=(bent,)), max_masks=1
    )

    # The mean of a line of two legs of one length.
    assert np.abs(centre(found.draw()) - (250, 150)).max() < 3


@pytest.mark.parametrize("layout", LAYOUTS[:-1])
@pytest.mark.parametrize("size", [(640, 480), (300, 1200), (61, 97)])
def test_a_given_mask_arrives_where_it_was_drawn(
    segmenters: Mapping[str, Segmenter], layout: str, size: tuple[int, int]
) -> None:
    segmenter = segmenters[layout]
    width, height = size
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2, width // 3 : width - width // 5] = True

    (found,) = segmenter.segment(segmenter.embed(grey(*size)), Prompts(mask=mask), max_masks=1)

    assert mask_iou(found.draw(), mask) > 0.93


def test_an_earlier_answer_can_be_handed_back(sam: Segmenter) -> None:
    embedding = sam.embed(grey(640, 480))
    (first, *_) = sam.segment(embedding, click((200, 200)), max_masks=1)

    (second,) = sam.segment(embedding, Prompts(low_res_logits=first.low_res_logits), max_masks=1)

    np.testing.assert_array_equal(second.draw(), first.draw())


def test_a_candidate_holds_its_own_mask_only(sam: Segmenter) -> None:
    (found, *_) = sam.segment(sam.embed(grey(64, 64)), click((20, 20)), max_masks=3)

    assert found.low_res_logits.base is None


def test_nothing_seen_is_no_candidate(folder: Path) -> None:
    segmenter = load(
        "sam",
        sam_graphs.write_encoder(folder / "encoder.onnx"),
        sam_graphs.write_decoder(folder / "empty.onnx", radii=(-1.0, -1.0, -1.0, -1.0)),
    )

    assert segmenter.segment(segmenter.embed(grey(64, 64)), click((9, 9)), max_masks=3) == ()


def test_stability_is_the_share_that_stays_when_the_threshold_moves(sam: Segmenter) -> None:
    (found, *_) = sam.segment(sam.embed(grey(1024, 1024)), click((512, 512)), max_masks=1)

    radius = sam_graphs.RADII[2]
    assert found.stability_score == pytest.approx(((radius - 1) / (radius + 1)) ** 2, abs=0.02)


def test_sam2_features_are_matched_by_name_whatever_their_order(
    segmenters: Mapping[str, Segmenter],
) -> None:
    for layout in ("sam2 of osam", "sam2 of samexporter"):
        segmenter = segmenters[layout]
        found = segmenter.segment(segmenter.embed(grey(64, 64)), click((20, 20)), max_masks=3)
        # The graph answers with the means of embedding, fine and middle features.
        assert [c.predicted_iou for c in found] == pytest.approx([0.3, 0.2, 0.1], abs=2e-3)


@pytest.mark.parametrize(
    ("prompts", "field"),
    [
        (
            Prompts(np.array([[5, 5], [9, 9]], np.float32), np.array([True, False])),
            "prompts.points",
        ),
        (click(*[(float(i), 5.0) for i in range(7)]), "prompts.points"),
        (Prompts(mask=np.ones((64, 64), bool)), "prompts.shape"),
    ],
    ids=["beside the object", "seven points", "a mask"],
)
def test_efficientsam_refuses_what_it_would_ignore(
    segmenters: Mapping[str, Segmenter], prompts: Prompts, field: str
) -> None:
    segmenter = segmenters["efficientsam"]

    with pytest.raises(OptionError) as caught:
        segmenter.segment(segmenter.embed(grey(64, 64)), prompts, max_masks=1)

    assert caught.value.field == field


@pytest.mark.parametrize(
    ("prompts", "max_masks"),
    [
        (click((70, 5)), 1),
        (click((5, 5)), 0),
        (click((5, 5)), 4),
        (Prompts(low_res_logits=np.zeros((64, 64), np.float32)), 1),
        (Prompts(low_res_logits=np.full((256, 256), np.nan, np.float32)), 1),
    ],
    ids=["outside", "no masks", "four masks", "another model's logits", "NaN"],
)
def test_prompts_out_of_range_are_refused(sam: Segmenter, prompts: Prompts, max_masks: int) -> None:
    with pytest.raises(OptionError):
        sam.segment(sam.embed(grey(64, 64)), prompts, max_masks=max_masks)


def test_another_models_embedding_is_refused(segmenters: Mapping[str, Segmenter]) -> None:
    embedding = segmenters["efficientsam"].embed(grey(64, 64))

    with pytest.raises(ModelUnusableError, match="embedding"):
        segmenters["sam"].segment(embedding, click((5, 5)), max_masks=1)


@pytest.mark.parametrize("where", ["radii", "ious"])
def test_numbers_that_are_none_are_an_error(folder: Path, where: str) -> None:
    values = {where: (float("nan"),) * 4}
    path = sam_graphs.write_decoder(folder / f"{where}.onnx")
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.name == where:
            array = np.asarray(values[where], np.float32).reshape(tuple(tensor.dims))
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, where))
    onnx.save(model, str(path))
    segmenter = load("sam", sam_graphs.write_encoder(folder / "encoder.onnx"), path)

    with pytest.raises(NonFiniteOutputError):
        segmenter.segment(segmenter.embed(grey(64, 64)), click((5, 5)), max_masks=1)


def test_an_embedding_that_is_no_number_is_an_error(folder: Path) -> None:
    encoder = sam_graphs.write_encoder_with_terms(folder / "nan.onnx", term=1e38)
    model = onnx.load(str(encoder))
    for tensor in model.graph.initializer:
        if tensor.name == "term":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([np.inf], np.float32), "term"))
    onnx.save(model, str(encoder))
    files = {
        "encoder": encoder,
        "decoder": sam_graphs.write_decoder(folder / "decoder.onnx"),
        "clicks": sam_graphs.write_clicks(folder / "clicks.onnx"),
    }

    with pytest.raises(NonFiniteOutputError, match="embedding"):
        load_segmenter(sam_graphs.card(), files).embed(grey(64, 64))


def test_the_graph_of_clicks_answers_all_but_masks(folder: Path) -> None:
    files = {
        "encoder": sam_graphs.write_encoder_with_terms(folder / "terms.onnx", term=7.0),
        "decoder": sam_graphs.write_decoder(folder / "decoder.onnx"),
        "clicks": sam_graphs.write_clicks(folder / "clicks.onnx"),
    }
    segmenter = load_segmenter(sam_graphs.card(), files)
    embedding = segmenter.embed(grey(640, 480))

    (clicked,) = segmenter.segment(embedding, click((300, 200), (300, 202)), max_masks=1)
    again = Prompts(low_res_logits=clicked.low_res_logits)
    (refined,) = segmenter.segment(embedding, again, max_masks=1)

    assert clicked.predicted_iou == pytest.approx(0.07)
    assert refined.predicted_iou == pytest.approx(0.9)
    np.testing.assert_array_equal(clicked.draw(), refined.draw())


def test_a_graph_of_clicks_without_its_terms_is_refused(folder: Path) -> None:
    files = {
        "encoder": sam_graphs.write_encoder_with_terms(folder / "terms.onnx"),
        "decoder": sam_graphs.write_decoder(folder / "decoder.onnx"),
        "clicks": sam_graphs.write_clicks(folder / "odd_clicks.onnx", term="image_values"),
    }

    with pytest.raises(ModelUnusableError, match="image_values"):
        load_segmenter(sam_graphs.card(), files)


def test_files_that_do_not_fit_are_named(folder: Path) -> None:
    encoder = sam_graphs.write_encoder(folder / "encoder.onnx")
    decoder = sam_graphs.write_decoder(folder / "decoder.onnx")
    odd = sam_graphs.write_decoder(folder / "odd.onnx", extra_input=", float[1] temperature")
    large = sam_graphs.write_decoder(folder / "large.onnx", masks="masks")

    with pytest.raises(CardError, match="'decoder'"):
        load_segmenter(sam_graphs.card(), {"encoder": encoder})
    with pytest.raises(ModelUnusableError, match="temperature"):
        load("sam", encoder, odd)
    with pytest.raises(ModelUnusableError, match="low_res_masks"):
        load("sam", encoder, large)
    with pytest.raises(ModelUnusableError, match="encoder"):
        load("sam", decoder, decoder)
    with pytest.raises(ModelUnusableError, match="finer feature maps"):
        load("sam2", encoder, decoder)


def test_the_part_that_scales_masks_is_cut_off(folder: Path) -> None:
    stock = sam_graphs.write_stock_decoder(folder / "stock.onnx")

    cut = onnx.load_from_string(cut_at_low_res(stock) or b"")

    assert [o.name for o in cut.graph.output] == ["iou_predictions", "low_res_masks"]
    assert "orig_im_size" not in {i.name for i in cut.graph.input}
    assert "Resize" not in {n.op_type for n in cut.graph.node}
    # What only a branch reads is still there.
    assert "discs" in {name for n in cut.graph.node for name in n.output}


def test_there_is_nothing_to_cut_in_a_decoder_of_low_resolution(folder: Path) -> None:
    assert cut_at_low_res(sam_graphs.write_decoder(folder / "decoder.onnx")) is None


def resample(count_in: int, count_out: int) -> NDArray[np.float64]:
    """Weights of one axis of `F.interpolate(mode="bilinear", align_corners=False)`."""
    position = np.maximum((np.arange(count_out) + 0.5) * count_in / count_out - 0.5, 0)
    low = np.minimum(position.astype(int), count_in - 1)
    high = np.minimum(low + 1, count_in - 1)
    weights = np.zeros((count_out, count_in))
    np.add.at(weights, (np.arange(count_out), low), 1 - (position - low))
    np.add.at(weights, (np.arange(count_out), high), position - low)
    return weights


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 1500), st.integers(1, 1500)).filter(
        lambda s: max(s) / min(s) < 1024
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_masks_are_scaled_as_postprocess_masks_does(
    sam: Segmenter, size: tuple[int, int], seed: int
) -> None:
    width, height = size
    noise = np.random.default_rng(seed).normal(0, 5, (8, 8))
    logits = np.kron(noise, np.ones((32, 32))).astype(np.float32)
    scale = 1024 / max(size)
    columns, rows = (max(1, int(side * scale + 0.5)) for side in size)
    up = resample(256, 1024)
    tall, wide = resample(rows, height) @ up[:rows], resample(columns, width) @ up[:columns]
    values = tall @ logits @ wide.T
    sure = np.abs(values) > 1e-4  # the rest is rounding

    found = sam.segment(sam.embed(grey(width, height)), Prompts(low_res_logits=logits), max_masks=1)

    drawn = found[0].draw() if found else np.zeros((height, width), bool)
    np.testing.assert_array_equal(drawn[sure], (values > 0)[sure])
