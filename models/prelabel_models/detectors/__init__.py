"""Detector families: one module each, the same three steps inside.

`FAMILIES` is the only list of them: a new family is a module and a line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prelabel_models.base import Detector
from prelabel_models.cards import ModelCard
from prelabel_models.errors import CardError
from prelabel_models.session import SessionOptions, open_session

# Family name to `module:class`, imported on first use so that a server pays only for what it runs.
FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "yolox": "prelabel_models.detectors.yolox:YoloxDetector",
        "yolox-decoded": "prelabel_models.detectors.yolox:YoloxDecodedDetector",
        "yolov5": "prelabel_models.detectors.yolo:Yolov5Detector",
        "yolov8": "prelabel_models.detectors.yolo:Yolov8Detector",
        "yolov8-seg": "prelabel_models.detectors.yolo_seg:Yolov8SegDetector",
        "yolo-e2e": "prelabel_models.detectors.yolo:YoloE2eDetector",
        "yolo-nms": "prelabel_models.detectors.nms_graph:YoloNmsDetector",
        "rtdetr": "prelabel_models.detectors.query:RtDetrDetector",
        "dfine": "prelabel_models.detectors.query:DfineDetector",
        "rfdetr": "prelabel_models.detectors.query:RfDetrDetector",
        "detr": "prelabel_models.detectors.query:DetrDetector",
        "fastestdet": "prelabel_models.detectors.fastestdet:FastestDetDetector",
        "nanodet": "prelabel_models.detectors.nanodet:NanodetDetector",
        "ultraface": "prelabel_models.detectors.ultraface:UltraFaceDetector",
        "yunet": "prelabel_models.detectors.yunet:YunetDetector",
        "ssd": "prelabel_models.detectors.ssd:SsdDetector",
        "rapidocr": "prelabel_models.detectors.rapidocr:RapidOcrDetector",
    }
)


def family_class(family: str) -> Any:
    """The class of a family.

    Raises:
        CardError: There is no such family.
    """
    if family not in FAMILIES:
        raise CardError(f"card: family: expected one of {', '.join(FAMILIES)}, got {family!r}")
    module, _, name = FAMILIES[family].partition(":")
    return getattr(importlib.import_module(module), name)


def load_detector(
    card: ModelCard,
    files: Mapping[str, Path],
    options: SessionOptions = SessionOptions(),  # noqa: B008 - frozen
) -> Detector:
    """Load a detector.

    Args:
        card: Its card.
        files: Role to path of a file whose digest has been checked.
        options: Device and threads.

    Raises:
        CardError: Unknown family, or a role is missing.
        ModelUnusableError: The graph does not fit the family.
        DeviceUnavailableError: The device cannot be had.
    """
    cls = family_class(card.family)
    if hasattr(cls, "from_files"):  # families of several graphs open them themselves
        detector: Detector = cls.from_files(card, files, options)
        return detector
    if "model" not in files:
        raise CardError(f"card: files: expected the role 'model', got {', '.join(files)}")
    single: Detector = cls(card, open_session(files["model"], options))
    return single
