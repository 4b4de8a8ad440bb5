"""The graphs of a SAM, written from PyTorch modules that compute what `SamOnnxModel` does, faster.

Three things are done otherwise than in the stock exporter, each with the same result:

* The graph ends at the masks' own resolution.
* The mask decoder's upscaling works on rows of channels. A transposed convolution whose kernel is
  its stride is a matrix product, and the LayerNorm of channels between two of them is a plain one
  there; only the four finished masks are put in order (0.84 of the stock graph's CPU time).
* What the first transformer layer computes from the image alone is computed with the embedding,
  and the graph for clicks leaves out the mask prompt that it does not get (0.66 together).
"""

from __future__ import annotations

import importlib
import math
import warnings
from pathlib import Path
from typing import Any

from prelabel_models.export._torch import segment_anything, torch_module

OPSET = 17  # the first with LayerNormalization; read by every ONNX Runtime that is supported
# The image's keys and values for the tokens, and its queries for them, in the first layer.
IMAGE_TERMS = ("image_keys", "image_values", "image_queries")
_OUTPUTS = ["low_res_masks", "iou_predictions"]


def write_encoder(sam: Any, path: Path) -> None:
    """(1, 3, side, side) normalised pixels to the embedding and the first layer's image terms."""
    torch = torch_module()

    class Encoder(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = sam.image_encoder, sam.mask_decoder
            self.prompts = sam.prompt_encoder

        def forward(self, image: Any) -> tuple[Any, ...]:
            embedding = self.encoder(image)
            rows = _rows(embedding + _no_mask(self.prompts))
            layer = self.decoder.transformer.layers[0]
            to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
            placed = rows + _rows(self.prompts.get_dense_pe())
            keys = _heads(to_image, to_image.k_proj(placed)).transpose(2, 3)
            values = _heads(to_image, to_image.v_proj(rows))
            queries = _heads(to_tokens, to_tokens.q_proj(placed))
            return embedding, keys, values, queries

    side = sam.image_encoder.img_size
    _export(Encoder(), {"image": torch.zeros(1, 3, side, side)}, path, [_EMBEDDING, *IMAGE_TERMS])


def write_decoder(sam: Any, path: Path) -> None:
    """Embedding, points and mask to four masks of logits and their predicted IoUs."""
    torch = torch_module()

    class Decoder(_stock_model()):  # type: ignore[misc]
        def forward(
            self, embedding: Any, coords: Any, labels: Any, mask: Any, has_mask: Any
        ) -> tuple[Any, Any]:
            decoder, prompts = self.model.mask_decoder, self.model.prompt_encoder
            queries, keys = decoder.transformer(
                embedding + self._embed_masks(mask, has_mask),
                prompts.get_dense_pe(),
                _tokens(decoder, self._embed_points(coords, labels)),
            )
            return _finish(decoder, queries, keys)

    rows, columns = sam.prompt_encoder.image_embedding_size
    examples = {
        **_click_examples(sam),
        "mask_input": torch.zeros(1, 1, 4 * rows, 4 * columns),
        "has_mask_input": torch.zeros(1),
    }
    _export(Decoder(sam, return_single_mask=False), examples, path, _OUTPUTS)


def write_clicks(sam: Any, path: Path) -> None:
    """`write_decoder` without a mask, from the image terms that the encoder gives."""
    torch = torch_module()

    class Clicks(_stock_model()):  # type: ignore[misc]
        def forward(self, embedding: Any, coords: Any, labels: Any, *terms: Any) -> tuple[Any, Any]:
            decoder, prompts = self.model.mask_decoder, self.model.prompt_encoder
            tokens = _tokens(decoder, self._embed_points(coords, labels))
            rows = _rows(embedding + _no_mask(prompts))
            transformer = decoder.transformer
            queries, keys = _first_layer(transformer.layers[0], tokens, rows, terms)
            places = _rows(prompts.get_dense_pe())
            for layer in transformer.layers[1:]:
                queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=places)
            seen = transformer.final_attn_token_to_image(
                q=queries + tokens, k=keys + places, v=keys
            )
            return _finish(decoder, transformer.norm_final_attn(queries + seen), keys)

    layer = sam.mask_decoder.transformer.layers[0]
    heads = layer.cross_attn_token_to_image.num_heads
    width = layer.cross_attn_token_to_image.internal_dim // heads
    cells = math.prod(sam.prompt_encoder.image_embedding_size)
    shapes = ((1, heads, width, cells), (1, heads, cells, width), (1, heads, cells, width))
    terms = {name: torch.zeros(*s) for name, s in zip(IMAGE_TERMS, shapes, strict=True)}
    _export(
        Clicks(sam, return_single_mask=False), {**_click_examples(sam), **terms}, path, _OUTPUTS
    )


_EMBEDDING = "image_embeddings"


def _stock_model() -> Any:
    return importlib.import_module(f"{segment_anything().__name__}.utils.onnx").SamOnnxModel


def _click_examples(sam: Any) -> dict[str, Any]:
    torch = torch_module()
    prompts = sam.prompt_encoder
    return {
        _EMBEDDING: torch.zeros(1, prompts.embed_dim, *prompts.image_embedding_size),
        "point_coords": torch.zeros(1, 3, 2),
        "point_labels": torch.ones(1, 3),
    }


def _rows(planes: Any) -> Any:
    """(1, C, H, W) to (1, H W, C)."""
    return planes.flatten(2).permute(0, 2, 1)


def _no_mask(prompts: Any) -> Any:
    return prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)


def _heads(attention: Any, rows: Any) -> Any:
    return attention._separate_heads(rows, attention.num_heads)


def _attend(attention: Any, queries: Any, keys: Any, values: Any) -> Any:
    """`Attention.forward` after its projections, with keys (1, heads, channels, n)."""
    scores = (queries @ keys) / math.sqrt(queries.shape[-1])
    return attention.out_proj(attention._recombine_heads(scores.softmax(dim=-1) @ values))


def _first_layer(layer: Any, tokens: Any, rows: Any, terms: tuple[Any, ...]) -> tuple[Any, Any]:
    """`TwoWayAttentionBlock.forward` of the first layer, which has no residual self-attention."""
    image_keys, image_values, image_queries = terms
    queries = layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))
    to_image, to_tokens = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
    asked = _heads(to_image, to_image.q_proj(queries + tokens))
    queries = layer.norm2(queries + _attend(to_image, asked, image_keys, image_values))
    queries = layer.norm3(queries + layer.mlp(queries))
    keys = _heads(to_tokens, to_tokens.k_proj(queries + tokens)).transpose(2, 3)
    values = _heads(to_tokens, to_tokens.v_proj(queries))
    return queries, layer.norm4(rows + _attend(to_tokens, image_queries, keys, values))


def _tokens(decoder: Any, sparse: Any) -> Any:
    torch = torch_module()
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight], dim=0)
    return torch.cat((own.unsqueeze(0), sparse), dim=1)


def _finish(decoder: Any, queries: Any, keys: Any) -> tuple[Any, Any]:
    """The end of `MaskDecoder.predict_masks`, on rows of channels."""
    torch = torch_module()
    first, norm, act1, second, act2 = decoder.output_upscaling
    side = math.isqrt(keys.shape[1])
    rows = _transposed_convolution(first, keys).reshape(1, 4 * side * side, first.out_channels)
    rows = torch.nn.functional.layer_norm(
        rows, (first.out_channels,), norm.weight, norm.bias, norm.eps
    )
    rows = act2(_transposed_convolution(second, act1(rows)))
    rows = rows.reshape(1, 16 * side * side, second.out_channels)
    count = decoder.num_mask_tokens
    heads = decoder.output_hypernetworks_mlps
    weights = torch.stack([heads[i](queries[:, 1 + i]) for i in range(count)], dim=1)
    # Cells lie in the order y, x, then the 2x2 of the first and the 2x2 of the second doubling.
    masks = (weights @ rows.transpose(1, 2)).reshape(1, count, side, side, 2, 2, 2, 2)
    masks = masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(1, count, 4 * side, 4 * side)
    return masks, decoder.iou_prediction_head(queries[:, 0])


def _transposed_convolution(convolution: Any, rows: Any) -> Any:
    """A 2x2 kernel with stride 2 on (1, n, in) as one product: (1, n, 2 x 2 x out)."""
    kernel = convolution.weight.permute(0, 2, 3, 1).flatten(1)
    return rows @ kernel + convolution.bias.repeat(4)


def _export(module: Any, examples: dict[str, Any], path: Path, outputs: list[str]) -> None:
    torch = torch_module()
    varying = {"point_coords": {1: "points"}, "point_labels": {1: "points"}}
    module.eval()
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of every shape that it fixes. Those of the image are meant to be fixed,
        # and the proof afterwards varies all others.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(examples.values()),
            str(path),
            input_names=list(examples),
            output_names=outputs,
            dynamic_axes={name: axes for name, axes in varying.items() if name in examples},
            opset_version=OPSET,
            dynamo=False,
        )
