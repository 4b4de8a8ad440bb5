"""A real server over a real store with a small graph whose right answer is known."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.graphs import save_constant_graph
from prelabel import AsyncClient
from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.store import ModelStore
from prelabel_server.app import running_server
from prelabel_server.config import Settings

# YOLOX with strides 8, 16, 32 on a 64x64 input: 64 + 16 + 4 cells.
CELLS = 84
LABELS = ("cat", "dog", "bird")


def known_output() -> np.ndarray:
    """Two objects in input pixels: a dog at .9 and, apart from it, a cat at .4."""
    rows = np.zeros((1, CELLS, 5 + len(LABELS)), np.float32)
    rows[0, 0] = [16, 16, 16, 8, 1, 0, 0.9, 0]  # centre x, centre y, width, height
    rows[0, 1] = [48, 40, 8, 16, 1, 0.4, 0, 0]
    return rows


def add_model(
    store: ModelStore, folder: Path, name: str, output: np.ndarray | None = None
) -> ModelCard:
    """Put a constant YOLOX graph into the store."""
    path = save_constant_graph(
        folder / f"{name}.onnx", {"output": known_output() if output is None else output}
    )
    data = path.read_bytes()
    card = ModelCard(
        name=name,
        task="detect",
        family="yolox-decoded",
        labels=LABELS,
        license="Apache-2.0",
        files={"model": FileRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))},
    )
    store.add(card, {"model": path})
    return card


def photo(width: int = 128, height: int = 96, seed: int = 0) -> bytes:
    """A JPEG that no cache has seen under another seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    ok, data = cv2.imencode(".jpg", pixels)
    assert ok
    return bytes(data)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    folder = tmp_path_factory.mktemp("store")
    made = ModelStore(folder / "root")
    add_model(made, folder, "constant")
    nan = known_output()
    nan[0, 0, 4] = np.nan
    add_model(made, folder, "nan", nan)
    return made


@pytest.fixture
def settings(store: ModelStore) -> Settings:
    return Settings(
        listen="127.0.0.1:0", store_root=store.root, device="cpu", workers=2, drain_s=5.0
    )


@pytest.fixture
async def address(settings: Settings) -> AsyncIterator[str]:
    async with running_server(settings) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
async def client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address, timeout_s=10) as made:
        yield made
