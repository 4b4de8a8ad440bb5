"""Generate the Python stubs of the contract: the only way to do so.

Run it with the pinned generator of the dependency group `proto` (`make generate`). With `--check`
nothing is written and the exit status is 1 if the committed stubs differ from fresh ones.

The generator's version is a public constraint: generated code refuses any older protobuf or
grpcio at import, so the floors in pyproject.toml are these versions.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent
STUBS = PROTO_ROOT.parent / "clients" / "python" / "prelabel" / "v1"
INIT = '"""Generated from proto/prelabel/v1 by proto/generate.py: do not edit."""\n'


def generate(out: Path) -> None:
    """Write the package `prelabel/v1` below `out`."""
    protos = sorted(str(p) for p in (PROTO_ROOT / "prelabel" / "v1").glob("*.proto"))
    services = [p for p in protos if p.endswith("_service.proto")]
    include = Path(protoc.__file__).parent / "_proto"
    common = ["protoc", f"-I{PROTO_ROOT}", f"-I{include}"]
    messages = [*common, f"--python_out={out}", f"--pyi_out={out}", *protos]
    # Only services get a *_pb2_grpc module: for the other files it would be empty.
    stubs = [*common, f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *services]
    for arguments in (messages, stubs):
        if protoc.main(arguments) != 0:
            raise SystemExit(f"protoc failed: {' '.join(arguments)}")
    (out / "prelabel" / "v1" / "__init__.py").write_text(INIT, encoding="utf-8")


def drifted(fresh: Path, committed: Path) -> list[str]:
    """Names of the files that differ, or stand on one side alone."""
    names = {p.name for p in fresh.iterdir()} | {
        p.name for p in committed.iterdir() if p.suffix in {".py", ".pyi"}
    }
    _, mismatch, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return sorted([*mismatch, *missing])


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = Path(scratch) / "prelabel" / "v1"
        if check:
            names = drifted(fresh, STUBS)
            for name in names:
                print(f"{name}: differs from what proto/generate.py makes", file=sys.stderr)
            return 1 if names else 0
        shutil.rmtree(STUBS, ignore_errors=True)
        shutil.copytree(fresh, STUBS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
