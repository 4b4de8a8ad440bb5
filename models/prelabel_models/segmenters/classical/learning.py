"""Fitting the small networks: Adam on minibatches of images, gradients by hand.

Used by `fit.py` only; nothing here runs in a server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from prelabel_models.segmenters.classical.network import Network, sigmoid

Array = NDArray[np.float32]
Gradient = Callable[[Array, Array, Array], Array]
"""From probabilities, targets and weights of one example to the loss's gradient in the logits."""

_CLIP = 8.0  # as in `Network.logits`
_BETA_1, _BETA_2 = 0.9, 0.99
_WARM_UP_STEPS = 50


@dataclass(frozen=True, slots=True)
class Example:
    """Rows that belong together: one image's pairs, or one image's superpixels after some clicks.

    Attributes:
        inputs: (rows, F), float16 to save memory.
        targets: (rows,) float32 in [0, 1].
        weights: (rows,) float32, summing to 1.
    """

    inputs: NDArray[np.floating]
    targets: Array
    weights: Array


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fit.

    Attributes:
        hidden: Units of each hidden layer.
        epochs: Passes over the examples.
        batch: Examples per step.
        rate: Highest learning rate; falls as a cosine.
        decay: Weight decay.
        dropout: Share of hidden units left out in each step.
    """

    hidden: tuple[int, ...]
    epochs: int
    batch: int = 24
    rate: float = 3e-3
    decay: float = 1e-4
    dropout: float = 0.1


def cross_entropy(p: Array, target: Array, weight: Array) -> Array:
    """Gradient of the weighted cross entropy."""
    return (p - target) * weight


def overlap(p: Array, target: Array, weight: Array) -> Array:
    """Gradient of 1 - soft IoU, plus half a cross entropy in units of the object's area."""
    shared = float((weight * p * target).sum())
    union = float((weight * (p + target - p * target)).sum()) + 1e-6
    slope = -(weight * target * union - shared * weight * (1 - target)) / union**2
    # 0.05 of the image: keeps the background of small objects from swamping the sum.
    area = float((weight * target).sum()) + 0.05
    gradient: Array = slope * p * (1 - p) + 0.5 * (p - target) * weight / area
    return gradient


def fit_network(
    examples: Sequence[Example], recipe: Recipe, gradient: Gradient, seed: int = 0
) -> Network:
    """Fit one network with one output.

    Args:
        examples: At least one.
        recipe: How.
        gradient: Of the loss; `cross_entropy` or `overlap`.
        seed: Same seed, same coefficients (on the same BLAS).
    """
    rng = np.random.default_rng(seed)
    picked = rng.choice(len(examples), min(200, len(examples)), replace=False)
    sample = np.concatenate([examples[i].inputs.astype(np.float32) for i in picked])
    mean, std = sample.mean(axis=0), sample.std(axis=0) + np.float32(1e-3)
    sizes = [sample.shape[1], *recipe.hidden, 1]
    weights = [
        (rng.standard_normal((a, b)) * np.sqrt(2 / a)).astype(np.float32)
        for a, b in pairwise(sizes)
    ]
    weights[-1] *= np.float32(0.3)  # start near 0.5, where both losses have a slope
    biases = [np.zeros(b, np.float32) for b in sizes[1:]]
    adam = _Adam([*weights, *biases], recipe, max(1, len(examples) // recipe.batch))
    for _ in range(recipe.epochs):
        order = rng.permutation(len(examples))
        for start in range(0, adam.steps_per_epoch * recipe.batch, recipe.batch):
            batch = [examples[i] for i in order[start : start + recipe.batch]]
            adam.step(_backward(batch, mean, std, weights, biases, gradient, recipe, rng))
    return Network(mean, std, tuple(weights), tuple(biases))


def _backward(
    batch: Sequence[Example],
    mean: Array,
    std: Array,
    weights: Sequence[Array],
    biases: Sequence[Array],
    gradient: Gradient,
    recipe: Recipe,
    rng: np.random.Generator,
) -> list[Array]:
    rows = np.concatenate([e.inputs for e in batch]).astype(np.float32)
    layers = [np.clip((rows - mean) / std, -_CLIP, _CLIP)]
    keep = np.float32(1 - recipe.dropout)
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = layers[-1] @ weight + bias
        if i < len(weights) - 1:
            x = np.maximum(x, 0) * (rng.random(x.shape, dtype=np.float32) < keep) / keep
        layers.append(x)
    p = sigmoid(layers[-1][:, 0])
    parts, start = [], 0
    for example in batch:
        end = start + len(example.targets)
        parts.append(gradient(p[start:end], example.targets, example.weights) / len(batch))
        start = end
    flow = np.concatenate(parts).astype(np.float32)[:, None]
    of_weights: list[Array] = []
    of_biases: list[Array] = []
    for i in range(len(weights) - 1, -1, -1):
        of_weights.insert(0, layers[i].T @ flow + np.float32(recipe.decay) * weights[i])
        of_biases.insert(0, flow.sum(axis=0))
        if i:
            flow = (flow @ weights[i].T) * (layers[i] > 0) / keep
    return [*of_weights, *of_biases]


class _Adam:
    """Adam (Kingma and Ba 2014) with warm-up and cosine decay; updates the arrays in place."""

    def __init__(self, arrays: Sequence[Array], recipe: Recipe, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._arrays = arrays
        self._first = [np.zeros_like(a) for a in arrays]
        self._second = [np.zeros_like(a) for a in arrays]
        self._rate = recipe.rate
        self._total = steps_per_epoch * recipe.epochs
        self._done = 0

    def step(self, gradients: Sequence[Array]) -> None:
        self._done += 1
        t = self._done
        rate = self._rate * 0.5 * (1 + np.cos(np.pi * t / self._total))
        rate *= min(1.0, t / _WARM_UP_STEPS)
        for array, grad, m, v in zip(
            self._arrays, gradients, self._first, self._second, strict=True
        ):
            m += (1 - _BETA_1) * (grad - m)
            v += (1 - _BETA_2) * (grad * grad - v)
            mean, square = m / (1 - _BETA_1**t), v / (1 - _BETA_2**t)
            array -= (rate * mean / (np.sqrt(square) + 1e-7)).astype(np.float32)
