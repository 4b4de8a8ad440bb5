"""The use cases of the server. Every transport calls these and nothing below."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path, PurePosixPath

from prelabel_server.config import Settings
from prelabel_server.engine.budget import ByteBudget
from prelabel_server.engine.image_cache import ImageCache, ImageKey
from prelabel_server.engine.models import ModelManager, ModelStatus
from prelabel_server.engine.scheduler import Scheduler
from prelabel_server.errors import (
    ImageNotCachedError,
    InvalidFieldError,
    SourceNotAllowedError,
)
from prelabel_server.handlers import options
from prelabel_server.handlers.commands import (
    Caller,
    DetectAnswer,
    DetectCommand,
    ImageBytes,
    ImageDigest,
    ImagePath,
    ImageSource,
)
from prelabel_server.handlers.detection import DetectContext, DetectWork

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Handlers:
    """Use cases over an engine.

    Args:
        settings: Limits and roots.
        models: The models.
        scheduler: Where work is queued.
    """

    def __init__(self, settings: Settings, models: ModelManager, scheduler: Scheduler) -> None:
        limits = settings.limits
        self.settings = settings
        self._models = models
        self._scheduler = scheduler
        self._cache = ImageCache(limits.image_cache_bytes)
        self._context = DetectContext(
            limits=limits.image,
            max_tiles=limits.max_tiles,
            budget=ByteBudget(limits.decode_budget_bytes),
            cache=self._cache,
        )

    async def detect(self, command: DetectCommand, caller: Caller) -> DetectAnswer:
        """Pre-label one image.

        Raises:
            RequestError: See `prelabel_server.errors`.
            ModelsError: See `prelabel_models.errors`.
        """
        if not command.model:
            raise InvalidFieldError("model", "expected the name of a model, got nothing")
        options.check(command)
        runner = await self._models.detector(command.model)
        wanted = options.resolve(command, runner.detector.info, self.settings.limits.max_proposals)
        data = await self._image(command.image, caller)
        work = DetectWork(runner, command, wanted, data, caller.identity, self._context)
        return await self._scheduler.submit(
            work, priority=caller.priority, deadline=caller.deadline
        )

    def models(self) -> tuple[ModelStatus, ...]:
        """Every model, loaded or not, by name."""
        return self._models.list()

    def model(self, name: str) -> ModelStatus:
        """One model.

        Raises:
            ModelNotFoundError: There is none of this name.
        """
        return self._models.status(name)

    async def load_model(self, name: str) -> ModelStatus:
        """Load a model, or load it anew.

        Raises:
            ModelsError: See `prelabel_models.errors`.
        """
        return await self._models.load(name)

    def unload_model(self, name: str) -> ModelStatus:
        """Unload a model; requests in flight finish.

        Raises:
            ModelNotFoundError: There is none of this name.
        """
        return self._models.unload(name)

    async def _image(self, source: ImageSource, caller: Caller) -> bytes:
        if isinstance(source, ImageBytes):
            if not source.data:
                raise InvalidFieldError("image.data", "expected an image file, got 0 bytes")
            return source.data
        if isinstance(source, ImageDigest):
            return self._cached(source.digest, caller)
        if isinstance(source, ImagePath):
            return await asyncio.to_thread(self._read_rooted, source)
        raise SourceNotAllowedError("image.url: this server does not fetch images")

    def _cached(self, digest: str, caller: Caller) -> bytes:
        if not _DIGEST.fullmatch(digest):
            raise InvalidFieldError(
                "image.digest", "expected 'sha256:' and 64 lower-case hexadecimal digits"
            )
        data = self._cache.get(ImageKey(caller.identity, digest))
        if data is None:
            raise ImageNotCachedError("image.digest: not held any more; send the image's bytes")
        return data

    def _read_rooted(self, source: ImagePath) -> bytes:
        root = self.settings.roots.get(source.root)
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
        limit = self.settings.limits.image.max_bytes
        with path.open("rb") as file:
            return file.read(limit + 1)  # one more than allowed, so that the limit refuses it
