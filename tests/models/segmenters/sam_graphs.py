"""Point-prompted models with known answers: discs around the mean of the tokens on the object.

The encoder gives the mean colour of each 16x16 block. The decoder's masks are the distance to a
circle around the mean of all tokens that are on the object (clicks and corners of boxes), in
pixels of its input, or the mask that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import parser

from prelabel_models.cards import FileRef, ModelCard

SIDE, CELLS = 1024, 256
RADII = (40.0, 20.0, 60.0, 80.0)
IOUS = (0.9, 0.5, 0.8, 0.7)

_HEAD = '<ir_version: 10, opset_import: ["" : 17]>\n'
_PROMPTS = (
    "float[1,points,2] point_coords, float[1,points] point_labels, "
    "float[1,1,256,256] mask_input, float[1] has_mask_input"
)
_DISCS = """
    zero = Constant <value_float = 0.0> ()
    one = Constant <value_float = 1.0> ()
    count = Constant <value_float = 256.0> ()
    half = Constant <value_float = 0.5> ()
    four = Constant <value_float = 4.0> ()
    index = Range (zero, count, one)
    centres = Add (index, half)
    axis = Mul (centres, four)
    row = Constant <value_ints = [1, 1, 1, 256]> ()
    column = Constant <value_ints = [1, 1, 256, 1]> ()
    cell = Constant <value_ints = [1, 1, 1, 1]> ()
    last = Constant <value_ints = [-1]> ()
    second = Constant <value_ints = [1]> ()
    xs = Reshape (axis, row)
    ys = Reshape (axis, column)
    is_on = GreaterOrEqual (point_labels, one)
    on = Cast <to = 1> (is_on)
    weights = Unsqueeze (on, last)
    weighted = Mul (point_coords, weights)
    total = ReduceSum (weighted, second)
    number = ReduceSum (weights, second)
    divisor = Max (number, one)
    middle = Div (total, divisor)
    x, y = Split <axis = 2> (middle)
    x4 = Reshape (x, cell)
    y4 = Reshape (y, cell)
    dx = Sub (xs, x4)
    dy = Sub (ys, y4)
    dx2 = Mul (dx, dx)
    dy2 = Mul (dy, dy)
    squared = Add (dx2, dy2)
    distance = Sqrt (squared)
    discs = Sub (radii, distance)
"""
_MASK = """
    has = Reshape (has_mask_input, cell)
    given = Greater (has, zero)
"""


def write_encoder(
    path: Path, outputs: str = "image_embeddings", shape: str = "1,3,1024,1024"
) -> Path:
    """Mean colours of blocks in the first three of 256 channels; `shape` of the image."""
    return _save(
        path,
        f"""encoder (float[{shape}] x) => (float[1,256,64,64] {outputs})
        <float[256,3,1,1] weights = {{{_diagonal()}}}>
        {{
            blocks = AveragePool <kernel_shape = [16, 16], strides = [16, 16]> (x)
            {outputs} = Conv (blocks, weights)
        }}""",
    )


def write_hwc_encoder(path: Path) -> Path:
    """As samexporter's: (height, width, 3) raw pixels, padded to 1024x1024 in the graph."""
    return _save(
        path,
        f"""encoder (float[height,width,3] input_image) => (float[1,256,64,64] image_embeddings)
        <float[256,3,1,1] weights = {{{_diagonal()}}}, int64[3] full = {{1024, 1024, 3}},
         int64[3] none = {{0, 0, 0}}>
        {{
            size = Shape (input_image)
            missing = Sub (full, size)
            pads = Concat <axis = 0> (none, missing)
            padded = Pad (input_image, pads)
            planes = Transpose <perm = [2, 0, 1]> (padded)
            batched_axis = Constant <value_ints = [0]> ()
            batch = Unsqueeze (planes, batched_axis)
            blocks = AveragePool <kernel_shape = [16, 16], strides = [16, 16]> (batch)
            image_embeddings = Conv (blocks, weights)
        }}""",
    )


def write_decoder(
    path: Path,
    *,
    radii: Sequence[float] = RADII,
    ious: Sequence[float] = IOUS,
    masks: str = "low_res_masks",
    extra_input: str = "",
) -> Path:
    """SAM's decoder, cut at its own resolution."""
    return _save(
        path,
        f"""decoder (float[1,256,64,64] image_embeddings, {_PROMPTS}{extra_input})
        => (float[1,{len(radii)},256,256] {masks}, float[1,{len(radii)}] iou_predictions)
        {_constants(radii, ious)}
        {{ {_DISCS} {_MASK}
            {masks} = Where (given, mask_input, discs)
            iou_predictions = Identity (ious)
        }}""",
    )


def write_encoder_with_terms(path: Path, term: float = 1.0) -> Path:
    """As this project's exporter writes it: the embedding, and a term for the graph of clicks."""
    return _save(
        path,
        f"""encoder (float[1,3,1024,1024] image)
        => (float[1,256,64,64] image_embeddings, float[1] image_keys)
        <float[256,3,1,1] weights = {{{_diagonal()}}}, float[1] term = {{{term}}}>
        {{
            blocks = AveragePool <kernel_shape = [16, 16], strides = [16, 16]> (image)
            image_embeddings = Conv (blocks, weights)
            image_keys = Identity (term)
        }}""",
    )


def write_clicks(path: Path, term: str = "image_keys") -> Path:
    """The discs again; the predicted IoUs are a hundredth of the term and more."""
    return _save(
        path,
        f"""clicks (float[1,256,64,64] image_embeddings, float[1,points,2] point_coords,
                float[1,points] point_labels, float[1] {term})
        => (float[1,4,256,256] low_res_masks, float[1,4] iou_predictions)
        {_constants(RADII, (0.01, 0.02, 0.03, 0.04))}
        {{ {_DISCS}
            low_res_masks = Identity (discs)
            iou_predictions = Mul (ious, {term})
        }}""",
    )


def write_stock_decoder(path: Path, *, old: bool = False) -> Path:
    """As the stock exporter's: four masks scaled to the image's size, and the small ones.

    The scaling reads the small masks from inside a branch, as traced graphs do.
    """
    stock = _save(
        path,
        f"""decoder (float[1,256,64,64] image_embeddings, {_PROMPTS}, float[2] orig_im_size)
        => (float[1,4,height,width] masks, float[1,4] iou_predictions,
            float[1,4,256,256] low_res_masks)
        {_constants(RADII, IOUS)}
        {{ {_DISCS} {_MASK}
            always = Constant <value_int = 1> ()
            yes = Cast <to = 9> (always)
            sure = If (yes) <
                then_branch = chosen () => (float[1,4,256,256] kept) {{
                    kept = Where (given, mask_input, discs)
                }},
                else_branch = other () => (float[1,4,256,256] left) {{
                    left = Identity (discs)
                }}
            >
            low_res_masks = Identity (sure)
            batch = Constant <value_ints = [1, 4]> ()
            size = Cast <to = 7> (orig_im_size)
            sizes = Concat <axis = 0> (batch, size)
            masks = Resize <mode = "linear"> (low_res_masks, , , sizes)
            iou_predictions = Identity (ious)
        }}""",
    )
    if old:  # IR version 3: every initialiser is an input too
        model = onnx.load(str(stock))
        for tensor in model.graph.initializer:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(value)
        onnx.save(model, str(stock))
    return stock


def write_sam2_encoder(path: Path, names: Sequence[str]) -> Path:
    """Three constant maps: the embedding is 0.3, the fine one 0.2, the middle one 0.1.

    Args:
        path: The file.
        names: Of embedding, fine and middle map, in the order of the outputs given by the caller.
    """
    sizes = {"embed": "1,256,64,64", "fine": "1,32,256,256", "middle": "1,64,128,128"}
    values = {"embed": 0.3, "fine": 0.2, "middle": 0.1}
    kinds = [_kind(name) for name in names]
    outputs = ", ".join(f"float[{sizes[k]}] {n}" for n, k in zip(names, kinds, strict=True))
    body = "\n".join(
        f"{name}_size = Constant <value_ints = [{sizes[kind]}]> ()\n"
        f"{name}_number = Constant <value_float = {values[kind]}> ()\n"
        f"{name} = Expand ({name}_number, {name}_size)"
        for name, kind in zip(names, kinds, strict=True)
    )
    return _save(
        path,
        f"""encoder (float[1,3,1024,1024] input) => ({outputs})
        {{ {body} }}""",
    )


def write_sam2_decoder(path: Path, names: Sequence[str], *, low_res: bool) -> Path:
    """Three discs; the predicted IoUs are the means of embedding, fine and middle map."""
    sizes = {"embed": "1,256,64,64", "fine": "1,32,256,256", "middle": "1,64,128,128"}
    inputs = ", ".join(f"float[{sizes[_kind(name)]}] {name}" for name in names)
    by_kind = {_kind(name): name for name in names}
    means = "\n".join(
        f"{kind}_mean = ReduceMean <keepdims = 0> ({by_kind[kind]})\n"
        f"{kind}_one = Unsqueeze ({kind}_mean, front)"
        for kind in sizes
    )
    outputs = "float[1,3,height,width] masks, float[1,3] iou_predictions"
    outputs += ", float[1,3,256,256] low_res_masks" if low_res else ""
    small = "low_res_masks" if low_res else "small"
    return _save(
        path,
        f"""decoder ({inputs}, {_PROMPTS}, int64[2] orig_im_size) => ({outputs})
        {_constants(RADII[1:], IOUS[1:])}
        {{ {_DISCS} {_MASK}
            front = Constant <value_ints = [0]> ()
            {means}
            means = Concat <axis = 0> (embed_one, fine_one, middle_one)
            iou_predictions = Unsqueeze (means, front)
            {small} = Where (given, mask_input, discs)
            batch = Constant <value_ints = [1, 3]> ()
            sizes = Concat <axis = 0> (batch, orig_im_size)
            masks = Resize <mode = "linear"> ({small}, , , sizes)
        }}""",
    )


def write_efficientsam_decoder(path: Path) -> Path:
    """Three discs, points scaled from `orig_im_size`, masks of that size."""
    return _save(
        path,
        f"""decoder (float[1,256,64,64] image_embeddings,
                 float[1,1,points,2] batched_point_coords,
                 float[1,1,points] batched_point_labels, int64[2] orig_im_size)
        => (float[1,1,3,height,width] output_masks, float[1,1,3] iou_predictions)
        {_constants(RADII[1:], IOUS[1:])}
        {{
            front = Constant <value_ints = [0]> ()
            sides = Cast <to = 1> (orig_im_size)
            high, wide = Split <axis = 0> (sides)
            extent = Concat <axis = 0> (wide, high)
            full = Constant <value_float = 1024.0> ()
            scale = Div (full, extent)
            flat = Squeeze (batched_point_coords, front)
            point_coords = Mul (flat, scale)
            point_labels = Squeeze (batched_point_labels, front)
            {_DISCS}
            batch = Constant <value_ints = [1, 3]> ()
            sizes = Concat <axis = 0> (batch, orig_im_size)
            masks = Resize <mode = "linear"> (discs, , , sizes)
            output_masks = Unsqueeze (masks, front)
            iou_predictions = Unsqueeze (ious, front)
        }}""",
    )


def card(family: str = "sam") -> ModelCard:
    """A card whose digests nobody checks."""
    blank = FileRef(sha256="0" * 64)
    return ModelCard(
        name="under-test", task="segment", family=family, files={"encoder": blank, "decoder": blank}
    )


def _kind(name: str) -> str:
    if "embed" in name:
        return "embed"
    return "fine" if name.endswith(("feats_0", "features1")) else "middle"


def _diagonal() -> str:
    return ", ".join("1" if i in (0, 4, 8) else "0" for i in range(768))


def _constants(radii: Sequence[float], ious: Sequence[float]) -> str:
    listed = [", ".join(map(str, values)) for values in (radii, ious)]
    count = len(radii)
    return (
        f"<float[1,{count},1,1] radii = {{{listed[0]}}}, float[1,{count}] ious = {{{listed[1]}}}>"
    )


def _save(path: Path, text: str) -> Path:
    model = parser.parse_model(_HEAD + text)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path
