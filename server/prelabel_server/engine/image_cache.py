"""Encoded images that callers may name by digest instead of sending them again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Whose image, and which: one caller's images are not another's.

    Attributes:
        owner: The caller's identity; empty where the server does not authenticate.
        digest: `sha256:...` over the encoded bytes.
    """

    owner: str
    digest: str


class ImageCache:
    """The most recently used images, bounded by bytes. Thread-safe.

    Args:
        max_bytes: 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._images: OrderedDict[ImageKey, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Bytes held now."""
        with self._lock:
            return self._bytes

    def get(self, key: ImageKey) -> bytes | None:
        """The image, now the most recently used; None if it is not held."""
        with self._lock:
            data = self._images.get(key)
            if data is not None:
                self._images.move_to_end(key)
            return data

    def put(self, key: ImageKey, data: bytes) -> None:
        """Hold the image, letting go of the least recently used ones."""
        if len(data) > self._max_bytes:
            return
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return
            self._images[key] = data
            self._bytes += len(data)
            while self._bytes > self._max_bytes:
                _, dropped = self._images.popitem(last=False)
                self._bytes -= len(dropped)
