"""Between the contract's messages and the use cases' values: free functions, no state."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from prelabel.v1 import (
    common_pb2,
    detection_service_pb2,
    geometry_pb2,
    image_pb2,
    model_service_pb2,
    proposal_pb2,
)
from prelabel_models.base import ModelInfo
from prelabel_models.geometry import rotated_boxes
from prelabel_models.images import ImageHeader
from prelabel_models.masks import CocoRle, Polygon
from prelabel_models.session import runtime_version
from prelabel_server.config import Settings
from prelabel_server.engine.models import ModelStatus
from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers.commands import (
    AnswerTimings,
    DetectAnswer,
    DetectCommand,
    EncodedMask,
    Frame,
    ImageBytes,
    ImageDigest,
    ImagePath,
    ImageSource,
    ImageUrl,
    MaskEncoding,
    TilingOptions,
)

_FRAMES: Mapping[int, Frame] = {
    image_pb2.COORDINATE_FRAME_UNSPECIFIED: Frame.DISPLAYED,
    image_pb2.COORDINATE_FRAME_DISPLAYED: Frame.DISPLAYED,
    image_pb2.COORDINATE_FRAME_STORED: Frame.STORED,
}
_MASK_ENCODINGS: Mapping[int, MaskEncoding] = {
    geometry_pb2.MASK_ENCODING_UNSPECIFIED: MaskEncoding.COCO_RLE,
    geometry_pb2.MASK_ENCODING_COCO_RLE: MaskEncoding.COCO_RLE,
    geometry_pb2.MASK_ENCODING_POLYGONS: MaskEncoding.POLYGONS,
    geometry_pb2.MASK_ENCODING_PNG: MaskEncoding.PNG,
}
_TASKS = {
    "detect": model_service_pb2.TASK_DETECT,
    "segment": model_service_pb2.TASK_SEGMENT,
}
_DEFAULT_OVERLAP = TilingOptions().overlap
_DEFAULT_TOLERANCE_PX = 1.0


def detect_command_from_proto(message: detection_service_pb2.DetectRequest) -> DetectCommand:
    """A request as a command; an empty request id is filled in.

    Raises:
        InvalidFieldError: No image source, or an enum value that this server does not know.
    """
    options = message.options
    nms, tiling = options.nms, None
    if options.HasField("tiling"):
        given = options.tiling
        tiling = TilingOptions(
            tile_size_px=given.tile_size_px,
            overlap=given.overlap if given.HasField("overlap") else _DEFAULT_OVERLAP,
            skip_full_image=given.skip_full_image,
        )
    tolerance = _DEFAULT_TOLERANCE_PX
    if options.HasField("polygon_tolerance_px"):
        tolerance = options.polygon_tolerance_px
    return DetectCommand(
        image=image_source_from_proto(message.image),
        model=message.model,
        request_id=message.request_id or uuid.uuid4().hex,
        min_score=options.min_score if options.HasField("min_score") else None,
        label_min_scores=dict(options.label_min_scores),
        labels=tuple(options.labels),
        label_map=dict(options.label_map),
        nms_iou=nms.iou_threshold if nms.HasField("iou_threshold") else None,
        nms_class_agnostic=nms.class_agnostic,
        nms_disabled=nms.disabled,
        max_proposals=options.max_proposals,
        tiling=tiling,
        frame=frame_from_proto(options.coordinate_frame),
        mask_encoding=mask_encoding_from_proto(options.mask_encoding),
        polygon_tolerance_px=tolerance,
    )


def frame_from_proto(value: int) -> Frame:
    """The axes that a request asks for.

    Raises:
        InvalidFieldError: A value that this server does not know.
    """
    if value not in _FRAMES:
        raise InvalidFieldError("options.coordinate_frame", f"unknown value {value}")
    return _FRAMES[value]


def mask_encoding_from_proto(value: int) -> MaskEncoding:
    """The encoding that a request asks for.

    Raises:
        InvalidFieldError: A value that this server does not know.
    """
    if value not in _MASK_ENCODINGS:
        raise InvalidFieldError("options.mask_encoding", f"unknown value {value}")
    return _MASK_ENCODINGS[value]


def image_source_from_proto(message: image_pb2.ImageSource) -> ImageSource:
    """Where the image is.

    Raises:
        InvalidFieldError: Nothing was set.
    """
    kind = message.WhichOneof("source")
    if kind == "data":
        return ImageBytes(message.data)
    if kind == "digest":
        return ImageDigest(message.digest)
    if kind == "path":
        return ImagePath(message.path.root, message.path.path)
    if kind == "url":
        return ImageUrl(message.url)
    raise InvalidFieldError("image", "expected one of data, digest, path or url, got none")


def detect_answer_to_proto(answer: DetectAnswer) -> detection_service_pb2.DetectResponse:
    """An answer as a message."""
    return detection_service_pb2.DetectResponse(
        request_id=answer.request_id,
        model=model_ref_to_proto(answer.model),
        image=image_info_to_proto(answer.digest, answer.header, answer.frame, answer.size),
        proposals=_proposals(answer),
        timings=timings_to_proto(answer.timings),
        truncated=answer.detections.truncated,
    )


def model_ref_to_proto(info: ModelInfo) -> common_pb2.ModelRef:
    """Name, version and digest."""
    return common_pb2.ModelRef(name=info.card.name, version=info.card.version, digest=info.digest)


def image_info_to_proto(
    digest: str, header: ImageHeader, frame: Frame, size: tuple[int, int]
) -> image_pb2.ImageInfo:
    """The image of an answer; `size` is (width, height) in `frame`."""
    stored = frame is Frame.STORED
    return image_pb2.ImageInfo(
        digest=digest,
        width=size[0],
        height=size[1],
        coordinate_frame=image_pb2.COORDINATE_FRAME_STORED
        if stored
        else image_pb2.COORDINATE_FRAME_DISPLAYED,
        exif_orientation=header.exif_orientation,
        format=header.format,
        frame_index=0 if header.frame_count > 1 else None,
        frame_count=header.frame_count,
    )


def timings_to_proto(timings: AnswerTimings) -> common_pb2.Timings:
    """Seconds inside, milliseconds on the wire."""
    return common_pb2.Timings(
        decode_ms=timings.decode_s * 1000,
        queue_ms=timings.queue_s * 1000,
        preprocess_ms=timings.preprocess_s * 1000,
        inference_ms=timings.inference_s * 1000,
        postprocess_ms=timings.postprocess_s * 1000,
        total_ms=timings.total_s * 1000,
        batch_size=timings.batch_size,
    )


def model_to_proto(status: ModelStatus) -> model_service_pb2.Model:
    """A model, with what is only known once it is loaded."""
    card, info = status.card, status.info
    message = model_service_pb2.Model(
        ref=common_pb2.ModelRef(name=card.name, version=card.version, digest=card.digest()),
        task=_TASKS[card.task],
        family=card.family,
        labels=card.label_names(),
        license=card.license,
        description=card.description,
        state=model_service_pb2.MODEL_STATE_AVAILABLE,
        default_min_score=card.min_score,
        size_bytes=status.size_bytes,
    )
    if status.failure:
        message.state = model_service_pb2.MODEL_STATE_FAILED
        message.message = status.failure
    if info is not None:
        message.state = model_service_pb2.MODEL_STATE_READY
        message.device = info.device
        message.execution_provider = info.provider
        message.input_width_px, message.input_height_px = info.input_size
        message.gives_masks = info.gives_masks
        message.gives_text = info.gives_text
        message.suppresses_in_graph = info.suppresses_in_graph
        del message.labels[:]
        message.labels.extend(info.labels)
    return message


def task_from_proto(task: int) -> str | None:
    """The card's word for a task; None for all.

    Raises:
        InvalidFieldError: A value that this server does not know.
    """
    if task == model_service_pb2.TASK_UNSPECIFIED:
        return None
    for word, value in _TASKS.items():
        if value == task:
            return word
    raise InvalidFieldError("task", f"unknown value {task}")


def server_info_to_proto(
    settings: Settings, version: str, devices: Sequence[str]
) -> model_service_pb2.GetServerInfoResponse:
    """The server's facts."""
    limits = settings.limits
    return model_service_pb2.GetServerInfoResponse(
        version=version,
        devices=devices,
        onnxruntime_version=runtime_version(),
        limits=model_service_pb2.Limits(
            max_message_bytes=limits.max_message_bytes,
            max_image_bytes=limits.image.max_bytes,
            max_image_pixels=limits.image.max_pixels,
            max_image_side_px=limits.image.max_side_px,
            image_formats=sorted(limits.image.formats),
            max_proposals=limits.max_proposals,
            max_tiles=limits.max_tiles,
            max_queue_length=limits.max_queue_length,
            max_stream_window=limits.max_stream_window,
            default_deadline_ms=int(limits.default_deadline_s * 1000),
            decode_budget_bytes=limits.decode_budget_bytes,
            image_cache_bytes=limits.image_cache_bytes,
        ),
    )


def mask_to_proto(mask: EncodedMask) -> geometry_pb2.Mask:
    """An encoded mask."""
    if isinstance(mask, CocoRle):
        rle = geometry_pb2.CocoRle(height=mask.height, width=mask.width, counts=mask.counts)
        return geometry_pb2.Mask(rle=rle)
    if isinstance(mask, bytes):
        return geometry_pb2.Mask(png=mask)
    polygons = geometry_pb2.MultiPolygon(polygons=[_polygon(p) for p in mask])
    return geometry_pb2.Mask(polygons=polygons)


def _proposals(answer: DetectAnswer) -> list[proposal_pb2.Proposal]:
    found = answer.detections
    boxes, scores = found.boxes_xyxy.tolist(), found.scores.tolist()
    messages = [
        proposal_pb2.Proposal(
            label=name,
            class_id=class_id,
            score=score,
            box=geometry_pb2.Box(x1=x1, y1=y1, x2=x2, y2=y2),
        )
        for name, class_id, score, (x1, y1, x2, y2) in zip(
            answer.names, found.class_ids.tolist(), scores, boxes, strict=True
        )
    ]
    if found.outlines is not None:
        rotated = rotated_boxes(found.outlines).tolist()
        for message, corners, (x, y, w, h, angle) in zip(
            messages, found.outlines, rotated, strict=True
        ):
            message.outline.CopyFrom(_ring(corners))
            message.rotated_box.CopyFrom(
                geometry_pb2.RotatedBox(
                    center_x=x, center_y=y, width=w, height=h, angle_degrees=angle
                )
            )
    if found.key_points is not None:
        for message, points in zip(messages, found.key_points, strict=True):
            message.key_points.extend(_ring(points).points)
    for message, text in zip(messages, found.texts or (), strict=False):
        message.text = text
    for message, mask in zip(messages, answer.masks, strict=False):
        message.mask.CopyFrom(mask_to_proto(mask))
    return messages


def _polygon(polygon: Polygon) -> geometry_pb2.Polygon:
    return geometry_pb2.Polygon(
        exterior=_ring(polygon.exterior), holes=[_ring(hole) for hole in polygon.holes]
    )


def _ring(points_xy: NDArray[np.floating]) -> geometry_pb2.Ring:
    return geometry_pb2.Ring(points=[geometry_pb2.Point(x=x, y=y) for x, y in points_xy.tolist()])
