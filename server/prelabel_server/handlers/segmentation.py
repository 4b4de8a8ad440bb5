"""Click-to-segment: an image is encoded once, each set of prompts after that is a short run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prelabel_models import images, masks
from prelabel_models.base import ModelInfo
from prelabel_models.errors import OptionError
from prelabel_models.images import ImageHeader
from prelabel_models.segmenters.base import Embedding, MaskCandidate, Prompts
from prelabel_models.segmenters.everything import segment_everything
from prelabel_server.engine.budget import ByteBudget
from prelabel_server.engine.clock import Clock, monotonic
from prelabel_server.engine.embedding_cache import EmbeddedImage, EmbeddingCache, EmbeddingKey
from prelabel_server.engine.image_cache import ImageKey
from prelabel_server.engine.mask_cache import MaskCache
from prelabel_server.engine.models import ModelManager, SegmenterRunner
from prelabel_server.engine.scheduler import Priority, Scheduler, Work
from prelabel_server.errors import InvalidFieldError, MaskNotCachedError
from prelabel_server.handlers.commands import (
    AnswerTimings,
    Caller,
    EmbedAnswer,
    Frame,
    HeldImage,
    ImageDigest,
    ImageFacts,
    ImageSource,
    MaskAnswer,
    SegmentAnswer,
    SegmentCommand,
)
from prelabel_server.handlers.encoding import encode_mask
from prelabel_server.handlers.sources import ImageSources, checked_digest

_MAX_MASKS = 3
_MAX_POINTS_PER_SIDE = 64
# From here on the event loop would feel the hash of the bytes (1.4 GB/s): 1 MiB is 0.7 ms.
_HASH_IN_THREAD_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class SegmentContext:
    """What the segmentation use cases share."""

    models: ModelManager
    scheduler: Scheduler
    sources: ImageSources
    embeddings: EmbeddingCache
    mask_cache: MaskCache
    limits: images.ImageLimits
    budget: ByteBudget
    clock: Clock = monotonic


class _EmbedWork(Work[EmbeddedImage]):
    """Decode and encode one image."""

    def __init__(
        self, runner: SegmenterRunner, data: bytes, digest: str, context: SegmentContext
    ) -> None:
        super().__init__(runner)
        self._segmenter = runner.segmenter
        self._data = data
        self._digest = digest
        self._context = context
        self._reserved = 0
        self._header: ImageHeader

    def prepare(self) -> Sequence[Callable[[], Embedding]]:
        header = images.read_header(self._data, self._context.limits)
        self._context.budget.acquire(header.decode_bytes)
        self._reserved = header.decode_bytes
        decoded = images.decode(self._data, header, self._context.limits)
        self._header = header
        return [lambda: self._segmenter.embed(decoded.pixels)]

    def finish(self, outputs: Sequence[Any]) -> EmbeddedImage:
        (embedding,) = outputs
        return EmbeddedImage(embedding, self._header, self._digest)

    def release(self) -> None:
        if self._reserved:
            self._context.budget.release(self._reserved)
            self._reserved = 0
        self._data = b""  # see DetectWork.release


class _PromptWork(Work[tuple[MaskAnswer, ...]]):
    """Masks for prompts on an encoded image, drawn and encoded in the worker."""

    def __init__(
        self,
        runner: SegmenterRunner,
        image: EmbeddedImage,
        command: SegmentCommand,
        keep: Callable[[MaskCandidate], str],
    ) -> None:
        super().__init__(runner)
        self._segmenter = runner.segmenter
        self._image = image
        self._command = command
        self._keep = keep

    def prepare(self) -> Sequence[Callable[[], tuple[MaskCandidate, ...]]]:
        return [self._candidates]

    def finish(self, outputs: Sequence[Any]) -> tuple[MaskAnswer, ...]:
        (candidates,) = outputs
        drawn = (self._answer(candidate) for candidate in candidates)
        return tuple(answer for answer in drawn if answer is not None)

    def _candidates(self) -> tuple[MaskCandidate, ...]:
        embedding, prompts = self._image.embedding, self._command.prompts
        if prompts is None:
            wanted = self._command.everything
            return segment_everything(
                self._segmenter,
                embedding,
                points_per_side=wanted.points_per_side,
                min_predicted_iou=wanted.min_predicted_iou,
                min_stability_score=wanted.min_stability_score,
                nms_iou=wanted.nms_iou,
                min_area_px=wanted.min_area_px,
            )
        count = self._command.options.max_masks or _default_count(prompts)
        return self._segmenter.segment(embedding, prompts, max_masks=count)

    def _answer(self, candidate: MaskCandidate) -> MaskAnswer | None:
        drawn = candidate.draw()
        options, header = self._command.options, self._image.header
        if options.frame is Frame.STORED:
            drawn = images.mask_to_stored(drawn, header)
        box = masks.mask_box_xyxy(drawn)
        if box is None:  # the model sees nothing there
            return None
        return MaskAnswer(
            mask=encode_mask(drawn, options.mask_encoding, options.polygon_tolerance_px),
            box_xyxy=box,
            area_px=masks.mask_area(drawn),
            predicted_iou=candidate.predicted_iou,
            stability_score=candidate.stability_score,
            token=self._keep(candidate),
            low_res_logits=candidate.low_res_logits,
        )


class Segmentation:
    """The use cases `embed` and `segment`.

    Args:
        context: Models, queue and caches.
    """

    def __init__(self, context: SegmentContext) -> None:
        self._context = context

    async def embed(self, source: ImageSource, model: str, caller: Caller) -> EmbedAnswer:
        """Encode an image ahead of the first click.

        Raises:
            RequestError: See `prelabel_server.errors`.
            ModelsError: See `prelabel_models.errors`.
        """
        started = self._context.clock()
        runner = await self._runner(model)
        image, was_cached, timing = await self._embedded(source, runner, caller)
        return EmbedAnswer(
            model=runner.segmenter.info,
            image=_facts(image, Frame.DISPLAYED),
            was_cached=was_cached,
            embedding_bytes=image.embedding.nbytes,
            ttl_s=self._context.embeddings.ttl_s,
            timings=self._timings(started, [timing] if timing else []),
        )

    async def segment(self, command: SegmentCommand, caller: Caller) -> SegmentAnswer:
        """Masks for one set of prompts, or for everything in the image.

        Raises:
            RequestError: See `prelabel_server.errors`.
            ModelsError: See `prelabel_models.errors`.
        """
        started = self._context.clock()
        check(command)
        runner = await self._runner(command.model)
        image, was_cached, timing = await self._embedded(command.image, runner, caller)
        key = _key(image.digest, runner.segmenter.info, caller)
        command = self._with_previous_mask(command, key)
        if command.prompts is not None:
            try:
                command.prompts.check_inside(image.embedding.image_size)
            except OptionError as err:
                raise InvalidFieldError.from_option(err) from err
        work = _PromptWork(
            runner, image, command, lambda c: self._context.mask_cache.put(key, c.low_res_logits)
        )
        found = await self._context.scheduler.submit(
            work, priority=caller.priority, deadline=caller.deadline
        )
        works = [work.timing] if timing is None else [timing, work.timing]
        return SegmentAnswer(
            request_id=command.request_id,
            model=runner.segmenter.info,
            image=_facts(image, command.options.frame),
            masks=found,
            timings=self._timings(started, works),
            was_cached=was_cached,
        )

    async def hold(self, source: ImageSource, caller: Caller) -> HeldImage:
        """The bytes of an image, for a session that outlives the cache.

        Raises:
            RequestError: See `prelabel_server.errors`.
        """
        data = await self._context.sources.read(source, caller)
        return HeldImage(data, await self.digest(data))

    @staticmethod
    async def digest(data: bytes) -> str:
        """The digest, without holding up the event loop."""
        if len(data) < _HASH_IN_THREAD_BYTES:
            return images.digest(data)
        return await asyncio.to_thread(images.digest, data)

    async def _runner(self, model: str) -> SegmenterRunner:
        if not model:
            raise InvalidFieldError("model", "expected the name of a model, got nothing")
        return await self._context.models.segmenter(model)

    async def _embedded(
        self, source: ImageSource, runner: SegmenterRunner, caller: Caller
    ) -> tuple[EmbeddedImage, bool, Any]:
        """The encoded image, whether it was held, and the encoder's timing if it ran for us."""
        context, info = self._context, runner.segmenter.info
        if isinstance(source, ImageDigest | HeldImage):
            digest = checked_digest(source.digest)
            held = context.embeddings.get(_key(digest, info, caller))
            if held is not None:
                return held, True, None
        data = await context.sources.read(source, caller)
        if not isinstance(source, ImageDigest | HeldImage):
            digest = await self.digest(data)
            held = context.embeddings.get(_key(digest, info, caller))
            if held is not None:
                return held, True, None
        work = _EmbedWork(runner, data, digest, context)
        image = await context.embeddings.get_or_make(
            _key(digest, info, caller),
            lambda: context.scheduler.submit(
                work, priority=Priority.INTERACTIVE, deadline=caller.deadline
            ),
        )
        # Only what could be decoded is worth keeping.
        context.sources.cache.put(ImageKey(caller.identity, digest), data)
        return image, False, work.timing

    def _with_previous_mask(self, command: SegmentCommand, key: EmbeddingKey) -> SegmentCommand:
        if not command.previous_mask_token:
            return command
        logits = self._context.mask_cache.get(key, command.previous_mask_token)
        if logits is None:
            raise MaskNotCachedError(
                "prompts.previous_mask_token: not held any more for this image and model; send "
                "the mask or all prompts"
            )
        prompts = command.prompts or Prompts(low_res_logits=logits)
        return replace(command, prompts=replace(prompts, low_res_logits=logits))

    def _timings(self, started: float, works: Sequence[Any]) -> AnswerTimings:
        total = self._context.clock() - started
        inference = sum(timing.inference_s for timing in works)
        queue = sum(timing.queue_s for timing in works)
        return AnswerTimings(
            decode_s=0.0,
            queue_s=queue,
            preprocess_s=0.0,
            inference_s=inference,
            postprocess_s=max(0.0, total - inference - queue),
            total_s=total,
            batch_size=1,
        )


def check(command: SegmentCommand) -> None:
    """What can be refused without the model.

    Raises:
        InvalidFieldError: Names the field, what was expected and what came.
    """
    if command.options.max_masks > _MAX_MASKS:
        raise InvalidFieldError(
            "options.max_masks", f"expected 1 to {_MAX_MASKS}, got {command.options.max_masks}"
        )
    wanted = command.everything
    if not 1 <= wanted.points_per_side <= _MAX_POINTS_PER_SIDE:
        raise InvalidFieldError(
            "points_per_side",
            f"expected 1 to {_MAX_POINTS_PER_SIDE}, got {wanted.points_per_side}",
        )
    for name in ("min_predicted_iou", "min_stability_score", "nms_iou"):
        value = getattr(wanted, name)
        if not 0 <= value <= 1:
            raise InvalidFieldError(name, f"expected a number in [0, 1], got {value:g}")


def _default_count(prompts: Prompts) -> int:
    """Three for a single click: it may mean a part, an object or a group (SAM's own advice)."""
    others = len(prompts.boxes_xyxy) or prompts.scribbles or prompts.mask is not None
    lone = len(prompts.points_xy) == 1 and not others and prompts.low_res_logits is None
    return _MAX_MASKS if lone else 1


def _key(digest: str, info: ModelInfo, caller: Caller) -> EmbeddingKey:
    return EmbeddingKey(caller.identity, digest, info.digest)


def _facts(image: EmbeddedImage, frame: Frame) -> ImageFacts:
    header = image.header
    size = (header.width, header.height)
    if frame is Frame.STORED:
        size = (header.stored_width, header.stored_height)
    return ImageFacts(image.digest, header, frame, size)
