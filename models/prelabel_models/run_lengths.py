"""COCO's compressed run lengths as text, as `maskApi.c` of pycocotools writes them.

Runs in column-major order, starting with background; from the fourth on each is a difference to
the one two before; each number is cut into 5-bit groups, lowest first, with a continuation bit,
offset by 48 into ASCII.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prelabel_models.errors import OptionError

_FIRST_CHAR, _GROUP_BITS, _MORE, _SIGN = 48, 5, 0x20, 0x10
# Seven groups hold 35 bits with sign: more than a difference of two allowed runs needs.
_MAX_GROUPS = 7
_MAX_RUN = 1 << 34


def pack_runs(runs: NDArray[np.int64]) -> str:
    """Run lengths, (N,) and each >= 0, to text."""
    values = runs.copy()
    values[3:] -= runs[1:-2]
    # The groups a number needs: until the rest is only sign, and the last group shows that sign.
    magnitude = np.where(values < 0, ~values, values)
    lengths = np.ones(len(values), np.int64)
    for group in range(1, _MAX_GROUPS):
        lengths += magnitude >= 1 << (_GROUP_BITS * group - 1)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
    chars = (np.repeat(values, lengths) >> (place * _GROUP_BITS)) & 0x1F
    chars[place < np.repeat(lengths, lengths) - 1] |= _MORE
    return (chars + _FIRST_CHAR).astype(np.uint8).tobytes().decode("ascii")


def unpack_runs(counts: str) -> NDArray[np.int64]:
    """Text to run lengths, (N,); they may be negative or too long, for the caller to refuse.

    Raises:
        OptionError: Not text of this form, or a number of more than 35 bits.
    """
    raw = np.frombuffer(counts.encode("utf-8", "replace"), np.uint8).astype(np.int64) - _FIRST_CHAR
    if raw.size == 0 or raw.min() < 0 or raw.max() > 0x3F or raw[-1] & _MORE:
        raise OptionError("rle", "rle: expected the characters of COCO compressed run lengths")
    ends = np.flatnonzero((raw & _MORE) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise OptionError("rle", f"rle: expected runs below {_MAX_RUN} pixels")
    place = np.arange(len(raw)) - np.repeat(starts, lengths)
    values = np.add.reduceat((raw & 0x1F) << (place * _GROUP_BITS), starts)
    values -= np.where(raw[ends] & _SIGN, 1 << (lengths * _GROUP_BITS), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
