"""Masks as boolean (height, width) arrays, and the forms they travel in. Pure functions."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import ImageDamagedError, OptionError
from prelabel_models.run_lengths import pack_runs, unpack_runs

Mask = NDArray[np.bool_]
"""(height, width) bool; True belongs to the object."""

# A mask is one byte per pixel here: 256 MiB, and far above any image that is let in.
_MAX_PIXELS = 1 << 28
_PNG_HEADER = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
# Rows that are scaled together: keeps the working set of a 4000 px wide image in the cache.
_CHUNK_ROWS = 64


@dataclass(frozen=True, slots=True)
class CocoRle:
    """A mask as COCO compressed run lengths.

    Attributes:
        height: Rows, >= 1.
        width: Columns, >= 1.
        counts: The runs as pycocotools writes them, ASCII.
    """

    height: int
    width: int
    counts: str


@dataclass(frozen=True, slots=True)
class Polygon:
    """One connected part of a mask.

    Attributes:
        exterior: (N, 2) float32, x and y in pixels, N >= 3, not closed by a repeated point.
        holes: Arrays like `exterior`, each inside it.
    """

    exterior: NDArray[np.float32]
    holes: tuple[NDArray[np.float32], ...] = ()


def encode_rle(mask: Mask) -> CocoRle:
    """Mask to run lengths, byte for byte as `pycocotools.mask.encode` writes them.

    Args:
        mask: (H, W) bool, each side >= 1.

    Raises:
        OptionError: Not a non-empty (H, W) array.

    Example:
        >>> encode_rle(np.array([[False, True], [False, True]]))
        CocoRle(height=2, width=2, counts='22')
    """
    flags = _checked(mask)
    height, width = flags.shape
    # Where the value changes down a column, and from the foot of one to the head of the next:
    # this finds the runs in the array's own order, so nothing has to be transposed.
    inner = _nonzero((flags[1:] != flags[:-1]).reshape(-1))
    rows, columns = np.divmod(inner, width)
    seams = np.flatnonzero(flags[-1, :-1] != flags[0, 1:])
    changes = np.concatenate([columns * height + rows + 1, (seams + 1) * height])
    changes.sort()
    first = [0, 0] if flags[0, 0] else [0]
    edges = np.concatenate([first, changes, [height * width]])
    return CocoRle(height, width, pack_runs(np.diff(edges)))


def decode_rle(rle: CocoRle, *, max_pixels: int = _MAX_PIXELS) -> Mask:
    """Run lengths to mask.

    Memory is bounded by `height * width` and by the length of the text, whatever it says.

    Args:
        rle: As `encode_rle` or pycocotools made it.
        max_pixels: Refuse larger masks.

    Returns:
        (height, width) bool, C-contiguous.

    Raises:
        OptionError: The size is not allowed, or the runs do not fill it exactly.

    Example:
        >>> decode_rle(CocoRle(2, 2, "22")).tolist()
        [[False, True], [False, True]]
    """
    if rle.height < 1 or rle.width < 1 or rle.height * rle.width > max_pixels:
        raise OptionError(
            "rle",
            f"rle: expected sides of at least 1 and at most {max_pixels} pixels, "
            f"got {rle.width} x {rle.height}",
        )
    runs = unpack_runs(rle.counts)
    pixels = rle.height * rle.width
    # The sum of 35-bit numbers cannot overflow: there are fewer of them than 2**28.
    if (runs < 0).any() or (runs > pixels).any() or int(runs.sum()) != pixels:
        raise OptionError("rle", f"rle: expected runs that add up to {pixels} pixels exactly")
    values = np.arange(len(runs), dtype=np.uint8) & 1
    columns = np.repeat(values, runs).reshape(rle.width, rle.height)
    return cv2.transpose(columns).view(np.bool_)


def mask_area(mask: Mask) -> int:
    """Pixels of the object."""
    return int(np.count_nonzero(mask))


def mask_box_xyxy(mask: Mask) -> tuple[int, int, int, int] | None:
    """The smallest half-open box (x1, y1, x2, y2) around the object; None for an empty mask.

    Example:
        >>> mask_box_xyxy(np.array([[False, False], [False, True]]))
        (1, 1, 2, 2)
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    return int(columns[0]), top, int(columns[-1]) + 1, bottom


def to_polygons(mask: Mask, tolerance_px: float = 1.0) -> tuple[Polygon, ...]:
    """Outlines of a mask along the edges of its pixels, one polygon for each connected part.

    Pixels that touch at a corner are connected. The first pixel covers [0, 1), so the outline of
    a full 1 x 1 mask is the unit square.

    Args:
        mask: (H, W) bool.
        tolerance_px: Largest distance of the outline from the exact one (Douglas-Peucker); 0 keeps
            it exact. Parts that would lose their area stay exact.

    Raises:
        OptionError: `tolerance_px` is negative or not finite.

    Example:
        >>> to_polygons(np.array([[True]]))[0].exterior.tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    """
    if not 0.0 <= tolerance_px < np.inf:
        raise OptionError("tolerance_px", f"tolerance_px: expected >= 0, got {tolerance_px}")
    box = mask_box_xyxy(_checked(mask))
    if box is None:
        return ()
    x1, y1, x2, y2 = box
    crop = mask[y1:y2, x1:x2].astype(np.uint8)
    # OpenCV joins centres of border pixels. With every pixel doubled, the two halves of a pixel
    # round to its two edges, for outer borders and for holes alike.
    doubled = crop.repeat(2, axis=0).repeat(2, axis=1)
    contours, tree = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    corner = np.array([x1, y1], np.int64)
    outlines = [(c[:, 0, :].astype(np.int64) + 1) // 2 + corner for c in contours]
    polygons = []
    for index, (_, _, first_child, parent) in enumerate(tree[0]):
        if parent >= 0:
            continue
        holes = []
        child = first_child
        while child >= 0:
            holes.append(_simplify(outlines[child], tolerance_px))
            child = tree[0][child][0]
        polygons.append(Polygon(_simplify(outlines[index], tolerance_px), tuple(holes)))
    return tuple(polygons)


def from_polygons(polygons: Sequence[Polygon], size: tuple[int, int]) -> Mask:
    """The pixels whose centres lie inside: the inverse of `to_polygons` with tolerance 0.

    Args:
        polygons: Outlines in pixels; inside one polygon the even-odd rule holds, several are
            united. What lies outside the image is cut off.
        size: (width, height) in pixels.

    Raises:
        OptionError: A coordinate is not finite, or the size is not positive.
    """
    width, height = size
    if width < 1 or height < 1:
        raise OptionError("size", f"size: expected sides of at least 1, got {width} x {height}")
    mask = np.zeros((height, width), np.bool_)
    for polygon in polygons:
        _fill(mask, [polygon.exterior, *polygon.holes])
    return mask


def encode_png(mask: Mask) -> bytes:
    """A one-bit grey PNG, white where the mask is True."""
    flags = _checked(mask)
    grey = flags.view(np.uint8) * np.uint8(255)
    _, data = cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_BILEVEL, 1])
    return data.tobytes()


def decode_png(data: bytes, *, max_pixels: int = _MAX_PIXELS) -> Mask:
    """A PNG to the mask of its non-black pixels; the size is checked before decoding.

    Raises:
        ImageDamagedError: Not a PNG, cut short, or larger than `max_pixels`.
    """
    if len(data) < 24 or not data.startswith(_PNG_HEADER):
        raise ImageDamagedError("mask: expected a PNG image")
    width, height = struct.unpack(">II", data[16:24])
    if not 0 < width * height <= max_pixels:
        raise ImageDamagedError(f"mask: expected 1 to {max_pixels} pixels, got {width} x {height}")
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ImageDamagedError("mask: the PNG is cut short or corrupt")
    return np.asarray(grey != 0)


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union; 1 for two empty masks, which are equal.

    Raises:
        ValueError: The shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"expected masks of one shape, got {a.shape} and {b.shape}")
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def resize_logits_to_mask(
    logits: NDArray[np.float32],
    box_xyxy: tuple[float, float, float, float],
    size: tuple[int, int],
    threshold: float = 0.0,
) -> Mask:
    """Upscale logits that cover one box, and compare with a threshold at full resolution.

    Bilinear with half-pixel centres, borders repeated. Only the part of the box whose logits can
    pass the threshold is computed, so a small object in a large image stays cheap.

    Args:
        logits: (h, w) float32.
        box_xyxy: What they cover, in pixels of the image; may reach beyond it (padding).
        size: (width, height) of the image in pixels.
        threshold: Pixels above it belong to the mask.

    Returns:
        (height, width) bool; False outside the box.

    Raises:
        OptionError: The box is empty or not finite.
    """
    x1, y1, x2, y2 = box_xyxy
    if not (np.isfinite(box_xyxy).all() and x1 < x2 and y1 < y2):
        raise OptionError("box_xyxy", f"box_xyxy: expected x1 < x2 and y1 < y2, got {box_xyxy}")
    mask = np.zeros((size[1], size[0]), np.bool_)
    active = mask_box_xyxy(logits > threshold)
    if active is None:
        return mask
    rows = _Axis.of(y1, y2, size[1], logits.shape[0], active[1], active[3])
    columns = _Axis.of(x1, x2, size[0], logits.shape[1], active[0], active[2])
    wide = logits[:, columns.low] * (1 - columns.part) + logits[:, columns.high] * columns.part
    for start in range(0, len(rows.low), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        weight = rows.part[part, None]
        values = wide[rows.low[part]] * (1 - weight) + wide[rows.high[part]] * weight
        y = rows.first + start
        mask[y : y + len(values), columns.first : columns.first + values.shape[1]] = (
            values > threshold
        )
    return mask


def stability_score(
    logits: NDArray[np.floating], threshold: float = 0.0, offset: float = 1.0
) -> float:
    """How little the mask changes when its threshold moves by `offset` either way, in [0, 1].

    The definition of Segment Anything (`calculate_stability_score`): the mask at the higher
    threshold over the mask at the lower one. 0 if the latter is empty.
    """
    larger = np.count_nonzero(logits > threshold - offset)
    smaller = np.count_nonzero(logits > threshold + offset)
    return float(smaller / larger) if larger else 0.0


@dataclass(frozen=True, slots=True)
class _Axis:
    """Linear interpolation along one axis: output `first + i` lies between `low` and `high`."""

    first: int
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    part: NDArray[np.float32]

    @classmethod
    def of(cls, start: float, end: float, size: int, cells: int, lo: int, hi: int) -> _Axis:
        """Pixels of [0, size) inside [start, end) that cells lo..hi-1 can reach."""
        scale = (end - start) / cells
        # A cell reaches to the centres of its neighbours; border cells reach to the border.
        left = start if lo == 0 else start + (lo - 0.5) * scale
        right = end if hi == cells else start + (hi + 0.5) * scale
        first = max(0, int(np.ceil(left - 0.5)))
        last = min(size, int(np.ceil(right - 0.5)))
        centres = np.arange(first, max(first, last), dtype=np.float64) + 0.5
        position = np.clip((centres - start) / scale - 0.5, 0, cells - 1)
        low = position.astype(np.intp)
        high = np.minimum(low + 1, cells - 1)
        return cls(first, low, high, (position - low).astype(np.float32))


def _checked(mask: Mask) -> Mask:
    if mask.ndim != 2 or mask.size == 0:
        raise OptionError("mask", f"mask: expected a non-empty (H, W) array, got {mask.shape}")
    return np.ascontiguousarray(mask, np.bool_)


def _nonzero(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`np.flatnonzero`, faster where almost everything is False: eight flags at a time first."""
    whole = len(flags) // 8 * 8
    words = np.flatnonzero(flags[:whole].view(np.uint64))
    tail = np.flatnonzero(flags[whole:]) + whole
    if words.size == 0:
        return tail
    word, byte = np.nonzero(flags[:whole].reshape(-1, 8)[words])
    return np.concatenate([words[word] * 8 + byte, tail])


def _simplify(outline: NDArray[np.integer], tolerance_px: float) -> NDArray[np.float32]:
    exact = _without_straight(outline)
    if tolerance_px == 0:
        return exact
    simple = cv2.approxPolyDP(exact[:, None, :], tolerance_px, True)[:, 0, :]
    if len(simple) < 3 or cv2.contourArea(simple) == 0:
        return exact
    return simple.astype(np.float32, copy=False)


def _without_straight(outline: NDArray[np.integer]) -> NDArray[np.float32]:
    """Drop repeated points and those in the middle of a straight line."""
    moved = (outline != np.roll(outline, 1, axis=0)).any(axis=1)
    points = outline[moved].astype(np.int64)
    before = points - np.roll(points, 1, axis=0)
    after = np.roll(points, -1, axis=0) - points
    bend = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    corners: NDArray[np.float32] = points[bend].astype(np.float32)
    return corners


def _fill(mask: Mask, rings: Sequence[NDArray[np.floating]]) -> None:
    """OR the even-odd inside of some rings into the mask, by the crossings of each row."""
    height, width = mask.shape
    starts = np.concatenate([np.asarray(r, np.float64) for r in rings])
    stops = np.concatenate([np.roll(np.asarray(r, np.float64), -1, axis=0) for r in rings])
    if not np.isfinite(starts).all():
        raise OptionError("polygons", "polygons: expected finite coordinates")
    swap = starts[:, 1] > stops[:, 1]
    upper, lower = np.where(swap[:, None], stops, starts), np.where(swap[:, None], starts, stops)
    # Rows whose centre lies in [upper y, lower y).
    top = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    bottom = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    counts = bottom - top
    if counts.sum() == 0:
        return
    edge = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + top[edge]
    slope = (rows + 0.5 - upper[edge, 1]) / (lower[edge, 1] - upper[edge, 1])
    x = upper[edge, 0] + slope * (lower[edge, 0] - upper[edge, 0])
    columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    first, last = int(top.min()), int(bottom.max())
    left, right = int(columns.min()), int(columns.max())
    toggles = np.zeros((last - first, right - left + 1), np.uint8)
    np.add.at(toggles, (rows - first, columns - left), 1)
    inside = np.bitwise_xor.accumulate(toggles & 1, axis=1)[:, :-1]
    mask[first:last, left:right] |= inside.view(np.bool_)
