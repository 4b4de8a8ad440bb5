from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    "prelabel": "clients/python/prelabel",
    "prelabel_models": "models/prelabel_models",
    "prelabel_server": "server/prelabel_server",
}


def check_layers(folder: Path) -> subprocess.CompletedProcess[str]:
    """`lint-imports` over the packages in `folder` and nothing else."""
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(command), "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        shutil.copytree(
            ROOT / source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_packages_keep_their_layers(packages: Path) -> None:
    done = check_layers(packages)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("prelabel_models/geometry.py", "import prelabel_server.engine.scheduler"),
        ("prelabel_models/types.py", "import grpc"),
        ("prelabel_server/engine/scheduler.py", "import prelabel_server.handlers.handlers"),
        ("prelabel_server/handlers/handlers.py", "import prelabel_server.rpc.server"),
        ("prelabel/client.py", "import numpy"),
        ("prelabel/client.py", "import prelabel_models.cards"),
    ],
)
def test_a_violation_is_found(packages: Path, module: str, line: str) -> None:
    path = packages / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    done = check_layers(packages)
    assert done.returncode != 0
    assert "BROKEN" in done.stdout
