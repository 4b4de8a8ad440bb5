"""Text: PP-OCR graphs as the `rapidocr` wheel carries them, with a detection for each line.

Roles: `det` (differentiable binarisation: `(N, 3, H, W)` to a map of the same size), `rec`
(`(N, 3, 48, W)` to `(N, steps, 1 + characters + 1)` of probabilities; the characters stand in the
graph's metadata under `character`, one a line, and the last column is the space) and optionally
`cls` (`(N, 3, 48, 192)` to the probabilities of upright and upside down).

`infer` does everything that needs a graph, and the cutting between: how many strips there are is
known only once the detector has run. The score of a line is the detector's mean probability inside
it times the recogniser's mean probability of its characters; lines without a character are left
out. Images run one at a time, since each has its own input size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import ModelInfo, Prepared, RawOutput
from prelabel_models.cards import ModelCard
from prelabel_models.detectors._onnx import PixelHabit
from prelabel_models.detectors._text import (
    LEAST_STRIP_WIDTH,
    STRIP_HEIGHT,
    cut_strip,
    find_lines,
    read_characters,
    strip_tensor,
    strip_width,
)
from prelabel_models.errors import CardError, ModelUnusableError, NonFiniteOutputError
from prelabel_models.geometry import suppress
from prelabel_models.session import OnnxSession, SessionOptions, open_session
from prelabel_models.transforms import Transform
from prelabel_models.types import Detections, DetectOptions, RgbImage

_HABIT = PixelHabit(
    resize="stretch",
    color="bgr",
    pad_value=0,
    scale=1 / 255,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
_STRIDE = 32
# The shorter side is enlarged to 736, as the wheel does, so that small print is found; but never
# more than fourfold, beyond which letters of the least readable size are large enough anyway.
_SHORT_SIDE, _MOST_ENLARGEMENT = 736, 4.0
_LONG_SIDE = 2016  # the wheel's 2000, up to a multiple of the stride; bounds memory and time
# Thinner images get bars above and below or beside: a detector that sees no surroundings of a line
# does not find it.
_MOST_ASPECT = 8
# Strips in one run share the width of the widest. The common width bounds memory (the recogniser's
# answer alone is 7200 / 8 steps of 18,710 floats, 67 MB), the count bounds the padding.
_BATCH_STRIPS, _BATCH_WIDTH = 6, 7200
_TURNED_SIZE = (48, 192)
_TURNED_THRESHOLD = 0.9  # PaddleOCR's; a strip is turned only when the classifier is sure


class RapidOcrDetector:
    """Finds and reads lines of text. Thread-safe."""

    def __init__(
        self, card: ModelCard, det: OnnxSession, rec: OnnxSession, cls: OnnxSession | None
    ) -> None:
        self._det, self._rec, self._cls = det, rec, cls
        self._habit = _HABIT.with_card(card)
        _check_image_to(card, "det", det, 4, None)
        _check_image_to(card, "rec", rec, 3, STRIP_HEIGHT)
        if cls is not None:
            _check_image_to(card, "cls", cls, 2, None)
        self._characters = _characters(rec)
        names = card.label_names() or ("text",)
        if len(names) != 1:
            raise CardError(f"card: labels: expected one label for text, got {len(names)}")
        self._info = ModelInfo(
            card=card,
            digest=card.digest(),
            labels=names,
            device=det.device,
            provider=det.provider,
            gives_text=True,
            suppresses_in_graph=True,
        )

    @classmethod
    def from_files(
        cls, card: ModelCard, files: Mapping[str, Path], options: SessionOptions
    ) -> RapidOcrDetector:
        """Open the graphs.

        Args:
            card: The card.
            files: Roles `det`, `rec` and optionally `cls`.
            options: Device and threads.

        Raises:
            CardError: A role is missing.
            ModelUnusableError: A graph does not fit its role.
        """
        if not {"det", "rec"} <= set(files):
            raise CardError(
                f"card: files: expected the roles 'det' and 'rec', got {', '.join(files)}"
            )
        turned = open_session(files["cls"], options) if "cls" in files else None
        return cls(
            card, open_session(files["det"], options), open_session(files["rec"], options), turned
        )

    @property
    def info(self) -> ModelInfo:
        """See `base.Detector`."""
        return self._info

    def preprocess(self, image: RgbImage) -> Prepared:
        """See `base.Detector`; the image is kept, since strips are cut from it."""
        transform = fit((image.shape[1], image.shape[0]))
        canvas = transform.apply(image, pad_value=self._habit.pad_value)
        return Prepared(self._habit.tensor(canvas), transform, image)

    def infer(self, batch: Sequence[Prepared]) -> list[RawOutput]:
        """Find and read.

        Returns:
            For each item: corners (N, 4, 2) in pixels of the image, not clipped to it; the
            detector's scores (N,); texts (N,) of objects; the recogniser's scores (N,).
        """
        return [self._read(item) for item in batch]

    def postprocess(
        self, output: RawOutput, prepared: Prepared, options: DetectOptions
    ) -> Detections:
        """See `base.Detector`. Boxes enclose the outlines; no suppression is done."""
        corners, found_scores, texts, read_scores = output
        scores = (found_scores * read_scores).astype(np.float32)
        (least,) = options.thresholds(1)
        keep = np.array([bool(t) for t in texts], bool) & (scores >= least)
        size = np.asarray(prepared.transform.image_size, np.float32)
        outlines = np.clip(corners[keep], 0.0, size).astype(np.float32).reshape(-1, 4, 2)
        lines = Detections(
            boxes_xyxy=np.concatenate([outlines.min(axis=1), outlines.max(axis=1)], axis=1),
            scores=np.clip(scores[keep], 0.0, 1.0),
            class_ids=np.zeros(len(outlines), np.int64),
            outlines=outlines,
            texts=tuple(str(t) for t in texts[keep]),
        )
        # Two lines never name one object twice: regions of the map do not overlap.
        without_nms = DetectOptions(nms_iou=None, max_detections=options.max_detections)
        return suppress(lines, without_nms)

    def close(self) -> None:
        """See `base.Detector`."""
        for session in (self._det, self._rec, self._cls):
            if session is not None:
                session.close()

    def _read(self, item: Prepared) -> RawOutput:
        if item.image is None:
            raise ValueError("prepared: expected the image of a text reader, got none")
        (output,) = self._det.run_stacked([item.tensor])
        page = np.asarray(output[0], np.float32)
        if page.shape != (1, *item.tensor.shape[1:]):
            raise ModelUnusableError(
                f"model: det: expected a map of {(1, *item.tensor.shape[1:])}, the run gave "
                f"{page.shape}"
            )
        _finite("det", page)
        lines = find_lines(page[0])
        transform = item.transform
        corners = (lines.corners - np.asarray(transform.offset)) / np.asarray(transform.scale)
        strips = self._upright([cut_strip(item.image, c.astype(np.float32)) for c in corners])
        texts = np.empty(len(strips), object)
        scores = np.zeros(len(strips), np.float32)
        for rows, width in batches([strip_width(s) for s in strips]):
            tensor = strip_tensor([strips[i] for i in rows], STRIP_HEIGHT, width)
            read = self._run(self._rec, "rec", tensor)
            if read.shape[2] != len(self._characters) + 1:
                raise ModelUnusableError(
                    f"model: rec: expected {len(self._characters) + 1} columns for the characters "
                    f"of its metadata, the run gave {read.shape[2]}"
                )
            for row, steps in zip(rows, read, strict=True):
                texts[row], scores[row] = read_characters(steps, self._characters)
        return corners.astype(np.float32), lines.scores, texts, scores

    def _upright(self, strips: list[RgbImage]) -> list[RgbImage]:
        if self._cls is None:
            return strips
        turned: list[RgbImage] = []
        for start in range(0, len(strips), _BATCH_STRIPS):
            part = strips[start : start + _BATCH_STRIPS]
            scores = self._run(self._cls, "cls", strip_tensor(part, *_TURNED_SIZE))
            for strip, (_, upside_down) in zip(part, scores, strict=True):
                flip = upside_down > _TURNED_THRESHOLD
                turned.append(np.ascontiguousarray(strip[::-1, ::-1]) if flip else strip)
        return turned

    def _run(
        self, session: OnnxSession, role: str, tensor: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        output = np.asarray(session.run({session.inputs[0].name: tensor})[0], np.float32)
        if len(output) != len(tensor):
            raise ModelUnusableError(
                f"model: {role}: expected {len(tensor)} rows, the run gave {len(output)}"
            )
        _finite(role, output)
        return output


def fit(image_size: tuple[int, int]) -> Transform:
    """The way to the detector's input: enlarged or reduced, stretched to multiples of 32.

    Args:
        image_size: (width, height) in pixels, each >= 1.

    Example:
        >>> fit((640, 480)).input_size
        (992, 736)
    """
    scale = min(
        max(1.0, min(_MOST_ENLARGEMENT, _SHORT_SIDE / min(image_size))),
        _LONG_SIDE / max(image_size),
    )
    content = tuple(max(_STRIDE, round(side * scale / _STRIDE) * _STRIDE) for side in image_size)
    least = -(-max(content) // (_MOST_ASPECT * _STRIDE)) * _STRIDE
    whole = tuple(max(side, least) for side in content)
    return Transform(
        image_size=image_size,
        input_size=(whole[0], whole[1]),
        content_size=(content[0], content[1]),
        offset=((whole[0] - content[0]) // 2, (whole[1] - content[1]) // 2),
        scale=(content[0] / image_size[0], content[1] / image_size[1]),
    )


def batches(widths: Sequence[int]) -> list[tuple[list[int], int]]:
    """Strips of similar width together.

    Args:
        widths: Of each strip, in pixels at `STRIP_HEIGHT`.

    Returns:
        (indices, common width) of each run, narrowest first.

    Example:
        >>> batches([500, 100, 400])
        [([1, 2, 0], 500)]
    """
    out: list[tuple[list[int], int]] = []
    for row in sorted(range(len(widths)), key=lambda i: widths[i]):
        width = max(LEAST_STRIP_WIDTH, widths[row])
        fits = out and len(out[-1][0]) < _BATCH_STRIPS
        if fits and width * (len(out[-1][0]) + 1) <= _BATCH_WIDTH:
            out[-1] = ([*out[-1][0], row], width)
        else:
            out.append(([row], width))
    return out


def _characters(rec: OnnxSession) -> tuple[str, ...]:
    listed = rec.metadata.get("character", "")
    if not listed:
        raise ModelUnusableError(
            "model: rec: expected the characters in the graph's metadata under 'character', "
            "got none"
        )
    # Not `splitlines`, which also splits at separators that may be characters themselves.
    characters = (*listed.split("\n"), " ")
    columns = rec.outputs[0].shape[2]
    if columns not in (None, len(characters) + 1):
        raise ModelUnusableError(
            f"model: rec: expected {len(characters) + 1} columns for the characters of its "
            f"metadata, got {columns}"
        )
    return characters


def _check_image_to(
    card: ModelCard, role: str, session: OnnxSession, rank: int, height: int | None
) -> None:
    """One image input, and one output of `rank` axes."""
    inputs, outputs = session.inputs, session.outputs
    shape = inputs[0].shape
    image = len(inputs) == 1 and len(shape) == 4 and shape[1] in (3, None)
    if not image or (height is not None and shape[2] not in (None, height)):
        raise ModelUnusableError(
            f"model: {card.family}: {role}: expected one image input (batch, 3, "
            f"{height or 'height'}, width), got {[i.shape for i in inputs]}"
        )
    if len(outputs) != 1 or len(outputs[0].shape) != rank:
        raise ModelUnusableError(
            f"model: {card.family}: {role}: expected one output with {rank} axes, "
            f"got {[o.shape for o in outputs]}"
        )


def _finite(role: str, values: NDArray[np.float32]) -> None:
    if not np.isfinite(values).all():
        raise NonFiniteOutputError(f"model: {role}: a probability is NaN or infinite")
