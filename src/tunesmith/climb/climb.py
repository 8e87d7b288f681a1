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
from tunesmith.climb.memory import fitted
from tunesmith.climb.rung import Taken, prompted, trained
from tunesmith.data.task import Task, load_task
from tunesmith.errors import ConfigError, DataError, FitError, RunError
from tunesmith.metrics import metric
from tunesmith.names import suggest
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import Comparison, compare_on
from tunesmith.reporting.lines import rung_line
from tunesmith.reporting.report import write_report
from tunesmith.runs.lock import only_writer
from tunesmith.runs.machine import describe
from tunesmith.runs.records import Score
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import RUNGS, VERDICT, Contrast, Rung, Verdict


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
        return Run.open(folder)
    root = Run.begin(folder, told) if resume else Run.create(folder, told)
    with only_writer(folder):
        if not (folder / "provenance.json").is_file():
            root.write_json("provenance.json", describe(command))
        going = Climb(root, task, recipe, asked, tuple(command), say)
        for steps in ladder(recipe, asked, task):
            going.up(steps)
        going.conclude()
    return root


@dataclass
class Climb:
    """A climb under way: the rungs so far, and the tests of each pair of those that were taken."""

    root: Run
    task: Task
    recipe: Recipe
    asked: Ladder
    command: tuple[str, ...]
    say: Callable[[str], None]
    rungs: list[Rung] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    tests: dict[tuple[str, str], Comparison] = field(default_factory=dict)
    stopped: str | None = None

    def up(self, ladder: Sequence[Step]) -> None:
        """Take the rungs of one model, until one of the rules ends it."""
        steps = list(ladder)
        for place, step in enumerate(ladder):
            why = self._enough(steps, step)
            if why is not None:
                self.stopped = f"{step.name} was not tried: {why}."
                self._pass_over(step, why)
                continue
            try:
                steps[place] = self._fitted(step)
                self._take(steps[place], below(list(self.runs), steps, steps[place]))
            except (FitError, RunError) as wrong:
                if isinstance(wrong, RunError) and not _forgot(self.root.folder, step):
                    raise
                self._pass_over(step, wrong.what)
            self.root.write_json(RUNGS, [rung.model_dump() for rung in self.rungs])

    def _fitted(self, step: Step) -> Step:
        """Give a rung as memory allows it. Raises FitError for one that cannot be trained at all."""
        if step.recipe is not None and "train" not in self.task.splits():
            raise FitError("the task has no training rows", fix="give it a 'train' split")
        return fitted(step, self.root.folder)

    def _pass_over(self, step: Step, why: str) -> None:
        self.say(f"{step.name}: passed over, {why}")
        self.rungs.append(Rung(name=step.name, model=step.model, method=_method(step), passed_over=why))

    def _take(self, step: Step, lower: str | None) -> None:
        """Take one rung, test it against all that were taken before, and say how it stands to the one below."""
        taken = self._made(step)
        for name, run in self.runs.items():
            self.tests[step.name, name] = compare_on(run, taken.run, run.scores()[0])
        self.rungs.append(taken.rung)
        self.runs[step.name] = taken.run
        self.say(rung_line(taken.rung, taken.run, self._contrast(step.name, lower), self.asked.price))

    def _made(self, step: Step) -> Taken:
        """Choose and train as the rung asks, then evaluate on the test rows."""
        if step.recipe is None:
            return prompted(step, self.task, self.root.folder, (self.asked.rows, self.recipe), self.command)
        return trained(step, step.recipe, self.task, self.root.folder, self.asked.rows, self.command)

    def _enough(self, steps: Sequence[Step], step: Step) -> str | None:
        """Say why a rung is not worth taking; None if it is, as prompts and the first tunings are."""
        mine = {one.name: self._score(one.name) for one in steps if one.name in self.runs}
        if self.asked.target is not None:
            reached = [name for name, score in mine.items() if deciding.reaches(score, self.asked.target[1])]
            if reached:
                return f"{reached[0]} reaches {self.asked.target[1]:g}"
        if step.kind != "full" or not mine:
            return None
        own = next((one.name for one in steps if one.kind == "method" and one.name in self.runs), None)
        rest = {name: score for name, score in mine.items() if name != own}
        last = self._contrast(own, deciding.best(rest)) if own and rest else None
        return deciding.not_worth(mine[deciding.best(mine)], last, self.asked.worth)

    def _score(self, name: str) -> Score:
        return self.runs[name].scores()[0]

    def _contrast(self, rung: str, lower: str | None) -> Contrast | None:
        return next((one for one in deciding.corrected(self.tests) if (one.rung, one.below) == (rung, lower)), None)

    def conclude(self) -> None:
        """Decide, say so, and write verdict and report."""
        taken = [rung for rung in self.rungs if rung.name in self.runs]
        if not taken:
            raise FitError(
                f"no rung could be taken: {self.rungs[0].passed_over}", fix="use a model with a longer context"
            )
        contrasts = deciding.corrected(self.tests)
        target = self.asked.target[1] if self.asked.target else None
        costing = (self.asked.requests, self.asked.price)
        scores = [self._score(rung.name) for rung in taken]
        made: Verdict = deciding.decide(taken, scores, contrasts, target, costing, self.stopped)
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
    name, _ = asked.target
    metric(name)
    if name != task.metrics[0]:
        raise ConfigError(
            f"--target {name}: the climb is decided by the task's first metric", fix=suggest(name, [task.metrics[0]])
        )


def _method(step: Step) -> str | None:
    return step.recipe.method.name if step.recipe else None


def _forgot(folder: Path, step: Step) -> bool:
    """Tell whether a rung's training came to its end but forgot more than it may."""
    lost = Run(folder / step.folder).forgetting() if step.recipe else None
    return lost is not None and lost.passed is False
