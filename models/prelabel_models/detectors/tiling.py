"""Sliding windows over a large image, so that small objects keep their pixels.

Source: Akyon, Altinuc, Temizel, "Slicing Aided Hyper Inference", 2022. Objects cut by a tile's edge
are found in part by it and in whole by its neighbour (or by the run over the full image); the parts
are dropped in the merge by intersection over the smaller area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import OptionError
from prelabel_models.geometry import box_areas, suppress
from prelabel_models.types import Detections, DetectOptions, RgbImage

# A part that lies this far inside another detection of its class is the same object: the value of
# SAHI's default matcher (intersection over smaller area).
_CONTAINED = 0.5
# A box this close to an inner edge of its tile, in pixels, was probably cut by it.
_EDGE_PX = 2.0


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of an image: x1 <= x < x2, y1 <= y < y2 in pixels."""

    x1: int
    y1: int
    x2: int
    y2: int


def plan_tiles(
    image_size: tuple[int, int], tile_size: int, overlap: float, *, max_tiles: int
) -> tuple[Tile, ...]:
    """Tiles of equal size that cover the image.

    Args:
        image_size: (width, height) in pixels.
        tile_size: Side in pixels, >= 1.
        overlap: Share of a tile in common with its neighbour, at least, in [0, 0.9].
        max_tiles: Bound on the count.

    Returns:
        Row by row; empty if one tile would cover the whole image.

    Raises:
        OptionError: The tiles would be too many.

    Example:
        >>> [(t.x1, t.x2) for t in plan_tiles((1000, 400), 600, 0.2, max_tiles=9)]
        [(0, 600), (400, 1000)]
    """
    width, height = image_size
    if width <= tile_size and height <= tile_size:
        return ()
    xs = _starts(width, tile_size, overlap)
    ys = _starts(height, tile_size, overlap)
    if len(xs) * len(ys) > max_tiles:
        raise OptionError(
            "tiling.tile_size_px",
            f"tiling.tile_size_px: expected at most {max_tiles} tiles, {tile_size} px and overlap "
            f"{overlap:g} give {len(xs) * len(ys)} on an image of {width}x{height}",
        )
    return tuple(
        Tile(x, y, min(x + tile_size, width), min(y + tile_size, height)) for y in ys for x in xs
    )


def crop(image: RgbImage, tile: Tile) -> RgbImage:
    """The tile's pixels, as a contiguous array of its own."""
    return np.ascontiguousarray(image[tile.y1 : tile.y2, tile.x1 : tile.x2])


def merge(
    parts: Sequence[tuple[Detections, Tile | None]],
    image_size: tuple[int, int],
    options: DetectOptions,
) -> Detections:
    """Detections of all runs as those of one image.

    Args:
        parts: Each run's detections in its own pixels, and its tile; None is the full image.
        image_size: (width, height) of the full image in pixels.
        options: Suppression and the bound on the count are applied again, over all runs.

    Returns:
        In pixels of the full image, highest score first.
    """
    moved = [_moved(found, tile, image_size) for found, tile in parts]
    cut = np.concatenate(
        [
            _cut_by_tile(found, tile, image_size)
            for found, (_, tile) in zip(moved, parts, strict=True)
        ]
    )
    joined = _concatenate(moved)
    if options.nms_iou is not None:
        keep = np.flatnonzero(~_contained(joined, cut, agnostic=options.class_agnostic_nms))
        joined = joined.take(keep)
    return suppress(joined, options)


def _starts(length: int, tile_size: int, overlap: float) -> list[int]:
    if length <= tile_size:
        return [0]
    step = max(1, int(tile_size * (1 - overlap)))
    count = -(-(length - tile_size) // step) + 1
    # Spread evenly: the last tile ends at the border instead of hanging over it.
    return [round(i * (length - tile_size) / (count - 1)) for i in range(count)]


def _moved(found: Detections, tile: Tile | None, image_size: tuple[int, int]) -> Detections:
    if tile is None:
        return found
    shift = np.asarray([tile.x1, tile.y1], np.float32)
    placed = None
    if found.masks is not None:
        placed = tuple(_place(mask, tile, image_size) for mask in found.masks)
    return replace(
        found,
        boxes_xyxy=found.boxes_xyxy + np.tile(shift, 2),
        outlines=None if found.outlines is None else found.outlines + shift,
        key_points=None if found.key_points is None else found.key_points + shift,
        masks=placed,
    )


def _place(mask: NDArray[np.bool_], tile: Tile, image_size: tuple[int, int]) -> NDArray[np.bool_]:
    full = np.zeros((image_size[1], image_size[0]), bool)
    full[tile.y1 : tile.y2, tile.x1 : tile.x2] = mask
    return full


def _cut_by_tile(
    found: Detections, tile: Tile | None, image_size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which boxes end at an edge of the tile that is not an edge of the image."""
    boxes = found.boxes_xyxy
    if tile is None:
        return np.zeros(len(found), bool)
    near = np.zeros(len(found), bool)
    if tile.x1 > 0:
        near |= boxes[:, 0] <= tile.x1 + _EDGE_PX
    if tile.y1 > 0:
        near |= boxes[:, 1] <= tile.y1 + _EDGE_PX
    if tile.x2 < image_size[0]:
        near |= boxes[:, 2] >= tile.x2 - _EDGE_PX
    if tile.y2 < image_size[1]:
        near |= boxes[:, 3] >= tile.y2 - _EDGE_PX
    return near


def _contained(found: Detections, cut: NDArray[np.bool_], *, agnostic: bool) -> NDArray[np.bool_]:
    """Which cut-off parts lie mostly inside a larger detection."""
    boxes = found.boxes_xyxy.astype(np.float64)
    areas = box_areas(boxes)
    inside = np.zeros(len(found), bool)
    for i in np.flatnonzero(cut):
        rivals = areas > areas[i]
        if not agnostic:
            rivals &= found.class_ids == found.class_ids[i]
        top_left = np.maximum(boxes[rivals, :2], boxes[i, :2])
        bottom_right = np.minimum(boxes[rivals, 2:], boxes[i, 2:])
        shared = np.clip(bottom_right - top_left, 0, None).prod(axis=1)
        inside[i] = bool((shared > _CONTAINED * areas[i]).any())
    return inside


def _concatenate(parts: Sequence[Detections]) -> Detections:
    first = parts[0]
    return Detections(
        boxes_xyxy=np.concatenate([p.boxes_xyxy for p in parts]),
        scores=np.concatenate([p.scores for p in parts]),
        class_ids=np.concatenate([p.class_ids for p in parts]),
        outlines=None
        if first.outlines is None
        else np.concatenate([p.outlines for p in parts if p.outlines is not None]),
        key_points=None
        if first.key_points is None
        else np.concatenate([p.key_points for p in parts if p.key_points is not None]),
        texts=None if first.texts is None else tuple(t for p in parts for t in p.texts or ()),
        masks=None if first.masks is None else tuple(m for p in parts for m in p.masks or ()),
        truncated=any(p.truncated for p in parts),
    )
