"""Attention without padding: packed rows, and one new token each against cached ones.

Two functions registered with transformers. `packed` takes one row of tokens
[1, tokens], where `documents` holds the length of each document: every
document sees itself and nothing else. `cached` takes one new token per row
and the keys of all before it. Both run as batched products over the key-value
heads, so that query heads which share a key are one product and no key is
copied; on a CPU this beats the fused kernel, in the backward pass above all.
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
CACHED = "cached"
BLOCK = 256  # queries attended together
WHOLE = 512  # a document up to this long is one block when gradients are needed
# What attention layers pass along that changes nothing in the arithmetic below.
_HARMLESS = {
    "position_ids",
    "is_causal",
    "cache_position",
    "use_cache",
    "output_attentions",
    "past_key_values",
    "dropout",
}


def packed_attention(  # noqa: PLR0913, PLR0917 - the signature is transformers'
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
    _refuse_others(others)
    if not documents:
        raise ModelError("packed attention needs document lengths", fix="pass `documents`")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    lengths = list(documents)
    parts = zip(*(torch.split(tensor[0], lengths, 1) for tensor in (query, key, value)), strict=True)
    rate = dropout if module.training else 0.0
    outputs = [_document(q, k, v, scale, rate) for q, k, v in parts]
    return torch.cat(outputs, dim=1).transpose(0, 1)[None], None


def cached_attention(  # noqa: PLR0913, PLR0917 - the signature is transformers'
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    column_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Give the attention of one new token per row over the row's cache, [rows, 1, heads, width].

    `key` and `value` are [rows, groups, columns, width]; `column_bias`
    [rows, 1, 1, columns] is minus infinity where a row has no token.
    """
    _refuse_others(others)
    rows, heads, _, width = query.shape
    scale = width**-0.5 if scaling is None else scaling
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    scores = torch.matmul(grouped, key.transpose(2, 3)) * scale
    if column_bias is not None:
        scores = scores + column_bias
    output = torch.matmul(torch.softmax(scores, dim=-1), value)
    return output.reshape(rows, 1, heads, width), None


def _refuse_others(others: dict[str, Any]) -> None:
    unknown = [name for name, asked in others.items() if asked is not None and name not in _HARMLESS]
    if unknown:
        raise ModelError(
            f"packed attention does not support: {', '.join(unknown)}", fix="use the model's own attention"
        )


def _document(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
    """Attend within one document: softmax(q k^T * scale, causal) v, as [heads, n, width].

    Queries go in blocks, each against the keys up to its own end, so that the
    future is hardly computed and the scores stay in the processor's cache. A
    short document that needs a backward pass goes in one block, which saves
    more in the backward than it wastes.
    """
    heads, n, width = query.shape
    block = n if torch.is_grad_enabled() and n <= WHOLE else BLOCK
    grouped = query.reshape(key.shape[0], heads // key.shape[0], n, width)
    ends = [min(n, start + block) for start in range(0, n, block)]
    parts = [
        _block(grouped[:, :, start:end], key[:, :end], value[:, :end], scale, dropout)
        for start, end in zip(range(0, n, block), ends, strict=True)
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)).reshape(heads, n, width)


def _block(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
    """Attend with the last `m` positions, [groups, share, m, width], over all keys up to them."""
    groups, share, m, width = query.shape
    n = key.shape[1]
    scores = torch.bmm(query.reshape(groups, share * m, width), key.transpose(1, 2)).view(groups, share, m, n) * scale
    future = torch.full((m, m), float("-inf"), dtype=scores.dtype, device=scores.device).triu_(1)
    if n == m:
        scores = scores + future
    else:
        scores[..., n - m :] += future
    weights = torch.softmax(scores, dim=-1).view(groups, share * m, n)
    if dropout:
        weights = torch.nn.functional.dropout(weights, dropout)
    return torch.bmm(weights, value).view(groups, share, m, width)


def _no_mask(*_: Any, **__: Any) -> None:
    """Build no mask: document lengths and column bias say it all."""


for _name, _function in ((PACKED, packed_attention), (CACHED, cached_attention)):
    AttentionInterface.register(_name, _function)
    AttentionMaskInterface.register(_name, _no_mask)


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
def attending(net: PreTrainedModel, name: str) -> Iterator[None]:
    """Use the attention registered as `name` inside the block, and the model's own again after it."""
    before = net.config._attn_implementation
    net.set_attn_implementation(name)
    try:
        yield
    finally:
        net.set_attn_implementation(before)
