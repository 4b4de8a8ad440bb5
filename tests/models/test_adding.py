from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.graphs import save_constant_graph
from prelabel_models.adding import card_from_file, draft_card, guess_card
from prelabel_models.errors import CardError, ModelUnusableError, OptionError
from prelabel_models.files import hash_file


@pytest.fixture
def yolox(tmp_path: Path) -> Path:
    output = np.full((1, 84, 8), 0.1, np.float32)  # 84 cells of a 64x64 input, 3 classes
    return save_constant_graph(tmp_path / "m.onnx", {"output": output})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("card.yaml", "task: detect\nfamily: yolox\n"),
        ("card.yaml", "name: other\ntask: detect\nfamily: yolox\nfiles:\n  model:\n"),
        ("card.toml", 'task = "detect"\nfamily = "yolox"\n[files.model]\nsize = 0\n'),
    ],
)
def test_digest_and_name_are_filled_in(tmp_path: Path, yolox: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")

    card = card_from_file(path, "mine", {"model": yolox})

    assert card.name == "mine"
    assert card.files["model"].sha256 == hash_file(yolox)[0]


def test_digest_of_the_card_is_kept(tmp_path: Path, yolox: Path) -> None:
    path = tmp_path / "card.yaml"
    stated = "ab" * 32
    path.write_text(
        f"name: own\ntask: detect\nfamily: yolox\nfiles: {{model: {{sha256: {stated}}}}}\n",
        encoding="utf-8",
    )

    card = card_from_file(path, None, {"model": yolox})

    assert (card.name, card.files["model"].sha256) == ("own", stated)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- a\n- b\n", "keys and values"),
        ("name: [", "not valid"),
        ("task: detect\nfamily: yolox\nfiles: 3\n", "files"),
        ("task: dream\nfamily: yolox\n", "task"),
        ("task: detect\nfamily: yolox\nthreshold: 1\n", "threshold"),
        ("", "keys and values"),
    ],
)
def test_wrong_card_is_refused_by_its_key(
    tmp_path: Path, yolox: Path, text: str, named: str
) -> None:
    path = tmp_path / "card.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(CardError, match=named) as caught:
        card_from_file(path, "mine", {"model": yolox})
    assert str(tmp_path) not in str(caught.value)


def test_graph_alone_gives_a_card_with_reasons(yolox: Path) -> None:
    for drafted in (guess_card("mine", {"model": yolox}), draft_card("mine", {"model": yolox})):
        assert (drafted.card.name, drafted.card.family) == ("mine", "yolox")
        assert drafted.card.files["model"].sha256 == hash_file(yolox)[0]
        assert drafted.card.license == "unknown"
        assert any("yolox" in reason for reason in drafted.reasons)
        assert any("license" in reason for reason in drafted.reasons)


def test_files_that_no_family_fits_have_no_card(tmp_path: Path, yolox: Path) -> None:
    odd = save_constant_graph(tmp_path / "odd.onnx", {"o": np.zeros((3, 3), np.float32)})

    with pytest.raises(CardError, match=r"files\.model.*give a card"):
        guess_card("mine", {"model": odd})
    with pytest.raises(ModelUnusableError, match="--card"):
        draft_card("mine", {"model": odd})
    with pytest.raises(CardError, match=r"files\.encoder"):
        draft_card("mine", {"encoder": yolox, "decoder": yolox})
    with pytest.raises(OptionError, match="name"):
        draft_card("a/b", {"model": yolox})


def test_encoder_and_decoder_get_the_family_that_fits_both(tmp_path: Path) -> None:
    embedding = np.zeros((1, 256, 64, 64), np.float32)
    encoder = save_constant_graph(
        tmp_path / "e.onnx",
        {"image_embeddings": embedding},
        inputs={"input_image": (1, 3, 1024, 1024)},
    )
    decoder = save_constant_graph(
        tmp_path / "d.onnx",
        {
            "masks": np.zeros((1, 4, 64, 64), np.float32),
            "iou_predictions": np.zeros((1, 4), np.float32),
            "low_res_masks": np.zeros((1, 4, 256, 256), np.float32),
        },
        inputs={
            "image_embeddings": (1, 256, 64, 64),
            "point_coords": (1, "points", 2),
            "point_labels": (1, "points"),
            "mask_input": (1, 1, 256, 256),
            "has_mask_input": (1,),
            "orig_im_size": (2,),
        },
    )

    drafted = draft_card("mine", {"encoder": encoder, "decoder": decoder})

    assert (drafted.card.family, drafted.card.task) == ("sam", "segment")
    assert set(drafted.card.files) == {"encoder", "decoder"}
