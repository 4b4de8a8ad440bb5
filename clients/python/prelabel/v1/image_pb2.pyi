from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CoordinateFrame(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COORDINATE_FRAME_UNSPECIFIED: _ClassVar[CoordinateFrame]
    COORDINATE_FRAME_DISPLAYED: _ClassVar[CoordinateFrame]
    COORDINATE_FRAME_STORED: _ClassVar[CoordinateFrame]
COORDINATE_FRAME_UNSPECIFIED: CoordinateFrame
COORDINATE_FRAME_DISPLAYED: CoordinateFrame
COORDINATE_FRAME_STORED: CoordinateFrame

class ImageSource(_message.Message):
    __slots__ = ("data", "digest", "path", "url")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    digest: str
    path: RootedPath
    url: str
    def __init__(self, data: _Optional[bytes] = ..., digest: _Optional[str] = ..., path: _Optional[_Union[RootedPath, _Mapping]] = ..., url: _Optional[str] = ...) -> None: ...

class RootedPath(_message.Message):
    __slots__ = ("root", "path")
    ROOT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    root: str
    path: str
    def __init__(self, root: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class ImageInfo(_message.Message):
    __slots__ = ("digest", "width", "height", "coordinate_frame", "exif_orientation", "format", "frame_index", "frame_count")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    COORDINATE_FRAME_FIELD_NUMBER: _ClassVar[int]
    EXIF_ORIENTATION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    FRAME_COUNT_FIELD_NUMBER: _ClassVar[int]
    digest: str
    width: int
    height: int
    coordinate_frame: CoordinateFrame
    exif_orientation: int
    format: str
    frame_index: int
    frame_count: int
    def __init__(self, digest: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., coordinate_frame: _Optional[_Union[CoordinateFrame, str]] = ..., exif_orientation: _Optional[int] = ..., format: _Optional[str] = ..., frame_index: _Optional[int] = ..., frame_count: _Optional[int] = ...) -> None: ...
