"""Log-likelihoods: how likely a model finds given continuations of given contexts."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from tunesmith.errors import DataError, FitError
from tunesmith.models.load import Model

Ids = tuple[int, ...]


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


@torch.no_grad()
def loglikelihoods(
    model: Model, asked: Sequence[Continuation], on_batch: Callable[[int], None] | None = None
) -> list[LogLikelihood]:
    """Give the likelihood of each continuation, in the order asked.

    Raises DataError for an empty context or continuation, FitError where both exceed the model's context.
    """
    check(model, asked)
    found = []
    for one in asked:
        found.append(_one(model, one))
        if on_batch:
            on_batch(1)
    return found


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


def _one(model: Model, asked: Continuation) -> LogLikelihood:
    ids = torch.tensor([asked.ids], device=model.device)
    context = torch.tensor([asked.context], device=model.device)
    if model.kind == "encoder-decoder":
        logits = model.net(input_ids=context, labels=ids).logits[0]
    else:
        logits = model.net(input_ids=torch.cat([context, ids[:, :-1]], 1)).logits[0, -ids.shape[1] :]
    each = torch.log_softmax(logits.float(), -1)
    values = each.gather(1, ids[0, :, None])[:, 0]
    return LogLikelihood(tuple(values.tolist()), bool((each.argmax(-1) == ids[0]).all()))
