from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from prelabel import Client, ConnectionFailed

for part in ("rapidocr", "skimage"):
    pytest.importorskip(part)


# 60 s is promised on an idle machine; tests run beside others.
_LIMIT_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "prelabel_server", "demo", "--out", "out"]
    # Set for a server of the user's own; the demo's must not take it.
    env = {**os.environ, "NO_COLOR": "1", "PRELABEL_LISTEN": "203.0.113.1:1"}
    return subprocess.run(
        command,
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )


def test_the_demo_says_what_it_found_and_what_to_try(
    done: subprocess.CompletedProcess[str],
) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for words in ("invoice.png", "IMAGE_DAMAGED", "Try next", "out/"):
        assert words in done.stdout


def test_the_demo_reads_an_invoice_and_a_label_that_lies_askew(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    results = json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))

    records = {Path(record["path"]).name: record for record in results}
    invoice = {p["text"] for p in records["invoice.png"]["proposals"]}
    label = {p["text"]: p for p in records["label-on-gravel.jpg"]["proposals"]}
    assert {"INVOICE", "169.80", "Bearing 6204-2RS"} <= invoice
    assert label["FRAGILE"]["rotated_box"]["angle_degrees"] == pytest.approx(-14, abs=4)
    assert records["astronaut.png"]["proposals"] == []


def test_the_demo_draws_every_picture(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    originals = sorted((folder / "out" / "originals").iterdir())

    assert len(originals) == 5
    for path in originals:
        assert cv2.imread(str(folder / "out" / f"{path.stem}.proposals.jpg")) is not None


def test_the_demo_leaves_no_server_behind(done: subprocess.CompletedProcess[str]) -> None:
    address = next(w for w in done.stdout.split() if w.startswith("127.0.0.1:")).rstrip(".")

    with Client(address, timeout_s=2) as client, pytest.raises(ConnectionFailed):
        client.server_info()
