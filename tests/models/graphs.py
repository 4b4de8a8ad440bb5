"""Small ONNX graphs whose outputs are known: constants, whatever the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from prelabel_models.cards import FileRef, ModelCard, Preprocess

OPSET = 17
IR_VERSION = 10  # newer ones are refused by runtimes that the project still supports

Axis = int | str
"""A fixed length, or the name of one that varies."""


def save_constant_graph(
    path: Path,
    outputs: Mapping[str, NDArray[Any]],
    *,
    inputs: Mapping[str, Sequence[Axis]] | None = None,
    input_dtypes: Mapping[str, Any] | None = None,
    output_shapes: Mapping[str, Sequence[Axis]] | None = None,
    tile_batch: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a graph that answers `outputs` to any input.

    Args:
        path: The `.onnx` file to write.
        outputs: Name to value, batch axis included; the order is the graph's.
        inputs: Name to shape; one float32 `images` of (1, 3, 64, 64) if None.
        input_dtypes: Numpy types of inputs that are not float32.
        output_shapes: Declared shapes that differ from the values', for example with axes that
            vary.
        tile_batch: Repeat the values along a varying batch axis; the first input's first axis is
            then declared to vary, and the values must have a batch of 1.
        metadata: Custom metadata of the model.

    Returns:
        `path`.

    Example:
        >>> _ = save_constant_graph(tmp / "m.onnx", {"output": np.zeros((1, 84, 6), np.float32)})
    """
    shapes = {name: list(s) for name, s in (inputs or {"images": (1, 3, 64, 64)}).items()}
    declared = {name: list(value.shape) for name, value in outputs.items()}
    declared.update({name: list(shape) for name, shape in (output_shapes or {}).items()})
    first = next(iter(shapes))
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(v), f"{n}_value") for n, v in outputs.items()
    ]
    nodes: list[onnx.NodeProto] = []
    if tile_batch:
        shapes[first][0] = "batch"
        declared = {name: ["batch", *shape[1:]] for name, shape in declared.items()}
        nodes, extra = _tiling(first, outputs)
        constants += extra
    else:
        nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name in outputs]
    types = input_dtypes or {}
    graph = helper.make_graph(
        nodes,
        "constant",
        [_value(name, types.get(name, np.float32), shape) for name, shape in shapes.items()],
        [_value(name, value.dtype, declared[name]) for name, value in outputs.items()],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    for key, text in (metadata or {}).items():
        model.metadata_props.add(key=key, value=text)
    path.write_bytes(model.SerializeToString())
    return path


def make_card(
    family: str,
    *,
    roles: Sequence[str] = ("model",),
    labels: tuple[str, ...] | str = (),
    preprocess: Preprocess | None = None,
) -> ModelCard:
    """A card for a graph of a test; the digests are not checked."""
    return ModelCard(
        name="under-test",
        task="detect",
        family=family,
        labels=labels,
        preprocess=preprocess or Preprocess(),
        files={role: FileRef(sha256="0" * 64) for role in roles},
    )


def _tiling(
    first_input: str, outputs: Mapping[str, NDArray[Any]]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes = [
        helper.make_node("Shape", [first_input], ["_count"], start=0, end=1),
    ]
    constants = []
    for name, value in outputs.items():
        tail = np.ones(value.ndim - 1, np.int64)
        constants.append(numpy_helper.from_array(tail, f"{name}_tail"))
        nodes += [
            helper.make_node("Concat", ["_count", f"{name}_tail"], [f"{name}_times"], axis=0),
            helper.make_node("Tile", [f"{name}_value", f"{name}_times"], [name]),
        ]
    return nodes, constants


def _value(name: str, dtype: Any, shape: Sequence[Axis]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, list(shape))
