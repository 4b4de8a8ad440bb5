from prelabel.v1 import geometry_pb2 as _geometry_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Proposal(_message.Message):
    __slots__ = ("label", "class_id", "score", "confidence", "box", "rotated_box", "outline", "mask", "text", "key_points")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    ROTATED_BOX_FIELD_NUMBER: _ClassVar[int]
    OUTLINE_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    KEY_POINTS_FIELD_NUMBER: _ClassVar[int]
    label: str
    class_id: int
    score: float
    confidence: float
    box: _geometry_pb2.Box
    rotated_box: _geometry_pb2.RotatedBox
    outline: _geometry_pb2.Ring
    mask: _geometry_pb2.Mask
    text: str
    key_points: _containers.RepeatedCompositeFieldContainer[_geometry_pb2.Point]
    def __init__(self, label: _Optional[str] = ..., class_id: _Optional[int] = ..., score: _Optional[float] = ..., confidence: _Optional[float] = ..., box: _Optional[_Union[_geometry_pb2.Box, _Mapping]] = ..., rotated_box: _Optional[_Union[_geometry_pb2.RotatedBox, _Mapping]] = ..., outline: _Optional[_Union[_geometry_pb2.Ring, _Mapping]] = ..., mask: _Optional[_Union[_geometry_pb2.Mask, _Mapping]] = ..., text: _Optional[str] = ..., key_points: _Optional[_Iterable[_Union[_geometry_pb2.Point, _Mapping]]] = ...) -> None: ...
