from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from models.graphs import save_constant_graph
from prelabel_models.cards import dump_card, parse_card
from prelabel_models.catalogue import card_for_file, card_for_files, catalogue, catalogue_entry
from prelabel_models.errors import ModelNotFoundError, ModelUnusableError, OptionError
from prelabel_models.files import hash_file, safe_name
from prelabel_models.store import ModelStore

# Licences that allow commercial use without conditions on other software.
PERMISSIVE = {"Apache-2.0", "MIT", "BSD-3-Clause", "BSD-2-Clause"}
REAL_FILES = {
    "yolox-nano": "yolox-nano/yolox_nano.onnx",
    "fastestdet": "fastestdet/FastestDet.onnx",
    "nanodet-m": "nanodet-m/nanodet_m_320.onnx",
    "ultraface": "ultraface/ultraface_rfb_320.onnx",
}


def test_catalogue_has_the_published_models() -> None:
    assert set(REAL_FILES) <= set(catalogue())
    assert {"rapidocr", "yunet", "yolox-s", "sam-vit-b-int8", "sam2.1-tiny", "efficientsam-ti"} <= (
        set(catalogue())
    )


@pytest.mark.parametrize("name", list(catalogue()))
def test_entry_is_complete(name: str) -> None:
    card = catalogue_entry(name)

    assert card.name == safe_name(name)
    assert card.license != "unknown"
    assert card.license_url.startswith("https://")
    assert card.source.startswith("https://")
    assert card.description.endswith(".")
    assert card.commercial == ("yes" if card.license in PERMISSIVE else card.commercial)
    assert card.license in PERMISSIVE or card.commercial in ("no", "ask")
    roles = {"sam": 2, "sam2": 2, "efficientsam": 2, "rapidocr": 3}
    assert len(card.files) == roles.get(card.family, 1)
    assert parse_card(dump_card(card)) == card
    for ref in card.files.values():
        assert re.fullmatch(r"[0-9a-f]{64}", ref.sha256)
        assert re.fullmatch(r"(https://[a-z.]+/\S+\.onnx)?", ref.url)
        # A reference that moves would stop matching the digest some day.
        assert not re.search(r"/(main|master|HEAD)/", ref.url)


def test_no_two_files_share_a_digest_or_an_address() -> None:
    refs = [ref for card in catalogue().values() for ref in card.files.values()]

    assert len({ref.sha256 for ref in refs}) == len(refs)
    assert len({ref.url for ref in refs if ref.url}) == sum(bool(ref.url) for ref in refs)


def test_unknown_entry_names_those_there_are() -> None:
    with pytest.raises(ModelNotFoundError, match=r"yolox-nano.*got 'yolo9000'"):
        catalogue_entry("yolo9000")


@pytest.mark.data
@pytest.mark.parametrize("name", list(REAL_FILES))
def test_real_file_is_recognised_under_its_name_and_any_other(name: str, data_dir: Path) -> None:
    path = data_dir / "models" / REAL_FILES[name]
    entry = catalogue_entry(name)

    assert card_for_file(name, path) == entry
    assert entry.files["model"].size == path.stat().st_size
    renamed = card_for_file("my-own-name", path)
    assert renamed is not None
    assert (renamed.name, renamed.family, renamed.digest()) == (
        "my-own-name",
        entry.family,
        entry.digest(),
    )


def test_own_file_under_a_catalogue_name_is_refused_with_a_way_on(tmp_path: Path) -> None:
    path = save_constant_graph(tmp_path / "m.onnx", {"o": np.zeros((1, 2, 6), np.float32)})

    with pytest.raises(ModelUnusableError, match="another name") as caught:
        card_for_file("yolox-nano", path)
    assert hash_file(path)[0] in str(caught.value)
    assert catalogue_entry("yolox-nano").files["model"].sha256 in str(caught.value)
    with pytest.raises(ModelUnusableError, match=r"files\.encoder.*no file"):
        card_for_files("sam-vit-b-int8", {"decoder": path})


def test_unknown_file_under_an_unknown_name_has_no_card(tmp_path: Path) -> None:
    path = save_constant_graph(tmp_path / "m.onnx", {"o": np.zeros((1, 2, 6), np.float32)})

    assert card_for_file("mine", path) is None
    with pytest.raises(OptionError, match="name"):
        card_for_file("../mine", path)


def test_files_of_this_package_have_the_digests_of_their_cards(tmp_path: Path) -> None:
    (report,) = ModelStore(tmp_path).verify("classical")
    assert report.problems == ()
