from prelabel.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    TASK_DETECT: _ClassVar[Task]
    TASK_SEGMENT: _ClassVar[Task]

class PromptKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROMPT_KIND_UNSPECIFIED: _ClassVar[PromptKind]
    PROMPT_KIND_POINT: _ClassVar[PromptKind]
    PROMPT_KIND_BOX: _ClassVar[PromptKind]
    PROMPT_KIND_SCRIBBLE: _ClassVar[PromptKind]
    PROMPT_KIND_MASK: _ClassVar[PromptKind]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_AVAILABLE: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_FAILED: _ClassVar[ModelState]
TASK_UNSPECIFIED: Task
TASK_DETECT: Task
TASK_SEGMENT: Task
PROMPT_KIND_UNSPECIFIED: PromptKind
PROMPT_KIND_POINT: PromptKind
PROMPT_KIND_BOX: PromptKind
PROMPT_KIND_SCRIBBLE: PromptKind
PROMPT_KIND_MASK: PromptKind
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_AVAILABLE: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_FAILED: ModelState

class Model(_message.Message):
    __slots__ = ("ref", "task", "family", "labels", "license", "description", "state", "message", "device", "execution_provider", "input_width_px", "input_height_px", "default_min_score", "gives_masks", "gives_text", "prompts", "suppresses_in_graph", "size_bytes")
    REF_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    INPUT_WIDTH_PX_FIELD_NUMBER: _ClassVar[int]
    INPUT_HEIGHT_PX_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    GIVES_MASKS_FIELD_NUMBER: _ClassVar[int]
    GIVES_TEXT_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    SUPPRESSES_IN_GRAPH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ref: _common_pb2.ModelRef
    task: Task
    family: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    license: str
    description: str
    state: ModelState
    message: str
    device: str
    execution_provider: str
    input_width_px: int
    input_height_px: int
    default_min_score: float
    gives_masks: bool
    gives_text: bool
    prompts: _containers.RepeatedScalarFieldContainer[PromptKind]
    suppresses_in_graph: bool
    size_bytes: int
    def __init__(self, ref: _Optional[_Union[_common_pb2.ModelRef, _Mapping]] = ..., task: _Optional[_Union[Task, str]] = ..., family: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., license: _Optional[str] = ..., description: _Optional[str] = ..., state: _Optional[_Union[ModelState, str]] = ..., message: _Optional[str] = ..., device: _Optional[str] = ..., execution_provider: _Optional[str] = ..., input_width_px: _Optional[int] = ..., input_height_px: _Optional[int] = ..., default_min_score: _Optional[float] = ..., gives_masks: bool = ..., gives_text: bool = ..., prompts: _Optional[_Iterable[_Union[PromptKind, str]]] = ..., suppresses_in_graph: bool = ..., size_bytes: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, str]] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_image_bytes", "max_image_pixels", "max_image_side_px", "image_formats", "max_proposals", "max_tiles", "max_queue_length", "max_stream_window", "default_deadline_ms", "decode_budget_bytes", "image_cache_bytes")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_SIDE_PX_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FORMATS_FIELD_NUMBER: _ClassVar[int]
    MAX_PROPOSALS_FIELD_NUMBER: _ClassVar[int]
    MAX_TILES_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_STREAM_WINDOW_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_image_side_px: int
    image_formats: _containers.RepeatedScalarFieldContainer[str]
    max_proposals: int
    max_tiles: int
    max_queue_length: int
    max_stream_window: int
    default_deadline_ms: int
    decode_budget_bytes: int
    image_cache_bytes: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., max_image_side_px: _Optional[int] = ..., image_formats: _Optional[_Iterable[str]] = ..., max_proposals: _Optional[int] = ..., max_tiles: _Optional[int] = ..., max_queue_length: _Optional[int] = ..., max_stream_window: _Optional[int] = ..., default_deadline_ms: _Optional[int] = ..., decode_budget_bytes: _Optional[int] = ..., image_cache_bytes: _Optional[int] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "limits", "devices", "onnxruntime_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    ONNXRUNTIME_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    limits: Limits
    devices: _containers.RepeatedScalarFieldContainer[str]
    onnxruntime_version: str
    def __init__(self, version: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., devices: _Optional[_Iterable[str]] = ..., onnxruntime_version: _Optional[str] = ...) -> None: ...
