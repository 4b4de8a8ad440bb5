from prelabel.v1 import common_pb2 as _common_pb2
from prelabel.v1 import errors_pb2 as _errors_pb2
from prelabel.v1 import geometry_pb2 as _geometry_pb2
from prelabel.v1 import image_pb2 as _image_pb2
from prelabel.v1 import proposal_pb2 as _proposal_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DetectOptions(_message.Message):
    __slots__ = ("min_score", "label_min_scores", "labels", "label_map", "nms", "max_proposals", "tiling", "coordinate_frame", "mask_encoding", "polygon_tolerance_px")
    class LabelMinScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LabelMapEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    LABEL_MIN_SCORES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LABEL_MAP_FIELD_NUMBER: _ClassVar[int]
    NMS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    TILING_FIELD_NUMBER: _ClassVar[int]
    COORDINATE_FRAME_FIELD_NUMBER: _ClassVar[int]
    MASK_ENCODING_FIELD_NUMBER: _ClassVar[int]
    POLYGON_TOLERANCE_PX_FIELD_NUMBER: _ClassVar[int]
    min_score: float
    label_min_scores: _containers.ScalarMap[str, float]
    labels: _containers.RepeatedScalarFieldContainer[str]
    label_map: _containers.ScalarMap[str, str]
    nms: NmsOptions
    max_proposals: int
    tiling: TilingOptions
    coordinate_frame: _image_pb2.CoordinateFrame
    mask_encoding: _geometry_pb2.MaskEncoding
    polygon_tolerance_px: float
    def __init__(self, min_score: _Optional[float] = ..., label_min_scores: _Optional[_Mapping[str, float]] = ..., labels: _Optional[_Iterable[str]] = ..., label_map: _Optional[_Mapping[str, str]] = ..., nms: _Optional[_Union[NmsOptions, _Mapping]] = ..., max_proposals: _Optional[int] = ..., tiling: _Optional[_Union[TilingOptions, _Mapping]] = ..., coordinate_frame: _Optional[_Union[_image_pb2.CoordinateFrame, str]] = ..., mask_encoding: _Optional[_Union[_geometry_pb2.MaskEncoding, str]] = ..., polygon_tolerance_px: _Optional[float] = ...) -> None: ...

class NmsOptions(_message.Message):
    __slots__ = ("iou_threshold", "class_agnostic", "disabled")
    IOU_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    CLASS_AGNOSTIC_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    iou_threshold: float
    class_agnostic: bool
    disabled: bool
    def __init__(self, iou_threshold: _Optional[float] = ..., class_agnostic: bool = ..., disabled: bool = ...) -> None: ...

class TilingOptions(_message.Message):
    __slots__ = ("tile_size_px", "overlap", "skip_full_image")
    TILE_SIZE_PX_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_FIELD_NUMBER: _ClassVar[int]
    SKIP_FULL_IMAGE_FIELD_NUMBER: _ClassVar[int]
    tile_size_px: int
    overlap: float
    skip_full_image: bool
    def __init__(self, tile_size_px: _Optional[int] = ..., overlap: _Optional[float] = ..., skip_full_image: bool = ...) -> None: ...

class DetectRequest(_message.Message):
    __slots__ = ("request_id", "image", "model", "options")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image: _image_pb2.ImageSource
    model: str
    options: DetectOptions
    def __init__(self, request_id: _Optional[str] = ..., image: _Optional[_Union[_image_pb2.ImageSource, _Mapping]] = ..., model: _Optional[str] = ..., options: _Optional[_Union[DetectOptions, _Mapping]] = ...) -> None: ...

class DetectResponse(_message.Message):
    __slots__ = ("request_id", "model", "image", "proposals", "timings", "truncated")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: _common_pb2.ModelRef
    image: _image_pb2.ImageInfo
    proposals: _containers.RepeatedCompositeFieldContainer[_proposal_pb2.Proposal]
    timings: _common_pb2.Timings
    truncated: bool
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., image: _Optional[_Union[_image_pb2.ImageInfo, _Mapping]] = ..., proposals: _Optional[_Iterable[_Union[_proposal_pb2.Proposal, _Mapping]]] = ..., timings: _Optional[_Union[_common_pb2.Timings, _Mapping]] = ..., truncated: bool = ...) -> None: ...

class StreamDetectRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: DetectRequest
    def __init__(self, request: _Optional[_Union[DetectRequest, _Mapping]] = ...) -> None: ...

class StreamDetectResponse(_message.Message):
    __slots__ = ("request_id", "response", "error")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    response: DetectResponse
    error: _errors_pb2.ErrorStatus
    def __init__(self, request_id: _Optional[str] = ..., response: _Optional[_Union[DetectResponse, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.ErrorStatus, _Mapping]] = ...) -> None: ...
