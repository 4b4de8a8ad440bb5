"""Low-resolution masks of earlier answers, named by a token that cannot be guessed."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from prelabel_server.engine.embedding_cache import EmbeddingKey

_TOKEN_BYTES = 16  # 128 random bits


class MaskCache:
    """The most recent masks, bounded by bytes. Thread-safe.

    Args:
        max_bytes: Bound on the sum of the arrays.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, tuple[EmbeddingKey, NDArray[np.float32]]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, key: EmbeddingKey, logits: NDArray[np.float32]) -> str:
        """Hold a mask.

        Args:
            key: The image, model and caller that it belongs to.
            logits: The model's own grid.

        Returns:
            Its token.
        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        with self._lock:
            self._held[token] = (key, logits)
            self._bytes += logits.nbytes
            while self._bytes > self._max_bytes:
                _, (_, dropped) = self._held.popitem(last=False)
                self._bytes -= dropped.nbytes
        return token

    def get(self, key: EmbeddingKey, token: str) -> NDArray[np.float32] | None:
        """The mask; None if it is not held for this image, model and caller."""
        with self._lock:
            owner, logits = self._held.get(token, (None, None))
            return logits if owner == key else None
