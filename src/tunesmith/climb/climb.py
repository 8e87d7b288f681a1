"""The verb `climb`: take the rungs from cheap to expensive on one task, and say which is enough.

Whatever is chosen is chosen on the validation rows: the number of examples, and the epoch that a training ends with.
Each rung is scored on the test rows once. Every rung is written down when it has been taken, so that a climb that was
killed goes on where it stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.climb import verdict as deciding
from tunesmith.climb.ladder import Ladder, Step, below, ladder
from tunesmith.climb.memory import fitted, foreseen
from tunesmith.climb.rung import Shared, Taken, prompted, trained
from tunesmith.data.task import Task, load_task
from tunesmith.errors import (
    ConfigError,
    DataError,
    DiskError,
    DivergedError,
    FitError,
    ForgotError,
    ModelError,
    RunError,
    TunesmithError,
)
from tunesmith.metrics import LOWER_IS_BETTER, metric
from tunesmith.metrics.interval import SWAPS
from tunesmith.names import suggest
from tunesmith.planning.plan import Plan
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import Comparison, compare_on
from tunesmith.reporting.lines import rung_line
from tunesmith.reporting.report import write_report
from tunesmith.runs.lock import only_writer
from tunesmith.runs.machine import describe
from tunesmith.runs.records import Forgetting, Score
from tunesmith.runs.run import Run, differences, vacant
from tunesmith.runs.rungs import RUNGS, VERDICT, Contrast, Rung, rungs_of

Plans = dict[str, Plan | FitError | None]
FINER = 200  # swaps for each pair: the least p-value there can be, corrected, is then 1/200


def climb(
    recipe: Recipe,
    folder: Path,
    asked: Ladder | None = None,
    command: Sequence[str] = (),
    say: Callable[[str], None] = print,
    resume: bool = False,
) -> Run:
    """Climb the recipe's task, rung by rung, into the new folder `folder`; the report is `folder`/report.html.

    The rungs of a model: zero-shot, one-shot, few-shot, prompt tuning, the recipe's method, full fine-tuning. `say` is
    told after each. One that does not fit is passed over aloud. `resume` goes on with a
    climb that was stopped, and gives a finished one back. Raises TunesmithError.
    """
    asked = asked or Ladder()
    if recipe.task is None:
        raise ConfigError("a climb is on one task, and the recipe has a mixture", fix="name one of its tasks")
    task = load_task(recipe.task)
    _check(task, asked)
    target = dict([asked.target]) if asked.target else None
    told = {"verb": "climb", **asked.model_dump(mode="json"), "target": target, **recipe.model_dump(mode="json")}
    if resume and Run(folder).done:
        Run.open(folder).refuse_other(told)
        say(f"{folder} has come to its end: nothing to do")
        return Run.open(folder)
    if not resume:
        vacant(folder)
    ladders = ladder(recipe, asked, task)
    shared = Shared(task, recipe, folder, asked.rows, tuple(command))
    plans = _look_ahead(ladders, shared)  # first: what is refused here leaves no folder in the way
    root = Run.begin(folder, told) if resume else Run.create(folder, told)
    with only_writer(folder):
        _same_task(root, task, command)
        before = {rung.name: rung for rung in rungs_of(root) if rung.passed_over} if (folder / RUNGS).is_file() else {}
        going = Climb(root, shared, asked, say, _pairs(ladders), plans, before)
        for steps in ladders:
            going.up(steps)
        going.conclude()
    return root


def _same_task(root: Run, task: Task, command: Sequence[str]) -> None:
    """Write down the task's wordings and rows; refuse to go on if they are others than at the start.

    Half of the rungs would be asked one thing, half another. Raises RunError.
    """
    told = task.model_dump(mode="json", exclude={"source", "templates"})
    told["templates"] = {one.name: one.model_dump(mode="json") for one in task.templates}
    told["rows"] = {split: one["sha256"] for split, one in task.provenance().items()}
    if not (root.folder / "provenance.json").is_file():
        root.write_json("provenance.json", {**describe(command), "task": told})
    changed = differences(root.provenance().get("task", told), told)
    if changed:
        raise RunError(
            f"{root.folder}: was begun with another task: {changed[0]}",
            fix="go on with the task as it was, or climb into a new folder",
        )


def _look_ahead(ladders: Sequence[Sequence[Step]], shared: Shared) -> Plans:
    """Refuse now what would be refused at a later rung, and plan what is to be trained. Raises TunesmithError."""
    for prompts in ([step for step in steps if step.recipe is None] for steps in ladders):
        shared.check_rows(prompts[-1])  # of the most examples
    if "train" not in shared.task.splits():
        return {}
    return {step.folder: foreseen(step, shared.folder) for steps in ladders for step in steps}


def _pairs(ladders: Sequence[Sequence[Step]]) -> int:
    rungs = sum(map(len, ladders))
    return rungs * (rungs - 1) // 2


@dataclass
class Climb:
    """A climb under way: the rungs so far, and the tests of each pair of those that were taken.

    `pairs` are all that there can be, `plans` those of the trainings, or why there is none, by their folder. `before`
    are the rungs that were passed over before the climb was stopped: more memory that is free now makes no other
    climb of it.
    """

    root: Run
    shared: Shared
    asked: Ladder
    say: Callable[[str], None]
    pairs: int
    plans: Plans = field(default_factory=dict)
    before: dict[str, Rung] = field(default_factory=dict)
    rungs: list[Rung] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    tests: dict[tuple[str, str], Comparison] = field(default_factory=dict)
    stopped: dict[str, list[str]] = field(default_factory=dict)

    def up(self, ladder: Sequence[Step]) -> None:
        """Take the rungs of one model, until one of the rules ends it."""
        steps = list(ladder)
        for place, step in enumerate(ladder):
            why = self._enough(steps, step)
            if why is not None:
                self.stopped.setdefault(why, []).append(step.name)
                self._pass_over(step, why)
                continue
            try:
                steps[place] = self._fitted(step)
                self._take(steps[place], below(list(self.runs), steps, steps[place]))
            except DiskError:  # with more room the climb goes on
                raise
            except (FitError, DivergedError, ForgotError, ModelError) as wrong:
                self._pass_over(steps[place], wrong)
            self.root.write_json(RUNGS, [rung.model_dump() for rung in self.rungs])

    def _fitted(self, step: Step) -> Step:
        """Give a rung as memory allows it. Raises FitError for one that cannot be trained at all."""
        if step.recipe is not None and "train" not in self.shared.task.splits():
            raise FitError("the task has no training rows", fix="give it a 'train' split")
        self._pass_over_again(step)
        step = fitted(step, self.root.folder, self.plans.get(step.folder))
        self._pass_over_again(step)  # under the name of what stands for it
        return step

    def _pass_over_again(self, step: Step) -> None:
        passed = self.before.get(step.name)
        if passed is not None:
            raise FitError(str(passed.passed_over), fix=passed.fix or "")

    def _pass_over(self, step: Step, why: str | TunesmithError) -> None:
        told, fix = (why.what, why.fix) if isinstance(why, TunesmithError) else (why, None)
        self.say(f"{step.name}: passed over, {told}" + (f"\n  fix: {fix}" if fix else ""))
        method = step.recipe.method.name if step.recipe else None
        who = {"name": step.name, "model": step.model, "aside": step.aside, "method": method}
        self.rungs.append(Rung(**who, passed_over=told, fix=fix))

    def _take(self, step: Step, lower: str | None) -> None:
        """Take one rung, test it against all that were taken before, and say how it stands to the one below."""
        taken = self._made(step)
        for name, run in self.runs.items():
            swaps = max(SWAPS, FINER * self.pairs)
            self.tests[step.name, name] = compare_on(run, taken.run, run.scores()[0], swaps)
        self.rungs.append(taken.rung)
        self.runs[step.name] = taken.run
        self.say(rung_line(taken.rung, taken.run, self._contrast(step.name, lower), self.asked.price))

    def _made(self, step: Step) -> Taken:
        """Choose and train as the rung asks, then evaluate on the test rows."""
        return prompted(step, self.shared) if step.recipe is None else trained(step, step.recipe, self.shared)

    def _enough(self, steps: Sequence[Step], step: Step) -> str | None:
        """Say why a rung is not worth taking; None if it is."""
        mine = {one.name: self._score(one.name) for one in steps if one.name in self.runs}
        if self.asked.target is not None:
            reached = [name for name, score in mine.items() if deciding.reaches(score, self.asked.target[1])]
            if reached:
                return f"{reached[0]} reaches {self.asked.target[1]:g}"
        if not mine:
            return None
        last = self._last_gain(steps, mine) if step.kind == "full" and not step.own else None
        return deciding.not_worth(mine[deciding.best(mine)], last, self.asked.worth)

    def _last_gain(self, steps: Sequence[Step], mine: dict[str, Score]) -> Contrast | None:
        """Give the test of the last tuned rung of these against the best of the others."""
        own = next((one.name for one in reversed(steps) if one.recipe and one.name in self.runs), None)
        rest = {name: score for name, score in mine.items() if name != own}
        return self._contrast(own, deciding.best(rest)) if own and rest else None

    def _score(self, name: str) -> Score:
        return self.runs[name].scores()[0]

    def _kept(self, taken: Sequence[Rung]) -> dict[str, Forgetting]:
        """Give what is left of what the base could do besides, by rung, where that was measured."""
        told = {rung.name: Run.open(self.root.folder / rung.train).forgetting() for rung in taken if rung.train}
        return {name: one for name, one in told.items() if one and one.retained is not None}

    def _contrasts(self) -> tuple[Contrast, ...]:
        return deciding.corrected(self.tests, self.pairs)

    def _contrast(self, rung: str, lower: str | None) -> Contrast | None:
        return next((one for one in self._contrasts() if (one.rung, one.below) == (rung, lower)), None)

    def conclude(self) -> None:
        """Decide, say so, and write verdict and report."""
        taken = [rung for rung in self.rungs if rung.name in self.runs]
        if not taken:
            raise FitError(
                f"no rung could be taken: {self.rungs[0].passed_over}", fix="use a model with a longer context"
            )
        target = self.asked.target[1] if self.asked.target else None
        costing = (self.asked.requests, self.asked.price)
        scores = [self._score(rung.name) for rung in taken]
        made = deciding.decide(taken, scores, self._contrasts(), target, costing, self._kept(taken))
        told = [f"Not tried: {deciding.listed(names)}, as {why}." for why, names in self.stopped.items()]
        made = made.model_copy(update={"stopped": " ".join(told) or None, "pairs": self.pairs})
        self.root.write_json(RUNGS, [rung.model_dump() for rung in self.rungs])
        self.root.write_json(VERDICT, made.model_dump())
        self.say(made.sentence)
        write_report([self.root], self.root.folder / "report.html")
        self.root.write_text("DONE", "")


def _check(task: Task, asked: Ladder) -> None:
    """Refuse a target that is not of the metric the climb is decided by, or no split to decide on."""
    if "test" not in task.splits():
        raise DataError(f"the task '{task.name}' has no test rows to score a rung on", fix="give it a 'test' split")
    if asked.target is None:
        return
    name, value = asked.target
    metric(name)
    if name != task.metrics[0]:
        raise ConfigError(
            f"--target {name}: the climb is decided by the task's first metric", fix=suggest(name, [task.metrics[0]])
        )
    if name not in LOWER_IS_BETTER and value > 1:
        raise ConfigError(f"--target {name}={value:g}: {name} goes from 0 to 1", fix=f"--target {name}={value / 100:g}")
