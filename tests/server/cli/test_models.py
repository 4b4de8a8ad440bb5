from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from models.graphs import save_constant_graph
from prelabel_models.files import hash_file
from prelabel_models.store import ModelStore
from prelabel_server.cli.models import app

YOLOX_CELLS = 8 * 8 + 4 * 4 + 2 * 2  # strides 8, 16, 32 of the 64x64 input of a test graph


class Cli:
    """Runs a command on a store of its own."""

    def __init__(self, root: Path) -> None:
        self.store = ModelStore(root)

    def __call__(self, *arguments: str | Path, code: int = 0) -> tuple[str, str]:
        environment = {"PRELABEL_STORE": str(self.store.root), "NO_COLOR": "1", "COLUMNS": "200"}
        result = CliRunner().invoke(app, [str(a) for a in arguments], env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout, result.stderr

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code)[0])


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path / "store")


@pytest.fixture
def yolox(tmp_path: Path) -> Path:
    output = np.full((1, YOLOX_CELLS, 5 + 3), 0.1, np.float32)
    return save_constant_graph(tmp_path / "m.onnx", {"output": output})


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card.yaml"
    path.write_text(
        "task: detect\nfamily: yolox\nlabels: [a, b, c]\nlicense: MIT\n", encoding="utf-8"
    )
    return path


def test_list_shows_the_store_and_the_catalogue(cli: Cli, yolox: Path, card: Path) -> None:
    cli("add", "mine", "--file", f"model={yolox}", "--card", card)

    out, _ = cli("list")
    states = {row["name"]: row["state"] for row in cli.json("list")}

    assert states["mine"] == "ready"
    assert states["yunet"] == "pull"
    assert states["nanodet-m"] == "add"
    assert all(name in out for name in states)
    assert "yunet" not in {row["name"] for row in cli.json("list", "--ready")}


def test_add_fills_the_digest_into_a_card_without_files(cli: Cli, yolox: Path, card: Path) -> None:
    added = cli.json("add", "mine", "--file", yolox, "--card", card)

    assert added["files"]["model"]["sha256"] == hash_file(yolox)[0]
    assert (added["name"], added["license"], added["labels"]) == ("mine", "MIT", ["a", "b", "c"])
    assert cli.store.open_files("mine")["model"].read_bytes() == yolox.read_bytes()


def test_add_refuses_a_file_that_the_card_does_not_mean(cli: Cli, yolox: Path, card: Path) -> None:
    card.write_text(card.read_text() + f"files: {{model: {{sha256: {'ab' * 32}}}}}\n")

    _, err = cli("add", "mine", "-f", yolox, "--card", card, code=1)

    assert "ab" * 32 in err
    assert hash_file(yolox)[0] in err


def test_add_without_a_card_tries_the_file_and_says_what_it_guessed(cli: Cli, yolox: Path) -> None:
    out, err = cli("add", "mine", "--file", f"model={yolox}")

    assert "yolox" in out
    assert "guessed" in err
    assert "license: not known" in err
    assert cli.json("info", "mine")["family"] == "yolox"


def test_add_refuses_a_file_that_no_family_fits(cli: Cli, tmp_path: Path) -> None:
    path = save_constant_graph(tmp_path / "odd.onnx", {"o": np.zeros((3, 3), np.float32)})

    out, err = cli("add", "mine", "--file", path, code=1)

    assert out == ""
    assert "--card" in err
    assert not any(row["name"] == "mine" for row in cli.json("list"))


def test_another_model_of_the_name_needs_replace(
    cli: Cli, yolox: Path, card: Path, tmp_path: Path
) -> None:
    other = save_constant_graph(
        tmp_path / "o.onnx", {"output": np.zeros((1, YOLOX_CELLS, 8), np.float32)}
    )
    cli("add", "mine", "--file", yolox, "--card", card)

    assert "--replace" in cli("add", "mine", "--file", other, "--card", card, code=1)[1]
    cli("add", "mine", "--file", other, "--card", card, "--replace")
    assert cli.store.open_files("mine")["model"].read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "../mine", "--file", "m.onnx"),
        ("add", "mine"),
        ("add", "mine", "--file", "model="),
        ("add", "mine", "--file", "=m.onnx"),
        ("add", "mine", "--file", "a.onnx", "--file", "b.onnx"),
        ("add", "mine", "--file", "a.onnx", "--card", "/nonexistent/card.yaml"),
        ("info",),
        ("info", "a/b"),
        (
            "remove",
            "..",
        ),
        ("verify", "x\ny"),
        ("check", "/nonexistent.onnx"),
        ("list", "--no-such-flag"),
        ("no-such-command",),
    ],
)
def test_wrong_usage_exits_2_and_prints_no_data(cli: Cli, arguments: tuple[str, ...]) -> None:
    out, err = cli(*arguments, code=2)

    assert out == ""
    assert err


def test_info_knows_the_catalogue_and_names_unknown_models(cli: Cli) -> None:
    entry = cli.json("info", "yolox-nano")
    assert (entry["origin"], entry["state"], entry["missing"]) == ("catalogue", "add", ["model"])
    assert len(entry["labels"]) == 80
    assert entry["files"]["model"]["sha256"] in cli("info", "yolox-nano")[0]

    out, err = cli("info", "no-such-model", code=1)
    assert out == ""
    assert "no-such-model" in err


def test_verify_exits_1_when_a_byte_changed(cli: Cli, yolox: Path, card: Path) -> None:
    cli("add", "mine", "--file", yolox, "--card", card)
    assert "ok" in cli("verify", "mine")[0]
    blob = cli.store.open_files("mine")["model"]
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1])

    out, err = cli("verify", code=1)
    assert "files.model: the file is damaged" in out
    assert "not usable" in err
    (report,) = cli.json("verify", "mine", code=1)
    assert report["ok"] is False


def test_remove_forgets_the_model(cli: Cli, yolox: Path, card: Path) -> None:
    cli("add", "mine", "--file", yolox, "--card", card)
    cli("remove", "mine")

    assert "mine" in cli("remove", "mine", code=1)[1]


def test_pull_from_a_folder_without_a_network(cli: Cli, tmp_path: Path, data_dir: Path) -> None:
    path = data_dir / "models" / "fastestdet" / "FastestDet.onnx"
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / hash_file(path)[0]).write_bytes(path.read_bytes())

    out, _ = cli("pull", "fastestdet", "--mirror", tmp_path / "stick")

    assert out.split()[:2] == ["fastestdet", "fastestdet"]
    assert cli.store.open_files("fastestdet")["model"].read_bytes() == path.read_bytes()


def test_pull_without_a_source_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    out, err = cli("pull", "nanodet-m", "--mirror", tmp_path, code=1)

    assert out == ""
    assert "not there" in err
    assert "prelabel models add" in err


def test_check_prints_a_card_that_add_takes(cli: Cli, yolox: Path, tmp_path: Path) -> None:
    out, err = cli("check", yolox)
    written = tmp_path / "drafted.yaml"
    written.write_text(out, encoding="utf-8")

    assert "runs: input 64x64" in err
    cli("add", "mine", "--file", yolox, "--card", written)
    assert cli.json("check", yolox)["ok"] is True


def test_check_says_why_a_card_does_not_fit(cli: Cli, yolox: Path, card: Path) -> None:
    assert cli.json("check", yolox, "--card", card)["ok"] is True
    card.write_text("task: detect\nfamily: yolox\nlabels: [a, b]\n", encoding="utf-8")

    _, err = cli("check", yolox, "--card", card, code=1)

    assert "labels" in err


def test_check_unpickles_nothing(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x80\x04\x95\x00")

    assert "pickle" in cli("check", path, code=1)[1]
