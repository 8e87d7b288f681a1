"""Scoring in padded batches: encoder-decoders, and decoders whose attention knows more than who comes before whom.

An encoder reads each context once, however many continuations it has. A
decoder reads each sequence once, however many single tokens are scored at its end.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tunesmith.models import head
from tunesmith.models.load import Model

BATCH_TOKENS = 4096  # of the longest row times the rows
Ids = tuple[int, ...]
Pair = tuple[Ids, Ids]  # a context and its continuation
Scored = tuple[list[float], bool]  # the log-probability of each token; whether all are the likeliest


class _Row(NamedTuple):
    """A sequence to read, and the requests that are scored at its end."""

    ids: Ids
    requests: tuple[int, ...]


def score_decoder(model: Model, asked: Sequence[Pair], report: Callable[[int], None], share: bool) -> list[Scored]:
    """Score continuations after contexts, each pair one row, those that read the same in the same row."""
    rows = _rows([(*context, *ids[:-1]) for context, ids in asked], share)
    found: dict[int, Scored] = {}
    for batch in _batches(rows):
        ids, mask = _stacked([row.ids for row in batch], model)
        wanted = [(r, len(row.ids), request) for r, row in enumerate(batch) for request in row.requests]
        found.update(_at(model, {"input_ids": ids, "attention_mask": mask}, wanted, asked))
        report(len(wanted))
    return [found[i] for i in range(len(asked))]


def score_encoder_decoder(model: Model, asked: Sequence[Pair], report: Callable[[int], None]) -> list[Scored]:
    """Score continuations that the decoder writes after the encoder has read their contexts."""
    net: Any = model.net
    begin = net.config.decoder_start_token_id
    found: dict[int, Scored] = {}
    for batch in _batches(_rows([context for context, _ in asked], share=True)):
        ids, mask = _stacked([row.ids for row in batch], model)
        read = net.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        of_row = {request: r for r, row in enumerate(batch) for request in row.requests}
        requests = list(of_row)
        # What is read here depends on the context too: its number stands before the tokens.
        written = _rows([(of_row[i], begin, *asked[i][1][:-1]) for i in requests], share=True)
        for part in _batches(written):
            to = torch.tensor([row.ids[0] for row in part], device=model.device)
            answer, _ = _stacked([row.ids[1:] for row in part], model)
            inputs = {"encoder_outputs": (read[to],), "attention_mask": mask[to], "decoder_input_ids": answer}
            wanted = [(r, len(row.ids) - 1, requests[i]) for r, row in enumerate(part) for i in row.requests]
            found.update(_at(model, inputs, wanted, asked))
        report(len(requests))
    return [found[i] for i in range(len(asked))]


def _rows(sequences: Sequence[Ids], share: bool) -> list[_Row]:
    """Give the different sequences, longest first, each with the numbers of those it stands for."""
    numbers: dict[object, list[int]] = {}
    for i, ids in enumerate(sequences):
        numbers.setdefault(ids if share else i, []).append(i)
    rows = [_Row(sequences[of[0]], tuple(of)) for of in numbers.values()]
    return sorted(rows, key=lambda row: -len(row.ids))


def _batches(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    for row in rows:
        if batch and len(batch[0].ids) * (len(batch) + 1) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _stacked(rows: Sequence[Ids], model: Model) -> tuple[Tensor, Tensor]:
    """Give ids and mask [rows, longest], padded at the end, where no token before looks."""
    pad = model.encoder.stops[0]
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
    return ids.to(model.device), mask.to(model.device)


def _at(
    model: Model, inputs: dict[str, Any], wanted: Sequence[tuple[int, int, int]], asked: Sequence[Pair]
) -> dict[int, Scored]:
    """Score each wanted (row, its length, request): the request's tokens are predicted at the end of the row."""
    places = [
        (row, length - len(asked[i][1]) + k, token) for row, length, i in wanted for k, token in enumerate(asked[i][1])
    ]
    row, column, token = (torch.tensor(numbers, device=model.device) for numbers in zip(*places, strict=True))
    values, best = head.predict_at(model.net, inputs, (row, column), token)
    right = (best == token).tolist()
    found, start = {}, 0
    for _, _, i in wanted:
        end = start + len(asked[i][1])
        found[i] = (values[start:end].tolist(), all(right[start:end]))
        start = end
    return found
