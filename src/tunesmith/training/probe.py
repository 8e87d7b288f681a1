"""The probe: three steps of the heaviest batch, for real, beside what was planned for them; and a few of others.

The heaviest batch decides about memory. It is no measure of time: its rows part evenly over the cores, where a batch of
one long row and little else leaves one of them idle. So a few batches of other weights are taken for time.
"""

import itertools
import time
from collections.abc import Sequence
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
OTHERS = 6  # batches that time is told from, of evenly spread weights
PASSES = 2  # of a step, at most: a second one finds the first one's gradients, and so would a third


class Taken(NamedTuple):
    """What the steps took: the most memory in bytes; of one, after the first, seconds, passes and real tokens.

    `once` are those of its seconds that go to the optimizer, however many passes there are, `began` those that the
    first step took more than the others, `others` those of steps of one other batch each.
    """

    peak: int
    seconds: float
    tokens: int
    passes: int = 1
    once: float = 0.0
    began: float = 0.0
    others: tuple[float, ...] = ()


def probe(recipe: Recipe, made: Plan, task: Task | Blend | None = None) -> Plan:
    """Take three steps of the heaviest batch on this machine, and give the plan with what they took.

    A step has the passes that the recipe gives it, two at most. Time is then planned from a few steps of other batches.
    Nothing is saved. Raises FitError for a plan that does not fit, and what a training would.
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
    weights = sorted(
        ((flops_of(work, load_rows(work, one)), one) for epoch in epochs for group in epoch for one in group),
        key=lambda pair: pair[0],
    )
    spread = [weights[len(weights) * (2 * i + 1) // (2 * OTHERS)] for i in range(OTHERS)]
    heavy = (((tuple(batch),) * passes,) * STEPS,)
    taken = _steps(recipe, prepared, Layout((*heavy, tuple((tuple(one),) for _, one in spread))))
    return calibrated(made, taken, flops_of(work, load_rows(work, batch)), [weight for weight, _ in spread])


def calibrated(made: Plan, taken: Taken, flops: float, others: Sequence[float] = ()) -> Plan:
    """Give the plan with the times of its first machine, this one, at the rate of the steps that were taken.

    `flops` are those of one pass of the heaviest batch, `others` those of the other batches; without them the heaviest
    gives the rate. The optimizer's time is charged once for each step of the training, the beginning's once in all.
    """
    first, *rest = made.outlooks
    seconds, done = taken.seconds - taken.once, taken.passes * flops
    if others:
        seconds, done = sum(max(0.0, one - taken.once) for one in taken.others), sum(others)
    ratio = first.rate * seconds / done
    probed = Probed(
        peak_bytes=taken.peak,
        planned_bytes=made.counted_bytes,
        step_seconds=taken.seconds,
        planned_seconds=taken.passes * flops / first.rate,
        tokens_per_second=taken.tokens / taken.seconds,
        passes=taken.passes,
    )
    seconds = first.seconds * ratio + made.steps * taken.once + taken.began
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
    outlooks = (first.model_copy(update=told), *rest)
    return made.model_copy(update={"outlooks": outlooks, "rungs": tuple(asked), "probed": probed})


def _steps(recipe: Recipe, prepared: Prepared, layout: Layout) -> Taken:
    place = find(recipe.model)
    model = load(place, training_encoder(place, recipe), recipe.dtype, methods.place_of_base(recipe.method))
    recipe = recipe.resolved(model.width)
    if recipe.train.gradient_checkpointing:
        model.net.activation_checkpointing_enable({"use_reentrant": False})
    evidence = Evidence(labels(prepared.prompts), partial(gradients, model, layout))
    device.reset_peak()
    methods.prepare(model, recipe.method, recipe.seed, evidence)  # it may hold the most: some choose by gradients
    optimizer = MasterAdamW(model.net.named_parameters(), recipe.train, recipe.method.rate_factor)
    log = [one for one in steps(model, optimizer, layout, [], recipe, Past()) if isinstance(one, Step)]
    if len(log) < layout.steps:
        raise ModelError("a step of the probe had no finite loss", fix="preview the rows, or lower train.learning_rate")
    each = [after.seconds - before.seconds for before, after in itertools.pairwise(log)]
    peak, seconds, passes = device.peak_bytes(), median(each[: STEPS - 1]), len(layout.epochs[0][0])
    once, began = min(_once(optimizer, recipe), 0.9 * seconds), max(0.0, log[0].seconds - seconds)
    return Taken(peak, seconds, log[0].tokens, passes, once, began, tuple(each[STEPS - 1 :]))


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
