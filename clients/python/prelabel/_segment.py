"""Messages of click-to-segment and the SDK's values: free functions, no state."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prelabel import _convert, types
from prelabel.v1 import geometry_pb2, image_pb2
from prelabel.v1 import segmentation_service_pb2 as pb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ClickXYP = tuple[float, float, bool]
"""A click: x, y in pixels of the displayed image, and whether it is on the object."""


def prompts_to_proto(
    points: Sequence[ClickXYP],
    boxes: Sequence[types.BoxXYXY],
    scribbles: Sequence[types.Scribble],
    mask: types.Mask | NDArray[np.bool_] | None,
    previous_mask: str | types.MaskProposal | None,
) -> pb.Prompts:
    """All that points at one object.

    Raises:
        ValueError: A mask and a previous mask at once, or a mask as polygons.
    """
    if mask is not None and previous_mask is not None:
        raise ValueError("mask: expected a mask or a previous mask, got both")
    message = pb.Prompts(
        points=[point_to_proto(x, y, positive) for x, y, positive in points],
        boxes=[box_to_proto(box) for box in boxes],
        scribbles=[scribble_to_proto(scribble) for scribble in scribbles],
    )
    if mask is not None:
        message.mask.CopyFrom(mask_to_proto(mask))
    if previous_mask is not None:
        token = previous_mask if isinstance(previous_mask, str) else previous_mask.token
        message.previous_mask_token = token
    return message


def point_to_proto(x: float, y: float, positive: bool) -> pb.PointPrompt:
    """A click."""
    return pb.PointPrompt(point=geometry_pb2.Point(x=x, y=y), positive=positive)


def box_to_proto(box: types.BoxXYXY) -> geometry_pb2.Box:
    """A box."""
    x1, y1, x2, y2 = box
    return geometry_pb2.Box(x1=x1, y1=y1, x2=x2, y2=y2)


def scribble_to_proto(scribble: types.Scribble) -> pb.ScribblePrompt:
    """A free line."""
    return pb.ScribblePrompt(
        points=[geometry_pb2.Point(x=x, y=y) for x, y in scribble.points],
        positive=scribble.positive,
        width_px=scribble.width_px,
    )


def mask_to_proto(mask: types.Mask | NDArray[np.bool_]) -> geometry_pb2.Mask:
    """A mask in run lengths or PNG; an array (height, width) of booleans is encoded.

    Raises:
        ValueError: Polygons, which a model does not take as a prompt.
    """
    if not isinstance(mask, types.Mask):
        mask = types.Mask.from_array(mask)
    if mask.rle is not None and mask.size is not None:
        height, width = mask.size
        rle = geometry_pb2.CocoRle(height=height, width=width, counts=mask.rle)
        return geometry_pb2.Mask(rle=rle)
    if mask.png is not None:
        return geometry_pb2.Mask(png=mask.png)
    raise ValueError("mask: expected run lengths, PNG or an array, got polygons")


def options_to_proto(options: types.SegmentOptions) -> pb.SegmentOptions:
    """Raises ValueError where a name is not known."""
    return pb.SegmentOptions(
        max_masks=options.max_masks,
        mask_encoding=_convert.mask_encoding_to_proto(options.mask_encoding),
        polygon_tolerance_px=options.polygon_tolerance_px,
        coordinate_frame=_convert.frame_to_proto(options.coordinate_frame),
    )


def segment_request(
    source: image_pb2.ImageSource,
    model: str,
    prompts: pb.Prompts,
    options: types.SegmentOptions,
    request_id: str,
) -> pb.SegmentRequest:
    """A request; an empty `request_id` is filled in."""
    return pb.SegmentRequest(
        request_id=request_id or uuid.uuid4().hex,
        image=source,
        model=model,
        prompts=prompts,
        options=options_to_proto(options),
    )


def everything_request(
    source: image_pb2.ImageSource,
    model: str,
    options: types.SegmentOptions,
    everything: types.EverythingOptions,
) -> pb.SegmentEverythingRequest:
    """A request for everything in the image."""
    return pb.SegmentEverythingRequest(
        request_id=uuid.uuid4().hex,
        image=source,
        model=model,
        options=options_to_proto(options),
        points_per_side=everything.points_per_side,
        min_predicted_iou=everything.min_predicted_iou,
        min_stability_score=everything.min_stability_score,
        nms_iou=everything.nms_iou,
        min_area_px=everything.min_area_px,
    )


def segment_result(message: pb.SegmentResponse) -> types.SegmentResult:
    """The answer of Segment."""
    return types.SegmentResult(
        request_id=message.request_id,
        model=_convert.model_ref_from_proto(message.model),
        image=_convert.image_info_from_proto(message.image),
        masks=tuple(_mask_proposal(mask) for mask in message.masks),
        timings=_convert.timings_from_proto(message.timings),
        embedding_was_cached=message.embedding_was_cached,
    )


def everything_result(message: pb.SegmentEverythingResponse) -> types.SegmentResult:
    """The answer of SegmentEverything."""
    return types.SegmentResult(
        request_id=message.request_id,
        model=_convert.model_ref_from_proto(message.model),
        image=_convert.image_info_from_proto(message.image),
        masks=tuple(_mask_proposal(mask) for mask in message.masks),
        timings=_convert.timings_from_proto(message.timings),
    )


def embed_result(message: pb.EmbedResponse) -> types.EmbedResult:
    """The answer of Embed."""
    return types.EmbedResult(
        model=_convert.model_ref_from_proto(message.model),
        image=_convert.image_info_from_proto(message.image),
        was_cached=message.was_cached,
        embedding_bytes=message.embedding_bytes,
        expires_at=message.expire_time.seconds + message.expire_time.nanos / 1e9,
        timings=_convert.timings_from_proto(message.timings),
    )


def _mask_proposal(message: pb.MaskProposal) -> types.MaskProposal:
    box = message.box
    return types.MaskProposal(
        mask=_convert.mask_from_proto(message.mask),
        box=(box.x1, box.y1, box.x2, box.y2),
        area_px=message.area_px,
        predicted_iou=message.predicted_iou,
        stability_score=message.stability_score,
        token=message.token,
    )
