"""Messages of click-to-segment and the use cases' values: free functions, no state."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np
from google.protobuf import timestamp_pb2
from numpy.typing import NDArray

from prelabel.v1 import geometry_pb2, image_pb2, segmentation_service_pb2
from prelabel_models import masks
from prelabel_models.errors import ImageError, OptionError
from prelabel_models.segmenters.base import Prompts, Scribble
from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers.commands import (
    EmbedAnswer,
    EverythingOptions,
    ImageFacts,
    MaskAnswer,
    SegmentAnswer,
    SegmentCommand,
    SegmentOptions,
)
from prelabel_server.handlers.session import (
    BoxStep,
    MaskStep,
    PointStep,
    PromptStep,
    ScribbleStep,
)
from prelabel_server.rpc.converters import (
    frame_from_proto,
    image_info_to_proto,
    image_source_from_proto,
    mask_encoding_from_proto,
    mask_to_proto,
    model_ref_to_proto,
    timings_to_proto,
)

_T = TypeVar("_T")

_DEFAULTS = SegmentOptions()
_EVERYTHING = EverythingOptions()


def segment_command_from_proto(
    message: segmentation_service_pb2.SegmentRequest,
) -> SegmentCommand:
    """A request as a command; an empty request id is filled in.

    Raises:
        InvalidFieldError: Names the field, what was expected and what came.
    """
    return SegmentCommand(
        image=image_source_from_proto(message.image),
        model=message.model,
        prompts=_prompts_from_proto(message.prompts),
        request_id=message.request_id or uuid.uuid4().hex,
        previous_mask_token=message.prompts.previous_mask_token,
        options=segment_options_from_proto(message.options),
    )


def everything_command_from_proto(
    message: segmentation_service_pb2.SegmentEverythingRequest,
) -> SegmentCommand:
    """As for `segment_command_from_proto`, without prompts."""

    def given(name: Any) -> float:
        value: float = getattr(message if message.HasField(name) else _EVERYTHING, name)
        return value

    return SegmentCommand(
        image=image_source_from_proto(message.image),
        model=message.model,
        prompts=None,
        request_id=message.request_id or uuid.uuid4().hex,
        options=segment_options_from_proto(message.options),
        everything=EverythingOptions(
            points_per_side=message.points_per_side or _EVERYTHING.points_per_side,
            min_predicted_iou=given("min_predicted_iou"),
            min_stability_score=given("min_stability_score"),
            nms_iou=given("nms_iou"),
            min_area_px=message.min_area_px,
        ),
    )


def segment_options_from_proto(
    message: segmentation_service_pb2.SegmentOptions,
) -> SegmentOptions:
    """Options with their defaults.

    Raises:
        InvalidFieldError: An enum value that this server does not know, or a bad tolerance.
    """
    tolerance = _DEFAULTS.polygon_tolerance_px
    if message.HasField("polygon_tolerance_px"):
        tolerance = message.polygon_tolerance_px
    if not 0 <= tolerance < np.inf:
        raise InvalidFieldError(
            "options.polygon_tolerance_px", f"expected a number >= 0, got {tolerance:g}"
        )
    return SegmentOptions(
        max_masks=message.max_masks,
        mask_encoding=mask_encoding_from_proto(message.mask_encoding),
        polygon_tolerance_px=tolerance,
        frame=frame_from_proto(message.coordinate_frame),
    )


def step_from_proto(message: segmentation_service_pb2.SegmentSessionRequest) -> PromptStep | None:
    """The prompt in an action; None if the action is not a prompt.

    Raises:
        InvalidFieldError: Names the field, what was expected and what came.
    """
    kind = message.WhichOneof("action")
    if kind == "point":
        point = message.point.point
        _checked(Prompts, points_xy=_array([(point.x, point.y)]), point_labels=np.ones(1, bool))
        return PointStep(point.x, point.y, message.point.positive)
    if kind == "box":
        box = message.box
        corners = (box.x1, box.y1, box.x2, box.y2)
        _checked(Prompts, boxes_xyxy=_array([corners]))
        return BoxStep(corners)
    if kind == "scribble":
        return ScribbleStep(_scribble_from_proto(message.scribble))
    if kind == "mask":
        return MaskStep(mask_from_proto(message.mask))
    return None


def mask_from_proto(message: geometry_pb2.Mask) -> NDArray[np.bool_]:
    """A mask that a caller sent: run lengths or PNG.

    Raises:
        InvalidFieldError: Polygons, nothing, or damaged.
    """
    kind = message.WhichOneof("encoding")
    try:
        if kind == "rle":
            rle = masks.CocoRle(message.rle.height, message.rle.width, message.rle.counts)
            return masks.decode_rle(rle)
        if kind == "png":
            return masks.decode_png(message.png)
    except (ValueError, OptionError, ImageError) as err:
        raise InvalidFieldError("prompts.mask", f"not a mask: {err}") from err
    raise InvalidFieldError("prompts.mask", f"expected rle or png, got {kind or 'nothing'}")


def segment_answer_to_proto(answer: SegmentAnswer) -> segmentation_service_pb2.SegmentResponse:
    """An answer as a message."""
    return segmentation_service_pb2.SegmentResponse(
        request_id=answer.request_id,
        model=model_ref_to_proto(answer.model),
        image=image_facts_to_proto(answer.image),
        masks=[_mask_answer_to_proto(mask) for mask in answer.masks],
        timings=timings_to_proto(answer.timings),
        embedding_was_cached=answer.was_cached,
    )


def everything_answer_to_proto(
    answer: SegmentAnswer,
) -> segmentation_service_pb2.SegmentEverythingResponse:
    """An answer as a message."""
    return segmentation_service_pb2.SegmentEverythingResponse(
        request_id=answer.request_id,
        model=model_ref_to_proto(answer.model),
        image=image_facts_to_proto(answer.image),
        masks=[_mask_answer_to_proto(mask) for mask in answer.masks],
        timings=timings_to_proto(answer.timings),
    )


def embed_answer_to_proto(answer: EmbedAnswer) -> segmentation_service_pb2.EmbedResponse:
    """An answer as a message."""
    expire = timestamp_pb2.Timestamp()
    expire.FromDatetime(datetime.now(UTC) + timedelta(seconds=answer.ttl_s))
    return segmentation_service_pb2.EmbedResponse(
        image=image_facts_to_proto(answer.image),
        model=model_ref_to_proto(answer.model),
        was_cached=answer.was_cached,
        embedding_bytes=answer.embedding_bytes,
        expire_time=expire,
        timings=timings_to_proto(answer.timings),
    )


def image_facts_to_proto(image: ImageFacts) -> image_pb2.ImageInfo:
    """The image of an answer."""
    return image_info_to_proto(image.digest, image.header, image.frame, image.size)


def _mask_answer_to_proto(answer: MaskAnswer) -> segmentation_service_pb2.MaskProposal:
    x1, y1, x2, y2 = answer.box_xyxy
    return segmentation_service_pb2.MaskProposal(
        mask=mask_to_proto(answer.mask),
        box=geometry_pb2.Box(x1=x1, y1=y1, x2=x2, y2=y2),
        area_px=answer.area_px,
        predicted_iou=answer.predicted_iou,
        stability_score=answer.stability_score,
        token=answer.token,
    )


def _prompts_from_proto(message: segmentation_service_pb2.Prompts) -> Prompts | None:
    """None where only a token points at anything."""
    points = [(p.point.x, p.point.y) for p in message.points]
    boxes = [(b.x1, b.y1, b.x2, b.y2) for b in message.boxes]
    mask = mask_from_proto(message.mask) if message.HasField("mask") else None
    scribbles = tuple(_scribble_from_proto(s) for s in message.scribbles)
    if message.previous_mask_token and not (points or boxes or scribbles):
        return None
    return _checked(
        Prompts,
        points_xy=_array(points).reshape(-1, 2),
        point_labels=np.asarray([p.positive for p in message.points], bool),
        boxes_xyxy=_array(boxes).reshape(-1, 4),
        scribbles=scribbles,
        mask=mask,
    )


def _scribble_from_proto(message: segmentation_service_pb2.ScribblePrompt) -> Scribble:
    return _checked(
        Scribble,
        points_xy=_array([(p.x, p.y) for p in message.points]).reshape(-1, 2),
        positive=message.positive,
        width_px=message.width_px if message.HasField("width_px") else 1.0,
    )


def _checked(make: Callable[..., _T], **values: Any) -> _T:
    """Build a value whose own checks name the field."""
    try:
        return make(**values)
    except OptionError as err:
        raise InvalidFieldError.from_option(err) from err


def _array(rows: Sequence[tuple[float, ...]]) -> NDArray[np.float32]:
    return np.asarray(rows, np.float32)
