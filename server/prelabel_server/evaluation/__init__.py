"""How good a model is on annotated images."""

from prelabel_server.evaluation.annotations import (
    Annotations,
    LabelMatch,
    load_annotations,
    match_labels,
    parse_annotations,
    parse_label_map,
)
from prelabel_server.evaluation.metrics import (
    ClassResult,
    Curve,
    EvalReport,
    OperatingPoint,
    evaluate,
)

__all__ = [
    "Annotations",
    "ClassResult",
    "Curve",
    "EvalReport",
    "LabelMatch",
    "OperatingPoint",
    "evaluate",
    "load_annotations",
    "match_labels",
    "parse_annotations",
    "parse_label_map",
]
