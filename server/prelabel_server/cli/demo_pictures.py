"""The pictures of the demo: photographs that come with scikit-image, and two drawn papers."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Rgb = NDArray[np.uint8]

_INK = (25, 25, 35)
_GREY = (120, 120, 130)
_ITEMS = (
    ("Bolt M8 x 40, zinc plated", 250, 0.18),
    ("Washer M8, DIN 125", 500, 0.04),
    ("Bearing 6204-2RS", 12, 4.90),
    ("Cable gland PG 13.5", 40, 1.15),
)
# Photographs inside the wheel of scikit-image; others of its gallery would be downloaded.
_PHOTOGRAPHS = ("page.png", "motorcycle_left.png", "astronaut.png")


def make_pictures(folder: Path) -> list[Path]:
    """Write the demo's pictures.

    Args:
        folder: Where to; it exists.

    Returns:
        Their paths.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
    """
    paths = []
    for name, pixels in {"invoice.png": _invoice(), "label-on-gravel.jpg": _label()}.items():
        Image.fromarray(pixels).save(folder / name, quality=90)
        paths.append(folder / name)
    for name, data in _photographs().items():
        (folder / name).write_bytes(data)
        paths.append(folder / name)
    return paths


def _photographs() -> Mapping[str, bytes]:
    data = _scikit_image_data()
    return {name: (data / name).read_bytes() for name in _PHOTOGRAPHS if (data / name).is_file()}


def _scikit_image_data() -> Path:
    # Found without importing it: its loader may fetch pictures from the network.
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'skimage'", name="skimage")
    return Path(spec.origin).parent / "data"


def _invoice() -> Rgb:
    """A page as a supplier prints it, 900 x 1100."""
    page = Image.new("RGB", (900, 1100), (252, 252, 250))
    draw = ImageDraw.Draw(page)

    def write(x: int, y: int, text: str, size: int = 22, ink: tuple[int, int, int] = _INK) -> None:
        draw.text((x, y), text, fill=ink, font=ImageFont.load_default(size))

    def write_right(x: int, y: int, text: str) -> None:
        write(round(x - ImageFont.load_default(22).getlength(text)), y, text)

    write(70, 70, "Northwind Fasteners Ltd.", 40)
    write(70, 128, "14 Harbour Road, Bristol BS1 5UH", 20, _GREY)
    write(620, 80, "INVOICE", 44)
    write(70, 230, "Invoice no.  2024-00871")
    write(70, 268, "Date  17 March 2024")
    write(70, 306, "Customer  Wren & Sons, Machine Shop 3")
    draw.line((70, 380, 830, 380), fill=_INK, width=2)
    for x, heading in ((70, "Item"), (500, "Qty"), (600, "Price"), (740, "Amount")):
        write(x, 396, heading, 22, _GREY)
    draw.line((70, 436, 830, 436), fill=_GREY, width=1)
    total = 0.0
    for row, (name, quantity, price) in enumerate(_ITEMS):
        y = 458 + 56 * row
        total += quantity * price
        write(70, y, name)
        write_right(540, y, str(quantity))
        write_right(660, y, f"{price:.2f}")
        write_right(830, y, f"{quantity * price:.2f}")
    draw.line((70, 700, 830, 700), fill=_INK, width=2)
    write(500, 720, "Total EUR", 28)
    write(730, 720, f"{total:.2f}", 28)
    write(70, 860, "Payable within 30 days. Thank you for your order.", 20, _GREY)
    write(70, 1010, "IBAN  GB29 NWBK 6016 1331 9268 19", 20)
    return np.asarray(page)


def _label() -> Rgb:
    """A shipping label that lies askew on the ground, seen from above."""
    paper = Image.new("RGB", (420, 230), (245, 243, 235))
    draw = ImageDraw.Draw(paper)
    draw.rectangle((6, 6, 413, 223), outline=_INK, width=3)
    lines = (
        ("FRAGILE", 48),
        ("Lot 7731-B", 34),
        ("Handle with care", 30),
        ("Ship to: Dock 12", 30),
    )
    y = 14
    for text, size in lines:
        draw.text((24, y), text, fill=_INK, font=ImageFont.load_default(size))
        y += size + 14
    ground = cv2.imread(str(_scikit_image_data() / "gravel.png"), cv2.IMREAD_GRAYSCALE)
    if ground is None:
        ground = np.full((512, 512), 110, np.uint8)
    scene = cv2.resize(np.repeat(np.asarray(ground)[..., None], 3, axis=2), (760, 760))
    flat = np.array([[0, 0], [420, 0], [420, 230], [0, 230]], np.float32)
    seen = np.array([[120, 290], [610, 170], [660, 430], [160, 560]], np.float32)
    warp = cv2.getPerspectiveTransform(flat, seen)
    extent = (scene.shape[1], scene.shape[0])
    on_ground = cv2.warpPerspective(np.asarray(paper), warp, extent, flags=cv2.INTER_AREA)
    covered = cv2.warpPerspective(np.ones((230, 420), np.uint8), warp, extent) > 0
    scene[covered] = on_ground[covered]
    return np.asarray(scene, np.uint8)
