"""Build the wheel and try it as two strangers would: a light client, and a server with models.

Run by `make check-wheel`. Each environment is new, installs the wheel alone (with the extras named
here), and the light client talks over gRPC to the server in the other.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"prelabel", "prelabel_models", "prelabel_server"}

LIGHT = """
import sys
import prelabel
heavy = sorted({"numpy", "onnxruntime", "cv2", "PIL"} & set(sys.modules))
assert not heavy, f"import prelabel loads {heavy}"
with prelabel.Client(sys.argv[1]) as client:
    result = client.detect(sys.argv[2], model="rapidocr")
    texts = [p.text for p in result.proposals]
    assert any("invoice" in (t or "").lower() for t in texts), texts
    print("light client:", result.model.name, texts)
"""

PICTURE = """
import sys
import cv2, numpy
page = numpy.full((160, 480, 3), 255, numpy.uint8)
cv2.putText(page, "INVOICE 1000", (30, 95), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (0, 0, 0), 3)
cv2.imwrite(sys.argv[1], page)
"""


def main() -> int:
    """Entry point."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = _build(folder)
        _check_contents(wheel)
        light = _environment(folder / "light", str(wheel))
        server = _environment(folder / "server", f"{wheel}[cpu,ocr]")
        _check_command_line(light, server)
        _talk(light, server, folder)
    print("the wheel is fine")
    return 0


def _build(folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _check_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    if tops != PACKAGES:
        raise SystemExit(f"the wheel holds {sorted(tops)}, expected {sorted(PACKAGES)}")
    if not any(name.startswith("prelabel_models/catalogue/") for name in names):
        raise SystemExit("the wheel lacks the catalogue")


def _environment(path: Path, requirement: str) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
    python = path / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", requirement],
        check=True,
    )
    return python


def _check_command_line(light: Path, server: Path) -> None:
    command = light.with_name("prelabel")
    refused = subprocess.run([str(command), "--version"], capture_output=True, text=True)
    if refused.returncode != 2 or "pip install" not in refused.stderr:
        raise SystemExit("the light install's command line does not say what to install")
    shown = subprocess.run(
        [str(server.with_name("prelabel")), "--version"], capture_output=True, text=True, check=True
    )
    print(shown.stdout.strip())


def _talk(light: Path, server: Path, folder: Path) -> None:
    picture = folder / "page.png"
    subprocess.run([str(server), "-c", PICTURE, str(picture)], check=True)
    process = subprocess.Popen(
        [
            str(server.with_name("prelabel")),
            "serve",
            *("--listen", "127.0.0.1:0"),
            *("--store", str(folder / "store")),
            *("--load", "rapidocr"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stderr is None:
            raise SystemExit("the server has no stderr")
        address = ""
        for line in process.stderr:
            if "serving on" in line:
                address = line.split()[-1]
                break
        if not address:
            raise SystemExit("the server ended before it served")
        subprocess.run([str(light), "-c", LIGHT, address, str(picture)], check=True)
    finally:
        process.terminate()
        code = process.wait(timeout=60)
    if code != 0:
        raise SystemExit(f"the server ended with {code} after SIGTERM, expected 0")
    shutil.rmtree(folder / "store", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
