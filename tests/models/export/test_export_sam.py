"""Exported SAM graphs against `segment_anything.SamPredictor`; run by `make test-export`."""

from __future__ import annotations

import importlib.util
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prelabel_models.cards import FileRef, ModelCard, load_card
from prelabel_models.errors import MissingExtraError, ModelUnusableError, OptionError
from prelabel_models.export import sam as sam_export
from prelabel_models.export._proof import Proof, compare, prove
from prelabel_models.export.sam import ExportReport, export_module, export_sam, sam_type
from prelabel_models.segmenters import load_segmenter
from prelabel_models.segmenters.base import Prompts
from prelabel_models.segmenters.sam import SamSegmenter
from prelabel_models.session import SessionOptions
from prelabel_models.store import ModelStore

HAS_TORCH = all(importlib.util.find_spec(m) for m in ("torch", "segment_anything", "torchvision"))
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs the extra export")

# Odd, tiny, one pixel wide, panoramas of 4:1 and more, larger than the input.
SIZES = (
    (640, 480),
    (481, 641),
    (1024, 1024),
    (1023, 1025),
    (1, 77),
    (93, 1),
    (1204, 301),
    (150, 601),
    (37, 29),
    (2049, 1365),
    (1800, 97),
    (7, 5),
)
PROMPTS_EACH = 17  # 204 in all


def small_sam(seed: int = 0) -> Any:
    """Random weights; the real decoder, and an encoder of 2 thin layers."""
    from prelabel_models.export._torch import segment_anything, torch_module

    segment_anything()
    torch = torch_module()
    from segment_anything import modeling

    torch.manual_seed(seed)
    sam = modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=2,
            embed_dim=32,
            img_size=1024,
            mlp_ratio=2,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=2,
            patch_size=16,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=(),
            window_size=14,
            out_chans=256,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=256,
            image_embedding_size=(64, 64),
            input_image_size=(1024, 1024),
            mask_in_chans=16,
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=3,
            transformer=modeling.TwoWayTransformer(
                depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8
            ),
            transformer_dim=256,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )
    with torch.no_grad():  # logits of the size that trained models have, around 10
        for head in sam.mask_decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(40)
            head.layers[-1].bias.mul_(40)
    return sam.eval()


def blank_card() -> ModelCard:
    blank = FileRef(sha256="0" * 64)
    return ModelCard(name="small", task="segment", family="sam", files={"encoder": blank})


@pytest.fixture(scope="module")
def sam() -> Any:
    return small_sam()


@pytest.fixture(scope="module")
def report(sam: Any, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam_export, "PROOF_SIZES", ((640, 480), (1, 77)))
        return export_module(sam, tmp_path_factory.mktemp("out"), blank_card(), "0" * 64)


def random_prompts(random: np.random.Generator, size: tuple[int, int]) -> Prompts:
    """Points, a box and a mask, each in half of the cases, and never none."""
    extent = np.asarray(size, np.float32)
    kinds = random.random(3) < 0.5
    if not kinds.any():
        kinds[random.integers(3)] = True
    count = int(random.integers(1, 8)) if kinds[0] else 0
    box = np.sort(random.random((2, 2)), axis=0) * extent
    logits, mask = None, None
    if kinds[2] and random.random() < 0.7:
        coarse = random.normal(0, 6, (16, 16)).astype(np.float32)
        logits = np.kron(coarse, np.ones((16, 16), np.float32))
    elif kinds[2]:
        mask = random.random((size[1], size[0])) < 0.5
    return Prompts(
        (random.random((count, 2)) * extent).astype(np.float32),
        random.random(count) < 0.6,
        box.reshape(1, 4).astype(np.float32) if kinds[1] else np.zeros((0, 4), np.float32),
        mask=mask,
        low_res_logits=logits,
    )


@needs_torch
@pytest.mark.slow
def test_two_hundred_random_prompts_get_the_masks_of_sam_predictor(
    sam: Any, report: ExportReport
) -> None:
    segmenter = load_segmenter(report.card, report.files)
    assert isinstance(segmenter, SamSegmenter)
    random = np.random.default_rng(7)
    counts = itertools.cycle((1, 3))
    proof = Proof()
    for width, height in SIZES:
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        prompts = [random_prompts(random, (width, height)) for _ in range(PROMPTS_EACH)]
        proof = proof.merged(compare(sam, segmenter, image, prompts, counts))

    assert proof.prompts >= 200
    assert proof.logits <= 1e-3
    assert proof.predicted_iou <= 1e-3
    assert proof.mask_iou >= 0.999


@needs_torch
@pytest.mark.slow
def test_what_was_written_can_be_added_to_a_store(report: ExportReport, tmp_path: Path) -> None:
    assert load_card(report.card_path) == report.card
    store = ModelStore(tmp_path)
    store.add(report.card, report.files)

    segmenter = load_segmenter(report.card, store.open_files("small"))

    assert segmenter.info.digest == report.card.digest()
    assert sorted(p.name for p in report.card_path.parent.iterdir()) == [
        "card.yaml",
        "clicks.onnx",
        "decoder.onnx",
        "encoder.onnx",
    ]


@needs_torch
@pytest.mark.slow
def test_large_encoders_keep_their_weights_beside_the_graph(sam: Any, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam_export, "PROOF_SIZES", ((64, 48),))
        report = export_module(sam, tmp_path / "out", blank_card(), "0" * 64, max_in_graph=1000)
    store = ModelStore(tmp_path / "store")
    store.add(report.card, report.files)

    segmenter = load_segmenter(report.card, store.open_files("small"))

    assert set(report.files) == {"encoder", "decoder", "clicks", "encoder.data"}
    assert report.files["encoder"].stat().st_size < 500_000
    # The embedding, and three terms of half its size for the graph of clicks.
    embedding = segmenter.embed(np.zeros((48, 64, 3), np.uint8))
    assert embedding.nbytes == 2.5 * (4 * 256 * 64 * 64)


@needs_torch
@pytest.mark.slow
def test_graphs_of_another_model_do_not_pass_the_proof(
    report: ExportReport, tmp_path: Path
) -> None:
    other = small_sam(seed=1)
    segmenter = SamSegmenter.from_files(report.card, report.files, SessionOptions())

    with pytest.raises(ModelUnusableError, match="export"):
        prove(other, segmenter, ((64, 48),))


@needs_torch
@pytest.mark.slow
def test_checkpoints_that_are_no_sam_are_refused(tmp_path: Path) -> None:
    import torch

    def saved(name: str, value: Any) -> Path:
        torch.save(value, tmp_path / name)
        return tmp_path / name

    bad = {
        "objects": saved("objects.pth", {"model": Path("/etc")}),
        "no names": saved("list.pth", [torch.zeros(1)]),
        "pos_embed": saved("other.pth", {"weight": torch.zeros(3)}),
        "1024x1024": saved("p.pth", {"image_encoder.pos_embed": torch.zeros(1, 32, 32, 768)}),
        "width 99": saved("w.pth", {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 99)}),
        "vit_b": saved("b.pth", {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}),
    }
    (tmp_path / "text.pth").write_text("not a checkpoint")

    for path in (*bad.values(), tmp_path / "text.pth"):
        with pytest.raises(ModelUnusableError, match="checkpoint"):
            export_sam(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_type_that_there_is_not_is_refused() -> None:
    with pytest.raises(OptionError, match="vit_b, vit_l, vit_h"):
        sam_type("vit_x")


@pytest.mark.skipif(HAS_TORCH, reason="the extra export is installed")
def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sam.pth").write_bytes(b"weights")

    with pytest.raises(MissingExtraError, match=r"prelabel\[export\]"):
        export_sam(tmp_path / "sam.pth", tmp_path / "out")
