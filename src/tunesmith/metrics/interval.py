"""How sure a score is: bootstrap intervals and paired tests, seeded.

The value reported is always the value on the rows themselves, never a
quantile or mean of resamples.
"""

from itertools import product
from typing import NamedTuple

import numpy as np

from tunesmith.errors import DataError
from tunesmith.metrics import Metric, Stats

RESAMPLES = 2000
EXACT_ROWS = 14  # up to 2^14 swaps are enumerated instead of drawn


class Interval(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


class Paired(NamedTuple):
    """The difference b - a on the same rows, its 95 % interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float


def bootstrap(metric: Metric, stats: Stats, seed: int = 0) -> Interval:
    """Give a metric's value on `stats` [rows, width] with a percentile bootstrap interval.

    Efron and Tibshirani 1993, section 13.3; rows are drawn with replacement.
    """
    n = len(stats)
    weights = np.random.default_rng(seed).multinomial(n, [1 / n] * n, size=RESAMPLES)
    low, high = np.quantile(metric.values(weights @ stats, n), [0.025, 0.975])
    return Interval(_whole(metric, stats), float(low), float(high))


def paired(metric: Metric, a: Stats, b: Stats, seed: int = 0) -> Paired:
    """Compare two systems on the same rows, in the same order.

    The p-value is that of approximate randomisation (Noreen 1989; Riezler and
    Maxwell 2005): how often swapping the two systems' answers row by row, at
    random, gives a difference at least as large. It is exact for few rows.
    The interval is a paired bootstrap's. Raises DataError if the rows differ in number.
    """
    if len(a) != len(b):
        raise DataError(f"{len(a)} answers against {len(b)}", fix="compare runs over the same rows")
    n = len(a)
    random = np.random.default_rng(seed)
    weights = random.multinomial(n, [1 / n] * n, size=RESAMPLES)
    spread = metric.values(weights @ b, n) - metric.values(weights @ a, n)
    low, high = np.quantile(spread, [0.025, 0.975])
    difference = _whole(metric, b) - _whole(metric, a)
    return Paired(difference, float(low), float(high), _p_value(metric, a, b, random))


def _p_value(metric: Metric, a: Stats, b: Stats, random: np.random.Generator) -> float:
    n = len(a)
    observed = abs(_whole(metric, b) - _whole(metric, a))
    exact = n <= EXACT_ROWS
    swaps = np.array(list(product([0, 1], repeat=n))) if exact else random.integers(0, 2, size=(RESAMPLES * 5, n))
    moved = swaps @ (b - a)
    differences = metric.values(b.sum(0) - moved, n) - metric.values(a.sum(0) + moved, n)
    # Swaps that tie with what was seen count as extreme; 1e-12 absorbs the order of summation.
    extreme = int((np.abs(differences) >= observed - 1e-12).sum())
    return extreme / len(swaps) if exact else (extreme + 1) / (len(swaps) + 1)


def _whole(metric: Metric, stats: Stats) -> float:
    value = float(metric.values(stats.sum(0, keepdims=True), len(stats))[0])
    if not np.isfinite(value):
        raise DataError(f"{metric.name}: the score is {value}", fix="report this: a metric must give a number")
    return value
