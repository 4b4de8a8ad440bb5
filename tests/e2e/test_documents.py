from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def snippets() -> list[tuple[str, str]]:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [
        (f"{path.name}-{i}", code)
        for path in files
        for i, code in enumerate(FENCE.findall(path.read_text()))
    ]


@pytest.mark.parametrize("code", [c for _, c in snippets()], ids=[n for n, _ in snippets()])
def test_python_in_the_documents_runs(
    code: str,
    text_server: tuple[str, psutil.Process],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = np.full((200, 500, 3), 255, np.uint8)
    cv2.putText(page, "INVOICE 1000", (30, 110), cv2.FONT_HERSHEY_SIMPLEX, 1.6, (0, 0, 0), 3)
    for name in ("page.png", "photo.jpg"):
        cv2.imwrite(str(tmp_path / name), page)
    monkeypatch.chdir(tmp_path)
    code = code.replace("127.0.0.1:50051", text_server[0])
    exec(compile(code, "<document>", "exec"), {"__name__": "snippet"})
    assert capsys.readouterr().out


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 200
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
