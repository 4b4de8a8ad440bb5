"""What the SDK gives back: plain frozen values, no numpy needed to read them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PointXY = tuple[float, float]
BoxXYXY = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A box at an angle; pixels, and clockwise degrees in [-90, 90)."""

    center_x: float
    center_y: float
    width: float
    height: float
    angle_degrees: float


@dataclass(frozen=True, slots=True)
class Polygon:
    """One connected area.

    Attributes:
        exterior: Corners (x, y) in pixels.
        holes: Corners of each hole.
    """

    exterior: tuple[PointXY, ...]
    holes: tuple[tuple[PointXY, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Mask:
    """Which pixels belong to an object; exactly one of the three encodings is set.

    Attributes:
        size: (height, width) in pixels, known for RLE.
        rle: COCO compressed `counts`, as `pycocotools.mask.decode` takes them.
        polygons: Outlines.
        png: A one-channel PNG, 255 inside.
    """

    size: tuple[int, int] | None = None
    rle: str | None = None
    polygons: tuple[Polygon, ...] | None = None
    png: bytes | None = None

    @classmethod
    def from_array(cls, mask: NDArray[np.bool_]) -> Mask:
        """A mask from booleans, shape (height, width). Needs numpy.

        Example:
            >>> import numpy as np
            >>> Mask.from_array(np.asarray([[False, True, False]])).rle
            '111'
        """
        import numpy as np

        height, width = mask.shape
        flat = np.asarray(mask, bool).T.reshape(-1)
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        edges = [0, *changes.tolist(), flat.size]
        runs = [b - a for a, b in itertools.pairwise(edges)]
        if flat.size and flat[0]:
            runs.insert(0, 0)
        return cls(size=(height, width), rle=_rle_text(runs))

    def to_array(self) -> NDArray[np.bool_]:
        """The mask as booleans, shape (height, width). Needs numpy.

        Raises:
            ValueError: The mask was asked for as polygons or PNG, which this light client does
                not draw.

        Example:
            >>> Mask(size=(1, 3), rle="111").to_array().tolist()
            [[False, True, False]]
        """
        if self.rle is None or self.size is None:
            raise ValueError("to_array: expected a mask in COCO RLE, ask for mask_encoding='rle'")
        import numpy as np

        runs = _rle_runs(self.rle)
        values = np.arange(len(runs)) % 2 == 1
        flat = np.repeat(values, runs)
        height, width = self.size
        if flat.size != height * width:
            raise ValueError(f"to_array: expected {height * width} pixels, got {flat.size}")
        return flat.reshape(width, height).T


@dataclass(frozen=True, slots=True)
class Proposal:
    """One object that a model suggests.

    Attributes:
        label: Its class, after label mapping.
        class_id: Index of the class in the model's own list.
        score: What the model said, in [0, 1].
        confidence: Calibrated probability that a reviewer would accept it unchanged, in [0, 1];
            None until verdicts have calibrated the model.
        box: (x1, y1, x2, y2), half-open, pixels.
        rotated_box: The object's own orientation, where the model gives one.
        outline: Corners (x, y), where the model gives them.
        mask: The object's pixels, where the model gives them.
        text: What is written there, where the model reads.
        key_points: Named positions (x, y), where the model gives them.
    """

    label: str
    class_id: int
    score: float
    confidence: float | None
    box: BoxXYXY
    rotated_box: RotatedBox | None = None
    outline: tuple[PointXY, ...] | None = None
    mask: Mask | None = None
    text: str | None = None
    key_points: tuple[PointXY, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The exact model that answered."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The image that was read.

    Attributes:
        digest: `sha256:...` over the encoded bytes.
        width: Pixels of the frame named by `coordinate_frame`.
        height: Likewise.
        coordinate_frame: `displayed` or `stored`.
        exif_orientation: 1 to 8.
        format: By content, for example `JPEG`.
        frame_index: Frame that was read, for files that hold several.
        frame_count: Frames in the file.
    """

    digest: str
    width: int
    height: int
    coordinate_frame: str = "displayed"
    exif_orientation: int = 1
    format: str = ""
    frame_index: int | None = None
    frame_count: int = 1


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went on the server, in milliseconds."""

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0
    total_ms: float = 0.0
    batch_size: int = 0


@dataclass(frozen=True, slots=True)
class DetectResult:
    """The pre-label of one image.

    Attributes:
        proposals: Highest score first.
        truncated: Proposals above the threshold were left out because of `max_proposals`.
    """

    request_id: str
    model: ModelRef
    image: ImageInfo
    proposals: tuple[Proposal, ...]
    timings: Timings
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sliding windows over a large image.

    Attributes:
        tile_size_px: Side of a tile; 0 takes the model's input size.
        overlap: Share of a tile in common with its neighbour, in [0, 0.9].
        skip_full_image: Leave out the run over the whole image.
    """

    tile_size_px: int = 0
    overlap: float = 0.2
    skip_full_image: bool = False


@dataclass(frozen=True, slots=True)
class DetectOptions:
    """What to keep of a model's output; None and empty leave it to the model's card.

    Attributes:
        min_score: Keep scores >= this, in [0, 1].
        label_min_scores: Thresholds for single classes by the model's own label.
        labels: Keep only these classes, by the model's own label.
        label_map: Rename classes, from the model's label to yours.
        nms_iou: Overlap in [0, 1] above which two boxes count as one object.
        nms_class_agnostic: Compare boxes of different classes too.
        nms_disabled: Keep every box.
        max_proposals: Keep at most this many; 0 leaves it to the server.
        tiling: Cut large images into tiles.
        coordinate_frame: `displayed` or `stored`.
        mask_encoding: `rle`, `polygons` or `png`.
        polygon_tolerance_px: Largest distance between a polygon and the mask's border.
    """

    min_score: float | None = None
    label_min_scores: Mapping[str, float] = field(default_factory=dict)
    labels: Sequence[str] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)
    nms_iou: float | None = None
    nms_class_agnostic: bool = False
    nms_disabled: bool = False
    max_proposals: int = 0
    tiling: Tiling | None = None
    coordinate_frame: str = "displayed"
    mask_encoding: str = "rle"
    polygon_tolerance_px: float | None = None


@dataclass(frozen=True, slots=True)
class MaskProposal:
    """One mask that a segmenter suggests.

    Attributes:
        mask: The pixels.
        box: (x1, y1, x2, y2), half-open, pixels.
        area_px: Number of pixels.
        predicted_iou: The model's estimate of intersection over union with what was meant, [0, 1].
        stability_score: How little the border depends on the threshold, [0, 1].
        token: Pass it as `previous_mask` to refine this mask.
    """

    mask: Mask
    box: BoxXYXY
    area_px: int
    predicted_iou: float
    stability_score: float
    token: str

    def to_array(self) -> NDArray[np.bool_]:
        """The mask as booleans, shape (height, width); see `Mask.to_array`."""
        return self.mask.to_array()


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """Masks for one set of prompts.

    Attributes:
        masks: The highest predicted IoU first; empty if the model sees nothing there.
        embedding_was_cached: The image did not have to be encoded.
    """

    request_id: str
    model: ModelRef
    image: ImageInfo
    masks: tuple[MaskProposal, ...]
    timings: Timings
    embedding_was_cached: bool = False


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """What the server holds after encoding an image.

    Attributes:
        was_cached: It held the embedding before.
        embedding_bytes: Size of the embedding.
        expires_at: Unix time in seconds until which it is held, unless newer ones need the room.
    """

    model: ModelRef
    image: ImageInfo
    was_cached: bool
    embedding_bytes: int
    expires_at: float
    timings: Timings


@dataclass(frozen=True, slots=True)
class Scribble:
    """A free line over the object, or over what is not it.

    Attributes:
        points: Corners (x, y) in pixels of the displayed image, at least two.
        positive: Over the object.
        width_px: Diameter of the brush.
    """

    points: Sequence[PointXY]
    positive: bool = True
    width_px: float = 1.0


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """What an answer with masks is to hold.

    Attributes:
        max_masks: 1 to 3; 0 gives three for a lone click, else one.
        mask_encoding: `rle`, `polygons` or `png`.
        polygon_tolerance_px: Largest distance between a polygon and the mask's border.
        coordinate_frame: `displayed` or `stored`; prompts are always in the displayed image.
    """

    max_masks: int = 0
    mask_encoding: str = "rle"
    polygon_tolerance_px: float | None = None
    coordinate_frame: str = "displayed"


@dataclass(frozen=True, slots=True)
class EverythingOptions:
    """How the masks of everything are thinned out; None leaves it to the server.

    Attributes:
        points_per_side: Points along the longer side of the grid, 1 to 64; 0 for the default.
        min_predicted_iou: Keep masks with at least this.
        min_stability_score: Keep masks with at least this.
        nms_iou: Of two masks whose boxes overlap more the lesser is dropped.
        min_area_px: Drop masks of fewer pixels.
    """

    points_per_side: int = 0
    min_predicted_iou: float | None = None
    min_stability_score: float | None = None
    nms_iou: float | None = None
    min_area_px: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A model on the server.

    Attributes:
        name: How requests name it.
        version: The version written in its card.
        digest: Over card and weights.
        task: `detect` or `segment`.
        family: Of its pre- and postprocessing.
        labels: Class names.
        state: `available`, `ready` or `failed`.
        message: Why it failed.
        device: The device that really runs it; empty if not loaded.
        execution_provider: ONNX Runtime's provider in use.
        input_size: (width, height) in pixels; (0, 0) if it takes any.
        default_min_score: Threshold where a request sets none.
        license: Of the weights.
        description: A sentence.
        gives_masks: Its proposals carry masks.
        gives_text: Its proposals carry text.
        size_bytes: Of its files.
    """

    name: str
    version: str
    digest: str
    task: str
    family: str
    labels: tuple[str, ...]
    state: str
    message: str
    device: str
    execution_provider: str
    input_size: tuple[int, int]
    default_min_score: float
    license: str
    description: str
    gives_masks: bool
    gives_text: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server's facts.

    Attributes:
        version: Of prelabel.
        limits: Name to value, as in the message `Limits`.
        image_formats: Formats that are read.
        devices: Devices in use.
        onnxruntime_version: Empty if not installed.
    """

    version: str
    limits: Mapping[str, int]
    image_formats: tuple[str, ...]
    devices: tuple[str, ...]
    onnxruntime_version: str


def _rle_runs(counts: str) -> list[int]:
    """Lengths of the runs in COCO's compressed text; the first counts pixels outside.

    Source: `rleFrString` of the COCO API: 5 bits a character from code 48, bit 32 continues, and
    from the third run on the value is a difference to the run two before.
    """
    runs: list[int] = []
    position = 0
    while position < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(counts):
                raise ValueError("to_array: the RLE text ends inside a number")
            code = ord(counts[position]) - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            position += 1
            shift += 5
            if not more and code & 0x10:
                value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _rle_text(runs: Sequence[int]) -> str:
    """The inverse of `_rle_runs`."""
    characters: list[str] = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            characters.append(chr(48 + (bits | 0x20 if more else bits)))
    return "".join(characters)
