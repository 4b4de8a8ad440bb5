"""Segmenter families: one module each, the same two steps inside (`embed`, `segment`).

`FAMILIES` is the only list of them: a new family is a module and a line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from prelabel_models.cards import ModelCard
from prelabel_models.errors import CardError
from prelabel_models.segmenters.base import Segmenter
from prelabel_models.session import SessionOptions

# Family name to `module:class`, imported on first use so that a server pays only for what it runs.
FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "classical": "prelabel_models.segmenters.classical:ClassicalSegmenter",
        "grabcut": "prelabel_models.segmenters.classical:GrabCutSegmenter",
        "sam": "prelabel_models.segmenters.sam:SamSegmenter",
        "sam2": "prelabel_models.segmenters.sam2:Sam2Segmenter",
        "efficientsam": "prelabel_models.segmenters.efficientsam:EfficientSamSegmenter",
    }
)

_DEFAULT_OPTIONS = SessionOptions()


def load_segmenter(
    card: ModelCard, files: Mapping[str, Path], options: SessionOptions = _DEFAULT_OPTIONS
) -> Segmenter:
    """Load a segmenter.

    Args:
        card: Its card.
        files: Role to path of a file whose digest has been checked.
        options: Device and threads.

    Raises:
        CardError: Unknown family, or a role is missing.
        ModelUnusableError: A graph does not fit the family.
        DeviceUnavailableError: The device cannot be had.
    """
    if card.family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CardError(f"card: family: expected one of {known}, got {card.family!r}")
    module, _, name = FAMILIES[card.family].partition(":")
    segmenter: Segmenter = getattr(importlib.import_module(module), name).from_files(
        card, files, options
    )
    return segmenter
