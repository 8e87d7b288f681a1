"""Keys and values of the rows that are being answered, each row in a slot.

All rows end at the same column, so that a new token of each costs one write
for all of them; what every row begins with is kept once. The slots in use are
always the first ones: a row that leaves gives its slot to the last. Keys lie
with their columns innermost, which makes the product of one query with all of
them several times faster than the usual order.
"""

from typing import Any

import torch
from torch import Tensor

SLACK = 64  # columns to spare: a shift that makes room for new ones is needed once in so many tokens


class Slots:
    """Room for `rows` rows of at most `longest` tokens behind `shared` common ones."""

    def __init__(self, rows: int, longest: int, shared: int) -> None:
        self._rows, self._capacity, self._shared = rows, longest + SLACK, shared
        self._keys: dict[int, Tensor] = {}  # of each layer [rows, groups, width, columns]
        self._values: dict[int, Tensor] = {}  # [rows, groups, columns, width]
        self._common: dict[int, tuple[Tensor, Tensor]] = {}  # [groups, width, shared], [groups, shared, width]
        self._end = 0
        self._lengths: list[int] = []
        self._columns = slice(0, 0)  # those that are attended to, with their bias [rows, columns]
        self._bias = torch.empty(0)

    def __len__(self) -> int:
        """Count the slots in use."""
        return len(self._lengths)

    def take(self, lengths: list[int]) -> list[int]:
        """Give slots to rows of `lengths` tokens, the common ones left out; `store` fills them."""
        longest = max(lengths)
        if not self._lengths:
            self._end = longest
        elif longest > self._end:
            self._move(max(longest, *self._lengths))
        self._lengths += lengths
        return list(range(len(self._lengths) - len(lengths), len(self._lengths)))

    def store(self, number: int, row: int, keys: Tensor, values: Tensor) -> None:
        """Keep the keys and values [groups, tokens, width] of layer `number` for `row`, the common ones once."""
        if number not in self._keys:
            groups, _, width = keys.shape
            self._keys[number] = keys.new_zeros(self._rows, groups, width, self._capacity)
            self._values[number] = values.new_zeros(self._rows, groups, self._capacity, width)
        if number not in self._common:
            common = slice(0, self._shared)
            self._common[number] = (keys[:, common].transpose(1, 2).contiguous(), values[:, common].clone())
        columns = slice(self._end - self._lengths[row], self._end)
        self._keys[number][row, :, :, columns] = keys[:, self._shared :].transpose(1, 2)
        self._values[number][row, :, columns] = values[:, self._shared :]

    def leave(self, row: int) -> None:
        """Free a slot: the last row moves into it."""
        last = len(self._lengths) - 1
        length = self._lengths.pop()
        if row == last:
            return
        columns = slice(self._end - length, self._end)
        for number in self._keys:
            self._keys[number][row, :, :, columns] = self._keys[number][last, :, :, columns]
            self._values[number][row, :, columns] = self._values[number][last, :, columns]
        self._lengths[row] = length

    def step(self, device: torch.device, dtype: torch.dtype) -> None:
        """Make room for one more token of every row; its keys come with `attend`."""
        if self._end == self._capacity:
            self._move(max(self._lengths))
        self._end += 1
        self._lengths = [length + 1 for length in self._lengths]
        used = max(self._lengths)
        # A product reads whole buffers two and a half times as fast as parts of them, which it copies first.
        whole = 2 * used > self._capacity
        self._columns = slice(0, self._capacity) if whole else slice(self._end - used, self._end)
        columns = torch.arange(self._columns.start, self._columns.stop)[None]
        hidden = (columns < self._end - torch.tensor(self._lengths)[:, None]) | (columns >= self._end)
        self._bias = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf")).to(device)

    def attend(self, layer: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Give the attention [rows, heads, width] of one new token of every row over all tokens of the row."""
        number, rows = layer.layer_idx, len(query)
        self._keys[number][:rows, :, :, self._end - 1] = key
        self._values[number][:rows, :, self._end - 1] = value
        keys = self._keys[number][:rows, :, :, self._columns]
        values = self._values[number][:rows, :, self._columns]
        grouped = query.view(rows, key.shape[1], -1, query.shape[-1])
        scores = torch.matmul(grouped, keys).mul_(scale).add_(self._bias[:, None, None])
        if not self._shared:
            return torch.matmul(torch.softmax(scores, -1), values).view(query.shape)
        return self._with_common(number, grouped, scores, values, scale).reshape(query.shape)

    def _with_common(self, number: int, query: Tensor, scores: Tensor, values: Tensor, scale: float) -> Tensor:
        """Attend to the common tokens, too: one product for all rows, [rows, groups, share, width]."""
        rows, groups, share, width = query.shape
        keys, common = self._common[number]
        together = query.transpose(0, 1).reshape(groups, rows * share, width)
        first = torch.bmm(together, keys).mul_(scale).view(groups, rows, share, -1).transpose(0, 1)
        weights = torch.softmax(torch.cat([first, scores], -1), -1)
        of_common = weights[..., : self._shared].transpose(0, 1).reshape(groups, rows * share, self._shared)
        output = torch.bmm(of_common, common).view(groups, rows, share, width).transpose(0, 1)
        return output + torch.matmul(weights[..., self._shared :], values)

    def _move(self, end: int) -> None:
        """Let all rows end at column `end`."""
        used = max(self._lengths)
        for number in self._keys:
            for kept, dim in ((self._keys[number], 3), (self._values[number], 2)):
                rows = kept[: len(self._lengths)]
                rows.narrow(dim, end - used, used).copy_(rows.narrow(dim, self._end - used, used).clone())
        self._end = end
