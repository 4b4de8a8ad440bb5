"""What the use cases take and give: frozen values between transports and engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from prelabel_models.base import ModelInfo
from prelabel_models.images import ImageHeader
from prelabel_models.masks import CocoRle, Polygon
from prelabel_models.segmenters.base import Prompts
from prelabel_models.types import Detections
from prelabel_server.engine.scheduler import Priority


class Frame(Enum):
    """The axes of an answer's coordinates."""

    DISPLAYED = "displayed"
    STORED = "stored"


class MaskEncoding(Enum):
    """How masks are given back."""

    COCO_RLE = "rle"
    POLYGONS = "polygons"
    PNG = "png"


EncodedMask = CocoRle | tuple[Polygon, ...] | bytes


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """An encoded image."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ImageDigest:
    """An image that the server may still hold."""

    digest: str


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image that a session keeps, with the digest that was computed once."""

    data: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class ImagePath:
    """A file below a named root."""

    root: str
    path: str


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An address to fetch."""

    url: str


ImageSource = ImageBytes | ImageDigest | HeldImage | ImagePath | ImageUrl


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and until when.

    Attributes:
        identity: Empty where the server does not authenticate.
        deadline: On the monotonic clock, seconds.
        priority: Who goes first.
    """

    deadline: float
    identity: str = ""
    priority: Priority = Priority.UNARY


@dataclass(frozen=True, slots=True)
class TilingOptions:
    """Sliding windows; see the contract."""

    tile_size_px: int = 0
    overlap: float = 0.2
    skip_full_image: bool = False


@dataclass(frozen=True, slots=True)
class DetectCommand:
    """One image to pre-label; classes by the model's own label, None and empty for the default."""

    image: ImageSource
    model: str
    request_id: str = ""
    min_score: float | None = None
    label_min_scores: Mapping[str, float] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)
    nms_iou: float | None = None
    nms_class_agnostic: bool = False
    nms_disabled: bool = False
    max_proposals: int = 0
    tiling: TilingOptions | None = None
    frame: Frame = Frame.DISPLAYED
    mask_encoding: MaskEncoding = MaskEncoding.COCO_RLE
    polygon_tolerance_px: float = 1.0


@dataclass(frozen=True, slots=True)
class AnswerTimings:
    """Seconds on the server, stage by stage."""

    decode_s: float
    queue_s: float
    preprocess_s: float
    inference_s: float
    postprocess_s: float
    total_s: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class DetectAnswer:
    """The pre-label of one image.

    Attributes:
        request_id: The command's.
        model: The model that answered.
        digest: Of the encoded image.
        header: What the image's header said.
        frame: Axes of all coordinates.
        size: (width, height) in that frame.
        detections: In that frame.
        names: The label of each detection, after mapping.
        masks: One encoded mask per detection; empty if the model gives none.
        timings: Where the time went.
    """

    request_id: str
    model: ModelInfo
    digest: str
    header: ImageHeader
    frame: Frame
    size: tuple[int, int]
    detections: Detections
    names: tuple[str, ...]
    masks: tuple[EncodedMask, ...]
    timings: AnswerTimings


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """What an answer with masks is to hold; see the contract."""

    max_masks: int = 0
    mask_encoding: MaskEncoding = MaskEncoding.COCO_RLE
    polygon_tolerance_px: float = 1.0
    frame: Frame = Frame.DISPLAYED


@dataclass(frozen=True, slots=True)
class EverythingOptions:
    """How the grid's masks are thinned out; see the contract."""

    points_per_side: int = 16
    min_predicted_iou: float = 0.7
    min_stability_score: float = 0.8
    nms_iou: float = 0.7
    min_area_px: int = 0


@dataclass(frozen=True, slots=True)
class SegmentCommand:
    """One set of prompts on one image.

    Attributes:
        prompts: None asks for everything in the image.
        previous_mask_token: Of an earlier answer, refined where `prompts` has no mask.
    """

    image: ImageSource
    model: str
    prompts: Prompts | None
    request_id: str = ""
    previous_mask_token: str = ""
    options: SegmentOptions = field(default_factory=SegmentOptions)
    everything: EverythingOptions = field(default_factory=EverythingOptions)


@dataclass(frozen=True, slots=True)
class MaskAnswer:
    """One mask in an answer.

    Attributes:
        mask: Encoded.
        box_xyxy: Around its pixels, in the answer's frame.
        area_px: Their number.
        predicted_iou: The model's estimate, [0, 1].
        stability_score: [0, 1].
        token: Names it in a later request.
        low_res_logits: The model's own grid.
    """

    mask: EncodedMask
    box_xyxy: tuple[int, int, int, int]
    area_px: int
    predicted_iou: float
    stability_score: float
    token: str
    low_res_logits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The image of an answer, in its frame."""

    digest: str
    header: ImageHeader
    frame: Frame
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SegmentAnswer:
    """Masks for one set of prompts."""

    request_id: str
    model: ModelInfo
    image: ImageFacts
    masks: tuple[MaskAnswer, ...]
    timings: AnswerTimings
    was_cached: bool


@dataclass(frozen=True, slots=True)
class EmbedAnswer:
    """What is held after encoding an image.

    Attributes:
        ttl_s: Held for so long after its last use, unless newer ones need the room.
    """

    model: ModelInfo
    image: ImageFacts
    was_cached: bool
    embedding_bytes: int
    ttl_s: float
    timings: AnswerTimings
