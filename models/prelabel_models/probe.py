"""Try a model in a guarded child process before anything else trusts it.

The graph is loaded and run once by `python -m prelabel_models.probe_child`, with an address-space
limit, a time limit, an empty working directory and a scrubbed environment. Whatever it does, loops
without end, takes all memory or crashes the runtime, the caller gets a report with a sentence.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from prelabel_models.cards import ModelCard, dump_card
from prelabel_models.errors import ModelsError, OptionError
from prelabel_models.files import open_regular
from prelabel_models.identify import Identification
from prelabel_models.weights import foreign_format

# Above what the interpreter, OpenCV and ONNX Runtime take before the graph is read, and above
# three times the file (its bytes, the parsed graph, ONNX Runtime's packed weights). Activations
# of every detector that was tried stay below 1 GiB.
DEFAULT_MEMORY_BYTES = 2 * 2**30
_HEAD_BYTES = 512
STAGE_MARK = "#"


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What came of trying a model.

    Attributes:
        ok: It loaded, ran on two images and gave finite numbers.
        problem: Why not, in a sentence; empty if `ok`.
        notes: What to look at even so, for example assumed labels.
        identification: What the graph is; None if it could not be read.
        card: A card to start from, with the file's digest; None without a family.
        labels: Class names in use.
        input_size: (width, height) in pixels.
        max_batch: Images per run.
        provider: ONNX Runtime's execution provider.
        detections: Objects at the card's threshold in a gray and in a noise image.
        load_ms: Making the session.
        run_ms: One image through all three steps, the second of two runs.
        peak_bytes: Resident memory of the child at most.
    """

    ok: bool
    problem: str = ""
    notes: tuple[str, ...] = ()
    identification: Identification | None = None
    card: ModelCard | None = None
    labels: tuple[str, ...] = ()
    input_size: tuple[int, int] = (0, 0)
    max_batch: int = 0
    provider: str = ""
    detections: tuple[int, int] = (0, 0)
    load_ms: float = 0.0
    run_ms: float = 0.0
    peak_bytes: int = 0

    @property
    def card_yaml(self) -> str:
        """The card as YAML; empty without one."""
        return "" if self.card is None else dump_card(self.card)


class ProbeRequest(msgspec.Struct, frozen=True):
    """What the child is told on its standard input."""

    card: ModelCard | None
    memory_bytes: int
    cpu_s: int


def probe(
    path: Path,
    card: ModelCard | None = None,
    timeout_s: float = 20.0,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> ProbeReport:
    """Load and run a model once in a child process.

    Args:
        path: The file. Its type is known by its content; nothing is ever unpickled.
        card: How to read the graph; None takes the best guess that loads. External data of the
            graph must be listed in it, by file name and digest, and lie beside the graph.
        timeout_s: Wall-clock limit in seconds, the child's start (about one second) included.
        memory_bytes: Address space for the graph, beyond the runtime's own and its weights.

    Returns:
        Always a report; a bad model is not an exception.

    Raises:
        OptionError: A limit is not positive.

    Example:
        >>> report = probe(Path("detector.onnx"))  # doctest: +SKIP
        >>> print(report.card_yaml if report.ok else report.problem)  # doctest: +SKIP
    """
    if not timeout_s > 0:
        raise OptionError("timeout_s", f"timeout_s: expected more than 0 seconds, got {timeout_s}")
    if memory_bytes < 1:
        raise OptionError("memory_bytes", f"memory_bytes: expected at least 1, got {memory_bytes}")
    try:
        with open_regular(path, "model") as file:
            foreign = foreign_format(file.read(_HEAD_BYTES))
    except ModelsError as err:
        return ProbeReport(ok=False, problem=str(err))
    if foreign:
        return ProbeReport(ok=False, problem=f"model: expected an ONNX graph, got {foreign}")
    request = ProbeRequest(card, memory_bytes, int(timeout_s) + 1)
    with tempfile.TemporaryDirectory(prefix="prelabel-probe-") as empty:
        code, output = _run_child(path.resolve(), request, timeout_s, Path(empty))
    stages = [line[1:] for line in output.splitlines() if line.startswith(STAGE_MARK)]
    stage = stages[-1] if stages else "starting"
    if code == 0:
        lines = [line for line in output.splitlines() if line.startswith("{")]
        try:
            return msgspec.json.decode(lines[-1], type=ProbeReport)
        except (IndexError, msgspec.MsgspecError):
            return ProbeReport(ok=False, problem="model: the trial run gave no readable report")
    return ProbeReport(ok=False, problem=_death(code, stage, timeout_s, memory_bytes))


def _run_child(
    path: Path, request: ProbeRequest, timeout_s: float, folder: Path
) -> tuple[int | None, str]:
    """Exit code (None after a timeout) and standard output."""
    environment = {
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PATH": os.defpath,
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        # Each arena of glibc reserves 64 MiB of address space, which the limit counts.
        "MALLOC_ARENA_MAX": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    # -P: the working directory is no place to import from. -B: nothing is written.
    command = [sys.executable, "-P", "-B", "-m", "prelabel_models.probe_child", str(path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as child:
        try:
            output, _ = child.communicate(msgspec.json.encode(request), timeout=timeout_s)
            code: int | None = child.returncode
        except subprocess.TimeoutExpired:
            child.kill()
            output, _ = child.communicate()
            code = None
    return code, output.decode("utf-8", "replace")


def _death(code: int | None, stage: str, timeout_s: float, memory_bytes: int) -> str:
    """A sentence for a child that gave no report."""
    if code is None or code == -signal.SIGXCPU:
        return (
            f"model: not finished after {timeout_s:g} s, while {stage}; the graph may loop without "
            "end, or need a longer limit"
        )
    if code == -signal.SIGKILL:
        return f"model: the system ended the trial while {stage}, most likely for lack of memory"
    if code == -signal.SIGABRT:
        return (
            f"model: the runtime aborted while {stage}, as it does when the limit of "
            f"{memory_bytes // 2**20} MiB is reached"
        )
    if code < 0:
        return f"model: the runtime crashed ({signal.Signals(-code).name}) while {stage}"
    return f"model: the trial ended with exit code {code} while {stage}"
