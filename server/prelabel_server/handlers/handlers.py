"""The use cases of the server. Every transport calls these and nothing below."""

from __future__ import annotations

from prelabel_server.config import Settings
from prelabel_server.engine.budget import ByteBudget
from prelabel_server.engine.embedding_cache import EmbeddingCache
from prelabel_server.engine.image_cache import ImageCache
from prelabel_server.engine.mask_cache import MaskCache
from prelabel_server.engine.models import ModelManager, ModelStatus
from prelabel_server.engine.scheduler import Scheduler
from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers import options
from prelabel_server.handlers.commands import Caller, DetectAnswer, DetectCommand
from prelabel_server.handlers.detection import DetectContext, DetectWork
from prelabel_server.handlers.segmentation import Segmentation, SegmentContext
from prelabel_server.handlers.sources import ImageSources


class Handlers:
    """Use cases over an engine.

    Args:
        settings: Limits and roots.
        models: The models.
        scheduler: Where work is queued.

    Attributes:
        settings: As given.
        segmentation: The use cases of click-to-segment.
    """

    def __init__(self, settings: Settings, models: ModelManager, scheduler: Scheduler) -> None:
        limits = settings.limits
        self.settings = settings
        self._models = models
        self._scheduler = scheduler
        cache = ImageCache(limits.image_cache_bytes)
        self._sources = ImageSources(cache, settings.roots, limits.image.max_bytes)
        budget = ByteBudget(limits.decode_budget_bytes)
        self.segmentation = Segmentation(
            SegmentContext(
                models=models,
                scheduler=scheduler,
                sources=self._sources,
                embeddings=EmbeddingCache(limits.embedding_cache_bytes, limits.embedding_ttl_s),
                mask_cache=MaskCache(limits.mask_cache_bytes),
                limits=limits.image,
                budget=budget,
            )
        )
        self._context = DetectContext(
            limits=limits.image,
            max_tiles=limits.max_tiles,
            budget=budget,
            cache=cache,
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
        data = await self._sources.read(command.image, caller)
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
