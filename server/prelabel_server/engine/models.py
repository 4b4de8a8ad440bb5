"""Which models there are, and the loaded ones: loaded once, swapped whole, never half."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prelabel_models.base import Detector, ModelInfo
from prelabel_models.cards import ModelCard
from prelabel_models.detectors import load_detector
from prelabel_models.errors import ModelsError
from prelabel_models.segmenters import load_segmenter
from prelabel_models.segmenters.base import Segmenter
from prelabel_models.session import SessionOptions
from prelabel_models.store import ModelStore, StoredModel
from prelabel_server.errors import ModelNotLoadedError, WrongTaskError

logger = logging.getLogger(__name__)


class DetectorRunner:
    """A loaded detector as the scheduler sees it.

    One object per load, so that a batch never mixes two versions of a model.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    @property
    def max_batch(self) -> int:
        """Units that one run takes.

        On the CPU one image at a time: with one thread per run a batch takes as long as its
        members one after the other, so it would only make the first wait for the last.
        """
        info = self.detector.info
        return 1 if info.device == "cpu" else info.max_batch

    def run(self, units: Sequence[Any]) -> Sequence[Any]:
        """See `scheduler.Runner`."""
        return self.detector.infer(units)


class SegmenterRunner:
    """A loaded segmenter as the scheduler sees it; units are calls that use it.

    Encoders of these models fill a core (or a GPU) with one image: nothing is batched.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    @property
    def max_batch(self) -> int:
        """See `scheduler.Runner`."""
        return 1

    def run(self, units: Sequence[Callable[[], Any]]) -> Sequence[Any]:
        """See `scheduler.Runner`."""
        return [unit() for unit in units]


Loaded = DetectorRunner | SegmenterRunner


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model that the server knows.

    Attributes:
        card: Its card.
        info: Set while it is loaded.
        failure: Why the last attempt to load it failed; empty if it did not.
        size_bytes: Of its files.
    """

    card: ModelCard
    info: ModelInfo | None
    failure: str
    size_bytes: int


class ModelManager:
    """Loads models from a store on first use, or when told. Thread-safe.

    Args:
        store: Where cards and weights are.
        options: Device and threads of every session.
    """

    def __init__(self, store: ModelStore, options: SessionOptions) -> None:
        self._store = store
        self._options = options
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._loaded: dict[str, Loaded] = {}
        self._failures: dict[str, str] = {}
        self._unloaded: set[str] = set()

    def list(self) -> tuple[ModelStatus, ...]:
        """Every model, loaded or not, by name."""
        return tuple(self._status(stored) for stored in self._store.list())

    def status(self, name: str) -> ModelStatus:
        """One model.

        Raises:
            ModelNotFoundError: There is none of this name.
        """
        return self._status(self._store.get(name))

    async def detector(self, name: str) -> DetectorRunner:
        """A loaded detector, loading it first if need be.

        Raises:
            ModelNotFoundError: There is none of this name.
            ModelUnusableError: It cannot be loaded.
            ModelNotLoadedError: It was unloaded by hand.
            WrongTaskError: It is not a detector.
        """
        loaded = await self._ready(name, "detect")
        if not isinstance(loaded, DetectorRunner):
            raise _wrong_task(name, "detect")
        return loaded

    async def segmenter(self, name: str) -> SegmenterRunner:
        """A loaded segmenter; errors as for `detector`."""
        loaded = await self._ready(name, "segment")
        if not isinstance(loaded, SegmenterRunner):
            raise _wrong_task(name, "segment")
        return loaded

    async def load(self, name: str) -> ModelStatus:
        """Load a model, or load it anew; the version loaded before serves until then."""
        await asyncio.to_thread(self._load, name)
        return self.status(name)

    def unload(self, name: str) -> ModelStatus:
        """Let go of a model; runs in flight keep theirs until they end.

        Raises:
            ModelNotFoundError: There is none of this name.
        """
        self._store.get(name)
        with self._lock:
            self._loaded.pop(name, None)
            self._unloaded.add(name)
        return self.status(name)

    async def _ready(self, name: str, task: str) -> Loaded:
        with self._lock:
            loaded = self._loaded.get(name)
            unloaded = name in self._unloaded
        if loaded is not None:
            return loaded
        if unloaded:
            raise ModelNotLoadedError(f"model: {name!r} was unloaded; load it first")
        if self._store.get(name).card.task != task:  # before its weights are read
            raise _wrong_task(name, task)
        return await asyncio.to_thread(self._load_once, name)

    def _load_once(self, name: str) -> Loaded:
        """Callers that arrive while a model is being loaded wait for it instead of loading it."""
        with self._lock:
            gate = self._loading.setdefault(name, threading.Lock())
        with gate:
            with self._lock:
                loaded = self._loaded.get(name)
            return loaded or self._load(name)

    def _load(self, name: str) -> Loaded:
        try:
            loaded = self._open(self._store.get(name).card)
        except ModelsError as err:
            with self._lock:
                self._failures[name] = str(err)
            raise
        with self._lock:
            self._loaded[name] = loaded
            self._failures.pop(name, None)
            self._unloaded.discard(name)
        info = _info(loaded)
        logger.info(
            "loaded model %s (%s) on %s with %s", name, info.digest, info.device, info.provider
        )
        return loaded

    def _open(self, card: ModelCard) -> Loaded:
        files = self._store.open_files(card.name)
        if card.task == "segment":
            return SegmenterRunner(load_segmenter(card, files, self._options))
        return DetectorRunner(load_detector(card, files, self._options))

    def _status(self, stored: StoredModel) -> ModelStatus:
        name = stored.card.name
        with self._lock:
            loaded = self._loaded.get(name)
            info = None if loaded is None else _info(loaded)
            card = stored.card if info is None else info.card
            return ModelStatus(card, info, self._failures.get(name, ""), stored.size)


def _info(loaded: Loaded) -> ModelInfo:
    return loaded.detector.info if isinstance(loaded, DetectorRunner) else loaded.segmenter.info


def _wrong_task(name: str, wanted: str) -> WrongTaskError:
    return WrongTaskError(f"model: {name!r} does not {wanted}; see ListModels for those that do")
