"""The probe: three steps of the heaviest batch, for real, beside what was planned for them."""

import itertools
import time
from functools import partial
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
from tunesmith.reporting.planned import too_large
from tunesmith.runs.records import Step
from tunesmith.training.loop import Past, gradients, steps
from tunesmith.training.loop import Plan as Layout
from tunesmith.training.optimizer import MasterAdamW
from tunesmith.training.planned import flops_of, heaviest, load_rows, sizes_of, work_of
from tunesmith.training.prepare import Prepared, labels, load_work, prepare_rows, training_encoder

STEPS = 3
PASSES = 2  # of a step, at most: a second one finds the first one's gradients, and so would a third


class Taken(NamedTuple):
    """What the steps took: the most memory in bytes; of one, after the first, seconds, passes and real tokens.

    `once` are those of its seconds that go to the optimizer, however many passes there are.
    """

    peak: int
    seconds: float
    tokens: int
    passes: int = 1
    once: float = 0.0


def probe(recipe: Recipe, made: Plan, task: Task | Blend | None = None) -> Plan:
    """Take three steps of the heaviest batch on this machine, and give the plan with what they took.

    A step has the passes that the recipe gives it, two at most. Time is then planned from theirs. Nothing is saved.
    Raises FitError for a plan that does not fit, and what a training would.
    """
    if not made.fits():
        raise too_large(f"{made.method} on {made.model}", made)
    place = find(recipe.model)
    encoder = training_encoder(place, recipe)
    prepared = prepare_rows(task or load_work(recipe), recipe, encoder)
    work = work_of(recipe, read_config(place).to_dict(), prepared)
    (batch, *_) = heaviest(work, sizes_of(work, device.current().type))
    epochs = work.rows.layout.epochs if work.rows.layout else ()
    passes = min(PASSES, max((len(group) for epoch in epochs for group in epoch), default=1))
    taken = _steps(recipe, prepared, Layout((((tuple(batch),) * passes,) * STEPS,)))
    return calibrated(made, taken, flops_of(work, load_rows(work, batch)))


def calibrated(made: Plan, taken: Taken, flops: float) -> Plan:
    """Give the plan with the times of its first machine, this one, at the rate of the steps that were taken.

    `flops` are those of one pass. The optimizer's time is charged once for each step of the training.
    """
    first, *others = made.outlooks
    ratio = first.rate * (taken.seconds - taken.once) / (taken.passes * flops)
    probed = Probed(
        peak_bytes=taken.peak,
        planned_bytes=made.counted_bytes,
        step_seconds=taken.seconds,
        planned_seconds=taken.passes * flops / first.rate,
        tokens_per_second=taken.tokens / taken.seconds,
        passes=taken.passes,
    )
    seconds = first.seconds * ratio + made.steps * taken.once
    told = {
        "rate": first.rate / ratio,
        "seconds": seconds,
        "low": seconds * 0.8,
        "high": seconds * 1.25,
        "price": first.price and first.price * seconds / first.seconds,
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
    evidence = Evidence(labels(prepared.prompts), partial(gradients, model, layout))
    methods.prepare(model, recipe.method, recipe.seed, evidence)
    optimizer = MasterAdamW(model.net.named_parameters(), recipe.train, recipe.method.rate_factor)
    device.reset_peak()
    log = [one for one in steps(model, optimizer, layout, [], recipe, Past()) if isinstance(one, Step)]
    if len(log) < STEPS:
        raise ModelError("a step of the probe had no finite loss", fix="preview the rows, or lower train.learning_rate")
    each = [after.seconds - before.seconds for before, after in itertools.pairwise(log)]
    peak, seconds, passes = device.peak_bytes(), median(each), len(layout.epochs[0][0])
    return Taken(peak, seconds, log[0].tokens, passes, min(_once(optimizer, recipe), 0.9 * seconds))


def _once(optimizer: MasterAdamW, recipe: Recipe) -> float:
    """Give the seconds of a step that do not depend on its passes: those of the optimizer, at no learning rate."""
    _wait()
    started = time.perf_counter()
    optimizer.step(0.0, recipe.train.clip, optimizer.norm())
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if device.current().type == "cuda":
        torch.cuda.synchronize()
