"""Requests: what answering takes without examples, with some in the prompt, and after a training."""

from tunesmith.data.blend import Blend
from tunesmith.data.task import Task
from tunesmith.models.load import find, load_encoder
from tunesmith.planning.loads import Length, load_of
from tunesmith.planning.plan import Plan, Rung
from tunesmith.planning.shape import Shape
from tunesmith.planning.work import forward_flops
from tunesmith.recipe import Recipe

SHOTS = (3,)
ASKED = 50  # rows whose lengths stand for all


def rungs(recipe: Recipe, work: Task | Blend, shape: Shape, made: Plan) -> tuple[Rung, ...]:
    """Give what a request takes on the first machine of a plan: zero-shot, few-shot and tuned.

    Told from a few training rows, each with examples of its own, if there are so many. The time is that of the
    arithmetic at the training's rate, for many requests together. Empty for a mixture, whose tasks ask differently.
    """
    if isinstance(work, Blend):
        return ()
    first = made.outlooks[0]
    hourly = None if first.price is None or not first.seconds else first.price / first.seconds
    shown = [min(k, len(work.rows("train")) - 1) for k in SHOTS]
    tuned = (f"tuned ({recipe.method.name})", 0, recipe.method.virtual_tokens)
    found = []
    for name, shots, virtual in (("zero-shot", 0, 0), *((f"few-shot {k}", k, 0) for k in shown if k), tuned):
        length = _length(recipe, work, shots, virtual)
        both = len(shape.stacks) > 1
        load = load_of(
            [Length(round(length[0]), max(1, round(length[1])))], "encoder-decoder" if both else "packed", 256
        )
        seconds = forward_flops(shape, load) / first.rate
        price = None if hourly is None else hourly * seconds
        found.append(Rung(name=name, prompt_tokens=length[0], answer_tokens=length[1], seconds=seconds, price=price))
    return tuple(found)


def _length(recipe: Recipe, work: Task, shots: int, virtual: int) -> tuple[float, float]:
    """Give the mean tokens of prompts, with examples and virtual tokens, and of answers."""
    encoder = load_encoder(find(recipe.model), recipe.prompting)
    wording = None if recipe.template == "any" else recipe.template
    prompts = work.prompts("train", shots=shots, seed=recipe.seed, template=wording, limit=ASKED)
    rows = [encoder.encode(prompt, work.name) for prompt in prompts]
    return sum(len(row.prompt) for row in rows) / len(rows) + virtual, sum(len(row.answer) for row in rows) / len(rows)
