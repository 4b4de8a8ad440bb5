"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: how long an example takes says more about the machine than about the code. On a
# build machine the examples are the same each time; elsewhere new ones are tried.
settings.register_profile("prelabel", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("prelabel")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of weights and images that are not part of the repository; skips where absent."""
    folder = Path(os.environ.get("PRELABEL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no test data: set PRELABEL_TEST_DATA to the folder that holds it")
    return folder
