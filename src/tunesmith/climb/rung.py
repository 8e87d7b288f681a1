"""One rung taken: examples chosen or weights trained, then scored once on the test rows, with what it cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tunesmith.climb.ladder import Step
from tunesmith.data.task import Split, Task
from tunesmith.errors import FitError, RunError
from tunesmith.evaluation.evaluate import Question, evaluate
from tunesmith.evaluation.measured import train
from tunesmith.metrics import merit
from tunesmith.models.load import Model, find, load, load_encoder
from tunesmith.recipe import Recipe
from tunesmith.runs.records import Summary
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import Cost, Rung, Tried


@dataclass(frozen=True)
class Shared:
    """What all rungs of a climb share: its task, recipe and folder, and how many test rows are asked at most."""

    task: Task
    recipe: Recipe
    folder: Path
    rows: int | None = None
    command: Sequence[str] = ()

    def question(self, split: Split, shots: int, limit: int | None) -> Question:
        """Ask a split as the recipe's rows are worded; every question sees the same examples."""
        wording = None if self.recipe.template == "any" else self.recipe.template
        return Question(
            self.task, split, shots=shots, template=wording, limit=limit, seed=self.recipe.seed, same_shots=shots > 0
        )

    def base(self, model: str) -> Model:
        """Load a model as the recipe's trainings do."""
        place = find(model)
        return load(place, load_encoder(place, self.recipe.prompting), self.recipe.dtype)

    def check_rows(self, step: Step) -> None:
        """Read the test rows, and the examples before them, as a rung's model does. Raises DataError."""
        shots = max((shots for shots in step.shots if shots <= self.examples), default=0)
        encoder = load_encoder(find(step.model), self.recipe.prompting)
        for prompt in self.question("test", shots, self.rows).prompts():
            encoder.check_text(prompt)

    @property
    def examples(self) -> int:
        """Count the training rows, which worked examples are drawn from."""
        return len(self.task.rows("train")) if "train" in self.task.splits() else 0


class Taken(NamedTuple):
    """A rung, and its evaluation on the test rows."""

    rung: Rung
    run: Run


def prompted(step: Step, shared: Shared) -> Taken:
    """Take a prompt as far as it fits, the number of its examples chosen on the validation rows, if there are any.

    Every question is shown the same examples, as a prompt in service would. Without validation rows they are the
    fewest. Raises FitError if not even these fit.
    """
    asked = [shots for shots in step.shots if shots <= shared.examples]
    if not asked:
        raise FitError(f"the task has {shared.examples} training rows to show", fix="give it more")
    model = cache(lambda: shared.base(step.model))  # loaded once, and only if something is left to be answered
    tried = _tried(step, shared, asked, model) if len(asked) > 1 and "validation" in shared.task.splits() else []
    shots, run = _tested(step, shared, _from_best([one for one, _ in tried]) or asked[:1], model)
    rung = Rung(
        name=step.name,
        model=step.model,
        aside=step.aside,
        shots=shots,
        eval=run.folder.relative_to(shared.folder).as_posix(),
        tried=tuple(one for one, _ in tried),
        cost=_cost(run, sum(choosing.summary().engine_seconds or 0.0 for _, choosing in tried)),
    )
    return Taken(rung, run)


def _tried(step: Step, shared: Shared, asked: Sequence[int], model: Callable[[], Model]) -> list[tuple[Tried, Run]]:
    """Score numbers of examples on the validation rows, fewest first.

    As far as they fit, and until two in a row score no better: one may be bad luck.
    """
    found: list[tuple[Tried, Run]] = []
    for shots in asked:
        question = shared.question("validation", shots, shared.recipe.limit.validation)
        try:
            run = answered(model, question, shared.folder / f"{step.folder}-{shots}-validation")
        except FitError:
            if not found:
                raise
            break
        one = run.scores()[0]
        shown = one.model_dump(include={"metric", "value", "low", "high", "n"})
        found.append((Tried(name=f"{shots}-shot", shots=shots, **shown), run))
        if _from_best([tried for tried, _ in found])[0] not in [tried.shots for tried, _ in found[-2:]]:
            break
    return found


def _from_best(tried: Sequence[Tried]) -> list[int]:
    """Give the numbers of examples from the best candidate down, of equal ones the shorter prompt first."""
    return [one.shots for one in sorted(tried, key=lambda one: (-merit(one.metric, one.value), one.shots))]


def _tested(step: Step, shared: Shared, best: Sequence[int], model: Callable[[], Model]) -> tuple[int, Run]:
    """Ask the test rows with the first number of examples that all of them have room for. Raises FitError."""
    *others, last = best
    for shots in others:
        try:
            return shots, _ask_test(step, shared, shots, model)
        except FitError:  # a test row is longer than any that it was chosen on
            continue
    return last, _ask_test(step, shared, last, model)


def _ask_test(step: Step, shared: Shared, shots: int, model: Callable[[], Model]) -> Run:
    """Ask the test rows; each number of examples has a folder of its own, as those that did not fit were begun."""
    question = shared.question("test", shots, shared.rows)
    place = f"{step.folder}-{shots}" if len(step.shots) > 1 else step.folder
    return answered(model, question, shared.folder / place, shared.command)


def trained(step: Step, recipe: Recipe, shared: Shared) -> Taken:
    """Train as `recipe` says, or go on with it, and ask the test rows without examples.

    Raises RunError if the training was stopped, FitError if it does not fit.
    """
    place = shared.folder / step.folder
    made = train(recipe, place, command=shared.command, resume=place.exists())
    facts = made.summary()
    if facts.stopped_early:
        raise RunError(
            f"{place}: training was stopped at step {facts.steps} of {facts.planned_steps}",
            fix="what was learned is kept: the same command with --resume goes on",
        )
    question = shared.question("test", 0, shared.rows)
    run = answered(lambda: str(place), question, shared.folder / f"{step.folder}-eval", shared.command)
    rung = Rung(
        name=step.name,
        model=step.model,
        aside=step.aside,
        method=recipe.method.name,
        eval=f"{step.folder}-eval",
        train=step.folder,
        cost=_cost(run, facts.seconds, facts),
    )
    return Taken(rung, run)


def answered(target: Callable[[], str | Model], question: Question, folder: Path, command: Sequence[str] = ()) -> Run:
    """Evaluate, go on with an evaluation that was stopped, or give one that is done."""
    return Run.open(folder) if Run(folder).done else evaluate(target(), question, folder, command)


def _cost(run: Run, making: float, training: Summary | None = None) -> Cost:
    answering = run.summary()
    requests = len(run.answers(str(run.asked()["task"])))
    peaks = [taken.peak_memory_bytes for taken in (answering, training) if taken]
    return Cost(
        making_seconds=making,
        request_seconds=(answering.engine_seconds or 0.0) / requests,
        prompt_tokens=answering.prompt_tokens or 0.0,
        answer_tokens=answering.answer_tokens / requests,
        trained_parameters=training.trainable_parameters if training else 0,
        artifact_bytes=training.artifact_bytes if training else 0,
        peak_memory_bytes=max(peaks),
    )
