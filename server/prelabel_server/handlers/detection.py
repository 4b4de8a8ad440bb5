"""One image's way through the engine: bytes to pixels to proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prelabel_models import images
from prelabel_models.base import Prepared
from prelabel_models.detectors.tiling import Tile, crop, merge, plan_tiles
from prelabel_models.errors import OptionError
from prelabel_models.images import DecodedImage, ImageHeader, ImageLimits
from prelabel_models.types import Detections, DetectOptions
from prelabel_server.engine.budget import ByteBudget
from prelabel_server.engine.clock import Clock, monotonic
from prelabel_server.engine.image_cache import ImageCache, ImageKey
from prelabel_server.engine.models import DetectorRunner
from prelabel_server.engine.scheduler import Work
from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers.commands import (
    AnswerTimings,
    DetectAnswer,
    DetectCommand,
    EncodedMask,
    Frame,
)
from prelabel_server.handlers.encoding import encode_mask


@dataclass(frozen=True, slots=True)
class DetectContext:
    """What every detection shares.

    Attributes:
        limits: Of an image.
        max_tiles: Per image.
        budget: Bounds decoded bytes.
        cache: Where the encoded image is kept for reuse.
        clock: For timings.
    """

    limits: ImageLimits
    max_tiles: int
    budget: ByteBudget
    cache: ImageCache
    clock: Clock = monotonic


@dataclass(frozen=True, slots=True)
class _View:
    """One run's input: the whole image (no tile) or a part of it."""

    prepared: Prepared
    tile: Tile | None


class DetectWork(Work[DetectAnswer]):
    """Decode, preprocess and postprocess of one request; all of it in one worker thread.

    Args:
        runner: The loaded model.
        command: The request.
        options: The request's options for this model.
        data: The encoded image.
        owner: Whose image it is.
        context: What all detections share.
    """

    def __init__(
        self,
        runner: DetectorRunner,
        command: DetectCommand,
        options: DetectOptions,
        data: bytes,
        owner: str,
        context: DetectContext,
    ) -> None:
        super().__init__(runner)
        self._detector = runner.detector
        self._command = command
        self._options = options
        self._data = data
        self._owner = owner
        self._context = context
        self._admitted = context.clock()
        self._reserved = 0
        self._decode_s = self._preprocess_s = 0.0
        self._header: ImageHeader
        self._digest = ""
        self._views: list[_View] = []

    def prepare(self) -> Sequence[Prepared]:
        """See `scheduler.Work`."""
        clock = self._context.clock
        started = clock()
        decoded = self._decode()
        self._decode_s = clock() - started
        self._views = self._make_views(decoded)
        self._preprocess_s = clock() - started - self._decode_s
        return [view.prepared for view in self._views]

    def finish(self, outputs: Sequence[Any]) -> DetectAnswer:
        """See `scheduler.Work`."""
        clock = self._context.clock
        started = clock()
        found = self._merged(outputs)
        command, header = self._command, self._header
        encoded = _encode_masks(found, command, header)
        size = (header.width, header.height)
        if command.frame is Frame.STORED:
            found = _to_stored(found, header)
            size = (header.stored_width, header.stored_height)
        labels = self._detector.info.labels
        names = tuple(labels[i] for i in found.class_ids.tolist())
        now = clock()
        return DetectAnswer(
            request_id=command.request_id,
            model=self._detector.info,
            digest=self._digest,
            header=header,
            frame=command.frame,
            size=size,
            detections=found,
            names=tuple(command.label_map.get(name, name) for name in names),
            masks=encoded,
            timings=AnswerTimings(
                decode_s=self._decode_s,
                queue_s=self.timing.queue_s,
                preprocess_s=self._preprocess_s,
                inference_s=self.timing.inference_s,
                postprocess_s=now - started,
                total_s=now - self._admitted,
                batch_size=self.timing.batch_size,
            ),
        )

    def release(self) -> None:
        """See `scheduler.Work`."""
        if self._reserved:
            self._context.budget.release(self._reserved)
            self._reserved = 0
        # An error's traceback leads back here: do not let it keep the image alive.
        self._views, self._data = [], b""

    def _decode(self) -> DecodedImage:
        header = images.read_header(self._data, self._context.limits)
        self._context.budget.acquire(header.decode_bytes)
        self._reserved = header.decode_bytes
        decoded = images.decode(self._data, header, self._context.limits)
        self._header = header
        self._digest = images.digest(self._data)
        # Only what could be decoded is worth keeping.
        self._context.cache.put(ImageKey(self._owner, self._digest), self._data)
        return decoded

    def _make_views(self, decoded: DecodedImage) -> list[_View]:
        pixels, tiling = decoded.pixels, self._command.tiling
        size = (pixels.shape[1], pixels.shape[0])
        tiles: tuple[Tile, ...] = ()
        if tiling is not None:
            side = tiling.tile_size_px or max(self._detector.info.input_size) or 640
            try:
                tiles = plan_tiles(size, side, tiling.overlap, max_tiles=self._context.max_tiles)
            except OptionError as err:
                raise InvalidFieldError.from_option(err, "options.") from err
        views = [_View(self._detector.preprocess(crop(pixels, tile)), tile) for tile in tiles]
        if not tiles or (tiling is not None and not tiling.skip_full_image):
            views.insert(0, _View(self._detector.preprocess(pixels), None))
        return views

    def _merged(self, outputs: Sequence[Any]) -> Detections:
        parts = [
            (
                self._detector.postprocess(output, view.prepared, self._options),
                view.tile,
            )
            for view, output in zip(self._views, outputs, strict=True)
        ]
        if len(parts) == 1 and parts[0][1] is None:
            return parts[0][0]
        size = (self._header.width, self._header.height)
        return merge(parts, size, self._options)


def _encode_masks(
    found: Detections, command: DetectCommand, header: ImageHeader
) -> tuple[EncodedMask, ...]:
    if found.masks is None:
        return ()
    arrays = found.masks
    if command.frame is Frame.STORED:
        arrays = tuple(images.mask_to_stored(mask, header) for mask in arrays)
    encoding, tolerance_px = command.mask_encoding, command.polygon_tolerance_px
    return tuple(encode_mask(mask, encoding, tolerance_px) for mask in arrays)


def _to_stored(found: Detections, header: ImageHeader) -> Detections:
    points = images.points_to_stored
    return replace(
        found,
        boxes_xyxy=images.boxes_to_stored(found.boxes_xyxy, header).astype(np.float32),
        outlines=None if found.outlines is None else points(found.outlines, header),
        key_points=None if found.key_points is None else points(found.key_points, header),
        masks=None,  # already encoded
    )
