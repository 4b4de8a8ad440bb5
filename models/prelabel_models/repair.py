"""Load-time repair of graphs, where a correct but careless export costs speed."""

from __future__ import annotations

from pathlib import Path

from prelabel_models.errors import ModelUnusableError


def without_initializer_inputs(path: Path) -> bytes | None:
    """The graph with every initialiser taken off the list of inputs, as serialised bytes.

    Such graphs come from old exporters (IR version 3). The values stay as they are, so the
    outputs do too.

    Args:
        path: An `.onnx` file.

    Returns:
        None if the graph keeps weights in other files: ONNX Runtime would look for those in the
        working directory once the graph no longer has a path.

    Raises:
        ModelUnusableError: Not an ONNX graph.
    """
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as err:  # protobuf's DecodeError and onnx's own are not related
        raise ModelUnusableError("model: not an ONNX file") from err
    graph = model.graph
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in graph.initializer):
        return None
    known = {t.name for t in graph.initializer}
    kept = [i for i in graph.input if i.name not in known]
    del graph.input[:]
    graph.input.extend(kept)
    # Before IR version 4 an initialiser had to be an input.
    model.ir_version = max(model.ir_version, 4)
    serialised: bytes = model.SerializeToString()
    return serialised
