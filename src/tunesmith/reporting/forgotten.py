"""What trainings made the model forget, as the page and the command line tell it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.metrics.loss import CHOICE_LOSS, NATS_PER_TOKEN
from tunesmith.reporting import charts
from tunesmith.reporting.drawing import Chart
from tunesmith.reporting.numbers import metric_title
from tunesmith.runs.records import Ability, Forgetting, Step
from tunesmith.runs.run import Run

ALL = "all together"


@dataclass(frozen=True)
class Forgotten:
    """One training's forgetting, with its chart if there is anything to draw."""

    name: str
    told: Forgetting
    chart: Chart | None

    @property
    def finding(self) -> str:
        """Say it in a sentence, with the arrow and the percents of the page."""
        return sentence(self.told).replace(" -> ", " \N{RIGHTWARDS ARROW} ").replace("%", " %")


def forgotten(name: str, run: Run) -> Forgotten | None:
    """Give what a training made the model forget; None if that was not measured."""
    told = run.forgetting()
    if told is None:
        return None
    marks = _marks(told)
    chart = charts.dots(marks, "share retained", share=True) if len(marks) > 1 else None
    return Forgotten(name, told, chart)


def sentence(told: Forgetting) -> str:
    """Say in a sentence how much of the base's ability is left, and whether that was enough."""
    if told.retained is None:
        return "The base cannot be told from chance on any of these questions: there was nothing to forget."
    left = f"{told.retained:.1%} [{told.low:.1%}, {told.high:.1%}]"
    parts = [_text_part(told), _tasks_part(told)]
    said = f"It kept {left} of what the base could do: {'; '.join(part for part in parts if part)}."
    if told.passed is None:
        return said
    allowed = f"{told.max_forgetting:.1%} may be forgotten, of all and of the general text"
    kept = f"the weights of step {told.step} are kept" if told.passed else "no look at it passed"
    return f"{said} At most {allowed}: {kept}."


def lines(told: Forgetting) -> list[str]:
    """Give a line for each ability, by its own metric, under the sentence."""
    shown = [one for one in told.abilities if one.metric != CHOICE_LOSS.name]
    wide = max((len(one.task) for one in shown), default=0)
    return [sentence(told), *(_line(one, wide) for one in shown)]


def task_losses(steps: Sequence[Step]) -> dict[str, tuple[float, float]]:
    """Give each task's mean loss over the first and the last fifth of the steps it was in."""
    by_task: dict[str, list[float]] = {}
    for step in steps:
        for task, loss in step.task_losses.items():
            by_task.setdefault(task, []).append(loss)
    return {task: _ends(losses) for task, losses in by_task.items()}


def _ends(losses: Sequence[float]) -> tuple[float, float]:
    n = max(1, len(losses) // 5)
    return sum(losses[:n]) / n, sum(losses[-n:]) / n


def _marks(told: Forgetting) -> list[charts.Mark]:
    """Give the base, which keeps all, then each ability that can be forgotten, then all of them."""
    counted = [one for one in told.abilities if one.retained is not None]
    marks = [charts.Mark("base", 1.0, 1.0, 1.0, sum(one.n for one in counted), "before")]
    for one in counted:
        low, high = one.retained_low or 0.0, one.retained_high or 0.0
        marks.append(charts.Mark(one.task, one.retained or 0.0, low, high, one.n))
    if told.retained is not None and len(counted) > 1:
        n = sum(one.n for one in counted)
        marks.append(charts.Mark(ALL, told.retained, told.low or 0.0, told.high or 0.0, n, "after"))
    return marks


def _text_part(told: Forgetting) -> str:
    text = next((one for one in told.abilities if one.metric == NATS_PER_TOKEN.name), None)
    if text is None or text.retained is None:
        return ""
    return f"{text.retained:.1%} of the probability it gave to a token of general text"


def _tasks_part(told: Forgetting) -> str:
    counted = [one for one in told.abilities if one.chance is not None]
    if not counted:
        return ""
    before = sum(one.before - (one.chance or 0.0) for one in counted)
    after = sum(one.after - (one.chance_after or 0.0) for one in counted)
    tasks = "one task" if len(counted) == 1 else f"{len(counted)} tasks"
    return f"scores above chance, summed over {tasks} that it did not learn, {before:.3f} -> {after:.3f}"


def _line(one: Ability, wide: int) -> str:
    kept = "" if one.retained is None else f"  kept {one.retained:.0%}"
    bare = "  (the base is at chance)" if one.chance is not None and one.retained is None else ""
    p = "p<0.001" if one.p < 0.001 else f"p={one.p:.3f}"
    chance = (
        "" if one.chance is None or one.chance_after is None else f"  chance {one.chance:.2f} -> {one.chance_after:.2f}"
    )
    return (
        f"  {one.task:<{wide}}  {metric_title(one.metric):<15} {one.before:.3f} -> {one.after:.3f}  "
        f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]  {p}  n={one.n}{chance}{kept}{bare}"
    )
