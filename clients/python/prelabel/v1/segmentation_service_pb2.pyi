from google.protobuf import timestamp_pb2 as _timestamp_pb2
from prelabel.v1 import common_pb2 as _common_pb2
from prelabel.v1 import errors_pb2 as _errors_pb2
from prelabel.v1 import geometry_pb2 as _geometry_pb2
from prelabel.v1 import image_pb2 as _image_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PointPrompt(_message.Message):
    __slots__ = ("point", "positive")
    POINT_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_FIELD_NUMBER: _ClassVar[int]
    point: _geometry_pb2.Point
    positive: bool
    def __init__(self, point: _Optional[_Union[_geometry_pb2.Point, _Mapping]] = ..., positive: bool = ...) -> None: ...

class ScribblePrompt(_message.Message):
    __slots__ = ("points", "positive", "width_px")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[_geometry_pb2.Point]
    positive: bool
    width_px: float
    def __init__(self, points: _Optional[_Iterable[_Union[_geometry_pb2.Point, _Mapping]]] = ..., positive: bool = ..., width_px: _Optional[float] = ...) -> None: ...

class Prompts(_message.Message):
    __slots__ = ("points", "boxes", "scribbles", "mask", "previous_mask_token")
    POINTS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    SCRIBBLES_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_MASK_TOKEN_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[PointPrompt]
    boxes: _containers.RepeatedCompositeFieldContainer[_geometry_pb2.Box]
    scribbles: _containers.RepeatedCompositeFieldContainer[ScribblePrompt]
    mask: _geometry_pb2.Mask
    previous_mask_token: str
    def __init__(self, points: _Optional[_Iterable[_Union[PointPrompt, _Mapping]]] = ..., boxes: _Optional[_Iterable[_Union[_geometry_pb2.Box, _Mapping]]] = ..., scribbles: _Optional[_Iterable[_Union[ScribblePrompt, _Mapping]]] = ..., mask: _Optional[_Union[_geometry_pb2.Mask, _Mapping]] = ..., previous_mask_token: _Optional[str] = ...) -> None: ...

class SegmentOptions(_message.Message):
    __slots__ = ("max_masks", "mask_encoding", "polygon_tolerance_px", "coordinate_frame")
    MAX_MASKS_FIELD_NUMBER: _ClassVar[int]
    MASK_ENCODING_FIELD_NUMBER: _ClassVar[int]
    POLYGON_TOLERANCE_PX_FIELD_NUMBER: _ClassVar[int]
    COORDINATE_FRAME_FIELD_NUMBER: _ClassVar[int]
    max_masks: int
    mask_encoding: _geometry_pb2.MaskEncoding
    polygon_tolerance_px: float
    coordinate_frame: _image_pb2.CoordinateFrame
    def __init__(self, max_masks: _Optional[int] = ..., mask_encoding: _Optional[_Union[_geometry_pb2.MaskEncoding, str]] = ..., polygon_tolerance_px: _Optional[float] = ..., coordinate_frame: _Optional[_Union[_image_pb2.CoordinateFrame, str]] = ...) -> None: ...

class MaskProposal(_message.Message):
    __slots__ = ("mask", "box", "area_px", "predicted_iou", "stability_score", "token")
    MASK_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    AREA_PX_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_IOU_FIELD_NUMBER: _ClassVar[int]
    STABILITY_SCORE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    mask: _geometry_pb2.Mask
    box: _geometry_pb2.Box
    area_px: int
    predicted_iou: float
    stability_score: float
    token: str
    def __init__(self, mask: _Optional[_Union[_geometry_pb2.Mask, _Mapping]] = ..., box: _Optional[_Union[_geometry_pb2.Box, _Mapping]] = ..., area_px: _Optional[int] = ..., predicted_iou: _Optional[float] = ..., stability_score: _Optional[float] = ..., token: _Optional[str] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("image", "model")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.ImageSource
    model: str
    def __init__(self, image: _Optional[_Union[_image_pb2.ImageSource, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("image", "model", "was_cached", "embedding_bytes", "expire_time", "timings")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAS_CACHED_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.ImageInfo
    model: _common_pb2.ModelRef
    was_cached: bool
    embedding_bytes: int
    expire_time: _timestamp_pb2.Timestamp
    timings: _common_pb2.Timings
    def __init__(self, image: _Optional[_Union[_image_pb2.ImageInfo, _Mapping]] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., was_cached: bool = ..., embedding_bytes: _Optional[int] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ...) -> None: ...

class SegmentRequest(_message.Message):
    __slots__ = ("request_id", "image", "model", "prompts", "options")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: _image_pb2.ImageSource
    model: str
    prompts: Prompts
    options: SegmentOptions
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.ImageSource, _Mapping]] = ..., model: _Optional[str] = ..., prompts: _Optional[_Union[Prompts, _Mapping]] = ..., options: _Optional[_Union[SegmentOptions, _Mapping]] = ...) -> None: ...

class SegmentResponse(_message.Message):
    __slots__ = ("request_id", "model", "image", "masks", "timings", "embedding_was_cached")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_WAS_CACHED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: _common_pb2.ModelRef
    image: _image_pb2.ImageInfo
    masks: _containers.RepeatedCompositeFieldContainer[MaskProposal]
    timings: _common_pb2.Timings
    embedding_was_cached: bool
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., image: _Optional[_Union[_image_pb2.ImageInfo, _Mapping]] = ..., masks: _Optional[_Iterable[_Union[MaskProposal, _Mapping]]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., embedding_was_cached: bool = ...) -> None: ...

class SegmentEverythingRequest(_message.Message):
    __slots__ = ("request_id", "image", "model", "options", "points_per_side", "min_predicted_iou", "min_stability_score", "nms_iou", "min_area_px")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    POINTS_PER_SIDE_FIELD_NUMBER: _ClassVar[int]
    MIN_PREDICTED_IOU_FIELD_NUMBER: _ClassVar[int]
    MIN_STABILITY_SCORE_FIELD_NUMBER: _ClassVar[int]
    NMS_IOU_FIELD_NUMBER: _ClassVar[int]
    MIN_AREA_PX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: _image_pb2.ImageSource
    model: str
    options: SegmentOptions
    points_per_side: int
    min_predicted_iou: float
    min_stability_score: float
    nms_iou: float
    min_area_px: int
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.ImageSource, _Mapping]] = ..., model: _Optional[str] = ..., options: _Optional[_Union[SegmentOptions, _Mapping]] = ..., points_per_side: _Optional[int] = ..., min_predicted_iou: _Optional[float] = ..., min_stability_score: _Optional[float] = ..., nms_iou: _Optional[float] = ..., min_area_px: _Optional[int] = ...) -> None: ...

class SegmentEverythingResponse(_message.Message):
    __slots__ = ("request_id", "model", "image", "masks", "timings")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: _common_pb2.ModelRef
    image: _image_pb2.ImageInfo
    masks: _containers.RepeatedCompositeFieldContainer[MaskProposal]
    timings: _common_pb2.Timings
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., image: _Optional[_Union[_image_pb2.ImageInfo, _Mapping]] = ..., masks: _Optional[_Iterable[_Union[MaskProposal, _Mapping]]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ...) -> None: ...

class SessionStart(_message.Message):
    __slots__ = ("image", "model", "options")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.ImageSource
    model: str
    options: SegmentOptions
    def __init__(self, image: _Optional[_Union[_image_pb2.ImageSource, _Mapping]] = ..., model: _Optional[str] = ..., options: _Optional[_Union[SegmentOptions, _Mapping]] = ...) -> None: ...

class UndoAction(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RedoAction(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetAction(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChooseAction(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class SegmentSessionRequest(_message.Message):
    __slots__ = ("sequence", "start", "point", "box", "scribble", "mask", "undo", "redo", "reset", "choose")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCRIBBLE_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    UNDO_FIELD_NUMBER: _ClassVar[int]
    REDO_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    CHOOSE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    start: SessionStart
    point: PointPrompt
    box: _geometry_pb2.Box
    scribble: ScribblePrompt
    mask: _geometry_pb2.Mask
    undo: UndoAction
    redo: RedoAction
    reset: ResetAction
    choose: ChooseAction
    def __init__(self, sequence: _Optional[int] = ..., start: _Optional[_Union[SessionStart, _Mapping]] = ..., point: _Optional[_Union[PointPrompt, _Mapping]] = ..., box: _Optional[_Union[_geometry_pb2.Box, _Mapping]] = ..., scribble: _Optional[_Union[ScribblePrompt, _Mapping]] = ..., mask: _Optional[_Union[_geometry_pb2.Mask, _Mapping]] = ..., undo: _Optional[_Union[UndoAction, _Mapping]] = ..., redo: _Optional[_Union[RedoAction, _Mapping]] = ..., reset: _Optional[_Union[ResetAction, _Mapping]] = ..., choose: _Optional[_Union[ChooseAction, _Mapping]] = ...) -> None: ...

class SessionStarted(_message.Message):
    __slots__ = ("image", "model")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    image: _image_pb2.ImageInfo
    model: _common_pb2.ModelRef
    def __init__(self, image: _Optional[_Union[_image_pb2.ImageInfo, _Mapping]] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ...) -> None: ...

class Superseded(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SegmentSessionResponse(_message.Message):
    __slots__ = ("sequence", "started", "masks", "superseded", "error", "prompt_count", "redo_count")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    SUPERSEDED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    REDO_COUNT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    started: SessionStarted
    masks: SegmentResponse
    superseded: Superseded
    error: _errors_pb2.ErrorStatus
    prompt_count: int
    redo_count: int
    def __init__(self, sequence: _Optional[int] = ..., started: _Optional[_Union[SessionStarted, _Mapping]] = ..., masks: _Optional[_Union[SegmentResponse, _Mapping]] = ..., superseded: _Optional[_Union[Superseded, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.ErrorStatus, _Mapping]] = ..., prompt_count: _Optional[int] = ..., redo_count: _Optional[int] = ...) -> None: ...
