"""A server as a process of its own, as users start it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest


@contextmanager
def server_process(*arguments: str) -> Iterator[tuple[str, psutil.Process]]:
    """`prelabel serve` on a free port; yields its address and process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "prelabel_server", "serve", "--listen", "127.0.0.1:0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if "serving on" in line:
                break
        assert "serving on" in seen, seen
        yield seen.split()[-1], psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            code = process.wait(timeout=30)
        finally:
            process.kill()
            assert process.stderr is not None
            process.stderr.close()
    assert code == 0, f"the server ended with {code} after SIGTERM"


@pytest.fixture(scope="module")
def text_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    """A server with the embedded text model."""
    store = tmp_path_factory.mktemp("store")
    with server_process("--store", str(store), "--load", "rapidocr") as started:
        yield started
