"""Attention along the paths of a prefix tree, with the keys of one path kept.

Tokens come in the order of `inference/prefix.py`: every segment goes on from a
path that lies ready. A layer keeps the keys and values of that path in one
buffer, depth by depth; a segment writes its own behind the depth it starts at,
over those of the branch that was left, and attends to everything before it.
Nothing is copied that two branches share. Short segments next to each other
are attended together, under a mask that hides the branches from each other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from tunesmith.errors import ModelError
from tunesmith.models.attention import attend_rows, no_mask, refuse_others
from tunesmith.models.virtual import Prefix, prefix_of

PATHS = "paths"
TOGETHER = 128  # tokens of short segments that are attended together
BLOCK = 256  # queries of a long one: a block's keys end with it, so that little of the future is computed


class Along(Protocol):
    """What was read before the tokens of a pass, and how they attend to it."""

    def attend(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Give the attention [tokens, heads, width] at `layer`; `key` and `value` are [tokens, groups, width]."""
        ...


class Store(Protocol):
    """What keeps the path to the end of a segment, for what comes after it."""

    def store(self, number: int, row: int, keys: Tensor, values: Tensor) -> None:
        """Keep the `keys` and `values` [groups, columns, width] of layer `number` for `row`."""
        ...


class Block(NamedTuple):
    """Queries `low` to `high` of a pass; `bias` [queries, columns] is minus infinity where one sees no column."""

    low: int
    high: int
    bias: Tensor


class Stretch(NamedTuple):
    """Queries `low` to `high` of a pass, whose keys go behind the `start` columns of the path that lies ready.

    `stay` are the columns that the path after this goes through from column `base` on; None if it is as it lies.
    `ends` are the columns of whole paths that end here, with the rows they are stored for.
    """

    low: int
    high: int
    start: int
    blocks: tuple[Block, ...]
    base: int = 0
    stay: Tensor | None = None
    ends: tuple[tuple[Tensor, tuple[int, ...]], ...] = ()


class Paths:
    """The keys and values of one path, for every layer, [groups, columns, width]; columns are depths."""

    def __init__(self, deepest: int, store: Store | None = None) -> None:
        self._columns = deepest + TOGETHER
        self._store = store
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._stretches: list[Stretch] = []
        self._depths = torch.empty(0)

    def enter(
        self,
        segments: Sequence[tuple[int, int]],
        depths: Tensor,
        dtype: torch.dtype,
        leaving: Mapping[int, tuple[int, ...]] | None = None,
    ) -> None:
        """Begin a pass of `segments` (length, depth of the first); `depths` [tokens] are those of its tokens.

        The paths to the ends of the segments numbered in `leaving` are stored for the rows given there.
        """
        self._stretches = stretches(segments, dtype, depths.device, leaving or {})
        self._depths = depths

    def attend(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Give the attention [tokens, heads, width] of a pass at `layer`; `key` and `value` [tokens, groups, width]."""
        key, value = self._with_prefix(prefix_of(layer), key, value)
        keys, values = self._buffers(layer.layer_idx, key)
        output = torch.empty_like(query)
        for stretch in self._stretches:
            rows = slice(stretch.low, stretch.high)
            end = stretch.start + stretch.high - stretch.low
            keys[:, stretch.start : end] = key[rows].transpose(0, 1)
            values[:, stretch.start : end] = value[rows].transpose(0, 1)
            for block in stretch.blocks:
                seen = slice(0, block.bias.shape[1])
                queries = query[block.low : block.high]
                output[block.low : block.high] = attend_rows(queries, keys[:, seen], values[:, seen], scale, block.bias)
            if self._store is not None:
                for columns, to in stretch.ends:
                    for row in to:
                        self._store.store(layer.layer_idx, row, keys[:, columns], values[:, columns])
            if stretch.stay is not None:
                n = stretch.base + len(stretch.stay)
                keys[:, stretch.base : n] = keys[:, stretch.stay]
                values[:, stretch.base : n] = values[:, stretch.stay]
        return output

    def _with_prefix(self, prefix: Prefix | None, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the keys and values of a trained prefix where its virtual tokens are: at the first depths."""
        if prefix is None:
            return key, value
        places = (self._depths < len(prefix.key)).nonzero()[:, 0]
        rows = self._depths[places]
        return key.index_copy(0, places, prefix.key[rows]), value.index_copy(0, places, prefix.value[rows])

    def _buffers(self, number: int, key: Tensor) -> tuple[Tensor, Tensor]:
        if number not in self._keys:
            shape = (key.shape[1], self._columns, key.shape[2])
            self._keys[number], self._values[number] = key.new_empty(shape), key.new_empty(shape)
        return self._keys[number], self._values[number]


def stretches(
    segments: Sequence[tuple[int, int]],
    dtype: torch.dtype,
    device: torch.device,
    leaving: Mapping[int, tuple[int, ...]],
) -> list[Stretch]:
    """Cut a pass of segments (length, start) into stretches: long ones alone, short neighbours together."""
    groups: list[list[int]] = []
    room = 0
    for i, (length, _) in enumerate(segments):
        if length > room:
            groups.append([])
            room = TOGETHER
        groups[-1].append(i)
        room -= length
    found, low = [], 0
    for group in groups:
        made = _alone if len(group) == 1 else _together
        found.append(_on(made(segments, group, low, leaving), dtype, device))
        low = found[-1].high
    return found


Segments = Sequence[tuple[int, int]]
Leaving = Mapping[int, tuple[int, ...]]


def _alone(segments: Segments, group: Sequence[int], low: int, leaving: Leaving) -> Stretch:
    """Let a segment see the path before it and itself, in blocks, each up to its own end."""
    (length, start), (number,) = segments[group[0]], group
    blocks = []
    for first in range(0, length, BLOCK):
        last = min(first + BLOCK, length)
        columns = torch.arange(start + last)
        hidden = columns[None] > start + torch.arange(first, last)[:, None]
        blocks.append(Block(low + first, low + last, hidden))
    ends = ((torch.arange(start + length), leaving[number]),) if number in leaving else ()
    return Stretch(low, low + length, start, tuple(blocks), ends=ends)


def _together(segments: Segments, group: Sequence[int], low: int, leaving: Leaving) -> Stretch:
    """Lay segments side by side behind the path of the first; each sees only what is on its own path."""
    ready = segments[group[0]][1]
    tokens = sum(segments[i][0] for i in group)
    seen = torch.zeros(tokens, ready + tokens, dtype=torch.bool)
    path = torch.arange(ready)  # the columns of the current path
    ends = []
    row = 0
    for i in group:
        length, start = segments[i]
        own = torch.arange(ready + row, ready + row + length)
        path = torch.cat([path[:start], own])
        seen[row : row + length, path[:start]] = True
        seen[row : row + length, own] = torch.ones(length, length, dtype=torch.bool).tril()
        row += length
        if i in leaving:
            ends.append((path, leaving[i]))
    base = min(segments[i][1] for i in group)
    return Stretch(low, low + tokens, ready, (Block(low, low + tokens, ~seen),), base, path[base:], tuple(ends))


def _on(stretch: Stretch, dtype: torch.dtype, device: torch.device) -> Stretch:
    """Turn what is hidden into biases, and put all onto the device."""
    blocks = tuple(
        block._replace(bias=torch.zeros(block.bias.shape, dtype=dtype).masked_fill_(block.bias, -torch.inf).to(device))
        for block in stretch.blocks
    )
    stay = None if stretch.stay is None else stretch.stay.to(device)
    ends = tuple((columns.to(device), rows) for columns, rows in stretch.ends)
    return stretch._replace(blocks=blocks, stay=stay, ends=ends)


def path_attention(  # noqa: PLR0913, PLR0917 - the signature is transformers'
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    along: Along | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Give the attention of `along` to transformers: `query` [1, heads, tokens, width] to [1, tokens, heads, width]."""
    refuse_others(others)
    if along is None:
        raise ModelError("path attention needs to know what was read before", fix="pass `along`")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return along.attend(module, queries, keys, values, scale)[None], None


AttentionInterface.register(PATHS, path_attention)
AttentionMaskInterface.register(PATHS, no_mask)
