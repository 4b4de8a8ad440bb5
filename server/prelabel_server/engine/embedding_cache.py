"""Encoded images, bounded by bytes: encoded once however many ask at the same time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prelabel_models.images import ImageHeader
from prelabel_models.segmenters.base import Embedding
from prelabel_server.engine.clock import Clock, monotonic


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """Whose embedding, of which image, by which model, from which pixels.

    Attributes:
        owner: The caller's identity; empty where the server does not authenticate.
        image_digest: `sha256:...` over the encoded bytes.
        model_digest: `sha256:...` over card and weights.
        preprocessing: How the bytes became the pixels that the model was given.
    """

    owner: str
    image_digest: str
    model_digest: str
    preprocessing: str = "displayed-rgb8"


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """What is known of an image after encoding it."""

    embedding: Embedding
    header: ImageHeader
    digest: str


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counters since the start, and the bytes held now."""

    hits: int
    misses: int
    evictions: int
    used_bytes: int


class EmbeddingCache:
    """The most recently used embeddings. Belongs to one event loop.

    Args:
        max_bytes: Bound on the sum of `Embedding.nbytes`. One embedding above it is handed to its
            callers and not kept.
        ttl_s: An embedding that was not used for so long is let go.
        clock: For tests.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Clock = monotonic) -> None:
        self.ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._held: OrderedDict[EmbeddingKey, tuple[EmbeddedImage, float]] = OrderedDict()
        self._making: dict[EmbeddingKey, asyncio.Task[EmbeddedImage]] = {}
        self._waiting: dict[EmbeddingKey, int] = {}
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0

    @property
    def stats(self) -> CacheStats:
        """Counters and bytes."""
        return CacheStats(self._hits, self._misses, self._evictions, self._bytes)

    def get(self, key: EmbeddingKey) -> EmbeddedImage | None:
        """The embedding, now the most recently used; None if it is not held."""
        self._drop_expired()
        found = self._held.get(key)
        if found is None:
            return None
        self._hits += 1
        self._held[key] = (found[0], self._clock())
        self._held.move_to_end(key)
        return found[0]

    async def get_or_make(
        self, key: EmbeddingKey, make: Callable[[], Awaitable[EmbeddedImage]]
    ) -> EmbeddedImage:
        """The embedding; made once for all who ask while it is being made.

        A caller that leaves does not take the work from the others; once all have left it is
        cancelled. A failure reaches everyone who waited and is not kept.
        """
        found = self.get(key)
        if found is not None:
            return found
        task = self._making.get(key)
        if task is None:
            self._misses += 1
            task = asyncio.ensure_future(make())
            self._making[key] = task
            task.add_done_callback(lambda done: self._made(key, done))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
                if not task.done():
                    task.cancel()

    def _made(self, key: EmbeddingKey, task: asyncio.Task[EmbeddedImage]) -> None:
        if self._making.get(key) is task:
            del self._making[key]
        if task.cancelled() or task.exception() is not None:
            return
        made = task.result()
        size = made.embedding.nbytes
        if size > self._max_bytes or key in self._held:
            return
        self._held[key] = (made, self._clock())
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._evict(next(iter(self._held)))

    def _drop_expired(self) -> None:
        oldest = self._clock() - self.ttl_s
        # Sorted by last use: the first that is fresh ends the search.
        for key in list(self._held):
            if self._held[key][1] > oldest:
                return
            self._evict(key)

    def _evict(self, key: EmbeddingKey) -> None:
        made, _ = self._held.pop(key)
        self._bytes -= made.embedding.nbytes
        self._evictions += 1
