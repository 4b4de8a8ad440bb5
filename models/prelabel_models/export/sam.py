"""Segment Anything checkpoints to the graphs of the family `sam`."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prelabel_models.cards import FileRef, ModelCard, dump_card
from prelabel_models.errors import ModelUnusableError, OptionError
from prelabel_models.export._proof import PROOF_SIZES, Proof, prove
from prelabel_models.export._torch import segment_anything, torch_module
from prelabel_models.files import hash_file, safe_name
from prelabel_models.segmenters.sam import SamSegmenter
from prelabel_models.session import SessionOptions

SamType = Literal["vit_b", "vit_l", "vit_h"]

_TYPE_OF_WIDTH: Mapping[int, SamType] = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_SIDE, _PATCH = 1024, 16
# Protobuf ends a message at 2 GiB; the graph itself needs a little beside its weights.
_MAX_IN_GRAPH = 2**31 - 2**24
_DATA_ROLE = "encoder.data"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written and how well it was proved.

    Attributes:
        card: The card, as it stands in `card.yaml`.
        files: Role to path; with the card all that `ModelStore.add` wants.
        card_path: The card's file.
        checkpoint_sha256: What was exported.
        proof: Differences between the graphs and the checkpoint.
    """

    card: ModelCard
    files: Mapping[str, Path]
    card_path: Path
    checkpoint_sha256: str
    proof: Proof


def export_sam(
    checkpoint: Path,
    out: Path,
    model_type: SamType | None = None,
    *,
    name: str = "sam",
    license: str = "unknown",  # noqa: A002 - the card's key
) -> ExportReport:
    """Write the graphs of a checkpoint with their card, and prove that they are the model.

    The folder gets `encoder.onnx`, `decoder.onnx`, `clicks.onnx` (the decoder for prompts without
    a mask) and `card.yaml`.

    The checkpoint is read as plain tensors: a file that would run code is refused. The graphs are
    run through `SamSegmenter` against `SamPredictor` on images of odd sizes before anything
    appears in `out`.

    Args:
        checkpoint: A `.pth` file of Segment Anything, with its published or fine-tuned weights.
        out: The folder to write to; made if it is not there. Files of these names are replaced.
        model_type: None tells it from the checkpoint.
        name: The model's name in the card.
        license: SPDX identifier of the weights' licence; Apache-2.0 for the published ones.

    Raises:
        ModelUnusableError: Not such a checkpoint, or the graphs answer differently.
        MissingExtraError: The extra `export` is not installed.
        OptionError: Not a name.

    Example:
        >>> export_sam(Path("sam_vit_b_01ec64.pth"), Path("sam-b")).proof.mask_iou > 0.999
        True
    """
    safe_name(name)
    digest, _ = hash_file(checkpoint, "checkpoint")
    state = _load_state(checkpoint)
    chosen = _check_type(state, model_type)
    sam = segment_anything().sam_model_registry[chosen](checkpoint=None)
    try:
        sam.load_state_dict(state)
    except RuntimeError as err:  # lists every tensor that is missing or misshapen
        raise ModelUnusableError(
            f"checkpoint: not the weights of a SAM {chosen}: {str(err).splitlines()[-1].strip()}"
        ) from err
    described = f"Segment Anything, {chosen}, exported from the checkpoint sha256:{digest}."
    card = ModelCard(
        name=name,
        task="segment",
        family="sam",
        files={"encoder": FileRef(sha256="0" * 64)},
        license=license,
        description=described,
    )
    return export_module(sam, out, card, digest)


def sam_type(name: str) -> SamType:
    """`name`, if it is an encoder's size.

    Raises:
        OptionError: It is not.
    """
    for known in _TYPE_OF_WIDTH.values():
        if name == known:
            return known
    raise OptionError(
        "type", f"type: expected one of {', '.join(_TYPE_OF_WIDTH.values())}, got {name!r}"
    )


def export_module(
    sam: Any,
    out: Path,
    card: ModelCard,
    checkpoint_sha256: str,
    *,
    max_in_graph: int = _MAX_IN_GRAPH,
) -> ExportReport:
    """`export_sam` for a model in memory.

    Args:
        sam: `segment_anything.modeling.Sam`.
        out: The folder to write to.
        card: The card; its files are filled in here.
        checkpoint_sha256: For the report.
        max_in_graph: Larger encoders keep their weights in a file beside the graph.

    Raises:
        ModelUnusableError: The graphs answer differently.
    """
    from prelabel_models.export._sam_graphs import (
        write_clicks,
        write_decoder,
        write_encoder,
    )

    sam.eval()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        work = Path(folder)
        files = {role: work / f"{role}.onnx" for role in ("encoder", "decoder", "clicks")}
        raw = work / "raw"
        raw.mkdir()
        write_encoder(sam, raw / "encoder.onnx")
        files |= _pack(raw / "encoder.onnx", files["encoder"], max_in_graph)
        shutil.rmtree(raw)
        write_decoder(sam, files["decoder"])
        write_clicks(sam, files["clicks"])
        card = _with_files(card, files)
        proof = _prove(sam, card, files)
        (work / "card.yaml").write_text(dump_card(card), encoding="utf-8")
        for path in (*files.values(), work / "card.yaml"):
            path.replace(out / path.name)
    placed = {role: out / path.name for role, path in files.items()}
    return ExportReport(card, placed, out / "card.yaml", checkpoint_sha256, proof)


def _load_state(checkpoint: Path) -> dict[str, Any]:
    torch = torch_module()
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as err:
        raise ModelUnusableError(
            "checkpoint: expected a PyTorch file of plain tensors; it is damaged, or holds objects "
            "that could run code and are not loaded"
        ) from err
    for key in ("model", "state_dict"):  # how training scripts wrap it
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise ModelUnusableError("checkpoint: expected the tensors of a model by name")
    return state


def _check_type(state: Mapping[str, Any], wanted: SamType | None) -> SamType:
    """The encoder's size, from its position embedding (1, rows, columns, width)."""
    position = state.get("image_encoder.pos_embed")
    if position is None or position.ndim != 4:
        raise ModelUnusableError(
            "checkpoint: expected 'image_encoder.pos_embed', which every Segment Anything has"
        )
    rows, columns, width = (int(n) for n in position.shape[1:])
    if (rows * _PATCH, columns * _PATCH) != (_SIDE, _SIDE):
        raise ModelUnusableError(
            f"checkpoint: expected an encoder of {_SIDE}x{_SIDE} pixels, got "
            f"{columns * _PATCH}x{rows * _PATCH}"
        )
    found = _TYPE_OF_WIDTH.get(width)
    if found is None or (wanted is not None and wanted != found):
        raise ModelUnusableError(
            f"checkpoint: expected a {wanted or 'vit_b, vit_l or vit_h'}, got "
            f"{found or f'an encoder of width {width}'}"
        )
    return found


def _pack(raw: Path, target: Path, max_in_graph: int) -> dict[str, Path]:
    """One file where protobuf allows it, else graph and weights.

    Returns:
        The extra file by role; a role of external data is its name in the graph.
    """
    import onnx

    # PyTorch scatters the weights of large models over one file each, all in the folder of `raw`.
    size = sum(path.stat().st_size for path in raw.parent.iterdir())
    model = onnx.load(str(raw))
    if size <= max_in_graph:
        onnx.save(model, str(target))
        return {}
    onnx.save(
        model,
        str(target),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=_DATA_ROLE,
    )
    return {_DATA_ROLE: target.parent / _DATA_ROLE}


def _with_files(card: ModelCard, files: Mapping[str, Path]) -> ModelCard:
    import msgspec

    refs = {
        role: FileRef(sha256=hash_file(path, role)[0], size=path.stat().st_size)
        for role, path in files.items()
    }
    return msgspec.structs.replace(card, files=refs)


def _prove(sam: Any, card: ModelCard, files: Mapping[str, Path]) -> Proof:
    segmenter = SamSegmenter.from_files(card, files, SessionOptions())
    try:
        return prove(sam, segmenter, PROOF_SIZES)
    finally:
        segmenter.close()
