"""What a graph most likely is: ranked guesses of the family, each with its reason in words.

Only the graph is read; nothing runs. Where shapes fit several families, the names of inputs and
outputs, the metadata and the operators decide, and the confidence says how far.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prelabel_models.cards import TaskName
from prelabel_models.detectors._decode import shapes
from prelabel_models.graph_facts import GraphFacts, read_graph
from prelabel_models.identify_rules import RULES, Find, describe_other
from prelabel_models.labels import COCO80, COCO91
from prelabel_models.session import TensorInfo

_BY_COUNT = {len(COCO80): "coco80", len(COCO91): "coco91"}


@dataclass(frozen=True, slots=True)
class Guess:
    """One possible family.

    Attributes:
        family: A name of `detectors.FAMILIES`, or a segmenter's.
        task: `detect` or `segment`.
        role: The file's role in a card; other than `model` where a model has several graphs.
        labels: Names, or the name of a label set; empty if unknown.
        labels_from: `metadata`, `count` (a data set of as many classes), `family` or empty.
        confidence: In [0, 1]; 0.9 and more means that names and shapes agree.
        reason: Why, in words.
    """

    family: str
    task: TaskName
    role: str
    labels: tuple[str, ...] | str
    labels_from: str
    confidence: float
    reason: str


@dataclass(frozen=True, slots=True)
class Identification:
    """What a graph is.

    Attributes:
        guesses: Most likely first; empty if it is not a model that this package runs.
        summary: One sentence: the best guess, or what the graph is instead.
        input_size: (width, height) in pixels; 0 where it varies.
        inputs: Names, shapes and types.
        outputs: Likewise.
        metadata: The file's own key-value pairs.
        producer: The exporter.
    """

    guesses: tuple[Guess, ...]
    summary: str
    input_size: tuple[int, int]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    producer: str


def identify(path: Path) -> Identification:
    """Read a graph and say what it most likely is.

    Args:
        path: An `.onnx` file. Files that it refers to are not opened.

    Raises:
        ModelUnusableError: Not an ONNX graph.

    Example:
        >>> identify(Path("yolox_nano.onnx")).guesses[0].family  # doctest: +SKIP
        'yolox'
    """
    facts = read_graph(path)
    best: dict[tuple[str, str], Find] = {}
    for rule in _applicable(facts):
        for find in rule(facts):
            key = (find.family, find.role)
            if key not in best or best[key].confidence < find.confidence:
                best[key] = find
    ranked = sorted(best.values(), key=lambda f: -f.confidence)
    guesses = tuple(_guess(facts, find) for find in ranked)
    return Identification(
        guesses=guesses,
        summary=_summary(guesses) or describe_other(facts),
        input_size=facts.input_size,
        inputs=facts.inputs,
        outputs=facts.outputs,
        metadata=facts.metadata,
        producer=facts.producer,
    )


def tensors_in_words(found: Identification) -> str:
    """Inputs and outputs, for example `images (1, 3, 64, 64) -> output0 (1, 84, 8400)`."""
    return f"{shapes(found.inputs)} -> {shapes(found.outputs)}"


def _applicable(facts: GraphFacts) -> tuple[Callable[[GraphFacts], list[Find]], ...]:
    return () if facts.metadata.get("task") in ("pose", "obb", "classify") else RULES


def _guess(facts: GraphFacts, find: Find) -> Guess:
    labels, source = _labels(facts, find)
    reason = find.reason
    if source == "count" and not find.classes:
        reason += f"; the graph does not tell its classes, so {find.assumed} is assumed: check it"
    return Guess(
        family=find.family,
        task=find.task,
        role=find.role,
        labels=labels,
        labels_from=source,
        confidence=find.confidence,
        reason=reason,
    )


def _labels(facts: GraphFacts, find: Find) -> tuple[tuple[str, ...] | str, str]:
    if find.labels:
        return find.labels, "family"
    names = facts.names()
    # A fine-tuned RF-DETR has one logit more than names.
    counts = (0, len(names), len(names) + 1 if find.family == "rfdetr" else len(names))
    if names and len(set(names)) == len(names) and find.classes in counts:
        return ("coco80" if names == COCO80 else names), "metadata"
    if find.classes in _BY_COUNT:
        return _BY_COUNT[find.classes], "count"
    if find.assumed and not find.classes:
        return find.assumed, "count"
    return (), ""


def _summary(guesses: tuple[Guess, ...]) -> str:
    if not guesses:
        return ""
    first = guesses[0]
    role = "" if first.role == "model" else f" ({first.role})"
    others = [g.family for g in guesses[1:] if g.confidence >= 0.6 * first.confidence]
    doubt = f"; it could also be {' or '.join(others)}" if others else ""
    return f"{first.family}{role}: {first.reason}{doubt}"
