from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prelabel_models import export
from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.export import ExportReport
from prelabel_models.export._proof import Proof
from prelabel_models.store import ModelStore
from prelabel_server.cli.root import app

run = CliRunner()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "sam.pth"
    path.write_bytes(b"weights")
    return path


def arguments(checkpoint: Path, *more: str) -> list[str]:
    out = str(checkpoint.parent / "out")
    return ["models", "export", "sam", "--checkpoint", str(checkpoint), "--out", out, *more]


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="the extra export is installed"
)
def test_without_the_extra_the_command_says_what_to_install(checkpoint: Path) -> None:
    result = run.invoke(app, arguments(checkpoint))

    assert result.exit_code == 1
    assert "pip install 'prelabel[export]'" in result.stderr


def test_an_unknown_type_is_refused(checkpoint: Path) -> None:
    result = run.invoke(app, arguments(checkpoint, "--type", "vit_x"))

    assert result.exit_code == 1
    assert "expected one of vit_b, vit_l, vit_h" in result.stderr


def test_what_was_exported_is_added_under_the_name_given(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def exported(path: Path, out: Path, model_type: Any, *, name: str, license: str) -> Any:  # noqa: A002
        asked.update(path=path, out=out, model_type=model_type, license=license)
        blank = FileRef(sha256="0" * 64)
        card = ModelCard(name=name, task="segment", family="sam", files={"encoder": blank})
        return ExportReport(card, {"encoder": out / "e"}, out / "card.yaml", "f" * 64, Proof(3, 9))

    added: list[str] = []
    monkeypatch.setattr(export, "export_sam", exported)
    monkeypatch.setattr(
        ModelStore, "add", lambda self, card, files, replace: added.append(card.name)
    )
    more = ("--type", "vit_b", "--add", "mine", "--license", "Apache-2.0", "--json")

    result = run.invoke(app, arguments(checkpoint, *more))

    assert result.exit_code == 0, result.stderr
    assert added == ["mine"]
    assert asked == {
        "path": checkpoint,
        "out": tmp_path / "out",
        "model_type": "vit_b",
        "license": "Apache-2.0",
    }
    answer = json.loads(result.stdout)
    assert answer["checkpoint_sha256"] == "f" * 64
    assert answer["masks_compared"] == 9
