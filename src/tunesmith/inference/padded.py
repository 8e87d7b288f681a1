"""Padded batches: encoder-decoders, and decoders whose attention knows more than who comes before whom.

Scoring, an encoder reads each context once, however many continuations it has, and a
decoder each sequence once, however many single tokens are scored at its end.
Answers are made by transformers' `generate`, which knows every family's cache; the next token is chosen by us.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from tunesmith.inference.sampling import Answering, choose
from tunesmith.models import head
from tunesmith.models.load import Model
from tunesmith.models.route import by_row

BATCH_TOKENS = 4096  # of the longest row times the rows
ANSWER_ROWS, ANSWER_TOKENS = 64, 2**16  # rows answered together, and the tokens of the longest times the rows
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


def answer(model: Model, asked: Sequence[Answering], report: Callable[[Answering], None]) -> None:
    """Fill in the tokens of the answers `asked`; a stop token is the last of its answer. `report` is told of each end.

    A decoder's prompts are padded on the left, so that all end together; an encoder's on the right, so that all begin
    together, as a prefix and the training have it.
    """
    rows = sorted(asked, key=lambda one: -len(one.prompt))
    for batch in _answer_batches(rows):
        ids, mask = _stacked([one.prompt for one in batch], model, "left" if model.kind == "decoder" else "right")
        stops = list(model.encoder.stops)
        config = GenerationConfig(
            max_new_tokens=max(one.new for one in batch), do_sample=False, eos_token_id=stops, pad_token_id=stops[0]
        )
        if model.kind == "encoder-decoder":
            config.decoder_start_token_id = model.net.config.decoder_start_token_id
        chosen = _Chosen(batch, model)
        with by_row([one.adapter for one in batch] if any(one.adapter for one in batch) else None, model.device):
            model.net.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([chosen]),
                stopping_criteria=StoppingCriteriaList([chosen.all_done]),
            )
        for one in batch:
            report(one)


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves each row only the token that we choose for it; a row that is done gets a stop token."""

    def __init__(self, rows: Sequence[Answering], model: Model) -> None:
        self._rows, self._encoder = rows, model.encoder

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = choose(scores, self._rows)
        for i, (one, token) in enumerate(zip(self._rows, chosen, strict=True)):
            if one.done:
                chosen[i] = self._encoder.stops[0]
            else:
                one.take(token, self._encoder)
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, torch.tensor(chosen, device=scores.device)[:, None], 0.0)

    def all_done(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Tell transformers which rows [rows] need no further token."""
        return torch.tensor([one.done for one in self._rows], device=input_ids.device)


def _answer_batches(rows: Sequence[Answering]) -> Iterator[list[Answering]]:
    """Cut the sorted rows so that a batch's longest row times its rows stays within what a laptop can keep."""
    batch: list[Answering] = []
    for one in rows:
        room = max(len(batch[0].prompt) if batch else 0, len(one.prompt)) + max(r.new for r in [*batch, one])
        if batch and (len(batch) == ANSWER_ROWS or room * (len(batch) + 1) > ANSWER_TOKENS):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


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


def _stacked(rows: Sequence[Ids], model: Model, side: str = "right") -> tuple[Tensor, Tensor]:
    """Give ids and mask [rows, longest], padded at one side: the right, where no token before looks, or the left."""
    pad = model.encoder.stops[0]
    ids = pad_sequence([torch.tensor(row) for row in rows], True, pad, side)
    mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True, 0, side)
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
