"""One rung taken: examples chosen or weights trained, then scored once on the test rows, with what it cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith.climb.ladder import Step
from tunesmith.data.task import Split, Task
from tunesmith.errors import FitError, RunError
from tunesmith.evaluation.evaluate import Question, evaluate
from tunesmith.evaluation.measured import train
from tunesmith.metrics import LOWER_IS_BETTER
from tunesmith.recipe import Recipe
from tunesmith.runs.records import Summary
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import Cost, Rung, Tried


class Taken(NamedTuple):
    """A rung, and its evaluation on the test rows."""

    rung: Rung
    run: Run


def prompted(
    step: Step, task: Task, folder: Path, rows: tuple[int | None, Recipe], command: Sequence[str] = ()
) -> Taken:
    """Take a prompt as far as it fits, the number of its examples chosen on the validation rows.

    Every question is shown the same examples, as a prompt in service would. `rows` are the
    test rows at most, and the recipe. Raises FitError if not even the fewest examples fit.
    """
    limit, recipe = rows
    asked = [shots for shots in step.shots if shots <= _examples(task)]
    if not asked:
        raise FitError(f"the task has {_examples(task)} training rows to show", fix="give it more")
    tried: list[tuple[Tried, Run]] = []
    if len(asked) > 1 and "validation" in task.splits():
        tried = _tried(step, task, folder, recipe, asked)
    best = _best([one for one, _ in tried]).shots if tried else asked[0]
    question = _question(task, "test", best, limit, recipe.seed)
    run = answered(step.model, question, folder / step.folder, command)
    facts = run.summary()
    making = sum(choosing.summary().engine_seconds or 0.0 for _, choosing in tried)
    rung = Rung(
        name=step.name,
        model=step.model,
        shots=best,
        eval=step.folder,
        tried=tuple(one for one, _ in tried),
        cost=_cost(facts, len(run.answers(task.name)), making),
    )
    return Taken(rung, run)


def _examples(task: Task) -> int:
    return len(task.rows("train")) if "train" in task.splits() else 0


def _question(task: Task, split: Split, shots: int, limit: int | None, seed: int) -> Question:
    return Question(task, split, shots=shots, limit=limit, seed=seed, same_shots=shots > 0)


def _tried(step: Step, task: Task, folder: Path, recipe: Recipe, asked: Sequence[int]) -> list[tuple[Tried, Run]]:
    """Score numbers of examples on the validation rows, fewest first, until one scores no better or does not fit."""
    found: list[tuple[Tried, Run]] = []
    for shots in asked:
        question = _question(task, "validation", shots, recipe.limit.validation, recipe.seed)
        try:
            run = answered(step.model, question, folder / f"{step.folder}-{shots}-validation")
        except FitError:
            if not found:
                raise
            break
        one = run.scores()[0]
        shown = one.model_dump(include={"metric", "value", "low", "high", "n"})
        found.append((Tried(name=f"{shots}-shot", shots=shots, **shown), run))
        if _best([tried for tried, _ in found]).shots != shots:
            break
    return found


def _best(tried: Sequence[Tried]) -> Tried:
    """Give the best candidate, of equal ones the first: the shortest prompt."""
    sign = -1 if tried[0].metric in LOWER_IS_BETTER else 1
    return max(tried, key=lambda one: sign * one.value)


def trained(
    step: Step, recipe: Recipe, task: Task, folder: Path, rows: int | None = None, command: Sequence[str] = ()
) -> Taken:
    """Train as `recipe` says, or go on with it, and ask the test rows without examples.

    Raises RunError if the training was stopped, FitError if it does not fit.
    """
    place = folder / step.folder
    made = train(recipe, place, command=command, resume=place.exists())
    facts = made.summary()
    if facts.stopped_early:
        raise RunError(
            f"{place}: training was stopped at step {facts.steps} of {facts.planned_steps}",
            fix="what was learned is kept: the same command with --resume goes on",
        )
    question = _question(task, "test", 0, rows, recipe.seed)
    run = answered(str(place), question, folder / f"{step.folder}-eval", command)
    rung = Rung(
        name=step.name,
        model=step.model,
        method=recipe.method.name,
        eval=f"{step.folder}-eval",
        train=step.folder,
        cost=_cost(run.summary(), len(run.answers(task.name)), facts.seconds, facts),
    )
    return Taken(rung, run)


def answered(target: str, question: Question, folder: Path, command: Sequence[str] = ()) -> Run:
    """Evaluate, go on with an evaluation that was stopped, or give one that is done."""
    return Run.open(folder) if Run(folder).done else evaluate(target, question, folder, command)


def _cost(answering: Summary, requests: int, making: float, training: Summary | None = None) -> Cost:
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
