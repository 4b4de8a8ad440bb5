"""Query heads (DETR and its descendants): a fixed set of rows, no suppression.

All stretch the image over the input and give boxes relative to it as (cx, cy, w, h), unless the
graph scales them itself. Rows are (query, class) pairs, and suppression is never run.

* `rtdetr`, `dfine`: RGB 0-1. Three forms: raw `logits (N, Q, C)` and `boxes (N, Q, 4)`, sigmoid
  scores (Hugging Face exports; each (query, class) pair counts); `labels (N, K)`,
  `boxes (N, K, 4)` as x1, y1, x2, y2, `scores (N, K)` with a second input `orig_target_sizes
  (N, 2)` of (width, height), which scales the boxes; one output `(N, Q, 4 + C)` of relative boxes
  and finished scores (Ultralytics).
* `rfdetr`: ImageNet mean and deviation; `dets (N, Q, 4)`, `labels (N, Q, C)` logits, sigmoid. A
  fine-tuned graph has one logit more than labels: the last is unused.
* `detr`: ImageNet mean and deviation; `pred_logits (N, Q, C + 1)`, softmax with "no object"
  last, `pred_boxes (N, Q, 4)`; each query is its best class. The reference keeps the aspect ratio
  (shorter side 800); a graph of fixed size is fed the stretched image.

Sources: lyuwenyu/RT-DETR `rtdetrv2_pytorch/tools/export_onnx.py` and `postprocessor.py`
(`boxes * orig_target_sizes.repeat(1, 2)`, hence width first); Peterande/D-FINE
`tools/inference/onnx_inf.py`; ultralytics/ultralytics `models/rtdetr`; roboflow/rf-detr
`deploy/export.py` (names, mean, deviation) and `models/lwdetr.py` (`PostProcess`);
facebookresearch/detr `models/detr.py` (`PostProcess`) and `test_all.py` (names).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import Prepared, RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._decode import (
    class_indices,
    cxcywh_to_xyxy,
    labels_needed,
    shapes,
    sigmoid,
    softmax,
)
from prelabel_models.detectors._onnx import Candidates, OnnxDetector, PixelHabit
from prelabel_models.errors import ModelUnusableError
from prelabel_models.session import TensorInfo

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


class QueryDetector(OnnxDetector):
    """What the query heads share: extra inputs, relative boxes, and outputs known by shape."""

    SUPPRESSES_IN_GRAPH: ClassVar[bool] = True

    def infer(self, batch: Sequence[Prepared]) -> list[RawOutput]:
        """See `base.Detector`; also feeds the sizes or the pixel mask that the graph asks for."""
        image, *others = self._session.inputs
        if not others:
            return super().infer(batch)
        feeds: dict[str, NDArray[Any]] = {image.name: np.stack([item.tensor for item in batch])}
        for tensor in others:
            feeds[tensor.name] = self._extra(tensor, len(batch))
        outputs = self._session.run(feeds)
        return [tuple(o[i] for o in outputs) for i in range(len(batch))]

    def check_inputs(self, card: ModelCard) -> None:
        """Inputs beside the image are ones that can be filled in.

        Raises:
            ModelUnusableError: There is another.
        """
        for tensor in self._session.inputs[1:]:
            sizes = len(tensor.shape) == 2 and tensor.shape[1] in (2, None)
            mask = len(tensor.shape) == 3 and "mask" in tensor.name
            if tensor.dtype not in _DTYPES or not (sizes or mask):
                raise ModelUnusableError(
                    f"model: {card.family} expects no input beside the image but target sizes "
                    f"(batch, 2) or a pixel mask (batch, height, width), got {shapes([tensor])}"
                )

    def relative_boxes(self, boxes_cxcywh: NDArray[Any]) -> NDArray[np.float32]:
        """Relative (cx, cy, w, h) to (x1, y1, x2, y2) in pixels of the input; (N, 4)."""
        size = np.array(self._input_size * 2, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            return cxcywh_to_xyxy(boxes_cxcywh) * size

    def logits_and_boxes(self, card: ModelCard, what: str) -> int:
        """Find the two raw outputs; the boxes are known by name, or by their length of 4.

        Args:
            card: For the error's text.
            what: The family's outputs in words.

        Returns:
            The number of logits; 0 if it varies.
        """
        outputs = self._session.outputs
        found = raw_outputs(outputs)
        if found is None:
            raise ModelUnusableError(f"model: {card.family} expects {what}, got {shapes(outputs)}")
        self._logits, self._boxes = found
        return outputs[self._logits].shape[2] or 0

    def _extra(self, tensor: TensorInfo, count: int) -> NDArray[Any]:
        dtype = _DTYPES[tensor.dtype]
        width, height = self._input_size
        if len(tensor.shape) == 2:
            # Asked for input pixels, so that the transform is undone in one place for all families.
            return np.tile(np.array([[width, height]], dtype), (count, 1))
        rows, columns = tensor.shape[1] or height, tensor.shape[2] or width
        return np.ones((count, rows, columns), dtype)


class RtDetrDetector(QueryDetector):
    """RT-DETR in its three exported forms."""

    HABIT: ClassVar[PixelHabit] = PixelHabit(resize="stretch", color="rgb", scale=1 / 255)

    def check_graph(self, card: ModelCard) -> int:
        """Decide which of the three forms the graph has."""
        self.check_inputs(card)
        outputs = self._session.outputs
        self._finished = finished_outputs(outputs)
        if self._finished is not None:
            if not any(len(t.shape) == 2 for t in self._session.inputs[1:]):
                raise ModelUnusableError(
                    f"model: {card.family} with labels, boxes and scores expects a second input "
                    "orig_target_sizes (batch, 2)"
                )
            return labels_needed(card)
        self._joined = len(outputs) == 1 and len(outputs[0].shape) == 3
        if self._joined:
            channels = outputs[0].shape[2]
            if channels is not None and channels < 5:
                raise ModelUnusableError(
                    f"model: {card.family} expects 4 + classes numbers per query, got {channels}"
                )
            return labels_needed(card) if channels is None else channels - 4
        return self.logits_and_boxes(
            card,
            "outputs labels, boxes and scores, or logits (batch, queries, classes) and boxes "
            "(batch, queries, 4)",
        ) or labels_needed(card)

    def decode(self, output: RawOutput) -> Candidates:
        """Any of the three forms to rows in input pixels."""
        if self._finished is not None:
            labels, boxes, scores = (output[i] for i in self._finished)
            return Candidates(
                np.asarray(boxes, np.float32),
                np.asarray(scores, np.float32),
                class_ids=class_indices(labels),
            )
        if self._joined:
            raw = np.asarray(output[0], np.float32)
            return Candidates(self.relative_boxes(raw[:, :4]), raw[:, 4:])
        return Candidates(self.relative_boxes(output[self._boxes]), sigmoid(output[self._logits]))


class DfineDetector(RtDetrDetector):
    """D-FINE and DEIM: RT-DETR's forms."""


class RfDetrDetector(QueryDetector):
    """RF-DETR."""

    HABIT: ClassVar[PixelHabit] = PixelHabit(
        resize="stretch",
        color="rgb",
        scale=1 / 255,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        default_size=(560, 560),
    )

    def check_graph(self, card: ModelCard) -> int:
        """Outputs `dets` and `labels`; a mask output behind them is not read."""
        self.check_inputs(card)
        logits = self.logits_and_boxes(
            card, "outputs dets (batch, queries, 4) and labels (batch, queries, classes)"
        ) or labels_needed(card)
        unused = len(card.label_names()) == logits - 1
        self._classes = logits - 1 if unused else logits
        return self._classes

    def decode(self, output: RawOutput) -> Candidates:
        """Sigmoid scores, relative boxes."""
        scores = sigmoid(output[self._logits])[:, : self._classes]
        return Candidates(self.relative_boxes(output[self._boxes]), scores)


class DetrDetector(QueryDetector):
    """DETR and Conditional forms with a softmax and a "no object" class."""

    HABIT: ClassVar[PixelHabit] = PixelHabit(
        resize="stretch",
        color="rgb",
        scale=1 / 255,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        default_size=(800, 800),
    )

    def check_graph(self, card: ModelCard) -> int:
        """Outputs `pred_logits` and `pred_boxes`."""
        self.check_inputs(card)
        logits = self.logits_and_boxes(
            card,
            "outputs pred_logits (batch, queries, classes + 1) and pred_boxes (batch, queries, 4)",
        )
        return logits - 1 if logits else labels_needed(card)

    def decode(self, output: RawOutput) -> Candidates:
        """Softmax without the last class; each query is its best class."""
        probabilities = softmax(output[self._logits])[:, :-1]
        class_ids = probabilities.argmax(axis=1)
        scores = np.take_along_axis(probabilities, class_ids[:, None], axis=1)[:, 0]
        boxes = self.relative_boxes(output[self._boxes])
        return Candidates(boxes, scores, class_ids=class_ids.astype(np.int64))


def raw_outputs(outputs: Sequence[TensorInfo]) -> tuple[int, int] | None:
    """Indices of (logits, boxes) among outputs of rank 3; None if the graph has no such pair.

    Outputs of rank 4, masks, are passed over.
    """
    rows = [i for i, o in enumerate(outputs) if len(o.shape) == 3]
    if len(rows) != 2 or any(len(o.shape) not in (3, 4) for o in outputs):
        return None
    named = [i for i in rows if "box" in outputs[i].name.lower() or outputs[i].name == "dets"]
    four = [i for i in rows if outputs[i].shape[2] == 4]
    for boxes in (named, four):
        if len(boxes) == 1 and outputs[boxes[0]].shape[2] in (4, None):
            other = rows[0] if rows[1] == boxes[0] else rows[1]
            return other, boxes[0]
    return None


def finished_outputs(outputs: Sequence[TensorInfo]) -> tuple[int, int, int] | None:
    """Indices of (labels, boxes, scores) of a graph that decodes itself; None otherwise."""
    names = {o.name.lower(): i for i, o in enumerate(outputs)}
    if set(names) != {"labels", "boxes", "scores"}:
        return None
    found = (names["labels"], names["boxes"], names["scores"])
    return found if [len(outputs[i].shape) for i in found] == [2, 3, 2] else None
