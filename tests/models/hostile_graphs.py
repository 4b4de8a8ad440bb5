"""Graphs that try to take more than their share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.family_graphs import yolov8
from models.graphs import IR_VERSION, OPSET


def save_loop(path: Path, *, doublings: int | None) -> Path:
    """A YOLOv8 of three classes behind a loop.

    Args:
        path: The file to write.
        doublings: How often 16 numbers from the image are doubled; None loops without end.
    """
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            helper.make_node("Identity", ["x_in"], ["x_out"])
            if doublings is None
            else helper.make_node("Concat", ["x_in", "x_in"], ["x_out"], axis=0),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_in", TensorProto.FLOAT, [None]),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, [None]),
        ],
    )
    count = "" if doublings is None else "count"
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["all"]),
        helper.make_node("Slice", ["all", "zero", "sixteen"], ["start"]),
        helper.make_node("Loop", [count, "yes", "start"], ["end"], body=body),
        helper.make_node("Slice", ["end", "zero", "one"], ["some"]),
        helper.make_node("Mul", ["some", "nothing"], ["none"]),
        helper.make_node("Add", ["value", "none"], ["output0"]),
    ]
    value = yolov8()["output0"]
    graph = helper.make_graph(
        nodes,
        "loop",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, list(value.shape))],
        initializer=[
            numpy_helper.from_array(array, name)
            for name, array in {
                "flat": np.array([-1]),
                "zero": np.array([0]),
                "one": np.array([1]),
                "sixteen": np.array([16]),
                "count": np.array(doublings or 0),
                "yes": np.array(True),
                "nothing": np.array([0.0], np.float32),
                "value": np.ascontiguousarray(value),
            }.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    path.write_bytes(model.SerializeToString())
    return path


def point_outside(path: Path, location: str) -> None:
    """Make the first weight of a graph refer to another file."""
    model = onnx.load(str(path), load_external_data=False)
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
