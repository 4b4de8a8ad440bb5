"""What an ONNX file says about itself, weights aside: inputs, outputs, metadata, operators."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prelabel_models.errors import ModelUnusableError
from prelabel_models.session import TensorInfo

# Names of a thousand classes take about 30 kB; a longer text is not a list of names.
_MAX_METADATA_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """A graph from outside.

    Attributes:
        inputs: Inputs that a caller must fill; initialisers are not among them.
        outputs: In the graph's order. A shape of () stands for an undeclared one too.
        metadata: The file's own key-value pairs.
        producer: Name and version of the exporter; may be empty.
        operators: Operator types, with their domain before a `:` if it is not ONNX's own.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    producer: str
    operators: frozenset[str]

    @property
    def image(self) -> TensorInfo | None:
        """The first input of shape (batch, 3 or unknown, height, width); None without one."""
        for tensor in self.inputs:
            if len(tensor.shape) == 4 and tensor.shape[1] in (3, None):
                return tensor
        return None

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the image input in pixels; 0 where it varies or there is none."""
        if self.image is not None:
            return self.image.shape[3] or 0, self.image.shape[2] or 0
        first = self.inputs[0].shape if self.inputs else ()
        if len(first) == 4 and first[3] == 3:  # channels last, as TensorFlow's graphs have them
            return first[2] or 0, first[1] or 0
        return 0, 0

    def names(self) -> tuple[str, ...]:
        """Class names from the metadata (`names`, as Ultralytics writes it); empty without."""
        found = _parsed(self.metadata.get("names", ""))
        if isinstance(found, dict):
            by_number = {str(key): name for key, name in found.items()}
            found = [by_number.get(str(i)) for i in range(len(found))]
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            return ()
        return tuple(found)


def read_graph(path: Path) -> GraphFacts:
    """Read the outside of a graph; files that it refers to are not opened.

    Args:
        path: An `.onnx` file.

    Raises:
        ModelUnusableError: Not an ONNX graph, or cut short.
    """
    import onnx

    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except Exception as err:  # the protobuf parser's errors have no common base
        raise ModelUnusableError(
            "model: the file is not an ONNX graph, or it is damaged or cut short"
        ) from err
    if not model.graph.output:
        raise ModelUnusableError("model: the file holds no graph with an output; is it cut short?")
    known = {tensor.name for tensor in model.graph.initializer}
    return GraphFacts(
        inputs=tuple(_tensor(v) for v in model.graph.input if v.name not in known),
        outputs=tuple(_tensor(v) for v in model.graph.output),
        metadata={_text(p.key): _text(p.value) for p in model.metadata_props},
        producer=f"{_text(model.producer_name)} {_text(model.producer_version)}".strip(),
        operators=frozenset(
            _text(n.op_type)
            if n.domain in ("", "ai.onnx")
            else f"{_text(n.domain)}:{_text(n.op_type)}"
            for n in model.graph.node
        ),
    )


def _tensor(value: Any) -> TensorInfo:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
    known = kind.elem_type in onnx.TensorProto.DataType.values()
    name = onnx.TensorProto.DataType.Name(kind.elem_type).lower() if known else "unknown"
    return TensorInfo(_text(value.name), shape, f"tensor({name})")


def _text(value: str | bytes) -> str:
    """The protobuf parser hands out bytes where a text is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _parsed(text: str) -> Any:
    """A JSON or Python literal; None if it is neither."""
    if not text or len(text) > _MAX_METADATA_CHARS:
        return None
    for parse in (json.loads, ast.literal_eval):
        # The parsers give up on deep nesting with the last two.
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return parse(text)
    return None
