"""Answers from several adapters over one base, rows of different ones in the same batch where they can be."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tunesmith.errors import ModelError
from tunesmith.inference.generate import Generated, generate
from tunesmith.models.load import Model
from tunesmith.names import suggest

Asked = tuple[str, tuple[int, ...]]


def generate_mixed(
    model: Model, prompts: Sequence[Asked], adapters: Sequence[str | None], max_new_tokens: int
) -> list[Generated]:
    """Answer (id, token ids) prompts greedily, prompt i by `adapters[i]` of `model.fits`, None being the base.

    An adapter's virtual tokens are put before its prompts. LoRA adapters, soft
    prompts and the base share batches; for the others, whose weights or keys
    stand in every row's way, the rows of each are taken by themselves.
    Afterwards every adapter is switched as it was. Raises ModelError for a
    name that is not among the model's adapters.
    """
    for name in adapters:
        if name is not None and name not in model.fits:
            raise ModelError(f"there is no adapter '{name}' on this model", fix=suggest(name, model.fits))
    answers: dict[int, Generated] = {}
    for alone, rows in _batches(model, adapters):
        asked = [(prompts[i][0], (*_virtual(model, adapters[i]), *prompts[i][1])) for i in rows]
        with _only(model, alone):
            names = None if alone else [adapters[i] for i in rows]
            answers.update(zip(rows, generate(model, asked, max_new_tokens, adapters=names), strict=True))
    return [answers[i] for i in range(len(prompts))]


def _batches(model: Model, adapters: Sequence[str | None]) -> Iterator[tuple[str | None, list[int]]]:
    """Give the rows that may go together: first those of adapters that mix, then those of each other one."""
    alone = {name for name in adapters if name is not None and not model.fits[name].mixes}
    for key in [None, *sorted(alone)]:
        rows = [i for i, name in enumerate(adapters) if (name if name in alone else None) == key]
        if rows:
            yield key, rows


def _virtual(model: Model, name: str | None) -> tuple[int, ...]:
    return () if name is None else model.fits[name].virtual


@contextmanager
def _only(model: Model, name: str | None) -> Iterator[None]:
    """Switch on this adapter alone, or none of them."""
    before = {fit: fit.strength for fit in model.fits.values()}
    try:
        for fit in before:
            fit.switch(0.0)
        if name is not None:
            model.fits[name].switch(before[model.fits[name]] or 1.0)
        yield
    finally:
        for fit in before:
            fit.switch(0.0)
        for fit, strength in before.items():
            if strength:
                fit.switch(strength)
