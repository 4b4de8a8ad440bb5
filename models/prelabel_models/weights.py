"""What may enter the store: ONNX graphs, and the external data files that a card lists.

Formats that run code when they are loaded (pickles and what contains them) and formats that ONNX
Runtime cannot load are refused by their content; the name of a file says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prelabel_models.errors import ModelUnusableError
from prelabel_models.files import SAFE_NAME, open_regular

# Roles of graphs look like `model` or `encoder`; any other is the file name of external data.
_GRAPH_ROLE = re.compile(r"[a-z_]{1,30}")
# A protobuf message, and with it an ONNX file, ends at 2 GiB; larger weights are external data.
MAX_GRAPH_BYTES = 2**31
_HEAD_BYTES = 512  # reaches the mark of a tar archive at byte 257


def check_weights(files: Mapping[str, Path]) -> frozenset[str]:
    """Refuse what is not an ONNX graph or external data that a graph names and `files` lists.

    External data is listed under a role that equals its location in the graph.

    Args:
        files: Role to path.

    Returns:
        The roles that are external data.

    Raises:
        ModelUnusableError: A file is refused; the text names the role and says what it is.
    """
    external: set[str] = set()
    # Graphs come before the files that they name.
    for role in sorted(files, key=lambda role: (is_data_role(role), role)):
        if role in external:
            continue
        with open_regular(files[role], role) as file:
            foreign = foreign_format(file.read(_HEAD_BYTES))
        if foreign:
            raise ModelUnusableError(f"files.{role}: expected an ONNX graph, got {foreign}")
        for location in sorted(_external_locations(files[role], role)):
            if location not in files:
                raise ModelUnusableError(
                    f"files.{role}: the graph keeps weights in the separate file "
                    f"{location[:120]!r}; list it in the card under a role of that name, or save "
                    "the model as one file (onnx.save without save_as_external_data)"
                )
            external.add(location)
    return frozenset(external)


def is_data_role(role: str) -> bool:
    """The role is a file name of external data, not a graph's role such as `encoder`."""
    return _GRAPH_ROLE.fullmatch(role) is None


def foreign_format(head: bytes) -> str:
    r"""What a file is that cannot be an ONNX graph, by its first 512 bytes; empty if it may be one.

    Example:
        >>> foreign_format(b"PK\x03\x04")
        'a zip archive (PyTorch, Keras or NumPy); export the model to ONNX'
    """
    export = "export the model to ONNX"
    if head[:1] == b"\x80" and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return f"a Python pickle, which can run code when it is loaded; {export}"
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 100_000_000:
        return f"a safetensors file; {export}"
    if head[4:8] == b"TFL3":
        return f"a TensorFlow Lite model; {export}"
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    for mark, what in (
        (b"PK\x03\x04", f"a zip archive (PyTorch, Keras or NumPy); {export}"),
        (b"PK\x05\x06", "an empty zip archive"),
        (b"\x89HDF\r\n\x1a\n", f"an HDF5 file (Keras); {export}"),
        (b"\x1f\x8b", "a gzip file; unpack it first"),
        (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
        (b"\x93NUMPY", f"a NumPy array; {export}"),
        (b"ORTM", "an ORT-format model; keep the .onnx that it was made from"),
        (
            b"version https://git-lfs",
            "a Git LFS pointer; fetch the file with `git lfs pull`",
        ),
        (b"<!", "a web page; the download went wrong"),
        (b"<h", "a web page; the download went wrong"),
    ):
        if head.startswith(mark):
            return what
    return "an empty file" if not head else ""


def _external_locations(path: Path, role: str) -> set[str]:
    """File names of external data that the graph refers to.

    Raises:
        ModelUnusableError: Not a graph, or a location that leaves the model's folder.
    """
    import onnx  # a second of import that only adding a model pays

    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise ModelUnusableError(f"files.{role}: expected at most 2 GiB, the limit of ONNX files")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except Exception as err:  # the protobuf parser's errors have no common base
        raise ModelUnusableError(
            f"files.{role}: expected an ONNX graph; the file is cut short, damaged or of another "
            "kind"
        ) from err
    if not model.opset_import or not model.graph.output:
        raise ModelUnusableError(f"files.{role}: expected an ONNX graph with an output")
    locations = set()
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                locations.add(entry.value)
    for location in locations:
        if SAFE_NAME.fullmatch(location) is None or not is_data_role(location):
            raise ModelUnusableError(
                f"files.{role}: the graph refers to the file {location[:120]!r}; expected external "
                "data beside the graph, with a plain file name such as 'weights.bin'"
            )
    return locations


def _tensors(message: Any) -> Iterator[Any]:
    """Every TensorProto below a message: initialisers, attributes, subgraphs, functions."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        repeated = hasattr(value, "__len__")
        for child in value if repeated else (value,):
            if field.message_type.name == "TensorProto":
                yield child
            else:
                yield from _tensors(child)
