"""A small multilayer perceptron in numpy: three matrix products, no runtime needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Network:
    """Standardise, then affine layers with ReLU between them.

    Attributes:
        mean: (F,) subtracted from the inputs.
        std: (F,) that they are divided by.
        weights: Matrices (in, out).
        biases: Vectors (out,).
    """

    mean: Array
    std: Array
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    def logits(self, inputs: Array) -> Array:
        """(rows, F) to (rows, outputs)."""
        x: Array = np.clip((inputs - self.mean) / self.std, -8, 8)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if i < last:
                x = np.maximum(x, 0)
        return x

    def probability(self, inputs: Array) -> Array:
        """(rows, F) to (rows, outputs) in (0, 1)."""
        return sigmoid(self.logits(inputs))

    def to_arrays(self, name: str) -> dict[str, Array]:
        """Named arrays, for a file of several networks."""
        out = {f"{name}.mean": self.mean, f"{name}.std": self.std}
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out[f"{name}.w{i}"], out[f"{name}.b{i}"] = weight, bias
        return out

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, NDArray[np.floating]]) -> Network:
        """The inverse of `to_arrays`."""
        layers = sum(key.startswith(f"{name}.w") for key in arrays)
        return cls(
            mean=arrays[f"{name}.mean"].astype(np.float32),
            std=arrays[f"{name}.std"].astype(np.float32),
            weights=tuple(arrays[f"{name}.w{i}"].astype(np.float32) for i in range(layers)),
            biases=tuple(arrays[f"{name}.b{i}"].astype(np.float32) for i in range(layers)),
        )


def sigmoid(x: NDArray[np.floating] | float) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(x))), np.float32)
