"""Log-likelihoods: how likely a model finds given continuations of given contexts.

What requests have in common is computed once (`prefix.py`): the examples that
all questions of a test begin with, and each question before its choices. The
vocabulary is projected only where a token is scored, and choices of one token share a position.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tunesmith.errors import DataError, FitError
from tunesmith.inference.padded import Scored, score_decoder, score_encoder_decoder
from tunesmith.inference.prefix import Ids, Pass, Reading, read_along
from tunesmith.models import head
from tunesmith.models.attention import attending
from tunesmith.models.load import Model
from tunesmith.models.paths import PATHS, Paths

PASS_TOKENS = 2048

Report = Callable[[int], None]


class Continuation(NamedTuple):
    """What to score, as token ids: `ids` after `context`. `Encoder.pair` makes both of texts."""

    context: Ids
    ids: Ids


class LogLikelihood(NamedTuple):
    """The log-probability in nats of each token, and whether all of them are the likeliest at their place."""

    tokens: tuple[float, ...]
    greedy: bool

    @property
    def total(self) -> float:
        """The log-probability of the whole continuation, in nats."""
        return sum(self.tokens)


class _Target(NamedTuple):
    """Token `token` is predicted at one place; it is number `number` of request `request`."""

    request: int
    number: int
    token: int


@torch.no_grad()
def loglikelihoods(
    model: Model, asked: Sequence[Continuation], on_batch: Report | None = None, share: bool = True
) -> list[LogLikelihood]:
    """Give the likelihood of each continuation, in the order asked; computed in fp32 from the last hidden states.

    `on_batch` is told how many continuations are done. `share=False` reads every one
    by itself, which is slower and gives the same. Raises DataError for an empty context or continuation, FitError
    where both exceed the model's context.
    """
    check(model, asked)
    if not asked:
        return []
    model.net.eval()
    report = on_batch or _silent
    if model.kind == "encoder-decoder":
        found = score_encoder_decoder(model, asked, report)
    elif head.reads_along(model.net, (*asked[0].context, *asked[0].ids)):
        found = _along_paths(model, asked, report, share)
    else:
        found = score_decoder(model, asked, report, share)
    return [LogLikelihood(tuple(values), greedy) for values, greedy in found]


def check(model: Model, asked: Sequence[Continuation]) -> None:
    """Refuse what cannot be scored. Raises DataError and FitError as `loglikelihoods` does."""
    for i, (context, ids) in enumerate(asked):
        if not ids or not context:
            raise DataError(
                f"request {i}: its {'context' if ids else 'continuation'} has no tokens",
                fix="make both of texts with Encoder.pair",
            )
        read = len(context) + len(ids) - 1
        if model.kind == "decoder" and model.context is not None and read > model.context:
            raise FitError(
                f"request {i}: {read} tokens exceed the context of {model.context}",
                fix="use fewer shots, or shorten the text",
            )


def _silent(_: int) -> None:
    """Tell nobody."""


def _along_paths(model: Model, asked: Sequence[Continuation], report: Report, share: bool) -> list[Scored]:
    sequences = [(*context, *ids[:-1]) for context, ids in asked]
    reading = read_along(sequences, [len(one.ids) for one in asked], PASS_TOKENS, share)
    scored = _targets(reading, asked)
    found = [[0.0] * len(one.ids) for one in asked]
    greedy = [True] * len(asked)
    left = [len(one.ids) for one in asked]
    paths, start = Paths(reading.deepest), 0
    with attending(model.net, PATHS):
        for one in reading.passes:
            places = [place for place in range(start, start + len(one.ids)) if place in scored]
            wanted = [(row, about) for row, place in enumerate(places) for about in scored[place]]
            values, best = _pass(model, one, paths, [place - start for place in places], wanted)
            for (row, about), value in zip(wanted, values, strict=True):
                found[about.request][about.number] = value
                greedy[about.request] &= best[row] == about.token
                left[about.request] -= 1
            report(sum(not left[request] for request in {about.request for _, about in wanted}))
            start += len(one.ids)
    return list(zip(found, greedy, strict=True))


def _targets(reading: Reading, asked: Sequence[Continuation]) -> dict[int, list[_Target]]:
    """Give for each place that predicts something what is scored there."""
    scored: dict[int, list[_Target]] = defaultdict(list)
    for request, (places, one) in enumerate(zip(reading.ends, asked, strict=True)):
        for number, (place, token) in enumerate(zip(places, one.ids, strict=True)):
            scored[place].append(_Target(request, number, token))
    return scored


def _pass(
    model: Model, one: Pass, paths: Paths, rows: Sequence[int], wanted: Sequence[tuple[int, _Target]]
) -> tuple[list[float], list[int]]:
    """Read one pass; give the log-probability of each wanted token, and the likeliest token at each of `rows`."""
    ids, depths = (torch.tensor(numbers, device=model.device) for numbers in (one.ids, one.depths))
    paths.enter(one.segments, depths, model.dtype.torch)
    keep = torch.zeros(1, len(ids), dtype=torch.bool, device=model.device)
    keep[0, list(rows)] = True
    inputs: dict[str, Any] = {"input_ids": ids[None], "position_ids": depths[None], "along": paths}
    hidden = head.hidden_at(model.net, inputs, keep)
    if not rows:
        return [], []
    return _predicted(model, hidden, [row for row, _ in wanted], [about.token for _, about in wanted])


def _predicted(
    model: Model, hidden: Tensor, rows: Iterable[int], tokens: Iterable[int]
) -> tuple[list[float], list[int]]:
    at, which = (torch.tensor(list(numbers), device=model.device) for numbers in (rows, tokens))
    found = head.predict(model.net, hidden, at, which)
    return found.log_probabilities.tolist(), found.likeliest.tolist()
