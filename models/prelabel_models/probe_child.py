"""The guarded half of `probe`: `python -m prelabel_models.probe_child FILE`.

Reads a `ProbeRequest` from standard input, writes the stages it passes and a `ProbeReport` as JSON
to standard output. Not for direct use.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import cv2
import msgspec
import numpy as np

# Imported here, before the limits, so that those count what the graph takes and nothing else.
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
from numpy.typing import NDArray

from prelabel_models.base import Detector
from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.detectors import FAMILIES, load_detector
from prelabel_models.detectors._onnx import OnnxDetector
from prelabel_models.errors import ModelsError, ModelUnusableError
from prelabel_models.files import SAFE_NAME, hash_file
from prelabel_models.identify import Guess, Identification, identify
from prelabel_models.probe import STAGE_MARK, ProbeReport, ProbeRequest
from prelabel_models.types import DetectOptions, RgbImage
from prelabel_models.weights import check_weights

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_WEIGHT_COPIES = 3  # the file's bytes, the parsed graph, ONNX Runtime's packed weights
_MOST_TRIES = 3  # guesses beyond the third were never right on the graphs that were tried
_LONGEST_METADATA = 10_000
# What stands in allocation failures of ONNX Runtime, the C++ library, numpy and OpenCV.
_NO_MEMORY = re.compile(
    r"bad.?alloc|allocat\w+ (memory|requested)|insufficient memory|BFCArena|"
    r"unable to allocate|cannot allocate",
    re.IGNORECASE,
)
# Rows below this never matter to anybody, so what their boxes hold is not looked at.
_LEAST_SCORE = 0.01


def main() -> int:
    """Examine the file named by the first argument; always 0 if a report was written."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the runtime's own prints must not mix with the report
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ProbeRequest)
    path = Path(sys.argv[1])
    trial = Trial(path, request.card, lambda stage: _say(channel, f"{STAGE_MARK}{stage}"))
    _limit(request, path.stat().st_size)
    try:
        report = trial.report()
    except MemoryError:
        report = trial.failed(_memory_sentence(request))
    except Exception as err:  # whatever a library raises over a bad graph becomes a sentence
        known = isinstance(err, ModelsError)
        text = str(err) if known else f"model: an unexpected {type(err).__name__}"
        if _NO_MEMORY.search(str(err)):
            text = _memory_sentence(request)
        # ONNX Runtime writes the file's path into its messages.
        report = trial.failed(text.replace(str(path), path.name))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    _say(channel, msgspec.json.encode(replace(report, peak_bytes=peak)).decode())
    return 0


class Trial:
    """One examination; keeps what is known so far, so that a failure can still report it."""

    def __init__(self, path: Path, card: ModelCard | None, stage: Callable[[str], None]) -> None:
        self._path = path
        self._given = card
        self._stage = stage
        self._found: Identification | None = None
        self._card: ModelCard | None = card
        self._notes: list[str] = []

    def failed(self, problem: str) -> ProbeReport:
        """The report of a failure."""
        return ProbeReport(
            ok=False,
            problem=problem,
            notes=tuple(self._notes),
            identification=_short(self._found),
            card=self._card,
        )

    def report(self) -> ProbeReport:
        """Check, identify, load and run.

        Raises:
            ModelsError: At the first thing that is wrong.
        """
        self._stage("checking the file")
        digest, size = hash_file(self._path)
        self._check_files(digest)
        self._stage("reading the graph")
        found = self._found = identify(self._path)
        cards = self._cards(found, FileRef(sha256=digest, size=size))
        self._stage("loading the graph")
        begin = time.perf_counter()
        detector = self._load(cards)
        load_ms = (time.perf_counter() - begin) * 1000
        self._stage("running the graph")
        detections, run_ms = self._try_images(detector)
        info = detector.info
        return ProbeReport(
            ok=True,
            notes=tuple(self._notes),
            identification=_short(found),
            card=self._card,
            labels=info.labels,
            input_size=info.input_size,
            max_batch=info.max_batch,
            provider=info.provider,
            detections=detections,
            load_ms=load_ms,
            run_ms=run_ms,
        )

    def _check_files(self, digest: str) -> None:
        """Only the graph and the data files that the card lists, each with its digest."""
        files = {"model": self._path}
        listed = dict(self._given.files) if self._given is not None else {}
        model = listed.pop("model", None)
        if model is not None and model.sha256 != digest:
            self._notes.append(
                f"the card names another file: sha256 {model.sha256[:12]}, this one has "
                f"{digest[:12]}"
            )
        for role in listed:
            if SAFE_NAME.fullmatch(role) and (self._path.parent / role).exists():
                files[role] = self._path.parent / role
        for role in check_weights(files):
            actual, _ = hash_file(files[role], role, follow=False)
            if actual != listed[role].sha256:
                raise ModelUnusableError(f"files.{role}: the content is not what the card says")

    def _cards(self, found: Identification, file: FileRef) -> list[ModelCard]:
        if self._given is not None:
            given = {**self._given.files, "model": file}
            return [msgspec.structs.replace(self._given, files=given)]
        if not found.guesses:
            raise ModelUnusableError(f"model: {found.summary}")
        parts = [g for g in found.guesses if g.role != "model" or g.family not in FAMILIES]
        if parts and parts[0] is found.guesses[0]:
            self._card = None
            what = "" if parts[0].role == "model" else f" (its {parts[0].role})"
            raise ModelUnusableError(
                f"model: this is a graph of {parts[0].family}{what}; only detectors of one graph "
                "are tried alone, so add it with its card"
            )
        whole = [g for g in found.guesses if g not in parts]
        return [_draft(self._path, guess, file) for guess in whole[:_MOST_TRIES]]

    def _load(self, cards: list[ModelCard]) -> Detector:
        first: ModelsError | None = None
        for number, card in enumerate(cards):
            try:
                detector = load_detector(card, {"model": self._path})
            except ModelsError as err:
                first = first or err
                if number == 0:
                    self._card = card
                continue
            self._card = card
            if first is not None:
                self._notes.append(f"not {cards[0].family}: {first}")
            self._note_guess(card)
            return detector
        raise first or ModelUnusableError("model: there is nothing to load")

    def _note_guess(self, card: ModelCard) -> None:
        for guess in self._found.guesses if self._found and self._given is None else ():
            if guess.family == card.family:
                self._notes.append(f"{guess.family}: {guess.reason}")

    def _try_images(self, detector: Detector) -> tuple[tuple[int, int], float]:
        width, height = detector.info.input_size
        gray = np.full((height or 640, width or 640, 3), 128, np.uint8)
        # A fixed seed: two trials of one file agree.
        noise = np.random.default_rng(0).integers(0, 256, gray.shape, np.uint8)
        counts, run_ms = [], 0.0
        for image in (gray, noise):
            count, run_ms = self._run(detector, image)
            counts.append(count)
        return (counts[0], counts[1]), run_ms

    def _run(self, detector: Detector, image: RgbImage) -> tuple[int, float]:
        card = detector.info.card
        begin = time.perf_counter()
        prepared = detector.preprocess(image)
        (output,) = detector.infer([prepared])
        wanted = DetectOptions(min_score=card.min_score, nms_iou=card.nms_iou)
        found = detector.postprocess(output, prepared, wanted)
        run_ms = (time.perf_counter() - begin) * 1000
        # Every row that could matter must be finite, not only those above the threshold.
        every = DetectOptions(min_score=_LEAST_SCORE, nms_iou=None, max_detections=100)
        detector.postprocess(output, prepared, every)
        if isinstance(detector, OnnxDetector):
            self._note_scores(detector.decode(output).scores)
        return len(found), run_ms

    def _note_scores(self, scores: NDArray[np.float32]) -> None:
        slack = 0.01  # sigmoids in half precision overshoot a little
        if scores.size == 0 or (scores.min() >= -slack and scores.max() <= 1 + slack):
            return
        note = (
            f"scores from {scores.min():.3g} to {scores.max():.3g} where 0 to 1 was expected: is "
            "it another family, or was the model exported before its sigmoid?"
        )
        if note not in self._notes:
            self._notes.append(note)


def _draft(path: Path, guess: Guess, file: FileRef) -> ModelCard:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:100]
    return ModelCard(
        name=name or "my-model",
        task=guess.task,
        family=guess.family,
        files={guess.role: file},
        labels=guess.labels,
    )


def _short(found: Identification | None) -> Identification | None:
    """Without metadata that is longer than a person reads (vocabularies, training logs)."""
    if found is None:
        return None
    brief = {k: v for k, v in found.metadata.items() if len(k) + len(v) <= _LONGEST_METADATA}
    return replace(found, metadata=brief)


def _limit(request: ProbeRequest, file_bytes: int) -> None:
    """Bound memory, processor time and files from here on."""
    cv2.setNumThreads(1)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    room = request.memory_bytes + _WEIGHT_COPIES * file_bytes
    most = pages * _PAGE_BYTES + room
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (request.cpu_s, request.cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a graph has nothing to write


def _memory_sentence(request: ProbeRequest) -> str:
    return (
        f"model: it needs more memory than the limit of {request.memory_bytes // 2**20} MiB above "
        "its weights"
    )


def _say(channel: TextIO, line: str) -> None:
    channel.write(f"{line}\n")
    channel.flush()


if __name__ == "__main__":
    sys.exit(main())
