"""The probe: three steps of the heaviest batch, for real, beside what was planned for them."""

import itertools
from statistics import median
from typing import NamedTuple

import torch

from tunesmith import methods
from tunesmith.data.blend import Blend
from tunesmith.data.task import Task
from tunesmith.errors import ModelError
from tunesmith.methods.evidence import Evidence
from tunesmith.models import device
from tunesmith.models.load import find, load, read_config
from tunesmith.planning.plan import Plan, Probed
from tunesmith.recipe import Recipe
from tunesmith.runs.records import Step
from tunesmith.training.loop import Past, steps
from tunesmith.training.loop import Plan as Layout
from tunesmith.training.optimizer import MasterAdamW
from tunesmith.training.planned import flops_of, heaviest, load_rows, sizes_of, work_of
from tunesmith.training.prepare import Prepared, labels, load_work, prepare_rows, training_encoder

STEPS = 3


class Taken(NamedTuple):
    """What the steps took: the most memory in bytes; of one, after the first, seconds and real tokens."""

    peak: int
    seconds: float
    tokens: int


def probe(recipe: Recipe, made: Plan, task: Task | Blend | None = None) -> Plan:
    """Take three steps of the heaviest batch on this machine, and give the plan with what they took.

    Time is then planned from theirs. Nothing is saved. Raises what a training would.
    """
    place = find(recipe.model)
    encoder = training_encoder(place, recipe)
    prepared = prepare_rows(task or load_work(recipe), recipe, encoder)
    work = work_of(recipe, read_config(place).to_dict(), prepared)
    (batch, *_) = heaviest(work, sizes_of(work, device.current().type))
    taken = _steps(recipe, prepared, Layout((((tuple(batch),),) * STEPS,)))
    return calibrated(made, taken, flops_of(work, load_rows(work, batch)))


def calibrated(made: Plan, taken: Taken, flops: float) -> Plan:
    """Give the plan with the times of its first machine, this one, at the rate of the steps that were taken."""
    first, *others = made.outlooks
    ratio = first.rate * taken.seconds / flops
    probed = Probed(
        peak_bytes=taken.peak,
        planned_bytes=first.parts.peak,
        step_seconds=taken.seconds,
        planned_seconds=flops / first.rate,
        tokens_per_second=taken.tokens / taken.seconds,
    )
    seconds = first.seconds * ratio
    told = {
        "rate": first.rate / ratio,
        "seconds": seconds,
        "low": seconds * 0.8,
        "high": seconds * 1.25,
        "price": None if first.price is None else first.price * ratio,
    }
    asked = [
        one.model_copy(update={"seconds": one.seconds * ratio, "price": one.price and one.price * ratio})
        for one in made.rungs
    ]
    outlooks = (first.model_copy(update=told), *others)
    return made.model_copy(update={"outlooks": outlooks, "rungs": tuple(asked), "probed": probed})


def _steps(recipe: Recipe, prepared: Prepared, layout: Layout) -> Taken:
    place = find(recipe.model)
    model = load(place, training_encoder(place, recipe), recipe.dtype, methods.place_of_base(recipe.method))
    recipe = recipe.resolved(model.width)
    if recipe.train.gradient_checkpointing:
        model.net.activation_checkpointing_enable({"use_reentrant": False})
    methods.prepare(model, recipe.method, recipe.seed, Evidence(labels(prepared.prompts)))
    optimizer = MasterAdamW(model.net.named_parameters(), recipe.train, recipe.method.rate_factor)
    device.reset_peak()
    log = [one for one in steps(model, optimizer, layout, [], recipe, Past()) if isinstance(one, Step)]
    if len(log) < STEPS:
        raise ModelError("a step of the probe had no finite loss", fix="preview the rows, or lower train.learning_rate")
    each = [after.seconds - before.seconds for before, after in itertools.pairwise(log)]
    if device.current().type == "cuda":
        torch.cuda.synchronize()
    return Taken(device.peak_bytes(), median(each), log[0].tokens)
