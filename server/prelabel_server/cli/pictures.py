"""Pictures with proposals, written to a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from prelabel import types
from prelabel_server.cli.runs import Outcome, missing_part

# Pictures to look at: smaller files than PNG, and no visible blocks around thin lines.
_JPEG_QUALITY = 92


class PictureWriter:
    """Writes a picture for each result.

    Args:
        folder: Where to; made if absent.

    Attributes:
        count: Pictures written.

    Raises:
        PrelabelError: What drawing needs is not installed.
    """

    def __init__(self, folder: Path) -> None:
        with missing_part("--draw", "cpu"):
            from PIL import Image

            from prelabel_models import images
            from prelabel_server import draw
            from prelabel_server.config import image_limits
        self._pillow, self._images, self._draw = Image, images, draw
        # Whatever the engine has read can be drawn.
        self._limits = image_limits(["GIF", "TIFF"])
        self._folder = folder
        self._taken: set[str] = set()
        self.count = 0
        folder.mkdir(parents=True, exist_ok=True)

    def drawn(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """The outcomes as they come, each result's picture written first."""
        for outcome in outcomes:
            if outcome.result is not None:
                self._write(outcome.path, outcome.result)
            yield outcome

    def _write(self, path: Path, result: types.DetectResult) -> None:
        self.draw_one(path.read_bytes(), result.proposals, self._folder / self._name(path))

    def draw_one(self, data: bytes, proposals: Sequence[types.Proposal], target: Path) -> None:
        """One picture.

        Args:
            data: The image file's bytes.
            proposals: What to draw.
            target: The file to write; its ending names the format.
        """
        header = self._images.read_header(data, self._limits)
        pixels = self._images.decode(data, header, self._limits).pixels
        if any(p.text for p in proposals):
            picture = self._draw.draw_reading(pixels, proposals)
        else:
            picture = self._draw.draw_proposals(pixels, proposals)
        # 4:4:4, since halved colour resolution smears thin coloured lines.
        self._pillow.fromarray(picture).save(target, quality=_JPEG_QUALITY, subsampling=0)
        self.count += 1

    def _name(self, path: Path) -> str:
        """Never that of an original; images of one name from several folders are numbered."""
        number, name = 1, f"{path.stem}.proposals.jpg"
        while name in self._taken:
            number += 1
            name = f"{path.stem}-{number}.proposals.jpg"
        self._taken.add(name)
        return name
