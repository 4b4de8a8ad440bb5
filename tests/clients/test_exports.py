from __future__ import annotations

import subprocess
import sys

import prelabel


def test_everything_exported_exists_and_is_sorted() -> None:
    assert list(prelabel.__all__) == sorted(prelabel.__all__)
    for name in prelabel.__all__:
        assert hasattr(prelabel, name)


def test_nothing_public_is_left_out() -> None:
    public = {name for name in vars(prelabel) if name[0].isupper()}
    assert public <= set(prelabel.__all__)


def test_import_is_light() -> None:
    code = (
        "import sys, prelabel;"
        "print(sorted({'numpy', 'onnxruntime', 'cv2', 'PIL', 'msgspec', 'prelabel_server',"
        " 'prelabel_models', 'typer', 'google.rpc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
