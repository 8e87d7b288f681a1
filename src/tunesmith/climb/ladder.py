"""The verb `climb`: try the rungs from cheap to expensive on one task, and report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tunesmith.climb.verdict import Rung, Verdict, decide, reaches
from tunesmith.data.task import load_task
from tunesmith.errors import ConfigError, FitError, RunError
from tunesmith.evaluation.evaluate import Question, evaluate
from tunesmith.evaluation.measured import train
from tunesmith.metrics import metric
from tunesmith.names import suggest
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import method_title
from tunesmith.reporting.report import write_report
from tunesmith.runs.run import Run, vacant

FEW_SHOTS = 3


def climb(
    recipe: Recipe,
    folder: Path,
    target: tuple[str, float] | None = None,
    limit: int | None = None,
    command: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Run:
    """Climb zero-shot, few-shot and LoRA on the recipe's task, into the new folder `folder`.

    Each rung is scored on the test split (at most `limit` rows) and compared
    with those below it; `say` is told after each. A `target` such as
    ("rouge1", 0.4) ends the climb at the first rung that reaches it. A rung
    that does not fit is passed over aloud. The report is `folder`/report.html.
    """
    vacant(folder)
    if recipe.task is None:
        raise ConfigError("a climb is on one task, and the recipe has a mixture", fix="name one of its tasks")
    task = load_task(recipe.task)
    goal = _goal(task.metrics, target)
    asked = {
        "verb": "climb",
        "target": dict([target]) if target else None,
        "limit": limit,
        **recipe.model_dump(mode="json"),
    }
    root = Run.create(folder, asked)
    rungs: list[Rung] = []
    runs: list[Run] = []
    for rung, shots in _ladder(recipe):
        try:
            runs.append(
                _take(rung, Question(task, shots=shots, limit=limit, seed=recipe.seed), recipe, folder, command)
            )
        except (FitError, RunError) as wrong:
            if isinstance(wrong, RunError) and not _forgot(folder, rung):
                raise
            say(f"{rung.name}: passed over, {wrong.what}")
            continue
        rungs.append(rung)
        say(_line(rung, runs[-1]))
        if goal is not None and reaches(runs[-1].scores()[0], goal):
            break
    _conclude(root, rungs, decide(rungs, runs, goal), say)
    return root


def _ladder(recipe: Recipe) -> list[tuple[Rung, int]]:
    tuned = recipe.method.name
    return [
        (Rung(name="zero-shot", eval="zero-shot"), 0),
        (Rung(name=f"{FEW_SHOTS}-shot", eval=f"{FEW_SHOTS}-shot"), FEW_SHOTS),
        (Rung(name=method_title(tuned), eval=f"{tuned}-eval", train=tuned), 0),
    ]


def _goal(metrics: Sequence[str], target: tuple[str, float] | None) -> float | None:
    """Check that the target is of the metric the climb is decided by."""
    if target is None:
        return None
    name, value = target
    metric(name)
    if name != metrics[0]:
        raise ConfigError(
            f"--target {name}: the climb is decided by the task's first metric", fix=suggest(name, [metrics[0]])
        )
    return value


def _take(rung: Rung, question: Question, recipe: Recipe, folder: Path, command: Sequence[str]) -> Run:
    """Train if the rung asks for it, then evaluate."""
    target = recipe.model
    if rung.train:
        facts = train(recipe, folder / rung.train, command=command).summary()
        if facts.stopped_early:
            raise RunError(
                f"{folder / rung.train}: training was stopped at step {facts.steps} of {facts.planned_steps}",
                fix=f"what was learned is kept: tunesmith eval {folder / rung.train} --task {recipe.task} --out NEW",
            )
        target = str(folder / rung.train)
    return evaluate(target, question, folder / rung.eval, command)


def _forgot(folder: Path, rung: Rung) -> bool:
    """Tell whether a rung's training came to its end but forgot more than it may."""
    lost = Run(folder / rung.train).forgetting() if rung.train else None
    return lost is not None and lost.passed is False


def _line(rung: Rung, run: Run) -> str:
    scores = "  ".join(f"{s.metric} {s.value:.3f} [{s.low:.3f}, {s.high:.3f}]" for s in run.scores())
    return f"{rung.name:<10} {scores}  {run.summary().prompt_tokens:.0f} tokens per request"


def _conclude(root: Run, rungs: Sequence[Rung], verdict: Verdict, say: Callable[[str], None]) -> None:
    root.write_json("rungs.json", [rung.model_dump() for rung in rungs])
    root.write_json("verdict.json", verdict.model_dump())
    for reason in verdict.reasons:
        say(reason)
    say(verdict.sentence)
    write_report([root], root.folder / "report.html")
    root.write_text("DONE", "")
