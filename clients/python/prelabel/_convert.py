"""Between the SDK's values and the messages of the contract: free functions, no state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from prelabel import types
from prelabel.v1 import (
    common_pb2,
    detection_service_pb2,
    geometry_pb2,
    image_pb2,
    model_service_pb2,
    proposal_pb2,
)

_T = TypeVar("_T")

_FRAMES: Mapping[str, image_pb2.CoordinateFrame] = {
    "displayed": image_pb2.COORDINATE_FRAME_DISPLAYED,
    "stored": image_pb2.COORDINATE_FRAME_STORED,
}
_MASK_ENCODINGS: Mapping[str, geometry_pb2.MaskEncoding] = {
    "rle": geometry_pb2.MASK_ENCODING_COCO_RLE,
    "polygons": geometry_pb2.MASK_ENCODING_POLYGONS,
    "png": geometry_pb2.MASK_ENCODING_PNG,
}
_TASKS = {
    model_service_pb2.TASK_DETECT: "detect",
    model_service_pb2.TASK_SEGMENT: "segment",
}
_STATES = {
    model_service_pb2.MODEL_STATE_AVAILABLE: "available",
    model_service_pb2.MODEL_STATE_READY: "ready",
    model_service_pb2.MODEL_STATE_FAILED: "failed",
}


def options_to_proto(options: types.DetectOptions) -> detection_service_pb2.DetectOptions:
    """Raises ValueError where a name is not known."""
    message = detection_service_pb2.DetectOptions(
        min_score=options.min_score,
        label_min_scores=dict(options.label_min_scores),
        labels=list(options.labels),
        label_map=dict(options.label_map),
        max_proposals=options.max_proposals,
        coordinate_frame=frame_to_proto(options.coordinate_frame),
        mask_encoding=mask_encoding_to_proto(options.mask_encoding),
        polygon_tolerance_px=options.polygon_tolerance_px,
    )
    if options.nms_iou is not None or options.nms_class_agnostic or options.nms_disabled:
        message.nms.CopyFrom(
            detection_service_pb2.NmsOptions(
                iou_threshold=options.nms_iou,
                class_agnostic=options.nms_class_agnostic,
                disabled=options.nms_disabled,
            )
        )
    if options.tiling is not None:
        message.tiling.CopyFrom(
            detection_service_pb2.TilingOptions(
                tile_size_px=options.tiling.tile_size_px,
                overlap=options.tiling.overlap,
                skip_full_image=options.tiling.skip_full_image,
            )
        )
    return message


def frame_to_proto(name: str) -> image_pb2.CoordinateFrame:
    """Raises ValueError where the name is not known."""
    return _known("coordinate_frame", name, _FRAMES)


def mask_encoding_to_proto(name: str) -> geometry_pb2.MaskEncoding:
    """Raises ValueError where the name is not known."""
    return _known("mask_encoding", name, _MASK_ENCODINGS)


def detect_result_from_proto(
    message: detection_service_pb2.DetectResponse,
) -> types.DetectResult:
    """The answer of Detect."""
    return types.DetectResult(
        request_id=message.request_id,
        model=model_ref_from_proto(message.model),
        image=image_info_from_proto(message.image),
        proposals=tuple(_proposal(p) for p in message.proposals),
        timings=timings_from_proto(message.timings),
        truncated=message.truncated,
    )


def model_ref_from_proto(message: common_pb2.ModelRef) -> types.ModelRef:
    """The exact model that answered."""
    return types.ModelRef(message.name, message.version, message.digest)


def image_info_from_proto(message: image_pb2.ImageInfo) -> types.ImageInfo:
    """The image that was read."""
    stored = message.coordinate_frame == image_pb2.COORDINATE_FRAME_STORED
    return types.ImageInfo(
        digest=message.digest,
        width=message.width,
        height=message.height,
        coordinate_frame="stored" if stored else "displayed",
        exif_orientation=message.exif_orientation,
        format=message.format,
        frame_index=message.frame_index if message.HasField("frame_index") else None,
        frame_count=message.frame_count,
    )


def timings_from_proto(message: common_pb2.Timings) -> types.Timings:
    """Where the time went."""
    return types.Timings(
        decode_ms=message.decode_ms,
        queue_ms=message.queue_ms,
        preprocess_ms=message.preprocess_ms,
        inference_ms=message.inference_ms,
        postprocess_ms=message.postprocess_ms,
        total_ms=message.total_ms,
        batch_size=message.batch_size,
    )


def model_from_proto(message: model_service_pb2.Model) -> types.Model:
    """One model of ModelService."""
    return types.Model(
        name=message.ref.name,
        version=message.ref.version,
        digest=message.ref.digest,
        task=_TASKS.get(message.task, ""),
        family=message.family,
        labels=tuple(message.labels),
        state=_STATES.get(message.state, ""),
        message=message.message,
        device=message.device,
        execution_provider=message.execution_provider,
        input_size=(message.input_width_px, message.input_height_px),
        default_min_score=message.default_min_score,
        license=message.license,
        description=message.description,
        gives_masks=message.gives_masks,
        gives_text=message.gives_text,
        size_bytes=message.size_bytes,
    )


def server_info_from_proto(message: model_service_pb2.GetServerInfoResponse) -> types.ServerInfo:
    """The answer of GetServerInfo."""
    limits = message.limits
    numbers = {
        field.name: getattr(limits, field.name)
        for field in limits.DESCRIPTOR.fields
        if field.name != "image_formats"
    }
    return types.ServerInfo(
        version=message.version,
        limits=numbers,
        image_formats=tuple(limits.image_formats),
        devices=tuple(message.devices),
        onnxruntime_version=message.onnxruntime_version,
    )


def mask_from_proto(message: geometry_pb2.Mask) -> types.Mask:
    """A mask in whichever encoding it came."""
    kind = message.WhichOneof("encoding")
    if kind == "rle":
        return types.Mask(size=(message.rle.height, message.rle.width), rle=message.rle.counts)
    if kind == "polygons":
        return types.Mask(
            polygons=tuple(
                types.Polygon(_ring(p.exterior), tuple(_ring(h) for h in p.holes))
                for p in message.polygons.polygons
            )
        )
    return types.Mask(png=message.png)


def _proposal(message: proposal_pb2.Proposal) -> types.Proposal:
    box, rotated = message.box, message.rotated_box
    return types.Proposal(
        label=message.label,
        class_id=message.class_id,
        score=message.score,
        confidence=message.confidence if message.HasField("confidence") else None,
        box=(box.x1, box.y1, box.x2, box.y2),
        rotated_box=types.RotatedBox(
            rotated.center_x,
            rotated.center_y,
            rotated.width,
            rotated.height,
            rotated.angle_degrees,
        )
        if message.HasField("rotated_box")
        else None,
        outline=_ring(message.outline) if message.HasField("outline") else None,
        mask=mask_from_proto(message.mask) if message.HasField("mask") else None,
        text=message.text if message.HasField("text") else None,
        key_points=tuple((p.x, p.y) for p in message.key_points),
    )


def _ring(message: geometry_pb2.Ring) -> tuple[types.PointXY, ...]:
    return tuple((p.x, p.y) for p in message.points)


def _known(name: str, value: str, table: Mapping[str, _T]) -> _T:
    if value not in table:
        raise ValueError(f"{name}: expected one of {', '.join(table)}, got {value!r}")
    return table[value]
