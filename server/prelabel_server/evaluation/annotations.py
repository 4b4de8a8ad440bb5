"""Annotations in COCO's form, and which of the model's labels stands for which category."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Annotations:
    """A checked COCO file.

    Attributes:
        images: Image id to file name.
        categories: Category id to name.
        boxes: The annotations, each with `id`, `image_id`, `category_id`, `bbox` (x, y, width,
            height in pixels), `area` in square pixels and `iscrowd` 0 or 1.
    """

    images: Mapping[int, str]
    categories: Mapping[int, str]
    boxes: tuple[Mapping[str, Any], ...]

    def of_images(self, image_ids: Iterable[int]) -> Annotations:
        """Only these images and what is annotated in them."""
        wanted = set(image_ids)
        return Annotations(
            {i: name for i, name in self.images.items() if i in wanted},
            self.categories,
            tuple(box for box in self.boxes if box["image_id"] in wanted),
        )


@dataclass(frozen=True, slots=True)
class LabelMatch:
    """Which label means which category.

    Attributes:
        category_of: The model's label to category id.
        unknown_labels: Labels of the model that no category is named after; what it proposes under
            these is left out.
        unknown_categories: Names of categories that the model does not know; what is annotated
            under these is left out.
    """

    category_of: Mapping[str, int]
    unknown_labels: tuple[str, ...]
    unknown_categories: tuple[str, ...]


def load_annotations(path: Path) -> Annotations:
    """Read a COCO file.

    Raises:
        ValueError: Not such a file; the text names the key.
        OSError: It cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise ValueError(f"annotations: expected JSON, got something else: {err}") from err
    return parse_annotations(content)


def parse_annotations(content: Any) -> Annotations:
    """Check the content of a COCO file and fill in what may be left out.

    Args:
        content: With the lists `images`, `categories` and `annotations`. `area` defaults to that
            of the box, `iscrowd` to 0.

    Raises:
        ValueError: The text names the key and what was expected.

    Example:
        >>> parse_annotations({"images": [], "categories": [], "annotations": []}).boxes
        ()
    """
    images = {_whole(i, "images", "id"): _word(i, "file_name") for i in _rows(content, "images")}
    categories = {
        _whole(c, "categories", "id"): _word(c, "name") for c in _rows(content, "categories")
    }
    if len(set(categories.values())) != len(categories):
        raise ValueError("annotations: categories: expected distinct names")
    boxes = []
    for number, row in enumerate(_rows(content, "annotations"), start=1):
        box = _box(row, number)
        if box["image_id"] not in images:
            raise ValueError(f"annotations: annotation {number}: its image_id is not among images")
        if box["category_id"] not in categories:
            raise ValueError(
                f"annotations: annotation {number}: its category_id is not among categories"
            )
        boxes.append(box)
    return Annotations(images, categories, tuple(boxes))


def match_labels(
    labels: Sequence[str], categories: Mapping[int, str], label_map: Mapping[str, str]
) -> LabelMatch:
    """Which label means which category: by the map, by the same name, else by nearly the same.

    Nearly the same are names that differ only in case, spaces, `_` and `-`.

    Args:
        labels: The model's.
        categories: Category id to name.
        label_map: The model's label to the category's name.

    Raises:
        ValueError: The map names something that does not exist; the text names what does.

    Example:
        >>> match_labels(["dog", "traffic light"], {7: "Traffic_Light"}, {}).category_of
        {'traffic light': 7}
    """
    by_name = {name: i for i, name in categories.items()}
    for label, name in label_map.items():
        if label not in labels:
            raise ValueError(f"--label-map: the model has no label {label!r}; {_some(labels)}")
        if name not in by_name:
            raise ValueError(f"--label-map: there is no category {name!r}; {_some(list(by_name))}")
    loose: dict[str, int] = {}
    ambiguous = set()
    for name, i in by_name.items():
        ambiguous |= {_loosely(name)} & set(loose)
        loose[_loosely(name)] = i
    category_of = {}
    for label in labels:
        if label in label_map:
            category_of[label] = by_name[label_map[label]]
        elif label in by_name:
            category_of[label] = by_name[label]
        elif _loosely(label) in loose and _loosely(label) not in ambiguous:
            category_of[label] = loose[_loosely(label)]
    known = set(category_of.values())
    return LabelMatch(
        category_of,
        tuple(label for label in labels if label not in category_of),
        tuple(name for i, name in categories.items() if i not in known),
    )


def parse_label_map(pairs: Sequence[str]) -> Mapping[str, str]:
    """`A=B` to a mapping.

    Raises:
        ValueError: Not of that form.
    """
    found = {}
    for pair in pairs:
        label, equals, name = pair.partition("=")
        if not (label and equals and name):
            raise ValueError(f"--label-map: expected LABEL=CATEGORY, got {pair!r}")
        found[label] = name
    return found


def _rows(content: Any, key: str) -> list[Any]:
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"annotations: {key}: expected a list, as in COCO's object detection form")
    return rows


def _whole(row: Any, key: str, field: str) -> int:
    value = row.get(field) if isinstance(row, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"annotations: {key}: {field}: expected a whole number, got {value!r}")
    return value


def _word(row: Any, field: str) -> str:
    value = row.get(field) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value:
        raise ValueError(f"annotations: {field}: expected a text, got {value!r}")
    return value


def _box(row: Any, number: int) -> dict[str, Any]:
    image_id = _whole(row, f"annotation {number}", "image_id")
    category_id = _whole(row, f"annotation {number}", "category_id")
    sides = row.get("bbox")
    if not (
        isinstance(sides, list)
        and len(sides) == 4
        and all(isinstance(v, (int, float)) for v in sides)
    ):
        raise ValueError(
            f"annotations: annotation {number}: bbox: expected [x, y, width, height] in pixels"
        )
    return {
        # Numbered anew: pycocotools takes an id of 0 for "not matched".
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": sides,
        "area": row.get("area", sides[2] * sides[3]),
        "iscrowd": int(bool(row.get("iscrowd", 0))),
    }


def _loosely(name: str) -> str:
    return "".join(name.replace("_", " ").replace("-", " ").split()).casefold()


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return f"there are {shown}{', ...' if len(names) > 10 else ''}"
