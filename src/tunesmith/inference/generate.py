"""Answers to prompts, many at a time: greedy ones, or drawn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tunesmith.errors import DataError, FitError
from tunesmith.inference.decode import decode
from tunesmith.inference.padded import answer
from tunesmith.inference.sampling import GREEDY, Answering, Sampling
from tunesmith.models import head
from tunesmith.models.load import Model
from tunesmith.models.route import Names


@dataclass(frozen=True)
class Generated:
    """Tokens of one answer, its stop token left out, and their text as it is, cut before a stop text.

    `finished` says whether it stopped by itself, or at a stop text.
    """

    ids: tuple[int, ...]
    finished: bool
    text: str


Prompts = Sequence[tuple[str, tuple[int, ...]]]


def generate(
    model: Model,
    prompts: Prompts,
    max_new_tokens: int | Sequence[int],
    on_batch: Callable[[int], None] | None = None,
    adapters: Names = None,
    sampling: Sampling | Sequence[Sampling] = GREEDY,
) -> list[Generated]:
    """Answer (id, token ids) prompts, in the order given; where `n` answers are asked for, they follow each other.

    What prompts begin with alike is read once. The longest go first, so that
    memory runs out at the start or not at all. `max_new_tokens` and `sampling`
    are those of all prompts or of each; `on_batch` is told how many answers
    are done; `adapters` names the one that each prompt is asked of, where not
    all are asked of what is switched on (see `mixed.py`). Raises FitError
    naming the first prompt that leaves no room for an answer in the model's
    context, DataError for an empty one.
    """
    every = list(_answers(prompts, max_new_tokens, adapters, sampling))
    if not every:
        return []
    _check(model, every)
    model.net.eval()
    report = (lambda _: on_batch(1)) if on_batch else _silent
    if head.reads_along(model.net, every[0].prompt):
        decode(model, every, report, routed=adapters is not None)
    else:
        answer(model, every, report)
    return [_generated(model, one) for one in every]


def _answers(
    prompts: Prompts, new: int | Sequence[int], adapters: Names, sampling: Sampling | Sequence[Sampling]
) -> Iterator[Answering]:
    """List the answers that are to be made."""
    limits = [new] * len(prompts) if isinstance(new, int) else new
    settings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    names = adapters or [None] * len(prompts)
    for (name, ids), limit, asked, adapter in zip(prompts, limits, settings, names, strict=True):
        for k in range(asked.n):
            yield Answering(f"{name}/{k}", ids, limit, asked, adapter)


def _check(model: Model, every: Sequence[Answering]) -> None:
    for one in every:
        name = one.name.rpartition("/")[0]
        if not one.prompt or one.new < 1:
            what = "its prompt has no tokens" if one.new > 0 else f"{one.new} new tokens are asked"
            raise DataError(f"row {name}: {what}", fix="give a prompt of at least a token, and ask for at least one")
        # An encoder-decoder keeps its answer apart, and T5's relative positions set no limit to its prompt.
        if model.kind == "decoder" and model.context is not None and len(one.prompt) + one.new > model.context:
            raise FitError(
                f"row {name}: {len(one.prompt)} prompt tokens and {one.new} new ones "
                f"exceed the context of {model.context}",
                fix="use fewer shots, or a smaller generation.max_new_tokens",
            )


def _silent(_: Answering) -> None:
    """Tell nobody."""


def _generated(model: Model, one: Answering) -> Generated:
    stopped = one.ids[-1] in model.encoder.stops
    ids = tuple(one.ids[:-1] if stopped else one.ids)
    text = str(model.encoder.tokenizer.decode(list(ids), skip_special_tokens=True))
    ends = [place for stop in one.sampling.stop if (place := text.find(stop)) >= 0]
    return Generated(ids, stopped or bool(ends), text[: min(ends)] if ends else text)
