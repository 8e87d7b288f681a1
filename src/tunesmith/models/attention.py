"""Attention without padding.

`attend` lets every document of a packed row see itself and nothing else, but
for a beginning that all of them share, which stands once before them; `packed`,
registered with transformers, takes one row of tokens
[1, tokens], laid out as `layout` says. It runs as
batched products over the key-value heads, so that query heads which share a
key are one product and no key is copied; on a CPU this beats the fused kernel,
in the backward pass above all (decision 0004).
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from tunesmith.data.pack import Layout
from tunesmith.errors import ModelError
from tunesmith.models.virtual import with_prefix

PACKED = "packed"
BLOCK_BYTES = 512  # of one key's scores, for queries attended together: 256 queries in bf16, 128 in fp32
# What attention layers pass along that changes nothing in the arithmetic below.
_HARMLESS = {
    "position_ids",
    "is_causal",
    "cache_position",
    "use_cache",
    "output_attentions",
    "past_key_values",
    "dropout",  # 0: see `can_pack`
}


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """Give softmax(q k^T * scale, causal within the document) v, [tokens, heads, width].

    `query` is [tokens, heads, width]; `key` and `value` [tokens, groups,
    width] may have fewer heads.
    """
    if _has_flash(query):
        return _flash(query, key, value, layout, scale)
    result: Tensor = _Attend.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]
    return result


def packed_attention(  # noqa: PLR0913, PLR0917 - the signature is transformers'
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Give causal attention within each document, [1, tokens, heads, width].

    `query` is [1, heads, tokens, width]; `key` and `value` may have fewer
    heads (grouped queries). Raises ModelError if the layer asks for anything
    that this function would have to ignore.
    """
    refuse_others(others)
    if layout is None:
        raise ModelError("packed attention needs to know where documents begin", fix="pass `layout`")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    keys, values = with_prefix(module, keys, values, layout)
    return attend(queries, keys, values, layout, scale)[None], None


def attend_rows(query: Tensor, key: Tensor, value: Tensor, scale: float, bias: Tensor) -> Tensor:
    """Give softmax(q k^T * scale + bias) v, [m, heads, width], through torch's fused kernel.

    `query` is [m, heads, width], `key` and `value` are [groups, n, width], `bias` [m, n]. For the forward pass alone
    that kernel is the fastest on a processor, too: 1.4 ms for 128 queries of 2 500 keys, where products
    and a softmax of their own take 4.9, most of it for memory that is new each time.
    """
    queries = query.transpose(0, 1)[None]
    found = functional.scaled_dot_product_attention(
        queries, key[None], value[None], attn_mask=bias, scale=scale, enable_gqa=True
    )
    return found[0].transpose(0, 1)


def refuse_others(others: dict[str, Any]) -> None:
    """Refuse what an attention layer asks for and our functions would ignore. Raises ModelError."""
    unknown = [name for name, asked in others.items() if asked is not None and name not in _HARMLESS]
    if unknown:
        raise ModelError(
            f"packed attention does not support: {', '.join(unknown)}", fix="use the model's own attention"
        )


class Spans(NamedTuple):
    """The documents of a row one after another, for a kernel that knows no shared beginning.

    `keys` [n] tells which tokens' keys follow each other; the queries and keys
    of span `i` are those from `of_queries[i]` to `of_queries[i + 1]`, and from
    `of_keys[i]` to `of_keys[i + 1]`. A span may have more keys than queries:
    the last query sees the last key.
    """

    keys: Tensor
    of_queries: Tensor
    of_keys: Tensor
    most_queries: int
    most_keys: int


@functools.lru_cache(maxsize=8)
def spans(layout: Layout, device: torch.device) -> Spans:
    """Give the spans of a layout: the shared beginning by itself, then each rest behind that beginning."""
    shared = [layout.shared] if layout.shared else []
    queries = [*shared, *layout.lengths]
    sizes = [*shared, *(layout.shared + length for length in layout.lengths)]
    start, keys = layout.shared, [torch.arange(layout.shared)]
    for length in layout.lengths:
        keys += [torch.arange(layout.shared), torch.arange(start, start + length)]
        start += length
    of_queries, of_keys = (torch.tensor([0, *n]).cumsum(0, dtype=torch.int32).to(device) for n in (queries, sizes))
    return Spans(torch.cat(keys).to(device), of_queries, of_keys, max(queries), max(sizes))


def _has_flash(query: Tensor) -> bool:
    """Tell whether the flash kernel takes such queries: half precision, Ampere or later, widths it was made for."""
    width = query.shape[-1]
    half = query.dtype in (torch.bfloat16, torch.float16)
    able = query.is_cuda and torch.cuda.get_device_capability(query.device) >= (8, 0)
    return able and half and width % 8 == 0 and width <= 256


def _flash(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """Give what `attend` gives through torch's flash kernel for rows of unequal length, on a GPU."""
    from torch.nn.attention.varlen import varlen_attn

    to = spans(layout, query.device)
    if layout.shared:
        key, value = key[to.keys], value[to.keys]
    lengths = (to.of_queries, to.of_keys, to.most_queries, to.most_keys)
    found = varlen_attn(query, key, value, *lengths, scale=scale, window_size=(-1, 0), enable_gqa=True)
    return cast("Tensor", found)


class _Block(NamedTuple):
    """Queries `low` to `high` of a packed row, and their keys: the first `shared` of the row, then those from `start`.

    Queries go in blocks, each against the keys up to its own end, so that the
    future is hardly computed.
    """

    shared: int
    start: int
    low: int
    high: int

    @property
    def rows(self) -> slice:
        return slice(self.low, self.high)

    def seen(self, x: Tensor) -> Tensor:
        """Give the keys or values [groups, n, width] that these queries see, of all [tokens, groups, width]."""
        own = x[self.start : self.high]
        return (torch.cat([x[: self.shared], own]) if self.shared else own).transpose(0, 1)

    def add(self, total: Tensor, part: Tensor, scale: float = 1.0) -> None:
        """Add `part` [groups, n, width], times `scale`, where `seen` took it from."""
        by_token = part.transpose(0, 1)
        if self.shared:
            total[: self.shared].add_(by_token[: self.shared], alpha=scale)
        total[self.start : self.high].add_(by_token[self.shared :], alpha=scale)


def _blocks(layout: Layout, dtype: torch.dtype) -> Iterator[_Block]:
    size = BLOCK_BYTES // dtype.itemsize
    documents = [(0, layout.shared), *((layout.shared, length) for length in layout.lengths)]
    start = 0
    for shared, length in documents:
        for low in range(start, start + length, size):
            yield _Block(shared, start, low, min(start + length, low + size))
        start += length


class _Attend(Function):
    """The weights of each block are kept for the backward pass; scores and masks are not.

    Gradients of keys that many blocks see are summed in fp32.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        groups = key.shape[1]
        weights = []
        for block in _blocks(layout, query.dtype):
            queries = _by_group(query[block.rows], groups)
            weights.append(_weights(queries, block.seen(key), scale, block.high - block.low))
            _put(output[block.rows], torch.bmm(weights[-1], block.seen(value)))
        ctx.save_for_backward(query, key, value, *weights)
        ctx.layout, ctx.scale = layout, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        of_query = torch.empty_like(gradient)
        of_key, of_value = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (key, value))
        for block, weights in zip(_blocks(ctx.layout, query.dtype), kept, strict=True):
            queries, outer = (_by_group(tensor[block.rows], key.shape[1]) for tensor in (query, gradient))
            of_weights = torch.bmm(outer, block.seen(value).transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            _put(of_query[block.rows], torch.bmm(of_scores, block.seen(key)), ctx.scale)
            block.add(of_key, torch.bmm(of_scores.transpose(1, 2), queries), ctx.scale)
            block.add(of_value, torch.bmm(weights.transpose(1, 2), outer))
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None, None


def _weights(query: Tensor, key: Tensor, scale: float, m: int) -> Tensor:
    """Give the attention weights [groups, share * m, n] of the last `m` of `n` positions."""
    n = key.shape[1]
    scores = _scores(query, key, scale)
    scores.view(len(query), -1, m, n)[..., n - m :] += _future(scores.dtype, scores.device)[:m, :m]
    return torch.softmax(scores, dim=-1)


def _scores(query: Tensor, key: Tensor, scale: float) -> Tensor:
    scores = query.new_empty(*query.shape[:2], key.shape[1])
    return torch.baddbmm(scores, query, key.transpose(1, 2), beta=0, alpha=scale, out=scores)


@functools.lru_cache(maxsize=8)
def _future(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give [queries, queries] for the largest block, minus infinity where the key comes after the query."""
    size = BLOCK_BYTES // dtype.itemsize
    return torch.full((size, size), float("-inf"), dtype=dtype, device=device).triu_(1)


def _by_group(x: Tensor, groups: int) -> Tensor:
    """Turn [m, heads, width] into [groups, share * m, width]: the queries that share a key lie together."""
    m, heads, width = x.shape
    return x.reshape(m, groups, heads // groups, width).permute(1, 2, 0, 3).reshape(groups, -1, width)


def _put(place: Tensor, by_group: Tensor, scale: float = 1.0) -> None:
    """Write [groups, share * m, width], times `scale`, back into `place` [m, heads, width]."""
    m, _, width = place.shape
    groups = by_group.shape[0]
    laid_out = by_group.view(groups, -1, m, width).permute(2, 0, 1, 3)
    torch.mul(laid_out, scale, out=place.view(m, groups, -1, width))


def no_mask(*_: Any, **__: Any) -> None:
    """Build no mask: document lengths and column bias say it all."""


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, no_mask)


def can_pack(net: PreTrainedModel) -> bool:
    """Tell whether packed attention is the model's own arithmetic.

    It is not where the layers use sliding windows, soft caps, sinks, dropout or a
    position bias, or do not take their attention from transformers' registry.
    """
    config = net.config
    # is_encoder_decoder: T5 adds a learned position bias to every score
    odd = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size", "attention_dropout")
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
