"""Model cards: the file that says what a model is. YAML or TOML, schema-checked.

A common card is ten lines:

    name: my-detector
    task: detect
    family: yolox
    license: Apache-2.0
    labels: [cat, dog]
    files:
      model: {sha256: 695e…, size: 3661424}

Everything that the graph itself tells (input size, number of classes) may be left out.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from prelabel_models.errors import CardError
from prelabel_models.labels import LABEL_SETS

TaskName = Literal["detect", "segment"]

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Unit = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Side = Annotated[int, msgspec.Meta(ge=1, le=16384)]


class FileRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One weight file, named by its content.

    Attributes:
        sha256: 64 lower-case hexadecimal digits.
        size: Bytes; 0 if not stated.
        url: Where `models pull` finds it; empty if it cannot be pulled.
        package: `module:path/in/module` of an installed package that carries the file.
    """

    sha256: Sha256
    size: Annotated[int, msgspec.Meta(ge=0)] = 0
    url: str = ""
    package: str = ""


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How pixels become the input tensor. What is None follows the family's habit.

    The tensor is `(pixel * scale - mean) / std`, channel by channel in the order of `color`.

    Attributes:
        width: Input width in pixels; None reads it from the graph.
        height: Input height in pixels; None reads it from the graph.
        resize: `letterbox` pads right and below, `letterbox_center` on all sides, `stretch`
            ignores the aspect ratio.
        pad_value: 0 to 255.
        color: Channel order of the tensor.
        scale: Factor on the 8-bit values, for example 1/255.
        mean: Three numbers, in the units after scaling and in the order of `color`.
        std: Three numbers, likewise.
    """

    width: Side | None = None
    height: Side | None = None
    resize: Literal["letterbox", "letterbox_center", "stretch"] | None = None
    pad_value: Annotated[int, msgspec.Meta(ge=0, le=255)] | None = None
    color: Literal["rgb", "bgr"] | None = None
    scale: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class ModelCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model is.

    Attributes:
        name: How requests name it.
        task: `detect` or `segment`.
        family: Whose pre- and postprocessing it needs; see `prelabel_models.detectors.FAMILIES`.
        files: Role to file; detectors have the role `model`.
        version: Free text, reported in every answer.
        labels: Class names in the order of the model's outputs, or the name of a label set
            (`coco80`, `coco91`). Empty: `class 0`, `class 1`, ...
        preprocess: Where the model differs from its family's habit.
        min_score: Threshold where a request sets none.
        nms_iou: Suppression threshold where a request sets none.
        license: SPDX identifier of the weights' licence.
        license_url: Where the licence is written.
        commercial: `yes`, `no` or `ask`: whether the licence allows commercial use.
        description: A sentence.
        source: Where the model comes from.
    """

    name: Name
    task: TaskName
    family: str
    files: dict[str, FileRef]
    version: str = "1"
    labels: tuple[str, ...] | str = ()
    preprocess: Preprocess = Preprocess()
    min_score: Unit = 0.25
    nms_iou: Unit = 0.65
    license: str = "unknown"
    license_url: str = ""
    commercial: Literal["yes", "no", "ask"] = "ask"
    description: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.labels, str) and self.labels not in LABEL_SETS:
            known = ", ".join(sorted(LABEL_SETS))
            raise ValueError(f"labels: expected a list or one of {known}, got {self.labels!r}")
        if not isinstance(self.labels, str) and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: expected distinct names")
        if not self.files:
            raise ValueError("files: expected at least one role, got none")

    def label_names(self) -> tuple[str, ...]:
        """The class names, with a named label set resolved; may be empty."""
        return LABEL_SETS[self.labels] if isinstance(self.labels, str) else self.labels

    def digest(self) -> str:
        """`sha256:` over everything that can change a proposal; the name plays no part."""
        content = msgspec.json.encode(
            {
                "family": self.family,
                "task": self.task,
                "files": {role: ref.sha256 for role, ref in sorted(self.files.items())},
                "labels": self.label_names(),
                "preprocess": self.preprocess,
            },
            order="sorted",
        )
        return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse_card(text: str, *, form: Literal["yaml", "toml"] = "yaml") -> ModelCard:
    """Read a card.

    Args:
        text: The card.
        form: Its syntax.

    Raises:
        CardError: Not valid; the text names the key and what was expected.

    Example:
        >>> card = parse_card(
        ...     "{name: m, task: detect, family: yolox, files: {model: {sha256: " + "0" * 64 + "}}}"
        ... )
        >>> card.family
        'yolox'
    """
    try:
        raw: Any = yaml.safe_load(text) if form == "yaml" else tomllib.loads(text)
    except (yaml.YAMLError, tomllib.TOMLDecodeError) as err:
        raise CardError(f"card: not valid {form.upper()}: {_one_line(err)}") from err
    try:
        return msgspec.convert(raw, ModelCard, strict=True)
    except msgspec.ValidationError as err:
        raise CardError(f"card: {_one_line(err)}") from err


def load_card(path: Path) -> ModelCard:
    """Read a card file; `.toml` is TOML, anything else YAML.

    Raises:
        CardError: Unreadable or not valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise CardError(f"card: cannot read {path.name}: {_one_line(err)}") from err
    return parse_card(text, form="toml" if path.suffix == ".toml" else "yaml")


def dump_card(card: ModelCard) -> str:
    """The card as YAML, without what equals a default."""
    plain = msgspec.to_builtins(card)
    defaults = msgspec.to_builtins(
        ModelCard(name="x", task="detect", family="", files={"model": FileRef(sha256="0" * 64)})
    )
    keep = {"name", "task", "family", "files"}
    shown = {k: _lean(v) for k, v in plain.items() if k in keep or v != defaults[k]}
    text: str = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100)
    return text


def _lean(value: Any) -> Any:
    if isinstance(value, dict):
        # `size: 0` says nothing; `pad_value: 0` does.
        return {
            k: _lean(v) for k, v in value.items() if v not in (None, "") and (k, v) != ("size", 0)
        }
    return list(value) if isinstance(value, tuple) else value


def _one_line(err: Exception) -> str:
    return re.sub(r"\s+", " ", str(err)).strip()
