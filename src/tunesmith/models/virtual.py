"""Virtual tokens: places before a prompt whose meaning is trained, not looked up in the vocabulary.

They have negative ids, -1, -2, and so on, which no tokenizer gives. A row with
a soft prompt is then a row like any other: packed, padded, cached, generated
from, its common beginning computed once, beside rows with another prompt or
none. `Words` gives each id its vector; `Prefix` gives the keys and values that
stand at those places inside the attention.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.data.pack import Layout
from tunesmith.errors import ModelError


def ids(tokens: int, first: int = 0) -> tuple[int, ...]:
    """Give the ids of `tokens` virtual tokens, after the `first` ones that are taken."""
    return tuple(range(-1 - first, -1 - first - tokens, -1))


class Words(nn.Module):
    """The vocabulary's embedding, with virtual words beside it: `tables` give their vectors [tokens, width]."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.tables = nn.ModuleDict()
        self.firsts: dict[str, int] = {}
        self.taken = 0

    @property
    def weight(self) -> Tensor:
        """Give the vocabulary's own vectors [words, width], for what looks at them."""
        found: Any = self.base.weight
        return found  # type: ignore[no-any-return]

    def forward(self, ids: Tensor) -> Tensor:
        """Give the vectors [..., width] of `ids` [...]. Raises ModelError for a virtual token that is not there."""
        found: Tensor = self.base(ids.clamp(min=0))
        left = int((ids < 0).sum())
        for name, table in self.tables.items():
            places = -1 - self.firsts[name] - ids
            vectors: Tensor = table()
            inside = (places >= 0) & (places < len(vectors))
            taken = int(inside.sum())
            if taken:
                if found.is_leaf and found.requires_grad:  # transformers marks it so for checkpointing
                    found = found.clone()
                found[inside] = vectors[places[inside]].to(found.dtype)
                left -= taken
        if left:
            raise ModelError(f"{left} virtual tokens are of no prompt on this model", fix="attach theirs again")
        return found


class Table(nn.Module):
    """Vectors [tokens, width], trained as they are."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    def forward(self) -> Tensor:
        """Give them."""
        return self.vectors


def add_words(net: PreTrainedModel, name: str, table: nn.Module, tokens: int) -> int:
    """Put virtual words onto the network; give the number of those that come before them."""
    words: Any = net.get_input_embeddings()
    if not isinstance(words, Words):
        words = Words(words)
        net.set_input_embeddings(words)
    words.tables[name] = table
    words.firsts[name] = words.taken
    words.taken += tokens
    return int(words.firsts[name])


def remove_words(net: PreTrainedModel, name: str) -> None:
    """Take them off; with the last of them the vocabulary's own embedding is back."""
    words: Any = net.get_input_embeddings()
    del words.tables[name], words.firsts[name]
    if not words.tables:
        net.set_input_embeddings(words.base)


class Prefix(nn.Module):
    """Keys and values [tokens, groups, width] for the virtual tokens of one attention layer."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        super().__init__()
        self.key, self.value = nn.Parameter(key), nn.Parameter(value)


def prefix_of(attention: nn.Module) -> Prefix | None:
    """Give the prefix that is switched on at this attention layer."""
    found = getattr(attention, "prefix", None)
    return found if isinstance(found, Prefix) else None


def with_prefix(attention: nn.Module, key: Tensor, value: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Give keys and values [tokens, groups, width] of a packed row, those of the prefix in their places."""
    prefix = prefix_of(attention)
    if prefix is None:
        return key, value
    places, rows = _places(layout, len(prefix.key), key.device)
    return key.index_copy(0, places, prefix.key[rows]), value.index_copy(0, places, prefix.value[rows])


@functools.lru_cache(maxsize=8)
def _places(layout: Layout, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Give the places of each document's first `tokens` in a packed row, and which of them each is."""
    places, rows = list(range(min(layout.shared, tokens))), list(range(min(layout.shared, tokens)))
    start = layout.shared
    for length in layout.lengths:
        own = range(min(layout.shared, tokens), min(tokens, layout.shared + length))
        places += [start + n - layout.shared for n in own]
        rows += own
        start += length
    return torch.tensor(places, dtype=torch.long, device=device), torch.tensor(rows, dtype=torch.long, device=device)


def attention_layers(net: PreTrainedModel) -> Sequence[nn.Module]:
    """List the self-attention layers of a decoder, in the order of its blocks."""
    found = {
        module.layer_idx: module
        for name, module in net.named_modules()
        if type(module).__name__.endswith("Attention") and getattr(module, "layer_idx", None) is not None
    }
    return [found[i] for i in sorted(found)]
