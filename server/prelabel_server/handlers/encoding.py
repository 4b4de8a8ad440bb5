"""Masks in the encoding that a request asks for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel_models import masks
from prelabel_server.handlers.commands import EncodedMask, MaskEncoding


def encode_mask(
    mask: NDArray[np.bool_], encoding: MaskEncoding, polygon_tolerance_px: float
) -> EncodedMask:
    """One mask.

    Args:
        mask: (H, W) bool.
        encoding: Which of the three.
        polygon_tolerance_px: Largest distance between a polygon and the mask's border.
    """
    if encoding is MaskEncoding.POLYGONS:
        return masks.to_polygons(mask, polygon_tolerance_px)
    if encoding is MaskEncoding.PNG:
        return masks.encode_png(mask)
    return masks.encode_rle(mask)
