"""The one place that makes ONNX Runtime sessions.

Decisions, with their reasons:

* One intra-op thread per session and no spinning by default. A server with a worker per core gets
  more images per second from whole-image parallelism than from splitting one image, and spinning
  threads of one session steal the cores of the others (measured: 0.42 of the floor).
* A device that is asked for by name and cannot be had is an error, never a quiet CPU run.
* Initialisers that a graph lists as inputs are moved out of the inputs at load. ONNX Runtime must
  otherwise assume that a caller overrides them and cannot fold constants or fuse
  (NanoDet 1.15x, UltraFace 2x slower), and warns once for each.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import DeviceUnavailableError, MissingExtraError, ModelUnusableError

_ERROR_SEVERITY = 3  # ONNX Runtime: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session is to run.

    Attributes:
        device: `auto` (the best that works, logged), `cpu`, `cuda[:N]` or `tensorrt[:N]`.
        threads: Threads that share one run on the CPU.
        spinning: Idle threads busy-wait for work: faster for a lone caller, harmful for several.
    """

    device: str = "cpu"
    threads: int = 1
    spinning: bool = False


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of a graph; axes that vary have no number."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


def runtime() -> Any:
    """The `onnxruntime` module, imported on first use.

    Raises:
        MissingExtraError: Neither extra is installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError("running a model", "cpu")
    import onnxruntime

    return onnxruntime


def runtime_version() -> str:
    """ONNX Runtime's version; empty if it is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return ""
    return str(runtime().__version__)


def parse_device(device: str) -> tuple[str, int]:
    """Split `cuda:1` into (`cuda`, 1).

    Raises:
        DeviceUnavailableError: Not a device name.
    """
    kind, _, number = device.partition(":")
    known = kind in _PROVIDERS or kind == "auto"
    if not known or (number and not number.isdigit()) or (number and kind in ("cpu", "auto")):
        raise DeviceUnavailableError(
            f"device: expected auto, cpu, cuda[:N] or tensorrt[:N], got {device!r}"
        )
    return kind, int(number or 0)


class OnnxSession:
    """A graph ready to run. Thread-safe: ONNX Runtime allows concurrent runs of one session."""

    def __init__(self, session: Any, device: str, provider: str) -> None:
        self._session = session
        self._lock = threading.Lock()
        self.device = device
        self.provider = provider
        self.inputs = tuple(_tensor_info(i) for i in session.get_inputs())
        self.outputs = tuple(_tensor_info(o) for o in session.get_outputs())
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        self._output_names = [o.name for o in self.outputs]
        self._half_inputs = {i.name for i in self.inputs if i.dtype == "tensor(float16)"}

    @property
    def batchable(self) -> bool:
        """The first axis of every input and output varies."""
        tensors = (*self.inputs, *self.outputs)
        return all(t.shape and t.shape[0] is None for t in tensors)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once; outputs in the graph's order.

        Raises:
            ModelUnusableError: The graph refused these inputs or failed.
        """
        session = self._session
        if session is None:
            raise ModelUnusableError("model: the session is closed")
        try:
            typed = {name: self._as_declared(name, value) for name, value in feeds.items()}
            outputs: list[NDArray[Any]] = session.run(self._output_names, typed)
        except Exception as err:  # ONNX Runtime raises a dozen unrelated classes of its own
            raise ModelUnusableError(f"model: the run failed: {_first_line(err)}") from err
        return outputs

    def run_stacked(self, tensors: Sequence[NDArray[np.float32]]) -> list[tuple[NDArray[Any], ...]]:
        """Run one-input graphs on a batch and split the outputs by item."""
        batch = tensors[0][None] if len(tensors) == 1 else np.stack(tensors)
        outputs = self.run({self.inputs[0].name: batch})
        return [tuple(o[i] for o in outputs) for i in range(len(tensors))]

    def _as_declared(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        """float32 as float16 where the graph was exported in half precision."""
        half = value.dtype == np.float32 and name in self._half_inputs
        return value.astype(np.float16) if half else value

    def close(self) -> None:
        """Free the session's memory once no run is in flight."""
        with self._lock:
            self._session = None


def open_session(
    graph: Path | bytes,
    options: SessionOptions = SessionOptions(),
) -> OnnxSession:
    """Make a session for a graph.

    Args:
        graph: An `.onnx` file whose digest the caller has checked, or such a file's content.
        options: Device and threads.

    Raises:
        ModelUnusableError: Not a graph that ONNX Runtime can run.
        DeviceUnavailableError: The device was asked for by name and cannot be had.
        MissingExtraError: ONNX Runtime is not installed.
    """
    ort = runtime()
    kind, number = parse_device(options.device)
    if kind == "auto":
        kind = "cuda" if _PROVIDERS["cuda"] in ort.get_available_providers() else "cpu"
    providers = _provider_list(ort, kind, number)
    session = _create(ort, graph, providers, options)
    if isinstance(graph, Path) and session.get_overridable_initializers():
        from prelabel_models.repair import without_initializer_inputs

        repaired = without_initializer_inputs(graph)
        if repaired is not None:
            session = _create(ort, repaired, providers, options)
    active = session.get_providers()[0]
    if active != _PROVIDERS[kind]:
        raise DeviceUnavailableError(
            f"device: {options.device} was asked for, but ONNX Runtime fell back to {active}; "
            "is the CUDA version that onnxruntime-gpu expects installed?"
        )
    try:
        return OnnxSession(session, kind if kind == "cpu" else f"{kind}:{number}", active)
    except UnicodeDecodeError as err:
        raise ModelUnusableError("model: a name in the graph is not UTF-8") from err


def _provider_list(ort: Any, kind: str, number: int) -> list[Any]:
    if kind == "cpu":
        return [_PROVIDERS["cpu"]]
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    if _PROVIDERS[kind] not in ort.get_available_providers():
        have = ", ".join(ort.get_available_providers())
        raise DeviceUnavailableError(
            f"device: {kind} was asked for, but this ONNX Runtime offers only {have}; "
            "pip install 'prelabel[gpu]' in an environment without onnxruntime"
        )
    chosen: list[Any] = [(_PROVIDERS[kind], {"device_id": str(number)})]
    if kind == "tensorrt":  # takes the nodes that TensorRT cannot
        chosen.append((_PROVIDERS["cuda"], {"device_id": str(number)}))
    return [*chosen, _PROVIDERS["cpu"]]


def _create(ort: Any, model: Path | bytes, providers: list[Any], options: SessionOptions) -> Any:
    config = ort.SessionOptions()
    config.log_severity_level = _ERROR_SEVERITY
    config.intra_op_num_threads = options.threads
    config.inter_op_num_threads = 1
    spinning = "1" if options.spinning else "0"
    config.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    source = str(model) if isinstance(model, Path) else model
    try:
        return ort.InferenceSession(source, config, providers=providers)
    except Exception as err:  # ONNX Runtime raises a dozen unrelated classes of its own
        raise ModelUnusableError(f"model: ONNX Runtime cannot load it: {_first_line(err)}") from err


def _tensor_info(node: Any) -> TensorInfo:
    shape = tuple(axis if isinstance(axis, int) and axis > 0 else None for axis in node.shape)
    return TensorInfo(node.name, shape, str(node.type))


def _first_line(err: Exception) -> str:
    lines = str(err).strip().splitlines()
    return lines[0][:300] if lines else type(err).__name__
