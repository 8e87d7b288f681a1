"""The verdict: the cheapest rung that no other rung beats."""

from collections.abc import Sequence

from tunesmith.config import Record
from tunesmith.metrics import LOWER_IS_BETTER
from tunesmith.reporting.compare import Comparison, compare
from tunesmith.reporting.numbers import metric_title, p_value, signed
from tunesmith.runs.records import Score
from tunesmith.runs.run import Run


class Rung(Record):
    """One step of the ladder: its name and the folders of its runs, relative to the climb."""

    name: str
    eval: str
    train: str | None = None


class Verdict(Record):
    """Which rung to take, in one sentence, and the comparisons behind it."""

    recommended: str
    sentence: str
    reasons: tuple[str, ...]


def decide(rungs: Sequence[Rung], runs: Sequence[Run], target: float | None = None) -> Verdict:
    """Recommend a rung by the first metric; `rungs` go from cheap to expensive.

    Take the cheapest rung that reaches `target`; otherwise the cheapest that no
    dearer rung beats significantly (paired test, p < 0.05).
    """
    scores = [run.scores()[0] for run in runs]
    reached = [i for i, score in enumerate(scores) if target is not None and reaches(score, target)]
    chosen = reached[0] if reached else _unbeaten(runs)
    reasons = [_reason(rungs, i, j, runs) for i in range(len(runs)) for j in range(i)]
    return Verdict(
        recommended=rungs[chosen].name, sentence=_sentence(rungs, scores, chosen, target), reasons=tuple(reasons)
    )


def reaches(score: Score, target: float) -> bool:
    """Tell whether a score is at least as good as `target`."""
    return score.value <= target if score.metric in LOWER_IS_BETTER else score.value >= target


def _unbeaten(runs: Sequence[Run]) -> int:
    """Find the first rung that no later rung beats."""
    return next(
        i for i in range(len(runs)) if not any(_main(runs[i], dearer).verdict() == "better" for dearer in runs[i + 1 :])
    )


def _main(a: Run, b: Run) -> Comparison:
    return compare(a, b)[0]


def _reason(rungs: Sequence[Rung], i: int, j: int, runs: Sequence[Run]) -> str:
    found = _main(runs[j], runs[i])
    word = {"better": "better than", "worse": "worse than", "undecided": "not clearly different from"}[found.verdict()]
    return (
        f"{rungs[i].name} is {word} {rungs[j].name}: {metric_title(found.metric)} {signed(found.difference)} "
        f"[{signed(found.low)}, {signed(found.high)}], {p_value(found.p)}"
    )


def _sentence(rungs: Sequence[Rung], scores: Sequence[Score], chosen: int, target: float | None) -> str:
    score = scores[chosen]
    told = f"{metric_title(score.metric)} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
    value = f"{told} on {score.n} {score.split} rows"
    if target is not None and reaches(score, target):
        return f"Take {rungs[chosen].name}: it is the cheapest rung that reaches {target:g}, with {value}."
    missed = f" No rung reaches the target of {target:g}." if target is not None else ""
    if chosen == len(rungs) - 1:
        beaten = "every cheaper rung is significantly beaten by a more expensive one"
        return f"Take {rungs[chosen].name}: {beaten}; it has {value}.{missed}"
    return f"Take {rungs[chosen].name}: no more expensive rung is significantly better; it has {value}.{missed}"
