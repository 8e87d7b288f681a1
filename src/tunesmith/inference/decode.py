"""Decoding without padding, for decoders that can be read along paths.

What all prompts begin with is read once. Prompts are read in groups, each a
pass along their prefix tree, into slots (`slots.py`); then every row gets one
token after the other. A row that is done leaves at once, and when enough have
left, new ones enter. On which rows go together a row's answer does not depend.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from tunesmith.data.encode import common
from tunesmith.inference.prefix import Ids, Pass, read_along
from tunesmith.inference.sampling import Answering, choose
from tunesmith.inference.slots import SLACK, Slots
from tunesmith.models import head
from tunesmith.models.attention import attending
from tunesmith.models.load import Model
from tunesmith.models.paths import PATHS, Along, Paths
from tunesmith.models.route import by_token

READ_TOKENS = 2048  # prompt tokens read in one forward pass
ROWS = 64
CACHE_BYTES = 2**31  # keys and values of the rows that are answered together: what a laptop can spare
ENTER_AT = 0.25  # the share of free slots that is worth a pass for new rows
SHARED = 32  # common tokens below which they are kept with every row: a product of their own would cost more


@torch.no_grad()
def decode(model: Model, asked: Sequence[Answering], report: Callable[[Answering], None], routed: bool) -> None:
    """Fill in the tokens of the answers `asked`; a stop token is the last of its answer. `report` is told of each end.

    If they are `routed`, each is asked of its own adapter, and no prompt is read for another.
    """
    waiting = sorted(asked, key=lambda one: (len(one.prompt), one.prompt), reverse=True)
    present: list[Answering] = []
    with attending(model.net, PATHS):
        desk = _Desk(model, waiting, routed)
        while waiting or present:
            if waiting and desk.rows - len(present) >= max(1, ENTER_AT * desk.rows):
                entering = [waiting.pop(0) for _ in range(min(desk.rows - len(present), len(waiting)))]
                tokens = desk.read(entering)
                present += entering
                new = entering
            else:
                tokens = desk.step(present)
                new = present
            for one, token in zip(new, tokens, strict=True):
                one.take(token, model.encoder)
            for row in reversed([row for row, one in enumerate(present) if one.done]):
                report(present[row])
                desk.slots.leave(row)
                present[row] = present[-1]
                present.pop()


class _Desk:
    """Where rows are read and answered: the slots, and the path that lies ready for the next prompts."""

    def __init__(self, model: Model, asked: Sequence[Answering], routed: bool) -> None:
        self._model, self._routed = model, routed
        self._known = () if routed else _beginning([one.prompt for one in asked])
        longest = max(len(one.prompt) - len(self._known) + one.new for one in asked)
        room = CACHE_BYTES // (_token_bytes(model) * (longest + SLACK))
        self.rows = max(1, min(ROWS, room, len(asked)))
        self.slots = Slots(self.rows, longest, len(self._known))
        self._paths = Paths(max(len(one.prompt) for one in asked), self.slots)
        for one in read_along([self._known], [1], READ_TOKENS).passes:
            self._forward(one.ids, one.depths, self._enter(one, {}), [])

    def read(self, entering: Sequence[Answering]) -> list[int]:
        """Read the prompts of new rows into slots, and give the first token of each answer."""
        slots = self.slots.take([len(one.prompt) - len(self._known) for one in entering])
        prompts = [one.prompt for one in entering]
        plan = read_along(prompts, [1] * len(prompts), READ_TOKENS, not self._routed, self._known)
        of_place: dict[int, list[int]] = defaultdict(list)
        for i, (place,) in enumerate(plan.ends):
            of_place[place].append(i)
        tokens, start = [0] * len(entering), 0
        for one in plan.passes:
            ends = {n: of_place[start + row] for n, row in enumerate(one.last_rows()) if start + row in of_place}
            for i, token in self._read(one, ends, slots, entering):
                tokens[i] = token
            start += len(one.ids)
        return tokens

    def step(self, present: Sequence[Answering]) -> list[int]:
        """Give the next token of each row."""
        self.slots.step(self._model.device, self._model.dtype.torch)
        ids = [one.ids[-1] for one in present]
        places = [len(one.prompt) + len(one.ids) - 1 for one in present]
        with self._asked_of([one.adapter for one in present], [1] * len(present)):
            logits = self._forward(ids, places, self.slots, range(len(present)))
        return choose(logits, present)

    def _read(
        self, one: Pass, ends: dict[int, list[int]], slots: Sequence[int], entering: Sequence[Answering]
    ) -> Iterator[tuple[int, int]]:
        """Read a pass in whose segments prompts end, `ends` tells which; give their numbers and first tokens."""
        along = self._enter(one, {n: tuple(slots[i] for i in numbers) for n, numbers in ends.items()})
        rows = one.last_rows()
        with self._asked_of([entering[i].adapter for i in one.of], [length for length, _ in one.segments]):
            logits = self._forward(one.ids, one.depths, along, [rows[n] for n in ends])
        if not ends:
            return
        each = [(row, i) for row, numbers in enumerate(ends.values()) for i in numbers]
        numbers = [i for _, i in each]
        yield from zip(numbers, choose(logits[[row for row, _ in each]], [entering[i] for i in numbers]), strict=True)

    def _enter(self, one: Pass, leaving: dict[int, tuple[int, ...]]) -> Paths:
        depths = torch.tensor(one.depths, device=self._model.device)
        self._paths.enter(one.segments, depths, self._model.dtype.torch, leaving)
        return self._paths

    def _asked_of(self, adapters: list[str | None], lengths: Sequence[int]) -> AbstractContextManager[None]:
        return by_token(adapters if self._routed else None, lengths, self._model.device)

    def _forward(self, ids: Sequence[int], places: Sequence[int], along: Along, rows: Sequence[int]) -> Tensor:
        """Give the logits [rows, vocabulary] after the tokens at `rows`."""
        tokens, positions = (torch.tensor([list(numbers)], device=self._model.device) for numbers in (ids, places))
        keep = torch.zeros_like(tokens, dtype=torch.bool)
        keep[0, list(rows)] = True
        return head.next_logits(self._model.net, {"input_ids": tokens, "position_ids": positions, "along": along}, keep)


def _beginning(prompts: Sequence[Ids]) -> Ids:
    """Give what all prompts begin with, short of the last token of each; nothing if it is not worth its own keeping."""
    if len(prompts) == 1:
        return ()
    first, last = min(prompts), max(prompts)
    n = min(common(first, last), *(len(prompt) - 1 for prompt in prompts))
    return first[:n] if n >= SHARED else ()


def _token_bytes(model: Model) -> int:
    """Give the bytes that one token takes in the cache: keys and values of every layer."""
    config: Any = model.net.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.dtype.torch.itemsize)
