"""Fit the coefficients of the classical segmenter on COCO instance masks.

    python -m prelabel_models.segmenters.classical.fit instances.json images/ coefficients.npz

Clicks are simulated on every object (`evaluate_clicks.next_click`, with a trembling hand for some,
and boxes for a few). After each round the segmenter's own mistakes decide where the next clicks
fall, so that it learns from the states that it really gets into (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import ImageDamagedError, OptionError
from prelabel_models.evaluate_clicks import Click, next_click
from prelabel_models.masks import (
    CocoRle,
    Mask,
    Polygon,
    decode_rle,
    encode_rle,
    from_polygons,
    mask_iou,
)
from prelabel_models.segmenters.base import Prompts
from prelabel_models.segmenters.classical.features import click_features, context_features
from prelabel_models.segmenters.classical.graph import SuperpixelGraph, build_graph
from prelabel_models.segmenters.classical.learning import (
    Example,
    Recipe,
    cross_entropy,
    fit_network,
    overlap,
)
from prelabel_models.segmenters.classical.network import Network
from prelabel_models.segmenters.classical.prompting import read_prompts, shares_of_mask
from prelabel_models.segmenters.classical.segmenter import (
    INSIDE,
    Coefficients,
    paint,
    predict,
    quality_features,
    sketch,
)
from prelabel_models.types import RgbImage

_log = logging.getLogger(__name__)

Array = NDArray[np.float32]

# Smaller objects are a handful of superpixels, and teach only noise.
_MIN_AREA_PX = 1600
_EDGES = Recipe(hidden=(32,), epochs=20, batch=4, dropout=0.0)
_STAGES = (Recipe(hidden=(64,), epochs=4), Recipe(hidden=(64, 32), epochs=4))
_FINAL_STAGES = tuple(replace(recipe, epochs=7) for recipe in _STAGES)
_QUALITY = Recipe(hidden=(12,), epochs=60, batch=64, dropout=0.0)
_ROUNDS = 2
_HELD_OUT = 5  # every fifth image
_CLICKS = 6
# Share of simulated objects that start from a box, and of clicks that tremble.
_BOX_SHARE, _JITTER_SHARE = 0.12, 0.4
_JITTER_PX = 8.0


@dataclass(frozen=True, slots=True)
class _Object:
    image: int
    rle: CocoRle
    target: Array


@dataclass(frozen=True, slots=True)
class _State:
    """What the networks saw after some clicks, and how well the answer was."""

    owner: int
    inputs: NDArray[np.float16]
    quality: Array | None = None
    iou: float = 0.0


def read_masks(annotation_file: Path) -> dict[str, list[tuple[Mask, bool]]]:
    """Image file name to its masks, largest first; the flag marks crowds.

    Args:
        annotation_file: COCO instances, with polygons or run lengths.
    """
    content: dict[str, Any] = json.loads(annotation_file.read_text(encoding="utf-8"))
    images = {i["id"]: i for i in content["images"]}
    found: dict[str, list[tuple[Mask, bool]]] = {i["file_name"]: [] for i in images.values()}
    for annotation in sorted(content["annotations"], key=lambda a: -a["area"]):
        image = images[annotation["image_id"]]
        size = (image["width"], image["height"])
        mask = _mask_of(annotation["segmentation"], size)
        found[image["file_name"]].append((mask, bool(annotation.get("iscrowd"))))
    return found


def _mask_of(segmentation: Any, size: tuple[int, int]) -> Mask:
    if isinstance(segmentation, list):
        rings = [np.asarray(r, np.float32).reshape(-1, 2) for r in segmentation]
        return from_polygons([Polygon(r) for r in rings if len(r) >= 3], size)
    counts = segmentation["counts"]
    if isinstance(counts, str):
        return decode_rle(CocoRle(size[1], size[0], counts))
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(flat.reshape(size).T)


def _read_rgb(path: Path) -> RgbImage:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ImageDamagedError(f"image: cannot read {path.name}")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


class _Recorder:
    """Stands in for the edge network and keeps what it would have seen."""

    def __init__(self) -> None:
        self.seen = np.zeros((0, 0), np.float32)

    def probability(self, inputs: Array) -> Array:
        self.seen = inputs
        return np.full((len(inputs), 1), 0.1, np.float32)


def edge_example(image: NDArray[np.uint8], masks: Sequence[tuple[Mask, bool]]) -> Example:
    """Pairs of superpixels of one image; the target says that they belong to different objects."""
    recorder = _Recorder()
    graph = build_graph(image, recorder, diffusions=())
    height, width = graph.labels.shape
    owner = np.zeros((height, width), np.int64)
    for number, (mask, crowd) in enumerate(masks, start=2):
        part = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        owner[part > 0] = 1 if crowd else number  # the smaller object lies on top
    kinds = len(masks) + 2
    places = graph.labels.astype(np.int64) * kinds + owner
    counts = np.bincount(places.ravel(), minlength=len(graph.areas) * kinds).reshape(-1, kinds)
    major, purity = counts.argmax(axis=1), counts.max(axis=1) / np.maximum(counts.sum(axis=1), 1)
    a, b = graph.pairs[:, 0], graph.pairs[:, 1]
    use = (a < b) & (major[a] != 1) & (major[b] != 1)
    # What nobody annotated has outlines too: background counts half.
    weight = np.where((major[a] == 0) & (major[b] == 0), 0.5, 1.0) * purity[a] * purity[b]
    weight = weight[use] / max(float(weight[use].sum()), 1e-6)
    target = (major[a] != major[b])[use].astype(np.float32)
    return Example(recorder.seen[use].astype(np.float16), target, weight.astype(np.float32))


def simulate(
    graph: SuperpixelGraph,
    truth: Mask,
    stages: Sequence[Network],
    rng: np.random.Generator,
    *,
    clicks: int,
    varied: bool,
) -> Iterator[tuple[NDArray[np.float16], Array, float]]:
    """Click on one object, at the resolution of the superpixels.

    Args:
        graph: Of an image of which one pixel is one pixel of `truth`.
        truth: (h, w) bool.
        stages: The networks so far; none yields the first state only.
        rng: Of the hand and the boxes.
        clicks: At most.
        varied: Tremble, and start some from a box.

    Yields:
        Inputs of the first network, inputs of the quality network, and the answer's IoU.
    """
    done: list[Click] = []
    boxes = np.zeros((0, 4), np.float32)
    if varied and rng.random() < _BOX_SHARE:
        boxes = _drawn_box(truth, rng)[None]
    predicted, used = np.zeros_like(truth), np.zeros_like(truth)
    previous = None
    for step in range(clicks):
        if not (len(boxes) and step == 0):
            jitter = _JITTER_PX if varied and rng.random() < _JITTER_SHARE else 0.0
            click = next_click(predicted, truth, used, jitter_px=jitter, rng=rng)
            if click is None:
                return
            used[int(click[1]), int(click[0])] = True
            done.append(click)
        prompts = Prompts(
            points_xy=np.array([c[:2] for c in done], np.float32).reshape(-1, 2),
            point_labels=np.array([c[2] for c in done], bool),
            boxes_xyxy=boxes,
            low_res_logits=previous,
        )
        read = read_prompts(graph, prompts)
        if read is None:
            return
        evidence, marks = read
        first = click_features(graph, evidence).astype(np.float16)
        if not stages:
            yield first, np.zeros(0, np.float32), 0.0
            return
        inside = predict(graph, evidence, tuple(stages))
        logits = paint(graph, inside, INSIDE, marks)
        predicted, previous = logits > 0, sketch(graph, inside)
        quality = quality_features(graph, inside, INSIDE, logits, evidence)
        yield first, quality, mask_iou(predicted, truth)


def _drawn_box(truth: Mask, rng: np.random.Generator) -> Array:
    rows, columns = np.nonzero(truth)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)
    sides = np.tile(box[2:] - box[:2], 2)
    limit = np.tile([truth.shape[1], truth.shape[0]], 2)
    drawn: Array = np.clip(box + rng.uniform(-0.06, 0.06, 4) * sides, 0, limit).astype(np.float32)
    return drawn


class _Fitter:
    """Graphs, objects and the states that were gathered so far."""

    def __init__(self, images: Sequence[NDArray[np.uint8]], edge: Network) -> None:
        self.edge = edge
        self.graphs: list[SuperpixelGraph] = []
        self.objects: list[_Object] = []
        self.states: list[_State] = []
        for image in images:
            graph = build_graph(image, edge)
            self.graphs.append(replace(graph, scale=(1.0, 1.0)))

    def add_object(self, image: int, mask: Mask) -> None:
        graph = self.graphs[image]
        height, width = graph.labels.shape
        share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        reduced = share > 0.5
        if reduced.any():
            target = shares_of_mask(graph, reduced)
            self.objects.append(_Object(image, encode_rle(reduced), target))

    def split(self, keep: Callable[[int], bool]) -> tuple[_Fitter, _Fitter]:
        """Two fitters on the same graphs: objects of the images that `keep` names, and the rest."""
        parts = _Fitter([], self.edge), _Fitter([], self.edge)
        for part in parts:
            part.graphs = self.graphs
        for thing in self.objects:
            parts[0 if keep(thing.image) else 1].objects.append(thing)
        return parts

    def gather(self, stages: Sequence[Network], seed: int, *, varied: bool) -> None:
        for owner, thing in enumerate(self.objects):
            rng = np.random.default_rng((seed, owner))
            graph, truth = self.graphs[thing.image], decode_rle(thing.rle)
            for first, quality, iou in simulate(
                graph, truth, stages, rng, clicks=_CLICKS, varied=varied
            ):
                self.states.append(_State(owner, first, quality, iou))

    def _example(self, state: _State, inputs: NDArray[np.floating]) -> Example:
        thing = self.objects[state.owner]
        areas = self.graphs[thing.image].areas
        return Example(inputs, thing.target, areas / areas.sum())

    def fit_stages(self, recipes: Sequence[Recipe]) -> list[Network]:
        stages: list[Network] = []
        for number, recipe in enumerate(recipes):
            examples = [self._example(s, self._inputs(s, stages)) for s in self.states]
            stages.append(fit_network(examples, recipe, overlap, seed=number))
        return stages

    def _inputs(self, state: _State, stages: Sequence[Network]) -> NDArray[np.floating]:
        if not stages:
            return state.inputs
        graph = self.graphs[self.objects[state.owner].image]
        first = state.inputs.astype(np.float32)
        inside = stages[0].probability(first)[:, 0]
        return context_features(graph, first, inside).astype(np.float16)

    def fit_quality(self, stages: Sequence[Network]) -> Network:
        """From fresh states, so that the answers are those of the final networks."""
        self.states.clear()
        self.gather(stages, seed=999, varied=False)
        examples = [
            Example(s.quality[None], np.array([s.iou], np.float32), np.ones(1, np.float32))
            for s in self.states
            if s.quality is not None
        ]
        return fit_network(examples, _QUALITY, cross_entropy)


def fit(annotation_file: Path, image_folder: Path) -> Coefficients:
    """All of it; an hour and 4 GB for 300 images.

    Raises:
        ImageDamagedError: An image cannot be read.
        OptionError: There is nothing to learn from.
    """
    masks = read_masks(annotation_file)
    images = [_read_rgb(image_folder / name) for name in masks]
    pairs = [edge_example(i, m) for i, m in zip(images, masks.values(), strict=True)]
    edge = fit_network(pairs, _EDGES, cross_entropy)
    _log.info("outlines fitted on %d images", len(pairs))
    fitter = _Fitter(images, edge)
    for number, several in enumerate(masks.values()):
        for mask, crowd in several:
            if not crowd and np.count_nonzero(mask) >= _MIN_AREA_PX:
                fitter.add_object(number, mask)
    # A mask's quality must be learnt where the networks are as wrong as they are on new images.
    kept, held_out = fitter.split(lambda image: image % _HELD_OUT != 0)
    if not kept.objects or not held_out.objects:
        raise OptionError(
            "annotations",
            f"annotations: expected objects of at least {_MIN_AREA_PX} pixels in the first image "
            "and in others",
        )
    quality = held_out.fit_quality(_fit_rounds(kept))
    _log.info("quality fitted on %d objects", len(held_out.objects))
    return Coefficients(edge, tuple(_fit_rounds(fitter)), quality)


def _fit_rounds(fitter: _Fitter) -> list[Network]:
    for seed in range(3):
        fitter.gather((), seed, varied=seed > 0)
    stages = fitter.fit_stages(_STAGES)
    for number in range(_ROUNDS):
        fitter.gather(stages, 10 + number, varied=True)
        _log.info("round %d: %d states", number + 1, len(fitter.states))
        last = number == _ROUNDS - 1
        stages = fitter.fit_stages(_FINAL_STAGES if last else _STAGES)
    return stages


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fit the classical segmenter.")
    parser.add_argument("annotations", type=Path, help="COCO instances JSON")
    parser.add_argument("images", type=Path, help="folder of its images")
    parser.add_argument("out", type=Path, help="coefficients to write, .npz")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    fit(arguments.annotations, arguments.images).save(arguments.out)


if __name__ == "__main__":
    main()
