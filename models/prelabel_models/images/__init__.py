"""Images: what a file says of itself, its pixels, and its two coordinate frames.

`read_header` first: it bounds size and memory before anything is decoded. Then `decode`. Models
see the displayed orientation; `boxes_to_stored` and its kin serve callers that keep the stored one.
"""

from prelabel_models.images.decode import DecodedImage, decode
from prelabel_models.images.header import (
    DEFAULT_LIMITS,
    ImageFormat,
    ImageHeader,
    ImageLimits,
    digest,
    read_header,
)
from prelabel_models.images.orientation import (
    boxes_to_displayed,
    boxes_to_stored,
    mask_to_displayed,
    mask_to_stored,
    points_to_displayed,
    points_to_stored,
)

__all__ = [
    "DEFAULT_LIMITS",
    "DecodedImage",
    "ImageFormat",
    "ImageHeader",
    "ImageLimits",
    "boxes_to_displayed",
    "boxes_to_stored",
    "decode",
    "digest",
    "mask_to_displayed",
    "mask_to_stored",
    "points_to_displayed",
    "points_to_stored",
    "read_header",
]
