"""Decoding without padding, for decoders whose attention can be packed.

The prompts of a batch are read packed, a few at a time, so that no padding is
computed and activations stay in the processor's cache. Their keys and values
go into buffers that have room for the answers, each prompt ending at the same
column; a new token then costs one write, not a copy of everything before it.
Rows that are done leave the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from tunesmith.data.encode import Encoded
from tunesmith.data.pack import Layout, pack
from tunesmith.models.attention import CACHED, PACKED, attending
from tunesmith.models.load import Model
from tunesmith.models.route import Names, by_row, by_token
from tunesmith.models.virtual import Prefix, attention_layers, prefix_of

READ_TOKENS = 2048  # prompt tokens read in one forward pass
LEAVE_AT = 0.25  # the share of finished rows that is worth a copy of the cache without them


class RaggedLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, [rows, groups, columns, width], prompts aligned at their ends."""

    def __init__(self, lengths: Sequence[int], room: int, prefix: Prefix | None = None) -> None:
        super().__init__()
        self._lengths = list(lengths)
        self._room = room
        self._prefix = prefix
        self._read = 0  # prompts stored so far
        self._end = max(lengths)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store packed prompts until all are read, then one token per row; give what to attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._read < len(self._lengths):
            self._store_prompts(key_states, value_states)
            return key_states, value_states
        self.keys[:, :, self._end] = key_states[:, :, 0]
        self.values[:, :, self._end] = value_states[:, :, 0]
        self._end += 1
        return self.keys[:, :, : self._end], self.values[:, :, : self._end]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for all prompts and answers.

        Keys lie with their columns innermost, which makes the product of one
        query with all of them several times faster than the usual order.
        """
        _, groups, _, width = key_states.shape
        rows, columns = len(self._lengths), self.get_max_length()
        self.keys = key_states.new_zeros(rows, groups, width, columns).transpose(2, 3)
        self.values = value_states.new_zeros(rows, groups, columns, width)
        self.is_initialized = True

    def keep(self, rows: Tensor) -> None:
        """Forget all but the rows with these numbers."""
        self.keys = self.keys.transpose(2, 3)[rows].transpose(2, 3)
        self.values = self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Give the number of columns after the next tokens, and that they start at 0."""
        return self._end + query_length, 0

    def get_seq_length(self) -> int:
        """Give the number of columns in use."""
        return self._end

    def get_max_length(self) -> int:
        """Give the number of columns there is room for."""
        return max(self._lengths) + self._room

    def _store_prompts(self, key_states: Tensor, value_states: Tensor) -> None:
        """Lay the next packed prompts, [1, groups, tokens, width], into the buffers, ends aligned."""
        start = 0
        while start < key_states.shape[2]:
            n = self._lengths[self._read]
            columns = slice(self._end - n, self._end)
            self.keys[self._read, :, columns] = key_states[0, :, start : start + n]
            self.values[self._read, :, columns] = value_states[0, :, start : start + n]
            if self._prefix is not None:
                virtual = slice(self._end - n, self._end - n + len(self._prefix.key))
                self.keys[self._read, :, virtual] = self._prefix.key.transpose(0, 1)
                self.values[self._read, :, virtual] = self._prefix.value.transpose(0, 1)
            self._read += 1
            start += n


@torch.no_grad()
def decode(model: Model, prompts: Sequence[tuple[int, ...]], new: int, names: Names = None) -> list[list[int]]:
    """Answer prompts greedily with at most `new` tokens each; an answer that stopped ends with its stop token.

    `names` are the adapters that the prompts are asked of, if each has its own.
    """
    lengths = [len(prompt) for prompt in prompts]
    cache = Cache(layers=[RaggedLayer(lengths, new, prefix_of(layer)) for layer in attention_layers(model.net)])
    answers: list[list[int]] = [[] for _ in prompts]
    present = list(range(len(prompts)))  # which prompt each row of the batch answers
    tokens = _read(model, prompts, cache, names)
    position = torch.tensor(lengths, device=model.device)
    bias = _column_bias(lengths, new, model)
    with attending(model.net, CACHED):
        for column in range(max(lengths) + 1, max(lengths) + new + 1):
            for row, token in zip(present, tokens.tolist(), strict=True):
                if not _stopped(answers[row], model):
                    answers[row].append(token)
            alive = [i for i, row in enumerate(present) if not _stopped(answers[row], model)]
            if not alive or column == max(lengths) + new:
                break
            if len(alive) <= (1 - LEAVE_AT) * len(present):
                rows = torch.tensor(alive, device=model.device)
                present = [present[i] for i in alive]
                tokens, position, bias = tokens[rows], position[rows], bias[rows]
                for layer in cache.layers:
                    layer.keep(rows)
            with by_row(names and [names[row] for row in present], model.device):
                logits = model.net(
                    input_ids=tokens[:, None],
                    position_ids=position[:, None],
                    past_key_values=cache,
                    use_cache=True,
                    column_bias=bias[..., :column],
                ).logits
            tokens = logits[:, -1].argmax(-1)
            position = position + 1
    return answers


def _read(model: Model, prompts: Sequence[tuple[int, ...]], cache: Cache, names: Names) -> Tensor:
    """Read the prompts in packed groups, fill the cache, and give each answer's first token [rows]."""
    rows = [Encoded(str(i), prompt, ()) for i, prompt in enumerate(prompts)]
    with attending(model.net, PACKED):
        first = [_read_group(model, group, cache, names) for group in pack(rows, READ_TOKENS)]
    return torch.cat(first)


def _read_group(model: Model, group: Sequence[Encoded], cache: Cache, names: Names) -> Tensor:
    lengths = [len(row.prompt) for row in group]
    ids = torch.tensor([[token for row in group for token in row.prompt]], device=model.device)
    positions = torch.cat([torch.arange(n, device=model.device) for n in lengths])[None]
    ends = torch.tensor(lengths, device=model.device).cumsum(0) - 1
    with by_token(names and [names[int(row.id)] for row in group], lengths, model.device):
        logits = model.net(
            input_ids=ids,
            position_ids=positions,
            layout=Layout(0, tuple(lengths)),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=ends,
        ).logits
    first: Tensor = logits[0].argmax(-1)
    return first


def _column_bias(lengths: Sequence[int], new: int, model: Model) -> Tensor:
    """Give [rows, 1, 1, columns], minus infinity before each prompt's first token."""
    longest = max(lengths)
    starts = longest - torch.tensor(lengths, device=model.device)
    empty = torch.arange(longest + new, device=model.device)[None] < starts[:, None]
    bias = torch.zeros(empty.shape, dtype=model.dtype.torch, device=model.device)
    return bias.masked_fill_(empty, float("-inf"))[:, None, None]


def _stopped(answer: list[int], model: Model) -> bool:
    return bool(answer) and answer[-1] in model.encoder.stops
