"""Attention for packed rows: every document sees itself and nothing else.

Registered with transformers under the name `packed`. A packed batch is one
row of tokens [1, tokens]; `documents` holds the length of each document in it.
Attention runs document by document, as batched products over the key-value
heads: on a CPU this is faster in the backward pass than the fused kernel, no
[tokens, tokens] mask exists, and query heads that share a key are one product.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tunesmith.errors import ModelError

PACKED = "packed"
# What attention layers pass along that changes nothing in the arithmetic below.
_HARMLESS = {"position_ids", "is_causal", "cache_position", "use_cache", "output_attentions", "past_key_values"}


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    documents: Sequence[int] = (),
    **others: Any,
) -> tuple[Tensor, None]:
    """Give causal attention within each document, [1, tokens, heads, width].

    `query` is [1, heads, tokens, width]; `key` and `value` may have fewer
    heads (grouped queries). Raises ModelError if the layer asks for anything
    that this function would have to ignore.
    """
    unknown = [name for name, asked in others.items() if asked is not None and name not in _HARMLESS]
    if unknown or attention_mask is not None or not documents:
        asked = ", ".join(unknown) or "attention without document lengths"
        raise ModelError(f"packed attention does not support: {asked}", fix="train without packing")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    lengths = list(documents)
    parts = zip(query[0].split(lengths, 1), key[0].split(lengths, 1), value[0].split(lengths, 1), strict=True)
    rate = dropout if module.training else 0.0
    outputs = [_document(q, k, v, scale, rate) for q, k, v in parts]
    return torch.cat(outputs, dim=1).transpose(0, 1)[None], None


def _document(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
    """Attend within one document: softmax(q k^T * scale, causal) v, as [heads, n, width]."""
    heads, n, width = query.shape
    groups = key.shape[0]
    grouped = query.reshape(groups, heads // groups * n, width)
    scores = torch.bmm(grouped, key.transpose(1, 2)).view(groups, heads // groups, n, n)
    future = torch.full((n, n), float("-inf"), dtype=scores.dtype, device=scores.device).triu_(1)
    weights = torch.softmax(scores * scale + future, dim=-1).view(groups, heads // groups * n, n)
    if dropout:
        weights = torch.nn.functional.dropout(weights, dropout)
    return torch.bmm(weights, value).view(heads, n, width)


def _no_mask(*_: Any, **__: Any) -> None:
    """Build no mask: the document lengths say it all."""


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _no_mask)


def can_pack(net: PreTrainedModel) -> bool:
    """Tell whether packed attention is the model's own arithmetic.

    It is not where the layers use sliding windows, soft caps, sinks or a
    position bias, or do not take their attention from transformers' registry.
    """
    config = net.config
    # is_encoder_decoder: T5 adds a learned position bias to every score
    odd = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size")
    if config.is_encoder_decoder or any(getattr(config, name, None) for name in odd):
        return False
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    supported = bool(getattr(net, "_supports_attention_backend", False))
    return supported and layers == {"full_attention"} and _takes_positions(net)


def _takes_positions(net: PreTrainedModel) -> bool:
    return "position_ids" in inspect.signature(net.forward).parameters


@contextmanager
def packing(net: PreTrainedModel) -> Iterator[None]:
    """Use packed attention inside the block, and the model's own again after it."""
    before = net.config._attn_implementation
    net.set_attn_implementation(PACKED)
    try:
        yield
    finally:
        net.set_attn_implementation(before)
