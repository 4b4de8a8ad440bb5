"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of weights and images that are not part of the repository; skips where absent."""
    folder = Path(os.environ.get("PRELABEL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no test data: set PRELABEL_TEST_DATA to the folder that holds it")
    return folder
