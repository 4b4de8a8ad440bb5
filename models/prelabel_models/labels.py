"""Class names of well-known data sets, for cards to refer to by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Lin et al., Microsoft COCO, 2014: the 80 categories of instances_*.json in order of id.
COCO80: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat",
    "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
    "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball",
    "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
    "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair",
    "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse",
    "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier",
    "toothbrush",
)

# The same by category id (1 to 90, with gaps), as models of the DETR and TensorFlow lineage
# number them; index 0 is their background.
COCO91: tuple[str, ...] = (
    "unused 0", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck",
    "boat", "traffic light", "fire hydrant", "unused 12", "stop sign", "parking meter",
    "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
    "giraffe", "unused 26", "backpack", "umbrella", "unused 29", "unused 30", "handbag",
    "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "unused 45", "wine
    glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted
    plant", "bed", "unused 66", "dining table", "unused 68", "unused 69", "toilet", "unused
    71", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", "unused 83", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)

LABEL_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"coco80": COCO80, "coco91": COCO91}
)
