"""One line of text as pixels, in whatever font of this machine can write it.

Pillow carries a font for plain English only. Other scripts are looked for in the fonts of
matplotlib and of the system, then in those that OpenCV 5 carries (which include Chinese and
Japanese). What none can write is shown as `[3 signs]`, never as wrong letters or empty boxes.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Coverage = NDArray[np.uint8]
"""How much of each pixel is ink, 0 to 255, shape (height, width)."""

# A noncharacter: no font has a glyph for it, so it shows the font's mark for "missing".
_NOWHERE = "\U0010fffe"

# Names under which common systems keep fonts with many scripts.
_SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "arialuni.ttf",
)
_PROBE_PX = 16


class _Font(Protocol):
    def __hash__(self) -> int: ...

    def covers(self, sign: str) -> bool: ...

    def render(self, text: str, size_px: int) -> Coverage: ...


class _PillowFont:
    def __init__(self, load: Callable[[int], ImageFont.FreeTypeFont | ImageFont.ImageFont]) -> None:
        self._load = functools.lru_cache(maxsize=16)(load)

    @functools.cached_property
    def _missing(self) -> bytes:
        return self._glyph(_NOWHERE)

    def covers(self, sign: str) -> bool:
        return self._glyph(sign) != self._missing

    def render(self, text: str, size_px: int) -> Coverage:
        font = self._load(size_px)
        width = max(1, round(font.getlength(text)))
        ascent, descent = (
            font.getmetrics() if isinstance(font, ImageFont.FreeTypeFont) else (size_px, 0)
        )
        line = Image.new("L", (width, ascent + descent))
        ImageDraw.Draw(line).text((0, 0), text, fill=255, font=font)
        return np.asarray(line)

    def _glyph(self, sign: str) -> bytes:
        box = Image.new("L", (2 * _PROBE_PX, 2 * _PROBE_PX))
        ImageDraw.Draw(box).text((0, 0), sign, fill=255, font=self._load(_PROBE_PX))
        return box.tobytes()


class _OpenCvFont:
    """The fonts inside OpenCV 5; earlier versions have none, see `available`."""

    def __init__(self) -> None:
        api: Any = cv2  # the stubs of OpenCV 4 lack FontFace
        self._api, self._face = api, api.FontFace("sans")

    @staticmethod
    def available() -> bool:
        return hasattr(cv2, "FontFace")

    @functools.cached_property
    def _missing(self) -> bytes:
        return self.render(_NOWHERE, _PROBE_PX).tobytes()

    def covers(self, sign: str) -> bool:
        return self.render(sign, _PROBE_PX).tobytes() != self._missing

    def render(self, text: str, size_px: int) -> Coverage:
        # Generous room, then cut to the ink: what OpenCV reports as the size of a line leaves out
        # accents and descenders.
        room = np.zeros((2 * size_px, size_px * (len(text) + 2), 3), np.uint8)
        origin = (size_px // 2, round(1.25 * size_px))
        self._api.putText(room, text, origin, (255, 255, 255), self._face, size_px)
        ink = room.max(axis=2)
        columns = np.flatnonzero(ink.any(axis=0))
        if columns.size == 0:
            return np.zeros((size_px, size_px), np.uint8)
        top, bottom = round(0.2 * size_px), round(1.6 * size_px)
        cut: Coverage = ink[top:bottom, columns[0] : columns[-1] + 1]
        return cut


def render(text: str, size_px: int) -> Coverage:
    """One line of text.

    Args:
        text: Any text; line breaks and control characters become spaces.
        size_px: Size of the letters in pixels, >= 1.

    Returns:
        Ink as (height, width) uint8, height about 1.2 times `size_px`.

    Example:
        >>> render("cat", 12).dtype
        dtype('uint8')
    """
    line = one_line(text)
    fonts = _fonts()
    signs = set(line)
    font = min(fonts, key=lambda f: sum(not _covered(f, sign) for sign in signs))
    return font.render(_with_marks(line, font), size_px)


def one_line(text: str) -> str:
    """The text with line breaks, tabs and control characters as single spaces."""
    cleaned = "".join(" " if unicodedata.category(c).startswith("C") else c for c in text)
    return " ".join(cleaned.split())


def shortened(text: str, length: int) -> str:
    """At most `length` characters, the last three of them dots where something was left out."""
    return text if len(text) <= length else text[: max(0, length - 3)].rstrip() + "..."


def _with_marks(line: str, font: _Font) -> str:
    parts = []
    for covered, group in itertools.groupby(line, key=lambda sign: _covered(font, sign)):
        signs = "".join(group)
        parts.append(signs if covered else f"[{len(signs)} sign{'s' * (len(signs) > 1)}]")
    return "".join(parts)


@functools.lru_cache(maxsize=8192)
def _covered(font: _Font, sign: str) -> bool:
    # Plain English is in all of them.
    return sign.isspace() or (sign.isascii() and sign.isprintable()) or font.covers(sign)


@functools.cache
def _fonts() -> tuple[_Font, ...]:
    """Those of this machine; the first that can write a text is taken."""
    found: list[_Font] = [_PillowFont(lambda size: ImageFont.load_default(size))]
    for name in (*_matplotlib_fonts(), *_SYSTEM_FONTS):
        try:
            ImageFont.truetype(name, _PROBE_PX)
        except OSError:
            continue
        found.append(_PillowFont(functools.partial(ImageFont.truetype, name)))
    if _OpenCvFont.available():
        found.append(_OpenCvFont())
    return tuple(found)


def _matplotlib_fonts() -> tuple[str, ...]:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return ()
    return (str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"),)
