"""A request's options against a model: names to indices, defaults, ranges."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

from prelabel_models.base import ModelInfo
from prelabel_models.errors import OptionError
from prelabel_models.types import DetectOptions
from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers.commands import DetectCommand

_MAX_OVERLAP = 0.9
_MAX_REQUEST_ID = 128
# A label or its new name; longer ones are mistakes, and answers repeat them per proposal.
_MAX_LABEL = 256


def resolve(command: DetectCommand, info: ModelInfo, max_proposals: int) -> DetectOptions:
    """The model's view of the options.

    Args:
        command: The request.
        info: The model.
        max_proposals: The server's limit.

    Raises:
        InvalidFieldError: Names the field, what was expected and what came.
    """
    check(command)
    index = {name: i for i, name in enumerate(info.labels)}
    _known("options.labels", command.labels, index)
    _known("options.label_min_scores", command.label_min_scores, index)
    _known("options.label_map", command.label_map, index)
    card = info.card
    nms_iou = card.nms_iou if command.nms_iou is None else command.nms_iou
    try:
        return DetectOptions(
            min_score=card.min_score if command.min_score is None else command.min_score,
            class_min_scores={index[k]: v for k, v in command.label_min_scores.items()},
            class_ids=frozenset(index[name] for name in command.labels) or None,
            nms_iou=None if command.nms_disabled else nms_iou,
            class_agnostic_nms=command.nms_class_agnostic,
            max_detections=min(command.max_proposals or max_proposals, max_proposals),
        )
    except OptionError as err:
        raise InvalidFieldError.from_option(err, "options.") from err


def check(command: DetectCommand) -> None:
    """What can be refused without knowing the model.

    Raises:
        InvalidFieldError: Names the field, what was expected and what came.
    """
    if len(command.request_id) > _MAX_REQUEST_ID:
        raise InvalidFieldError(
            "request_id",
            f"expected at most {_MAX_REQUEST_ID} characters, got {len(command.request_id)}",
        )
    for old, new in command.label_map.items():
        if not new or len(new) > _MAX_LABEL:
            raise InvalidFieldError(
                "options.label_map", f"expected 1 to {_MAX_LABEL} characters for {old[:40]!r}"
            )
    tolerance = command.polygon_tolerance_px
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise InvalidFieldError(
            "options.polygon_tolerance_px", f"expected a number >= 0, got {tolerance:g}"
        )
    tiling = command.tiling
    if tiling is not None and not 0 <= tiling.overlap <= _MAX_OVERLAP:
        raise InvalidFieldError(
            "options.tiling.overlap", f"expected a number in [0, 0.9], got {tiling.overlap:g}"
        )


def _known(field: str, names: Iterable[str], index: dict[str, int]) -> None:
    for name in names:
        if name not in index:
            near = difflib.get_close_matches(name[:_MAX_LABEL], index, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(index)} labels"
            raise InvalidFieldError(field, f"the model has no label {name[:80]!r}; {hint}")
