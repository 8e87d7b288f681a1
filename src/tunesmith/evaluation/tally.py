"""From marks to scores: each task's metrics with their intervals, and the averages of whole benchmarks.

A benchmark's average is a weighted sum of the values of independent tasks. Its
interval is combined from theirs (MOVER, see `interval.combined`), so that a
task of a dozen questions, all answered right, does not pass for certain.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api import metrics as theirs

from tunesmith.evaluation.benchmarks import Average
from tunesmith.metrics import labels
from tunesmith.metrics.interval import RESAMPLES, Interval, bootstrap, combined, interval, wilson
from tunesmith.metrics.metric import Metric, Stats, given

FEW_RESAMPLES = 200  # where each resample has to be handed to a function of lm-eval's, row by row


@dataclass(frozen=True)
class Marks:
    """One metric over the questions of one task: what each gave, and how that becomes a value."""

    metric: Metric
    stats: Stats
    seed: int

    @property
    def interval(self) -> Interval:
        """The value with its 95 % interval."""
        if self.metric.of_rows:
            return bootstrap(self.metric, self.stats, self.seed, resamples=FEW_RESAMPLES)
        return interval(self.metric, self.stats, self.seed)

    @property
    def interval_name(self) -> str:
        """The kind of interval, for signatures."""
        if self.metric.proportion:
            return "wilson"
        return f"percentile-bootstrap-{FEW_RESAMPLES if self.metric.of_rows else RESAMPLES}-seed{self.seed}"


def marks_of(name: str, items: Sequence[Any], aggregate: Callable[..., Any] | None, seed: int) -> Marks | None:
    """Put what lm-eval gives for each question into the form that intervals need.

    Means, F1 and Matthews' correlation become sums of statistics; any other
    aggregation is asked for each resample. None for a metric that has no value ("bypass").
    """
    if aggregate is None or aggregate is theirs.mean:
        values = np.array([float(item) for item in items])[:, None]
        share = bool(np.isin(values, (0.0, 1.0)).all())
        return Marks(Metric(name, given, f"{name}|mean", proportion=share), values, seed)
    kinds = {theirs.f1_score: _binary_f1, theirs.matthews_corrcoef: _matthews}
    if aggregate in kinds:
        pairs = np.array([[int(one) for one in item] for item in items])
        return kinds[aggregate](name, pairs, seed)
    found = list(items)
    if aggregate(found) is None:
        return None
    places = np.arange(len(found), dtype=np.float64)[:, None]
    metric = Metric(
        name, given, f"{name}|lm-eval", of_rows=lambda rows: float(aggregate([found[int(i)] for i in rows[:, 0]]))
    )
    return Marks(metric, places, seed)


def averaged(marks: Sequence[Marks]) -> Marks:
    """Give the mean of several metrics of one task as one metric: its questions are drawn once for all of them."""
    if len(marks) == 1:
        return marks[0]
    ends = np.cumsum([one.stats.shape[1] for one in marks])
    starts = [0, *ends[:-1]]
    stats: Stats = np.concatenate([one.stats for one in marks], axis=1)
    name = "+".join(one.metric.name for one in marks)
    parts = list(zip(marks, starts, ends, strict=True))

    def of_sums(sums: Stats, n: int) -> Stats:
        found: Stats = np.mean([one.metric.values(sums[:, a:b], n) for one, a, b in parts], axis=0)
        return found

    def of_rows(rows: Stats) -> float:
        return float(np.mean([one.metric.value(rows[:, a:b]) for one, a, b in parts]))

    by_rows = any(one.metric.of_rows for one in marks)
    metric = Metric(name, given, f"{name}|mean", of_sums, of_rows if by_rows else None)
    return Marks(metric, stats, marks[0].seed)


@dataclass(frozen=True)
class Known:
    """An average with its interval, the number of questions in it, and what kind of interval it is."""

    interval: Interval
    n: int
    interval_name: str


def average(how: Average, tasks: Mapping[str, Mapping[str, Marks]]) -> Known | None:
    """Give an average of the tasks there are; None if none of them counts."""
    parts = {
        task: averaged([marks[name] for name in how.of(task)])
        for task, marks in tasks.items()
        if how.covers(task) and how.of(task) and all(name in marks for name in how.of(task))
    }
    if not parts:
        return None
    sizes = {task: len(one.stats) for task, one in parts.items()}
    n = sum(sizes.values())
    if how.by_size and all(one.metric.proportion for one in parts.values()):
        right = sum(float(one.stats[:, 0].sum()) for one in parts.values())
        return Known(wilson(round(right), n), n, "interval:wilson")
    weights = {task: size / n for task, size in sizes.items()} if how.by_size else shares(how.groups, list(parts))
    return Known(combined([(parts[task].interval, weight) for task, weight in weights.items()]), n, "interval:mover")


def shares(groups: Sequence[Sequence[str]], tasks: Sequence[str]) -> dict[str, float]:
    """Give each task's weight in a mean of tasks in which each group counts as one."""
    group_of = {task: tuple(group) for group in groups for task in group}
    units: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        units.setdefault(group_of.get(task, (task,)), []).append(task)
    return {task: 1 / len(units) / len(members) for members in units.values() for task in members}


def _binary_f1(name: str, pairs: Any, seed: int) -> Marks:
    """Make the F1 of label 1 of (right, said) pairs; 0 where neither side has it, as scikit-learn gives it."""
    right, said = pairs[:, 0] == 1, pairs[:, 1] == 1
    stats = np.stack([right & said, said, right], axis=1).astype(np.float64)

    def of_sums(sums: Stats, _n: int) -> Stats:
        below = sums[:, 1] + sums[:, 2]
        found: Stats = np.divide(2 * sums[:, 0], below, out=np.zeros_like(below), where=below > 0)
        return found

    return Marks(Metric(name, given, f"{name}|positive:1", of_sums, by_row=False), stats, seed)


def _matthews(name: str, pairs: Any, seed: int) -> Marks:
    kinds = np.eye(int(pairs.max()) + 1)
    right, said = kinds[pairs[:, 0]], kinds[pairs[:, 1]]
    stats: Stats = np.concatenate([right * said, said, right], axis=1)

    def of_sums(sums: Stats, _n: int) -> Stats:
        hits, given, wanted = np.split(sums, 3, axis=1)
        return labels.matthews(hits, given, wanted)

    return Marks(Metric(name, given, name, of_sums, by_row=False), stats, seed)
