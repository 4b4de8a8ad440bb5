"""From the way a request names its image to the encoded bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from prelabel_server.engine.image_cache import ImageCache, ImageKey
from prelabel_server.errors import (
    ImageNotCachedError,
    InvalidFieldError,
    SourceNotAllowedError,
)
from prelabel_server.handlers.commands import (
    Caller,
    HeldImage,
    ImageBytes,
    ImageDigest,
    ImagePath,
    ImageSource,
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ImageSources:
    """Finds images.

    Args:
        cache: Images that were sent before.
        roots: Named folders below which requests may name files.
        max_bytes: Largest encoded image.
    """

    def __init__(self, cache: ImageCache, roots: Mapping[str, Path], max_bytes: int) -> None:
        self.cache = cache
        self._roots = roots
        self._max_bytes = max_bytes

    async def read(self, source: ImageSource, caller: Caller) -> bytes:
        """The encoded image.

        Raises:
            InvalidFieldError: Nothing there, or not a way to name an image.
            ImageNotCachedError: Named by a digest that is not held for this caller.
            SourceNotAllowedError: Paths or URLs are turned off.
        """
        if isinstance(source, ImageBytes):
            if not source.data:
                raise InvalidFieldError("image.data", "expected an image file, got 0 bytes")
            return source.data
        if isinstance(source, HeldImage):
            return source.data
        if isinstance(source, ImageDigest):
            return self._cached(checked_digest(source.digest), caller)
        if isinstance(source, ImagePath):
            return await asyncio.to_thread(self._read_rooted, source)
        raise SourceNotAllowedError("image.url: this server does not fetch images")

    def _cached(self, digest: str, caller: Caller) -> bytes:
        data = self.cache.get(ImageKey(caller.identity, digest))
        if data is None:
            raise ImageNotCachedError("image.digest: not held any more; send the image's bytes")
        return data

    def _read_rooted(self, source: ImagePath) -> bytes:
        root = self._roots.get(source.root)
        if root is None:
            raise SourceNotAllowedError("image.path.root: this server has no folder of that name")
        wanted = PurePosixPath(source.path)
        refused = InvalidFieldError(
            "image.path.path", "expected a file below the folder, without '..'"
        )
        if wanted.is_absolute() or ".." in wanted.parts or "\0" in source.path:
            raise refused
        base = root.resolve()
        path = Path(base, *wanted.parts).resolve()
        if not path.is_relative_to(base) or not path.is_file():
            raise refused
        with path.open("rb") as file:
            return file.read(self._max_bytes + 1)  # one more than allowed: the limit refuses it


def checked_digest(digest: str) -> str:
    """The digest itself.

    Raises:
        InvalidFieldError: Not of the form that the server gives out.
    """
    if not _DIGEST.fullmatch(digest):
        raise InvalidFieldError(
            "image.digest", "expected 'sha256:' and 64 lower-case hexadecimal digits"
        )
    return digest
