"""ICC profiles: is this one plainly sRGB, and if not, to sRGB.

Layout: ICC.1:2022 (profile version 4.4), sections 7.2, 7.3, 10.6, 10.18 and 10.31.
"""

from __future__ import annotations

import functools
import io
import struct

import numpy as np
from PIL import Image, ImageCms

from prelabel_models.types import RgbImage

# Profiles of RGB images have 0.5 to 60 KiB; those of printing presses up to 3 MiB. Larger ones
# are ignored, as a browser does with one it cannot use.
_MAX_BYTES = {"RGB": 1 << 18, "CMYK": 4 << 20}
_SPACES = {"RGB": b"RGB ", "CMYK": b"CMYK"}
_MAX_TAGS = 100  # v4 profiles with every optional tag have about 30

# sRGB's primaries, adapted to the profile connection space's D50 (IEC 61966-2-1, ICC's own
# profile). Tolerance: profiles of the same space differ by rounding below 0.003, Display P3 by
# 0.08 and Adobe RGB by 0.17.
_PRIMARIES = {
    b"rXYZ": (0.4360, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
_TOLERANCE = 0.01
# sRGB's curve is close to a power of 2.2; 1.8 (old Macintosh) and linear are not.
_GAMMAS = (2.0, 2.5)
_LINEAR_AT_HALF = 0.2140
_STRIP_PIXELS = 1 << 18


def usable(profile: bytes, space: str) -> bool:
    """Whether the profile is one for `space` (`RGB` or `CMYK`), and small enough to apply."""
    return (
        132 <= len(profile) <= _MAX_BYTES[space]
        and profile[36:40] == b"acsp"
        and profile[16:20] == _SPACES[space]
    )


def is_srgb(profile: bytes) -> bool:
    """Whether an RGB profile has sRGB's primaries and about its curve."""
    tags: dict[bytes, bytes] = {}
    (count,) = struct.unpack_from(">I", profile, 128)
    for i in range(min(count, _MAX_TAGS)):
        at = 132 + 12 * i
        if at + 12 > len(profile):
            break
        name, start, size = struct.unpack_from(">4sII", profile, at)
        tags[name] = profile[start : start + size]
    for name, expected in _PRIMARIES.items():
        body = tags.get(name, b"")
        if len(body) < 20 or body[:4] != b"XYZ ":
            return False
        found = np.array(struct.unpack_from(">iii", body, 8)) / 65536
        if np.abs(found - expected).max() > _TOLERANCE:
            return False
    return _usual_curve(tags.get(b"rTRC", b""))


def _is_usual_gamma(gamma: float) -> bool:
    return _GAMMAS[0] <= gamma <= _GAMMAS[1]


def _usual_curve(body: bytes) -> bool:
    if len(body) < 12:
        return False
    if body[:4] == b"para":
        if len(body) < 16:
            return False
        return _is_usual_gamma(int.from_bytes(body[12:16], "big") / 65536)
    (count,) = struct.unpack_from(">I", body, 8)
    if body[:4] != b"curv" or count == 0 or len(body) < 12 + 2 * count:
        return False
    if count == 1:
        return _is_usual_gamma(int.from_bytes(body[12:14], "big") / 256)
    middle = struct.unpack_from(">H", body, 12 + 2 * ((count - 1) // 2))[0] / 65535
    return bool(abs(middle - _LINEAR_AT_HALF) < 0.03)


# Building takes 3.6 ms, as long as decoding a small picture, and the pictures of one camera share
# their profile. `_MAX_BYTES` bounds the keys. Several threads may use one transform at once.
@functools.lru_cache(maxsize=8)
def transform(profile: bytes, space: str) -> ImageCms.ImageCmsTransform | None:
    """A transform from `space` to sRGB; None if the profile is broken."""
    if not usable(profile, space):
        return None
    try:
        return ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            space,
            "RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def to_srgb(pixels: RgbImage, profile: bytes) -> RgbImage:
    """Convert RGB pixels, in place where the profile is another space than sRGB.

    Args:
        pixels: (H, W, 3) uint8, writable.
        profile: Any bytes; broken profiles are ignored, as browsers do.
    """
    if not usable(profile, "RGB") or is_srgb(profile):
        return pixels
    conversion = transform(profile, "RGB")
    if conversion is None:
        return pixels
    height, width = pixels.shape[:2]
    rows = max(1, _STRIP_PIXELS // width)
    for y in range(0, height, rows):
        strip = Image.fromarray(pixels[y : y + rows])
        pixels[y : y + rows] = np.asarray(conversion.apply(strip))
    return pixels
