"""PyTorch and Segment Anything, imported on demand."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

from prelabel_models.errors import MissingExtraError

_WHAT = "exporting a model"
_libraries: list[Any] = []


def torch_module() -> Any:
    """`torch`.

    Raises:
        MissingExtraError: It is not installed.
    """
    return _import("torch")


def segment_anything() -> Any:
    """`segment_anything`, with its predictor.

    Raises:
        MissingExtraError: It, or what it needs, is not installed.
    """
    torch = torch_module()
    _require("torchvision")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        # A torchvision of another build than torch's cannot register its operators, and then not
        # be imported. Segment Anything imports it and uses none of them here.
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _libraries.append(library)  # its operators go when it is collected
    return _import("segment_anything")


def _import(name: str) -> ModuleType:
    _require(name)
    return importlib.import_module(name)


def _require(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise MissingExtraError(_WHAT, "export")
