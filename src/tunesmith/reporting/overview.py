"""The overview: several tasks at a glance, each by its main metric, before any of them is told by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.reporting import charts
from tunesmith.reporting.compare import Comparison
from tunesmith.reporting.drawing import Chart
from tunesmith.reporting.ladders import Ladder
from tunesmith.reporting.numbers import fixed, interval, metric_title
from tunesmith.runs.records import Score


@dataclass(frozen=True)
class Row:
    """One task: the metric it is told by, each run's score, and how it differs from the first run's."""

    task: str
    metric: str
    n: int
    scores: Mapping[str, Score]
    against: Mapping[str, Comparison]


@dataclass(frozen=True)
class Overview:
    """Tasks by runs; `finding` says it in a sentence."""

    runs: tuple[str, ...]
    rows: tuple[Row, ...]
    finding: str

    def chart(self) -> Chart:
        """Draw a group of bars for each task."""
        found = [
            charts.Bar(row.task, name, score.value, score.low, score.high, _told(score))
            for row in self.rows
            for name, score in row.scores.items()
        ]
        metrics = list(dict.fromkeys(metric_title(row.metric) for row in self.rows))
        return charts.bars(found, metrics[0] if len(metrics) == 1 else "score")


def overview(ladders: Sequence[Ladder]) -> Overview | None:
    """Give the overview of several tasks; None where there is one."""
    if len(ladders) < 2:
        return None
    rows = tuple(map(_row, ladders))
    runs = tuple(dict.fromkeys(name for row in rows for name in row.scores))
    return Overview(runs, rows, _finding(rows, runs))


def _row(ladder: Ladder) -> Row:
    scored = [line for line in ladder.lines if ladder.main in line.scores]
    return Row(
        ladder.task,
        ladder.main,
        max(line.scores[ladder.main].n for line in scored),
        {line.name: line.scores[ladder.main] for line in scored},
        {line.name: line.against[ladder.main] for line in scored if ladder.main in line.against},
    )


def _told(score: Score) -> str:
    return f"{metric_title(score.metric)} {fixed(score.value)} {interval(score)}, {score.n} rows"


def _finding(rows: Sequence[Row], runs: Sequence[str]) -> str:
    """Say on how many tasks each run is above and below the first."""
    first, *rest = runs
    said = [_standing(name, rows) for name in rest if any(name in row.against for row in rows)]
    if said:
        return f"Against {first}, {'; '.join(said)}."
    return f"{len(rows)} tasks were scored: {', '.join(row.task for row in rows[:6])}{' …' if len(rows) > 6 else ''}."


def _standing(name: str, rows: Sequence[Row]) -> str:
    found = [row.against[name].verdict() for row in rows if name in row.against]
    better, worse = found.count("better"), found.count("worse")
    counted = f"{name} is better on {better} of {len(found)} tasks and worse on {worse}"
    rest = len(found) - better - worse
    return (
        f"{counted}; on {'the other' if better + worse else 'all'} {rest} the difference may be chance"
        if rest
        else counted
    )
