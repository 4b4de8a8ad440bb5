"""JPEG (ITU-T T.81) markers: size, orientation, colour, and whether the picture is complete."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prelabel_models.errors import ImageFormatError
from prelabel_models.images._common import Parsed, cut_short, damaged, exif_orientation, too_many

# An ICC profile takes at most 255 segments and a FlashPix or MPF block a few hundred.
_MAX_SEGMENTS = 1_000
# libjpeg's own progressive script has 10 scans, mozjpeg's search tries up to 64. Each scan makes
# the decoder visit every block again, so a small file could otherwise ask for hours.
_MAX_SCANS = 100
# Fill bytes and stray bytes between segments that real encoders leave.
_MARKER = re.compile(rb"[^\xff]{0,256}\xff{1,64}([\x01-\xfe])")
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Baseline, extended and progressive, with Huffman or arithmetic coding.
_DECODABLE = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_SOI, _EOI, _SOS, _APP1, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xEE
_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
_ICC_ID = b"ICC_PROFILE\0"


@dataclass(frozen=True, slots=True)
class _Segment:
    marker: int
    start: int  # of the 0xFF
    body: int  # behind the two length bytes
    end: int


def _segments(data: bytes) -> list[_Segment]:
    """The segments before the first scan, that of the scan header last."""
    found: list[_Segment] = []
    at = 2
    while len(found) < _MAX_SEGMENTS:
        match = _MARKER.match(data, at)
        if match is None:
            if len(data) - at < 320:  # what the pattern may have to read
                raise cut_short("JPEG")
            raise damaged("JPEG", "expected a segment")
        marker, at = data[match.end() - 1], match.end()
        if marker in _STANDALONE:
            continue
        if marker in (_SOI, _EOI):
            raise damaged("JPEG", "it ends or starts anew before its pixels")
        end = at + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or at + 2 > len(data):
            raise cut_short("JPEG")
        if end < at + 2:
            raise damaged("JPEG", "a segment has no length")
        found.append(_Segment(marker, at - 2, at + 2, end))
        if marker == _SOS:
            return found
        at = end
    raise too_many("JPEG", "segments before its pixels", _MAX_SEGMENTS)


def _frame(data: bytes, frames: list[_Segment]) -> Parsed:
    if len(frames) != 1 or frames[0].end - frames[0].body < 6:
        raise damaged("JPEG", "expected one frame header")
    (frame,) = frames
    bits = data[frame.body]
    height = int.from_bytes(data[frame.body + 1 : frame.body + 3], "big")
    width = int.from_bytes(data[frame.body + 3 : frame.body + 5], "big")
    channels = data[frame.body + 5]
    if frame.marker not in _DECODABLE:
        raise ImageFormatError("image: lossless and hierarchical JPEG are not supported")
    if bits != 8:
        raise ImageFormatError(f"image: expected a JPEG of 8 bits per channel, got {bits}")
    if channels not in _MODES:
        raise ImageFormatError(f"image: expected a JPEG of 1, 3 or 4 channels, got {channels}")
    if width == 0 or height == 0:
        raise damaged("JPEG", "it has no width or no height")
    # A progressive decoder holds all coefficients, two bytes each; the four-channel path holds
    # CMYK pixels.
    working = 2 * channels if frame.marker in _PROGRESSIVE else 0
    return Parsed(width, height, _MODES[channels], bits, working + (4 if channels == 4 else 0))


def parse(data: bytes) -> Parsed:
    """Header of a JPEG.

    Raises:
        ImageDamagedError: Cut short or contradictory before the first scan.
        ImageFormatError: A kind of JPEG that is not decoded here.
        ImageTooLargeError: More segments than any real file has.
    """
    segments = _segments(data)
    frame = _frame(data, [s for s in segments if s.marker in _FRAMES])
    orientation, has_profile = 1, False
    for s in segments:
        if s.marker == _APP1 and orientation == 1 and data.startswith(b"Exif\0\0", s.body):
            orientation = exif_orientation(data[s.body : s.end])
        elif s.marker == _APP2 and data.startswith(_ICC_ID, s.body):
            has_profile = True
    return Parsed(
        frame.width,
        frame.height,
        frame.mode,
        frame.bits,
        frame.working_bytes_per_pixel,
        orientation,
        1,
        has_profile,
    )


def check_complete(data: bytes) -> None:
    """That the picture ends with its end marker and has no absurd number of scans.

    Inside coded pixels 0xFF is always followed by 0x00 or a restart marker, so any end marker
    behind the scan header means that the first picture has its own; what follows it (trailers,
    further pictures) does not matter.

    Raises:
        ImageDamagedError: There is no end marker.
        ImageTooLargeError: Too many scans.
    """
    segments = _segments(data)
    scan, frame = segments[-1], next(s for s in segments if s.marker in _FRAMES)
    # Backwards, where it is found at once: forwards costs a tenth of decoding.
    if data.rfind(b"\xff\xd9", scan.end) < 0:
        raise cut_short("JPEG")
    holds_all = data[scan.body] == data[frame.body + 5]
    if holds_all and frame.marker not in _PROGRESSIVE:
        return  # decoders stop behind the one scan
    if data.count(b"\xff\xda", scan.end) >= _MAX_SCANS:
        raise too_many("JPEG", "scans", _MAX_SCANS)


def profile(data: bytes) -> bytes:
    """The ICC profile, its parts joined in the order of their numbers; empty if incomplete."""
    parts: dict[int, bytes] = {}
    total = 0
    for s in _segments(data):
        if s.marker == _APP2 and data.startswith(_ICC_ID, s.body) and s.end - s.body > 14:
            number, total = data[s.body + 12], data[s.body + 13]
            parts[number] = data[s.body + 14 : s.end]
    if sorted(parts) != list(range(1, total + 1)):
        return b""
    return b"".join(parts[i] for i in sorted(parts))


def without_metadata(data: bytes) -> bytes:
    """The same picture without application data, except Adobe's colour transform.

    So the four-channel decoder never reads EXIF, XMP or profiles of strangers.
    """
    kept = [b"\xff\xd8"]
    for s in _segments(data):
        if not (0xE0 <= s.marker <= 0xEF or s.marker == 0xFE) or s.marker == _APP14:
            kept.append(data[s.start : s.end])
        last = s
    kept.append(data[last.end :])
    return b"".join(kept)
