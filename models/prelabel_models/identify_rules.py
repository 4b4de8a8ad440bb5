"""The rules behind `identify`: from a graph's facts to possible families.

Each rule looks at one arrangement of outputs and gives no, one or several finds. A family's own
`check_graph` has the last word; these rules only have to name the families worth trying.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from prelabel_models.cards import TaskName
from prelabel_models.detectors._decode import shapes
from prelabel_models.detectors.nms_graph import output_roles
from prelabel_models.detectors.query import finished_outputs, raw_outputs
from prelabel_models.detectors.yolo import cell_count
from prelabel_models.graph_facts import GraphFacts

# DETR and its descendants have 100 to 900 queries, and NMS exports keep at most 1000 rows; a grid
# of an input of 256 pixels and more has over 1300 cells.
_MOST_ROWS = 1000
_LOWEST_VOCABULARY = 30  # text recognisers have at least the letters of one alphabet
_SSD_HINTS = (("box",), ("score",), ("label", "class"))
_P6_STRIDES = (8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Find:
    """A family that fits.

    Attributes:
        family: Its name.
        confidence: In [0, 1].
        reason: Why, in words.
        classes: Number of classes; 0 if the graph does not tell.
        task: Of the family.
        role: Of the file in a card.
        labels: Names that the family itself fixes.
        assumed: Label set to start from where the family needs labels and nothing tells them.
    """

    family: str
    confidence: float
    reason: str
    classes: int = 0
    task: TaskName = "detect"
    role: str = "model"
    labels: tuple[str, ...] = ()
    assumed: str = ""


def one_row_output(facts: GraphFacts) -> list[Find]:
    """One output (batch, a, b) and perhaps raw maps of rank 5 behind it: the YOLO families."""
    if facts.image is None or len(facts.outputs[0].shape) != 3 or len(facts.inputs) != 1:
        return []
    rest = facts.outputs[1:]
    if any(len(o.shape) != 5 for o in rest):
        return []
    _, a, b = facts.outputs[0].shape
    cells, cells6 = _cells(facts), _cells(facts, _P6_STRIDES)
    found: list[Find] = []
    if b is not None and b > 5 and (a in (3 * cells, 3 * cells6) if cells and a else bool(rest)):
        reason = f"three boxes for each of {cells or 'the'} grid cells, 5 + {b - 5} numbers each"
        found.append(Find("yolov5", 0.95, reason, b - 5))
    if rest:
        return found
    if _is_recogniser(facts):
        reason = "rows of character scores for a strip of text"
        found.append(Find("rapidocr", 0.9, reason, role="rec", labels=("text",)))
        return found
    if b == 6 and (a is None or a <= _MOST_ROWS) and a != cells:
        reason = "rows of 6: corners, score and class, finished in the graph"
        found.append(Find("yolo-e2e", 0.9, reason, assumed="coco80"))
    found += _grid_rows(facts, a, b, cells)
    found += _joined_queries(facts, a, b, cells)
    return found


def _grid_rows(facts: GraphFacts, a: int | None, b: int | None, cells: int) -> list[Find]:
    found: list[Find] = []
    names = len(facts.names())
    ultralytics = _is_ultralytics(facts) or (names > 0 and b == 4 + names)
    if a is not None and a > 4 and b != 6 and (b == cells or b is None or b > a):
        # Heads with more or fewer strides have another number of cells.
        sure = 0.95 if b == cells else 0.6
        reason = f"4 + {a - 4} channels before the boxes"
        found.append(Find("yolov8", sure, reason, a - 4))
    if b is None or not cells or a not in (cells, None):
        return found
    if a is None and b == 6:
        return found
    fits = f"one row for each of {cells} grid cells" if a else "rows before channels"
    if b > 5:
        decoded = "Exp" in facts.operators
        name = "yolox-decoded" if decoded else "yolox"
        how = "sizes are exponentiated in the graph" if decoded else "raw offsets"
        # 84 channels are COCO's 80 classes and a box without objectness.
        sure = 0.3 if ultralytics or b == 84 or a is None else 0.9
        found.append(Find(name, sure, f"{fits}, 5 + {b - 5} numbers each, {how}", b - 5))
    if b > 4:
        sure = 0.9 if ultralytics or b == 84 else 0.35
        found.append(Find("yolov8", sure, f"{fits}, 4 + {b - 4} numbers each", b - 4))
    return found


def _joined_queries(facts: GraphFacts, a: int | None, b: int | None, cells: int) -> list[Find]:
    described = "detr" in facts.metadata.get("description", "").lower()
    few = a is not None and 50 <= a <= _MOST_ROWS and a not in (cells, 3 * cells) and b != 6
    if b is None or b <= 4 or not (described or few) or (a is not None and a > b and not few):
        return []
    reason = f"{a or 'some'} queries of a box and {b - 4} finished scores"
    return [Find("rtdetr", 0.96 if described else 0.6, reason, b - 4)]


def nanodet(facts: GraphFacts) -> list[Find]:
    """Class and distribution maps per stride, or NanoDet-Plus's joined rows."""
    stems = [re.fullmatch(r"(cls|dis)_pred_stride_\d+", o.name) for o in facts.outputs]
    if len(stems) >= 2 and all(stems):
        classes = next(o.shape[-1] for o in facts.outputs if o.name.startswith("cls"))
        reason = "class and distance maps for each stride"
        return [Find("nanodet", 0.98, reason, classes or 0)]
    width, height = facts.input_size
    if len(facts.outputs) == 1 and len(facts.outputs[0].shape) == 3 and width and height:
        _, a, b = facts.outputs[0].shape
        plus = sum(-(-width // s) * -(-height // s) for s in _P6_STRIDES)
        if a == plus and b is not None and b > 32:
            reason = f"{b - 32} classes and 4 x 8 distances for each of {a} cells"
            return [Find("nanodet", 0.8, reason, b - 32)]
    return []


def masks(facts: GraphFacts) -> list[Find]:
    """Rows with 32 mask weights, and prototypes."""
    if facts.image is None or len(facts.outputs) != 2:
        return []
    rows, prototypes = facts.outputs
    if len(rows.shape) != 3 or len(prototypes.shape) != 4 or prototypes.shape[1] not in (32, None):
        return []
    _, a, b = rows.shape
    cells = _cells(facts)
    channels = b if cells and a == cells and b != cells else a
    if (cells and a == 3 * cells) or b == 38 or channels is None or channels <= 36:
        return []
    reason = f"boxes, {channels - 36} classes and 32 mask weights, with mask prototypes"
    return [Find("yolov8-seg", 0.95, reason, channels - 36)]


def faces(facts: GraphFacts) -> list[Find]:
    """UltraFace and YuNet."""
    names = [o.name for o in facts.outputs]
    if len(names) == 12 and all(re.fullmatch(r"(cls|obj|bbox|kps)_\d+", n) for n in names):
        return [
            Find("yunet", 0.98, "face maps for three strides with key points", 1, labels=("face",))
        ]
    last = sorted(o.shape[-1] or 0 for o in facts.outputs if len(o.shape) == 3)
    rows = {o.shape[1] for o in facts.outputs if len(o.shape) == 3}
    if len(names) == 2 and last == [2, 4] and len(rows) == 1:
        named = any("score" in n or "conf" in n for n in names)
        sure = 0.95 if named else 0.4
        reason = "background and face scores and boxes for each prior"
        return [Find("ultraface", sure, reason, 1, labels=("face",))]
    return []


def finished(facts: GraphFacts) -> list[Find]:
    """Boxes, scores and classes that the graph has selected itself."""
    if facts.image is None and not any(len(i.shape) == 4 for i in facts.inputs):
        return []
    names = [o.name.lower() for o in facts.outputs]
    sizes = any(len(i.shape) == 2 for i in facts.inputs[1:])
    if finished_outputs(facts.outputs) is not None and sizes:
        reason = "labels, boxes and scores, scaled by a second input of sizes"
        return [
            Find("rtdetr", 0.8, reason, assumed="coco80"),
            Find("dfine", 0.75, f"{reason} (the same form)", assumed="coco80"),
        ]
    if any(n.startswith("detection_boxes") for n in names):
        # TensorFlow counts COCO's categories from 1.
        reason = "TensorFlow's names of boxes, classes and scores"
        return [Find("ssd", 0.9, reason, assumed="coco91")]
    roles = output_roles(names)
    rows = len(facts.outputs[roles["boxes"]].shape) if roles is not None else 0
    if rows == 3 and facts.image is not None:
        reason = "count, boxes, scores and classes, suppressed in the graph"
        return [Find("yolo-nms", 0.9, reason, assumed="coco80")]
    parts = [any(hint in n for n in names for hint in h) for h in _SSD_HINTS]
    if all(parts):
        reason = "boxes, scores and classes, decoded in the graph"
        return [Find("ssd", 0.7, reason, assumed="coco80")]
    if len(names) == 2 and {"boxes", "scores"} == set(names):
        classes = next((o.shape[-1] for o in facts.outputs if o.name.lower() == "scores"), 0) or 0
        return [Find("ssd", 0.5, "boxes and a score for each class", max(classes - 1, 0))]
    return []


def queries(facts: GraphFacts) -> list[Find]:
    """Logits and relative boxes: RF-DETR, RT-DETR, D-FINE, DETR."""
    found = raw_outputs(facts.outputs)
    if facts.image is None or found is None:
        return []
    logits, boxes = (facts.outputs[i] for i in found)
    rows, count = boxes.shape[1], logits.shape[2] or 0
    if rows is not None and rows > _MOST_ROWS:
        return []
    if {logits.name, boxes.name} == {"dets", "labels"}:
        reason = f"outputs dets and labels with {count or 'some'} logits"
        return [Find("rfdetr", 0.95, reason, count)]
    if len(facts.outputs) != 2:
        return []
    # 92 logits are COCO's 91 and "no object"; 100 queries are DETR's own number.
    softmax = count == 92 or rows == 100 or facts.inputs[0].name == "inputs"
    what = f"{rows or 'some'} queries of {count or 'some'} logits and a box"
    return [
        Find("detr", 0.85 if softmax else 0.3, f"{what}, read with softmax", max(count - 1, 0)),
        Find("rtdetr", 0.3 if softmax else 0.75, f"{what}, read with sigmoid", count),
        Find("rfdetr", 0.7 if count == 91 and not softmax else 0.2, what, count),
    ]


def maps(facts: GraphFacts) -> list[Find]:
    """One output of rank 4: FastestDet, or the text map of an OCR detector."""
    if facts.image is None or len(facts.outputs) != 1 or len(facts.outputs[0].shape) != 4:
        return []
    if segmenters(facts):  # SAM's embedding is a sixteenth of its input too
        return []
    _, channels, rows, columns = facts.outputs[0].shape
    width, height = facts.input_size
    if (
        channels is not None
        and channels > 5
        and rows
        and (rows, columns)
        == (
            height // 16,
            width // 16,
        )
    ):
        reason = f"one map at a sixteenth of the input with 5 + {channels - 5} channels"
        return [Find("fastestdet", 0.95, reason, channels - 5)]
    varying = facts.input_size == (0, 0)
    if channels == 1 and ((rows, columns) == (height or None, width or None)):
        return [
            Find(
                "rapidocr",
                0.6,
                "a map as large as the image, of where text is",
                role="det",
                labels=("text",),
            )
        ]
    if channels is None and varying and "Sigmoid" in facts.operators:
        return [
            Find(
                "rapidocr",
                0.5,
                "a map of a varying image, of where text may be",
                role="det",
                labels=("text",),
            )
        ]
    return []


def segmenters(facts: GraphFacts) -> list[Find]:
    """Segment Anything and its relatives, by the names that their exporters write."""
    inputs, outputs = {i.name for i in facts.inputs}, {o.name for o in facts.outputs}
    if {"batched_point_coords", "batched_point_labels"} <= inputs:
        if "batched_images" in inputs:
            reason = "takes image and points in one graph"
            return [_segmenter("efficientsam", "model", reason)]
        return [_segmenter("efficientsam", "decoder", "takes an embedding and batched points")]
    if "batched_images" in inputs:
        return [_segmenter("efficientsam", "encoder", "gives an embedding of batched images")]
    # Exporters end this name in `feats_0` or `features1`.
    if any(name.startswith("high_res_feat") for name in inputs) and "point_coords" in inputs:
        return [_segmenter("sam2", "decoder", "takes the embedding, finer features and points")]
    if {"image_embeddings", "point_coords", "point_labels"} <= inputs:
        return [_segmenter("sam", "decoder", "takes an image embedding and points")]
    if any(name.startswith("high_res_feat") for name in outputs):
        return [_segmenter("sam2", "encoder", "gives an embedding and two finer features")]
    shape = facts.outputs[0].shape
    if "image_embeddings" in outputs or (len(outputs) == 1 and shape[1:] == (256, 64, 64)):
        return [_segmenter("sam", "encoder", "gives an image embedding of 256x64x64")]
    return []


def text_direction(facts: GraphFacts) -> list[Find]:
    """The classifier between an OCR detector and its recogniser: upright or upside down."""
    image, first = facts.image, facts.outputs[0]
    if image is None or len(facts.outputs) != 1 or first.shape[1:] != (2,):
        return []
    width, height = facts.input_size
    if image.name != "x" or (width, height) not in ((0, 0), (0, 48), (192, 48), (160, 80)):
        return []
    reason = "two scores for a strip of text, upright or upside down"
    return [Find("rapidocr", 0.5, reason, role="cls", labels=("text",))]


def _segmenter(family: str, role: str, reason: str) -> Find:
    return Find(family, 0.95, reason, task="segment", role=role)


RULES: tuple[Callable[[GraphFacts], list[Find]], ...] = (
    one_row_output,
    nanodet,
    masks,
    faces,
    finished,
    queries,
    maps,
    segmenters,
    text_direction,
)


def describe_other(facts: GraphFacts) -> str:
    """What a graph is that no rule knows, in plain words."""
    task = facts.metadata.get("task", "")
    if task in ("pose", "obb"):
        what = {"pose": "key points of people", "obb": "rotated boxes"}[task]
        return f"not a family that is run here: a YOLO model for {what}, which its metadata says"
    problem = _input_problem(facts) if task != "classify" else ""
    if problem:
        return f"not a detector: {problem}"
    first = facts.outputs[0]
    if len(facts.outputs) == 1 and len(first.shape) == 2 and first.shape[1] not in (6, 7):
        count = first.shape[1] or "some"
        return (
            f"not a detector but a classifier (or an embedding model): for each image it gives one "
            f"row of {count} numbers, {shapes([first])}, and no boxes"
        )
    if len(first.shape) == 2 and first.shape[1] in (6, 7):
        return (
            f"a detector whose rows have no batch axis, {shapes(facts.outputs)}; export it with "
            "the boxes of each image apart, or without suppression in the graph"
        )
    if all(len(o.shape) == 5 for o in facts.outputs):
        return (
            f"raw YOLO maps of rank 5, {shapes(facts.outputs)}; export the model with its "
            "decoding (one output of rank 3)"
        )
    if len(facts.outputs) == 1 and len(first.shape) == 4:
        return (
            f"not a detector: it gives a map, {shapes([first])}, as semantic segmentation, depth "
            "and feature extractors do"
        )
    return f"no known family: {shapes(facts.inputs)} to {shapes(facts.outputs)}"


def _input_problem(facts: GraphFacts) -> str:
    if not facts.inputs:
        return "the graph takes no input"
    first = facts.inputs[0]
    if facts.image is not None:
        return ""
    if len(first.shape) != 4:
        return (
            f"its input {shapes([first])} has {len(first.shape)} axes, but a detector takes an "
            "image of four: (batch, 3, height, width)"
        )
    if first.shape[3] == 3:
        return (
            f"its input {shapes([first])} has the channels last, as TensorFlow writes it; expected "
            "(batch, 3, height, width)"
        )
    return (
        f"its input {shapes([first])} has {first.shape[1]} channels; expected "
        "(batch, 3, height, width)"
    )


def _cells(facts: GraphFacts, strides: tuple[int, ...] = (8, 16, 32)) -> int:
    """Grid cells for the input's size; 0 if that varies."""
    return cell_count(facts.input_size, strides) if all(facts.input_size) else 0


def _is_ultralytics(facts: GraphFacts) -> bool:
    return "stride" in facts.metadata or "ultralytics" in facts.metadata.get("author", "").lower()


def _is_recogniser(facts: GraphFacts) -> bool:
    width, height = facts.input_size
    classes = facts.outputs[0].shape[2] or 0
    strip = height in (32, 48) and not width and classes >= _LOWEST_VOCABULARY
    return strip or "character" in facts.metadata
