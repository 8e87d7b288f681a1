"""Batches: encoded rows as tensors, and which positions are scored.

Three shapes of the same thing: packed (one row without padding), padded (for
decoders whose attention cannot be packed) and encoder-decoder. The loss of a
row is the same number in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith.data.encode import Encoded
from tunesmith.data.pack import Layout


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass; where `keep` [rows, tokens] is true, the logits predict `targets` in order.

    `answers` names the task and counts the answer tokens of each row, in that order.
    """

    inputs: dict[str, Any]
    keep: Tensor
    targets: Tensor
    tokens: int
    answers: tuple[tuple[str, int], ...]

    @property
    def answer_tokens(self) -> int:
        """Count the tokens that carry loss."""
        return len(self.targets)


def packed(rows: Sequence[Encoded], device: torch.device, share: bool = True) -> Batch:
    """Lay rows end to end, [1, tokens], the beginning that all prompts share once before them.

    A token depends on nothing that comes after it: the same beginning has the
    same hidden states in every row, and its gradient is the sum of theirs. That
    does not hold under dropout, where every row draws its own: hence `share`.
    """
    begin = shared(rows) if share else 0
    rests = [(*row.prompt, *row.answer)[begin:] for row in rows]
    layout = Layout(begin, tuple(map(len, rests)))
    ids = torch.tensor([*rows[0].prompt[:begin], *(token for rest in rests for token in rest)])
    positions = torch.cat([torch.arange(begin), *(torch.arange(begin, row.size) for row in rows)])
    keep = torch.cat([torch.zeros(begin, dtype=torch.bool), *(_predicts_answer(row)[begin:] for row in rows)])
    inputs = {"input_ids": ids[None], "position_ids": positions[None], "layout": layout}
    return _batch(rows, inputs, keep[None], device)


def shared(rows: Sequence[Encoded]) -> int:
    """Count the tokens with which all prompts begin, short of the last of each, which predicts its own answer."""
    if len(rows) < 2:
        return 0
    least, most = (ids(row.prompt[:-1] for row in rows) for ids in (min, max))  # in order: what these share, all do
    return next((i for i, (one, other) in enumerate(zip(least, most, strict=False)) if one != other), len(least))


def padded(rows: Sequence[Encoded], pad: int, device: torch.device) -> Batch:
    """Stack rows, [rows, longest], padded on the right under an attention mask."""
    ids = _stack([(*row.prompt, *row.answer) for row in rows], pad)
    mask = _stack([(1,) * row.size for row in rows], 0)
    keep = torch.nn.utils.rnn.pad_sequence([_predicts_answer(row) for row in rows], batch_first=True)
    return _batch(rows, {"input_ids": ids, "attention_mask": mask}, keep, device)


def encoder_decoder(rows: Sequence[Encoded], pad: int, start: int, device: torch.device) -> Batch:
    """Stack prompts for the encoder and answers, shifted behind `start`, for the decoder."""
    inputs = {
        "input_ids": _stack([row.prompt for row in rows], pad),
        "attention_mask": _stack([(1,) * len(row.prompt) for row in rows], 0),
        "decoder_input_ids": _stack([(start, *row.answer[:-1]) for row in rows], pad),
    }
    keep = _stack([(1,) * len(row.answer) for row in rows], 0).bool()
    return _batch(rows, inputs, keep, device)


def _batch(rows: Sequence[Encoded], inputs: dict[str, Any], keep: Tensor, device: torch.device) -> Batch:
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    targets = torch.tensor([token for row in rows for token in row.answer])
    answers = tuple((row.task, len(row.answer)) for row in rows)
    return Batch(moved, keep.to(device), targets.to(device), sum(row.size for row in rows), answers)


def _predicts_answer(row: Encoded) -> Tensor:
    """Mark the positions whose next token belongs to the answer."""
    marks = torch.zeros(row.size, dtype=torch.bool)
    marks[len(row.prompt) - 1 : row.size - 1] = True
    return marks


def _stack(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)
