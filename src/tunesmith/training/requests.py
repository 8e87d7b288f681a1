"""Requests: what answering takes without examples, with some in the prompt, and after a training."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tunesmith.data.blend import Blend
from tunesmith.data.task import Task
from tunesmith.models.load import find, load_encoder
from tunesmith.planning.loads import Laying, Length, load_of
from tunesmith.planning.plan import Outlook, Plan, Rung
from tunesmith.planning.shape import Shape, shape_of
from tunesmith.planning.work import forward_flops
from tunesmith.recipe import Recipe

SHOTS = (3,)
ASKED = 50  # rows whose lengths stand for all
TOGETHER = 1000  # requests that share the reading of their examples
BLOCK = 256  # queries that attend at a time


class _Lengths(NamedTuple):
    """Mean tokens of prompts, with examples and virtual tokens, and of answers; the most of both together."""

    prompt: float
    answer: float
    most: int


def with_rungs(made: Plan, recipe: Recipe, work: Task | Blend, config: Mapping[str, Any]) -> Plan:
    """Give the plan with what a request takes on its first machine: zero-shot, few-shot and tuned.

    Told from a few training rows, with examples if there are so many, and if the model was made for prompts that long.
    The time is that of the arithmetic at the training's rate, for many requests together; a decoder reads the examples,
    the same for all as in a climb, once. Nothing is told for a mixture, whose tasks ask differently.
    """
    if isinstance(work, Blend):
        return made
    context = config.get("max_position_embeddings")
    shown = [min(k, len(work.rows("train")) - 1) for k in SHOTS]
    tuned = (f"tuned ({recipe.method.name})", 0, recipe.method.virtual_tokens)
    found, notes, bare = [], [], None
    for name, shots, virtual in (("zero-shot", 0, 0), *((f"few-shot {k}", k, 0) for k in shown if k), tuned):
        lengths = _lengths(recipe, work, shots, virtual)
        if shots and context and lengths.most > context:
            notes.append(
                f"no request has {shots} examples: with them up to {lengths.most:,} tokens are needed, and the model "
                f"was made for {context:,}"
            )
        else:
            bare = bare or lengths
            examples = round(lengths.prompt - bare.prompt) if shots else 0
            found.append(_rung(name, lengths, examples, made.outlooks[0], shape_of(config)))
    return made.model_copy(update={"rungs": tuple(found), "notes": (*made.notes, *notes)})


def _rung(name: str, lengths: _Lengths, examples: int, first: Outlook, shape: Shape) -> Rung:
    row = Length(round(lengths.prompt), max(1, round(lengths.answer)))
    laying: Laying = "encoder-decoder" if len(shape.stacks) > 1 else "packed"
    load = load_of([row] * TOGETHER, laying, BLOCK, shared=examples)
    seconds = forward_flops(shape, load) / TOGETHER / first.rate
    price = None if first.price is None or not first.seconds else seconds * first.price / first.seconds
    return Rung(name=name, prompt_tokens=lengths.prompt, answer_tokens=lengths.answer, seconds=seconds, price=price)


def _lengths(recipe: Recipe, work: Task, shots: int, virtual: int) -> _Lengths:
    encoder = load_encoder(find(recipe.model), recipe.prompting)
    wording = None if recipe.template == "any" else recipe.template
    prompts = work.prompts("train", shots=shots, seed=recipe.seed, template=wording, limit=ASKED)
    rows = [encoder.encode(prompt, work.name) for prompt in prompts]
    n = len(rows)
    asked, said = sum(len(row.prompt) for row in rows) / n, sum(len(row.answer) for row in rows) / n
    return _Lengths(asked + virtual, said, max(row.size for row in rows) + virtual)
