"""The finding: what came out, in one sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.reporting.compare import Comparison
from tunesmith.reporting.gather import Gathered, summary
from tunesmith.reporting.ladders import Ladder
from tunesmith.reporting.numbers import fixed, interval, metric_title, p_value
from tunesmith.reporting.overview import overview
from tunesmith.runs.records import Summary


def finding(told: Gathered, ladders: Sequence[Ladder]) -> str:
    """Say what came out: the verdict's sentence, else how the runs compare, else how the loss moved."""
    if told.verdict:
        return told.verdict.sentence
    several = overview(ladders)
    if several:
        return several.finding
    if ladders:
        return _scored(ladders[0])
    ended = [(name, taken) for run, name in told.trained.items() if (taken := summary(run))]
    return _trained(*ended[-1]) if ended else "These runs have not come to a result yet."


def _scored(ladder: Ladder) -> str:
    shown = ladder.after or ladder.before
    score = shown.scores[ladder.main]
    value = f"{metric_title(score.metric)} {fixed(score.value)} {interval(score)}"
    against = shown.against.get(ladder.main)
    moved = f", {_difference(against, ladder.before.name)}" if against else ""
    return f"{_capital(shown.name)} scores {value}{moved} on {score.n} {ladder.split} rows."


def _difference(against: Comparison, first: str) -> str:
    if round(against.difference, 3) == 0:
        return f"the same as {first}"
    side = "above" if against.difference > 0 else "below"
    chance = ", which may be chance" if against.verdict() == "undecided" else ""
    return f"{fixed(abs(against.difference))} {side} {first}{chance} ({p_value(against.p)})"


def _trained(name: str, taken: Summary) -> str:
    losses: Mapping[str, tuple[Any, Any]] = {
        "validation": (taken.first_validation_loss, taken.validation_loss),
        "training": (taken.first_loss, taken.final_loss),
    }
    for kind, (first, last) in losses.items():
        if first is not None and last is not None:
            moved = f"the {kind} loss went from {fixed(first)} to {fixed(last)} nats per answer token"
            return f"In {taken.steps:,} steps of {name}, {moved}."
    return f"{_capital(name)} was trained for {taken.steps:,} steps."


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
