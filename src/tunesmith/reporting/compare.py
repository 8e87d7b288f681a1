"""Two runs on the same questions: paired differences, metric by metric."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith.config import Record
from tunesmith.errors import RunError
from tunesmith.metrics import merit, metric
from tunesmith.metrics.interval import SWAPS, paired
from tunesmith.metrics.loss import CHOICE_LOSS, NATS_PER_TOKEN
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.runs.records import Ability, Answer, Score
from tunesmith.runs.run import Run

METHOD_TITLES = {
    "full": "full fine-tuning",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "ia3": "IA3",
    "bitfit": "BitFit",
    "norms": "norms",
    "layers": "some layers",
    "prompt_tuning": "prompt tuning",
    "p_tuning": "P-tuning",
    "prefix": "prefix tuning",
    "bottleneck": "bottleneck adapters",
    "sparse_mask": "sparse mask",
    "loha": "LoHa",
    "lokr": "LoKr",
    "vera": "VeRA",
    "oft": "OFT",
    "hra": "HRA",
    "miss": "MiSS",
}


class Comparison(Record):
    """`b` against `a` on the same `n` rows; `p` is two-sided."""

    task: str
    metric: str
    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    n: int

    def verdict(self) -> str:
        """Say in one word which is better at the 5 % level."""
        if self.p >= 0.05:
            return "undecided"
        return "better" if merit(self.metric, self.difference) > 0 else "worse"


def method_title(name: str) -> str:
    """Write a method's name the way people do: LoRA, full fine-tuning."""
    return METHOD_TITLES.get(name, name)


def label(run: Run) -> str:
    """Name an evaluated run the way people speak of it: zero-shot, 3-shot, LoRA."""
    asked = run.asked()
    shots = int(asked.get("shots") or 0)
    prompted = f"{shots}-shot" if shots else "zero-shot"
    method = asked.get("method")
    if not method:
        return prompted
    if isinstance(method, dict):
        return f"{method_title(method['name'])} (training)"
    title = method_title(method)
    strength = asked.get("strength", 1.0)
    title = title if strength == 1.0 else f"{title} at strength {strength:g}"
    return f"{title}, {shots}-shot" if shots else title


def language(run: Run, task: str) -> str:
    """Give the language of a run's answers to a task, by which some metrics cut words."""
    asked = run.asked()
    told = next((one for one in asked.get("tasks", ()) if one["task"] == task), asked)
    return str(told.get("language", "en"))


def compare(a: Run, b: Run) -> list[Comparison]:
    """Compare run `b` with run `a` on every task and metric that both have.

    Of benchmarks that are choices, the questions of all tasks that were asked
    by one protocol are compared together. Of two trainings it is what is left of the abilities
    by which both measured forgetting. Raises RunError if they answered no
    common task, or different rows of one.
    """
    tasks = [task for task in a.tasks() if task in b.tasks()]
    chosen = _compare_choices(a, b) or _compare_abilities(a, b)
    if not tasks and not chosen:
        raise RunError(f"{a.folder} and {b.folder} answered no common task", fix="evaluate both on the same task")
    return [*chosen, *(found for task in tasks for found in _compare_task(a, b, task))]


def compare_on(a: Run, b: Run, score: Score, swaps: int = SWAPS) -> Comparison:
    """Compare run `b` with run `a` by the one metric of `score`, which is `a`'s. Raises RunError for different rows."""
    ours, theirs = _matched(a, b, score.task)
    return _difference((score.task, score.metric, language(a, score.task)), ours, theirs, swaps)


def _compare_choices(a: Run, b: Run) -> list[Comparison]:
    """Compare the shares of questions whose likeliest choice is right (McNemar), protocol by protocol."""
    theirs = {one.task: one for one in b.protocols()}
    rows: dict[str, list[tuple[float, float]]] = {}
    for one in a.protocols():
        if one.task in theirs and a.choices(one.task):
            if one.prompts != theirs[one.task].prompts:
                raise RunError(
                    f"{a.folder} and {b.folder} were asked '{one.task}' differently",
                    fix="ask both with the same --shots, --limit, --seed and --chat",
                )
            rows.setdefault(one.name, []).extend(_right(a, b, one.task))
    return [_of_rows(name, np.array(pairs)) for name, pairs in rows.items() if pairs]


def _right(a: Run, b: Run, task: str) -> list[tuple[float, float]]:
    """Give for each question whether each run chose right; both were asked the same ones, in the same order."""
    pairs = zip(a.choices(task), b.choices(task), strict=True)
    return [(one.marks["acc"], other.marks["acc"]) for one, other in pairs if "acc" in one.marks]


def _of_rows(name: str, right: NDArray[np.float64]) -> Comparison:
    before, after = right[:, :1], right[:, 1:]
    found = paired(metric("accuracy"), before, after)
    values = {"a": float(before.mean()), "b": float(after.mean())}
    return Comparison(task=name, metric="accuracy", **values, **found._asdict(), n=len(right))


def _compare_abilities(a: Run, b: Run) -> list[Comparison]:
    """Compare what two trainings left of the abilities that neither learned."""
    told, other = a.forgetting(), b.forgetting()
    if told is None or other is None:
        return []
    both = {(one.task, one.metric) for one in other.abilities}
    shared = [one for one in told.abilities if (one.task, one.metric) in both]
    return [found for one in shared if (found := _compare_ability(a, b, one))]


def _compare_ability(a: Run, b: Run, ability: Ability) -> Comparison | None:
    """Compare one ability, on the rows that were asked after both trainings; None for one that rests on another."""
    task = ability.task
    if ability.metric == NATS_PER_TOKEN.name:
        theirs = {one.id: one for one in b.text_losses()}
        pairs = [(one, theirs[one.id]) for one in a.text_losses() if one.id in theirs]
        was, now = (np.array([[pair[i].nats, pair[i].tokens] for pair in pairs], float) for i in (0, 1))
        return _of_stats(task, NATS_PER_TOKEN, was, now)
    if ability.metric == CHOICE_LOSS.name:
        return None
    answers = {one.id: one for one in b.abilities(task)}
    ours = [one for one in a.abilities(task) if one.id in answers]
    return _difference((task, ability.metric, ability.language), ours, [answers[one.id] for one in ours])


def _matched(a: Run, b: Run, task: str) -> tuple[list[Answer], list[Answer]]:
    """Give the answers of both to the same rows, in the order of `a`."""
    ours, theirs = a.answers(task), {answer.id: answer for answer in b.answers(task)}
    if {answer.id for answer in ours} != set(theirs):
        raise RunError(
            f"{a.folder} and {b.folder} answered different rows of '{task}'",
            fix="evaluate both with the same --split, --limit and --seed",
        )
    return ours, [theirs[answer.id] for answer in ours]


def _compare_task(a: Run, b: Run, task: str) -> list[Comparison]:
    ours, matched = _matched(a, b, task)
    values = {(score.metric, score.task): score.value for score in b.scores()}
    return [
        _difference((task, score.metric, language(a, task)), ours, matched)
        for score in a.scores()
        if score.task == task and (score.metric, task) in values and score.dimension == "accuracy"
    ]


def _difference(
    of: tuple[str, str, str], ours: Sequence[Answer], theirs: Sequence[Answer], swaps: int = SWAPS
) -> Comparison:
    task, name, language = of
    mark = metric(name, language)
    a, b = (mark.stats([x.answer for x in side], [x.references for x in side]) for side in (ours, theirs))
    return _of_stats(task, mark, a, b, swaps)


def _of_stats(task: str, mark: Metric, a: Stats, b: Stats, swaps: int = SWAPS) -> Comparison:
    values = {"a": mark.value(a), "b": mark.value(b)}
    return Comparison(task=task, metric=mark.name, **values, **paired(mark, a, b, swaps=swaps)._asdict(), n=len(a))
