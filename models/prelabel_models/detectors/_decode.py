"""Small numeric pieces that several families' decoders share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prelabel_models.cards import ModelCard
from prelabel_models.errors import CardError, ModelUnusableError, NonFiniteOutputError
from prelabel_models.session import TensorInfo


def cxcywh_to_xyxy(boxes_cxcywh: NDArray[np.floating]) -> NDArray[np.float32]:
    """Centre and size to corners; shape (N, 4) both ways, any unit."""
    boxes = np.asarray(boxes_cxcywh, np.float32)
    # What overflows here is refused where the box would be used.
    with np.errstate(over="ignore", invalid="ignore"):
        half = boxes[:, 2:] / 2
        return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), without overflow.

    Raises:
        NonFiniteOutputError: A logit is NaN or infinite; its sigmoid could look like a score.
    """
    scores = np.asarray(0.5 * (1 + np.tanh(finite_logits(logits) / 2)), np.float32)
    return scores


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """Over the last axis, without overflow.

    Raises:
        NonFiniteOutputError: A logit is NaN or infinite.
    """
    x = finite_logits(logits)
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def finite_logits(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    """The logits as float32.

    Raises:
        NonFiniteOutputError: One is NaN or infinite.
    """
    x = np.asarray(logits, np.float32)
    if not np.isfinite(x).all():
        raise NonFiniteOutputError("model: a logit is NaN or infinite")
    return x


def class_indices(raw: NDArray[Any]) -> NDArray[np.int64]:
    """Class numbers as int64, from graphs that write them as floats too.

    Raises:
        NonFiniteOutputError: One is NaN or infinite.
        ModelUnusableError: One is not a whole number.
    """
    if not np.issubdtype(raw.dtype, np.floating):
        return raw.astype(np.int64)
    if not np.isfinite(raw).all():
        raise NonFiniteOutputError("model: a class number is NaN or infinite")
    if (raw != np.rint(raw)).any():
        raise ModelUnusableError("model: expected whole numbers as classes, got fractions")
    return raw.astype(np.int64)


def labels_needed(card: ModelCard) -> int:
    """The number of classes, for graphs that do not tell it.

    Raises:
        CardError: The card has no labels.
    """
    count = len(card.label_names())
    if count == 0:
        raise CardError(
            f"card: labels: a {card.family} graph does not tell how many classes it has; "
            "expected a list of names or the name of a label set"
        )
    return count


def shapes(tensors: Sequence[TensorInfo]) -> str:
    """Names and shapes for an error's text, for example `output0 (?, 84, 8400)`."""
    return ", ".join(
        f"{t.name[:60]} ({', '.join('?' if axis is None else str(axis) for axis in t.shape)})"
        for t in tensors
    )
