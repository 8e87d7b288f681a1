"""Gauging: looks at a training from the side, by which its best weights are kept and its end is chosen.

With `train.patience` a training ends when the validation loss falls no more. With `forgetting.max_forgetting` only
weights that forget little enough may be kept. What is forgotten is measured by a gauge, which asks the model
questions and is given by a floor above; here is when it is asked, and what follows.
"""

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from safetensors.torch import load_file

from tunesmith.data.encode import Encoded
from tunesmith.errors import ConfigError, ForgotError, RunError
from tunesmith.models.load import Model
from tunesmith.recipe import Recipe
from tunesmith.runs import checkpoint
from tunesmith.runs.records import Check, Forgetting, Step
from tunesmith.runs.run import Run
from tunesmith.training.loop import Plan, mean_loss
from tunesmith.training.resume import OPTIMIZER, Begun, Learning, save

PASSING = "passing"


class Gauge(Protocol):
    """Measures what a model can do; `Any` is a reading of its own."""

    def take(self, model: Model, kept: bool, quiet: bool = False) -> Any:
        """Measure a model; `kept` says that its answers may be kept, and taken from those kept before."""
        ...

    def compare(self, before: Any, after: Any, step: int) -> Forgetting:
        """Say what was lost between two readings."""
        ...

    def write(self, run: Run, before: Any, after: Any) -> None:
        """Write the answers of two readings into a run."""
        ...


@dataclass(frozen=True)
class Gauging:
    """One training's looks: its gauge, if what is forgotten is measured, and the gauge's reading of the base."""

    gauge: Gauge | None
    before: Any
    model: Model
    recipe: Recipe

    @property
    def gated(self) -> bool:
        """Tell whether the training fails if it forgets too much."""
        return self.recipe.forgetting.max_forgetting is not None

    @property
    def chooses(self) -> bool:
        """Tell whether the best weights are kept, which need not be the last."""
        return self.gated or self.recipe.train.patience > 0

    def due(self, step: int, plan: Plan) -> bool:
        """Tell whether it is time to look after this step: the last of all, and every so many, or of each epoch."""
        every = self.recipe.forgetting.every
        ends = itertools.accumulate(map(len, plan.epochs))
        return self.chooses and (step == plan.steps or (step % every == 0 if every else step in ends))

    def spent(self, run: Run) -> bool:
        """Tell whether as many looks as `train.patience` says have passed without a lower validation loss."""
        losses = [one.validation_loss for one in run.checks() if one.validation_loss is not None]
        patience = self.recipe.train.patience
        return (
            patience > 0 and len(losses) - 1 - min(range(len(losses)), key=losses.__getitem__, default=-1) >= patience
        )

    def look(self, run: Run, learning: Learning, step: Step, validation: Sequence[Encoded]) -> Check:
        """See how far the training is; keep the weights if they pass and are the best yet."""
        told = self._reading(step.step) if self.gated else None
        loss = step.validation_loss
        if loss is None and validation:
            loss = mean_loss(self.model, validation, self.recipe)
        passed = told is None or self._passes(told)
        rivals = [one.validation_loss for one in run.checks() if one.best]
        best = passed and (not rivals or loss is None or loss < min(one for one in rivals if one is not None))
        least = told.least if told else None
        check = Check(step=step.step, retained=least, validation_loss=loss, passed=passed, best=best)
        if best:
            save(_beside(run), learning, step.step, Begun())
        run.append(check)
        return check

    def conclude(
        self, run: Run, learning: Learning, last: Step, validation: Sequence[Encoded], save: Callable[[], object]
    ) -> Forgetting | None:
        """Put the best weights back, where they are asked for, and `save` them; measure, and write it all down."""
        step = last.step
        if self.chooses and all(one.step != step for one in run.checks()):  # the step it was due at was passed over
            self.look(run, learning, last, validation)
        best = kept(run)
        if self.chooses and best is not None and best != step:
            found = checkpoint.newest(_beside(run).folder / "checkpoints")
            if found is None or found.step != best:
                raise RunError(f"{run.folder}: the weights of step {best}, the best, are damaged", fix="train again")
            learning.optimizer.restore(load_file(found.folder / OPTIMIZER))
            save()
        return self._measured(run, best if self.chooses and best is not None else step)

    def _measured(self, run: Run, step: int) -> Forgetting | None:
        """Measure what the weights that are kept have forgotten, those of `step`."""
        if self.gauge is None:
            return None
        after = self.gauge.take(self.model, kept=False)
        told = self.gauge.compare(self.before, after, step)
        if self.gated:
            limit = self.recipe.forgetting.max_forgetting
            told = told.model_copy(update={"max_forgetting": limit, "passed": kept(run) is not None})
        told = told.model_copy(update={"checks": tuple(run.checks())})
        self.gauge.write(run, self.before, after)
        run.write_json("forgetting.json", told.model_dump())
        return told

    def _reading(self, step: int) -> Forgetting:
        if self.gauge is None:
            raise ConfigError(
                "forgetting.max_forgetting: what is forgotten is not measured here", fix="use tunesmith.train"
            )
        return self.gauge.compare(self.before, self.gauge.take(self.model, kept=False, quiet=True), step)

    def _passes(self, told: Forgetting) -> bool:
        limit = self.recipe.forgetting.max_forgetting
        return told.least is None or limit is None or 1 - told.least <= limit


def kept(run: Run) -> int | None:
    """Give the step whose weights are the best of all looked at; None if no look passed, or there was none."""
    return max((one.step for one in run.checks() if one.best), default=None)


def begin(gauge: Gauge | None, model: Model, recipe: Recipe, validated: bool) -> Gauging | None:
    """Measure the base, before the method is put onto it: without virtual tokens.

    Raises ConfigError for patience without validation rows.
    """
    if recipe.train.patience and not validated:
        raise ConfigError(
            "train.patience: there are no validation rows to judge by", fix="give the task some, or -s train.patience=0"
        )
    if gauge is None:
        return Gauging(None, None, model, recipe) if recipe.train.patience else None
    base = replace(model, encoder=replace(model.encoder, virtual=()))
    return Gauging(gauge, gauge.take(base, kept=True), model, recipe)


def too_much(run: Run, told: Forgetting) -> ForgotError:
    """Say that no look passed, and what may help."""
    most = max(one.retained for one in told.checks if one.retained is not None)
    return ForgotError(
        f"{run.folder}: forgot {1 - most:.1%} of what the base could do at best, forgetting.max_forgetting is "
        f"{told.max_forgetting:.1%}; the last weights are in {run.folder}/checkpoints",
        fix="lower train.learning_rate, fewer train.epochs, a method with fewer weights, rows of other tasks mixed in, "
        "or -s forgetting.every=N to keep earlier weights (docs/forgetting.md)",
    )


def clear(run: Run) -> None:
    """Remove the best weights, once they are the run's own."""
    shutil.rmtree(_beside(run).folder, ignore_errors=True)


def _beside(run: Run) -> Run:
    return Run(run.folder / "checkpoints" / PASSING)
