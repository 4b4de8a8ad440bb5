"""What a superpixel looks like from the clicks: the inputs of the two networks.

The first network sees distances from the clicks in several geometries (Euclidean, shortest path
over likely outlines, lowest pass, diffusion) and likeness of appearance. The second also sees the
answer of the first, spread along the graph and turned into colour models and an ellipse
(auto-context, Tu and Bai 2010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel_models.segmenters.classical.graph import SuperpixelGraph, chi_square

Array = NDArray[np.float32]
Nodes = NDArray[np.int64]

# Stands in for the distance to a click of a kind that there is none of.
_FAR = np.float32(6.0)
# Lowest passes that count as leaving the object, from "any edge" to "a sure outline".
_PASSES = (0.1, 0.2, 0.35)
_EPS = np.float32(1e-3)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Prompts of one object, in superpixels.

    Attributes:
        positive: Superpixels that belong to the object.
        negative: Superpixels that do not.
        anchor: (x, y) in reduced pixels: the first positive click, or the middle of the box.
        clicks: Number of prompts so far, for the weight of `previous`.
        box: (x1, y1, x2, y2) in reduced pixels, or None.
        previous: (N,) share of each superpixel that the previous mask covers, or None.
    """

    positive: Nodes
    negative: Nodes
    anchor: tuple[float, float]
    clicks: int = 1
    box: tuple[float, float, float, float] | None = None
    previous: Array | None = None


def relax(graph: SuperpixelGraph, seeds: Nodes, cost: Array, *, lowest_pass: bool = False) -> Array:
    """Distance of every superpixel to the nearest seed (Bellman and Ford, all edges at once).

    Args:
        graph: The graph.
        seeds: Superpixels at distance 0.
        cost: (2E,) cost of each row of `graph.pairs`.
        lowest_pass: A path costs its dearest edge, not the sum.

    Returns:
        (N,) float32; `_FAR` everywhere without seeds.
    """
    distance = np.full(len(graph.areas), np.float32(1e6), np.float32)
    if len(seeds) == 0:
        return np.full_like(distance, _FAR)
    distance[seeds] = 0
    if len(graph.pairs) == 0:
        return distance
    source = graph.pairs[:, 0]
    for _ in range(len(distance)):
        reached = distance[source]
        through = np.maximum(reached, cost) if lowest_pass else reached + cost
        shorter = np.minimum(distance, np.minimum.reduceat(through, graph.starts))
        if np.array_equal(shorter, distance):
            break
        distance = shorter
    return distance


def click_features(graph: SuperpixelGraph, evidence: Evidence) -> Array:
    """Inputs of the first network, (N, F)."""
    count = len(graph.areas)
    height, width = graph.labels.shape
    side = np.float32(np.hypot(height, width))
    spacing = np.float32(np.sqrt(height * width / count))
    steps = graph.centres[graph.pairs[:, 0]] - graph.centres[graph.pairs[:, 1]]
    length = np.hypot(steps[:, 0], steps[:, 1]) / spacing
    cost = (-np.log1p(-np.minimum(graph.barrier, 0.999)) * 4 + 0.03 * length).astype(np.float32)
    near: list[Array] = []
    paths: list[Array] = []
    for seeds in (evidence.positive, evidence.negative):
        path = relax(graph, seeds, cost)
        low = relax(graph, seeds, graph.barrier, lowest_pass=True)
        near += [np.log(path + 0.1), low, *_nearness(graph, seeds, side)]
        near += _likeness(graph, seeds)
        paths += [path, low]
    order = np.argsort(paths[0], kind="stable")
    rank = np.empty(count, np.float32)
    rank[order] = np.cumsum(graph.areas[order]) / (height * width)
    versus = [
        np.log((paths[0] + 0.05) / (paths[2] + 0.05)),
        paths[1] - np.minimum(paths[3], 1),
        np.log(rank + _EPS),
    ]
    columns = [*near, *versus, *_place(graph, evidence, paths[1], side)]
    return np.concatenate([np.stack(columns, axis=1), graph.features], axis=1).astype(np.float32)


def context_features(graph: SuperpixelGraph, first: Array, inside: Array) -> Array:
    """Inputs of the second network, (N, F + G).

    Args:
        graph: The graph.
        first: (N, F), what the first network saw.
        inside: (N,) its answer: the probability that a superpixel belongs to the object.
    """
    height, width = graph.labels.shape
    mass = graph.areas * inside
    total = max(float(mass.sum()), 1.0)
    rest = graph.areas * (1 - inside)
    columns = [np.log(inside + _EPS) - np.log(1 - inside + _EPS)]
    for kernel in graph.kernels:
        columns.append((kernel @ mass) / (kernel @ graph.areas + _EPS))
    columns += list(_neighbour_views(graph, inside))
    inner = (mass @ graph.histograms / total).astype(np.float32)
    outer = rest @ graph.histograms / max(float(rest.sum()), 1.0)
    ratio = np.log(inner + 0.01) - np.log(outer + 0.01)
    columns += [graph.histograms @ ratio, chi_square(graph.histograms, inner)]
    mean = mass @ graph.centres / total
    offset = graph.centres - mean
    spread = (offset * mass[:, None]).T @ offset / total + np.eye(2) * 4
    columns.append(np.sqrt(np.einsum("ni,ij,nj->n", offset, np.linalg.inv(spread), offset)))
    size = np.full(len(inside), np.log(total / (height * width)))
    sharp = np.full(len(inside), float((mass * inside).sum()) / total)
    columns += [size, sharp]
    order = np.argsort(-inside, kind="stable")
    rank = np.empty(len(inside), np.float32)
    rank[order] = np.cumsum(graph.areas[order])
    columns.append(np.log(rank / total + _EPS))
    return np.concatenate([first, np.stack(columns, axis=1).astype(np.float32)], axis=1)


def _nearness(graph: SuperpixelGraph, seeds: Nodes, side: np.float32) -> list[Array]:
    count = len(graph.areas)
    if len(seeds) == 0:
        return [np.full(count, _FAR)] + [np.full(count, -_FAR)] * len(graph.kernels)
    steps = graph.centres[:, None, :] - graph.centres[None, seeds, :]
    euclidean = np.sqrt((steps * steps).sum(axis=2).min(axis=1)) / side
    diffusion = [np.log(k[:, seeds].max(axis=1) + 1e-6) for k in graph.kernels]
    return [np.log(euclidean + 0.01), *diffusion]


def _likeness(graph: SuperpixelGraph, seeds: Nodes) -> list[Array]:
    count = len(graph.areas)
    if len(seeds) == 0:
        return [np.full(count, np.float32(3.0))] * 4
    colour, texture = graph.features[:, 0:3], graph.features[:, 3:13]
    by_colour = np.abs(colour[:, None] - colour[None, seeds]).sum(axis=2).min(axis=1)
    by_texture = np.abs(texture[:, None] - texture[None, seeds]).sum(axis=2).min(axis=1)
    by_histogram = chi_square(graph.histograms[:, None], graph.histograms[None, seeds]).min(axis=1)
    weight = (graph.kernels[1][seeds] ** 2).sum(axis=0) * graph.areas
    around = weight @ graph.histograms / max(float(weight.sum()), 1e-6)
    by_region = chi_square(graph.histograms, around.astype(np.float32))
    return [by_colour, by_texture, by_histogram, by_region]


def _place(graph: SuperpixelGraph, evidence: Evidence, low: Array, side: np.float32) -> list[Array]:
    count = len(graph.areas)
    height, width = graph.labels.shape
    anchor = np.asarray(evidence.anchor, np.float32)
    step = np.abs(graph.centres - anchor) / side
    reach = np.hypot(step[:, 0], step[:, 1])
    columns: list[Array] = [step[:, 0], step[:, 1]]
    # A click in the middle of an object tells its half-width: the way to the nearest outline.
    for least in _PASSES:
        beyond = reach[low > least]
        radius = float(beyond.min()) if beyond.size else 1.0
        columns += [np.log((reach + 0.01) / (radius + 0.01)), np.full(count, np.log(radius + 0.01))]
    home = graph.labels[
        min(height - 1, max(0, int(anchor[1]))), min(width - 1, max(0, int(anchor[0])))
    ]
    # How far the click can diffuse: small in a tight region.
    columns += [
        np.full(count, np.log(k[home] @ graph.areas / (height * width))) for k in graph.kernels
    ]
    columns += [np.full(count, v) for v in graph.features[home]]
    edge = min(anchor[0], width - anchor[0], anchor[1], height - anchor[1]) / side
    columns += [
        np.full(count, np.float32(edge)),
        np.full(count, np.float32(min(evidence.clicks, 10))),
        np.full(count, np.float32(len(evidence.negative) > 0)),
    ]
    if evidence.box is None:
        columns += [np.zeros(count, np.float32)] * 4
    else:
        x1, y1, x2, y2 = evidence.box
        middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2], np.float32)
        half = np.maximum(np.array([x2 - x1, y2 - y1], np.float32) / 2, 2)
        relative = np.minimum(np.abs(graph.centres - middle) / half, 3)
        columns += [
            relative[:, 0],
            relative[:, 1],
            relative.max(axis=1),
            np.ones(count, np.float32),
        ]
    if evidence.previous is None:
        columns += [np.full(count, np.float32(0.5)), np.zeros(count, np.float32)]
    else:
        columns += [evidence.previous, np.ones(count, np.float32)]
    return columns


def _neighbour_views(graph: SuperpixelGraph, inside: Array) -> tuple[Array, Array, Array]:
    """Weighted mean, least and most of the neighbours' answers across open borders."""
    if len(graph.pairs) == 0:
        return inside, inside, inside
    open_border = 1 - graph.barrier
    seen = inside[graph.pairs[:, 0]]
    total = np.add.reduceat(open_border, graph.starts)
    weighted = np.add.reduceat(open_border * seen, graph.starts)
    mean = (weighted / (total + _EPS)).astype(np.float32)
    least = np.minimum.reduceat(seen + graph.barrier, graph.starts)
    most = np.maximum.reduceat(seen - graph.barrier, graph.starts)
    return mean, least, most
