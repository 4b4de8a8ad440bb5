from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from models.segmenters import sam_graphs
from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.store import ModelStore
from prelabel_server.cli.root import app
from prelabel_server.config import Settings
from server.conftest import photo
from server.serving import serving


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a SAM whose masks are discs around the mean click."""
    folder = tmp_path_factory.mktemp("discs")
    paths = {
        "encoder": sam_graphs.write_encoder(folder / "encoder.onnx"),
        "decoder": sam_graphs.write_decoder(folder / "decoder.onnx"),
    }
    files = {
        role: FileRef(sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for role, path in paths.items()
    }
    store = ModelStore(folder / "root")
    store.add(ModelCard(name="discs", task="segment", family="sam", files=files), paths)
    return store.root


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo(1024, 768))
    return path


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["segment", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_masks_here_and_on_a_server_are_the_same(discs: Path, image: Path) -> None:
    common = [str(image), "--model", "discs", "--point", "500,400", "--json"]
    code, here, _ = run(*common, "--store", str(discs), "--device", "cpu")
    assert code == 0
    settings = Settings(listen="127.0.0.1:0", store_root=discs, device="cpu", workers=2)
    with serving(settings) as address:
        code, there, _ = run(*common, "--server", address)
    assert code == 0
    left, right = json.loads(here), json.loads(there)
    assert left["masks"] == right["masks"]
    assert len(left["masks"]) == 3


def test_a_table_and_a_picture(discs: Path, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "mask.png"
    code, out, _ = run(
        *(str(image), "--model", "discs", "--box", "400,300,600,500"),
        *("--store", str(discs), "--device", "cpu", "--draw", str(target)),
    )
    assert code == 0
    assert "predicted IoU" in out
    with Image.open(target) as picture:
        assert picture.size == (1024, 768)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--point", "5"], "--point"),
        (["--point", "5,6,*"], "--point"),
        (["--box", "1,2,3"], "--box"),
        (["--box", "a,b,c,d"], "--box"),
    ],
)
def test_mistakes_are_named_and_end_with_2(image: Path, arguments: list[str], words: str) -> None:
    code, _, err = run(str(image), "--model", "discs", *arguments)
    assert code == 2
    assert words in err


def test_no_prompt_is_refused(discs: Path, image: Path) -> None:
    code, _, err = run(str(image), "--model", "discs", "--store", str(discs), "--device", "cpu")
    assert code == 1
    assert "prompt" in err
