"""Decoders as they are run: only what is read of them, and their inputs by role.

Exporters of point-prompted decoders end the graph by upscaling every mask to the size of the
image. That costs more than the rest of the graph on a large image, for three or four masks of
which one is used, so the graph is cut at its own resolution when it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import ModelUnusableError
from prelabel_models.session import OnnxSession, SessionOptions, TensorInfo, open_session

_DTYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


class Decoder:
    """A decoder's session, with its two outputs found.

    Args:
        session: Ready to run.
        known: Names of inputs that the family can feed.

    Raises:
        ModelUnusableError: An input is unknown, or an output cannot be found.
    """

    def __init__(self, session: OnnxSession, known: Iterable[str]) -> None:
        self.session = session
        self.inputs: Mapping[str, TensorInfo] = {i.name: i for i in session.inputs}
        unknown = sorted(set(self.inputs) - set(known))
        if unknown:
            raise ModelUnusableError(
                f"files.decoder: expected inputs among {', '.join(sorted(known))}, got also "
                f"{', '.join(unknown)}"
            )
        self._masks, self._ious = _find_outputs([o.name for o in session.outputs])

    @property
    def gives_low_res(self) -> bool:
        """The masks come at the decoder's own resolution, whatever size is asked for."""
        return "low_res" in self.session.outputs[self._masks].name

    def side(self, name: str) -> int | None:
        """Last axis of an input; None if it varies or there is no such input."""
        found = self.inputs.get(name)
        return found.shape[-1] if found is not None and found.shape else None

    def run(
        self, feeds: Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Masks (M, h, w) and predicted IoUs (M,); feeds that the graph lacks are left out.

        Raises:
            ModelUnusableError: The run failed, or gave other shapes.
        """
        typed = {
            name: np.asarray(value, _DTYPES.get(self.inputs[name].dtype, value.dtype))
            for name, value in feeds.items()
            if name in self.inputs
        }
        outputs = self.session.run(typed)
        masks, ious = outputs[self._masks], outputs[self._ious].reshape(-1)
        if masks.ndim < 3 or masks[..., 0, 0].size != len(ious):
            raise ModelUnusableError(
                f"files.decoder: expected as many masks as predicted IoUs, got masks "
                f"{masks.shape} and {len(ious)} numbers"
            )
        shaped = masks.reshape(-1, *masks.shape[-2:])
        return shaped.astype(np.float32, copy=False), ious.astype(np.float32, copy=False)


def open_decoder(path: Path, options: SessionOptions) -> OnnxSession:
    """A session for a decoder, cut at its own resolution where it has an output there.

    Args:
        path: An `.onnx` file whose digest the caller has checked.
        options: Device and threads.

    Raises:
        ModelUnusableError: Not a graph that ONNX Runtime can run.
        DeviceUnavailableError: The device cannot be had.
    """
    return open_session(cut_at_low_res(path) or path, options)


def cut_at_low_res(path: Path) -> bytes | None:
    """The graph with low-resolution masks and predicted IoUs as its only outputs, serialised.

    Returns:
        None if there is nothing to cut, or if the weights lie in other files, which ONNX Runtime
        could not find without a path.

    Raises:
        ModelUnusableError: Not an ONNX graph.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as err:  # protobuf's DecodeError and onnx's own are not related
        raise ModelUnusableError("files.decoder: not an ONNX file") from err
    graph = model.graph
    names = [o.name for o in graph.output]
    external = any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializer)
    if external or len(names) < 3 or not any("low_res" in name for name in names):
        return None
    masks, ious = _find_outputs(names)
    kept = [graph.output[i] for i in sorted((masks, ious))]
    read_before = set().union(*map(_names_read, graph.node))
    nodes, used = _needed(graph, {o.name for o in kept})
    gone = read_before - used  # an input that nothing ever read stays
    _replace(graph.output, kept)
    _replace(graph.node, nodes)
    known = {t.name for t in graph.initializer}
    _replace(graph.input, [i for i in graph.input if i.name not in gone | known])
    _replace(graph.initializer, [t for t in graph.initializer if t.name in used])
    # Before IR version 4 an initialiser had to be an input.
    model.ir_version = max(model.ir_version, 4)
    serialised: bytes = model.SerializeToString()
    return serialised


def _find_outputs(names: list[str]) -> tuple[int, int]:
    """Where masks and predicted IoUs are; the lowest resolution if there are several masks."""
    ious = [i for i, n in enumerate(names) if "iou" in n or n in ("scores", "score")]
    low = [i for i, n in enumerate(names) if "low_res" in n]
    masks = low or [i for i, n in enumerate(names) if "mask" in n and i not in ious]
    if not ious or not masks:
        raise ModelUnusableError(
            "files.decoder: expected outputs 'masks' or 'low_res_masks', and 'iou_predictions', "
            f"got {', '.join(names)}"
        )
    return masks[0], ious[0]


def _needed(graph: Any, wanted: set[str]) -> tuple[list[Any], set[str]]:
    """The nodes that `wanted` depends on, in order, and all names that those read."""
    used = set(wanted)
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(_names_read(node))
    return kept[::-1], used


def _names_read(node: Any) -> set[str]:
    """A node's inputs, and what the branches of conditions and loops read from around them."""
    names = set(node.input)
    for attribute in node.attribute:
        for branch in (attribute.g, *attribute.graphs):
            names.update(o.name for o in branch.output)
            for inner in branch.node:
                names |= _names_read(inner)
    return names


def _replace(field: Any, values: list[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)
