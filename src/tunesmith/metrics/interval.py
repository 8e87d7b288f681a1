"""How sure a score is: intervals, paired tests and what a test can see; seeded.

The value reported is always the value on the rows themselves, never a
quantile or mean of resamples. Everything here works on the statistics per row
that `Metric.stats` gives, so corpus scores such as BLEU are resampled exactly.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.names import pick

RESAMPLES = 2000
SWAPS = 10_000
EXACT_ROWS = 14  # up to 2^14 swaps are enumerated instead of drawn
_BLOCK = 1 << 22  # numbers held at a time, 32 MiB
_NORMAL = NormalDist()

Method = Literal["percentile", "bca"]


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


def interval(metric: Metric, stats: Stats, seed: int = 0) -> Interval:
    """Give the interval a score is shown with: Wilson's for a share of right answers, else the percentile bootstrap.

    A bootstrap of 20 right answers of 20 would claim certainty; Wilson's does not.
    """
    if metric.proportion:
        return wilson(round(float(stats[:, 0].sum())), len(stats))
    return bootstrap(metric, stats, seed)


def interval_name(metric: Metric, seed: int = 0) -> str:
    """Name the kind of interval that `interval` gives, for signatures."""
    return "wilson" if metric.proportion else f"percentile-bootstrap-{RESAMPLES}-seed{seed}"


def bootstrap(
    metric: Metric, stats: Stats, seed: int = 0, method: Method = "percentile", resamples: int = RESAMPLES
) -> Interval:
    """Give a metric's value on `stats` [rows, width] with a bootstrap interval; rows are drawn with replacement.

    "percentile": Efron and Tibshirani 1993, section 13.3. "bca": bias-corrected
    and accelerated, section 14.3, its acceleration from leaving out each row.
    Raises DataError if the value is not a number.
    """
    pick(dict.fromkeys(("percentile", "bca")), method, "bootstrap")
    value = metric.value(stats)
    random = np.random.default_rng(seed)
    found: Stats = np.concatenate([_values(metric, stats, drawn) for drawn in _draws(len(stats), resamples, random)])
    shares = (0.025, 0.975) if method == "percentile" else _bca_shares(metric, stats, value, found)
    low, high = np.quantile(found, shares)
    return Interval(value, float(low), float(high))


def wilson(right: int, n: int, confidence: float = 0.95) -> Interval:
    """Give the share `right` / `n` with Wilson's score interval (Wilson 1927). Raises DataError for no rows."""
    if not 0 <= right <= n or n < 1:
        raise DataError(f"{right} right of {n} rows is no share", fix="count right rows among at least one")
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    share, scale = right / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return Interval(share, min(share, middle - half), max(share, middle + half))


def combined(parts: Sequence[tuple[Interval, float]]) -> Interval:
    """Give the weighted sum of independent values with the interval that follows from theirs.

    The method of variance estimates recovery (MOVER; Zou and Donner 2008): the
    lower limit is the sum less the root of the summed squares of the weighted
    distances to the parts' lower limits, and likewise above. Unlike resampling
    within the parts it keeps what Wilson's interval knows of a part whose few
    rows are all right. Raises DataError for no parts.
    """
    if not parts or any(weight < 0 for _, weight in parts):
        raise DataError("an average needs at least one part, and no weight below 0", fix="average at least one value")
    value = sum(weight * part.value for part, weight in parts)
    below = math.sqrt(sum((weight * (part.value - part.low)) ** 2 for part, weight in parts))
    above = math.sqrt(sum((weight * (part.high - part.value)) ** 2 for part, weight in parts))
    return Interval(value, value - below, value + above)


def paired(metric: Metric, a: Stats, b: Stats, seed: int = 0, swaps: int = SWAPS) -> Paired:
    """Compare two systems on the same rows, in the same order.

    The p-value is that of approximate randomisation (Noreen 1989; Riezler and
    Maxwell 2005): how often swapping the two systems' answers row by row, at
    random, gives a difference at least as large, in `swaps` tries. For means this is the
    sign-flip test; it is exact for up to 14 rows, and for shares of right
    answers, where it is McNemar's. The interval is a paired percentile
    bootstrap's. Raises DataError if the rows differ in number.
    """
    difference, spread, random = _paired_draws(metric, a, b, seed)
    low, high = np.quantile(spread, [0.025, 0.975])
    p = mcnemar(a[:, 0] > 0, b[:, 0] > 0) if metric.proportion else _swap_p(metric, a, b, random, swaps)
    return Paired(difference, float(low), float(high), p)


def paired_bootstrap(metric: Metric, a: Stats, b: Stats, seed: int = 0) -> Paired:
    """Compare two systems by the paired bootstrap test (Koehn 2004; Riezler and Maxwell 2005).

    The p-value is the share of resamples whose difference lies at least as far
    from the resamples' mean as the difference seen lies from zero. Raises as `paired`.
    """
    difference, spread, _ = _paired_draws(metric, a, b, seed)
    low, high = np.quantile(spread, [0.025, 0.975])
    extreme = int((np.abs(spread - spread.mean()) >= abs(difference) - 1e-12).sum())
    return Paired(difference, float(low), float(high), (extreme + 1) / (len(spread) + 1))


def mcnemar(a: Sequence[bool] | NDArray[np.bool_], b: Sequence[bool] | NDArray[np.bool_]) -> float:
    """Give the exact two-sided p-value that two systems are right equally often (McNemar 1947).

    Only rows where one is right and the other wrong count: under the null
    either is as likely, so their number is binomial with p = 1/2.
    """
    one, other = np.asarray(a, bool), np.asarray(b, bool)
    _same_rows(one, other)
    only_a, only_b = int((one & ~other).sum()), int((other & ~one).sum())
    n, fewer = only_a + only_b, min(only_a, only_b)
    ways = total = 1  # to choose k of n, and their sum for k up to the fewer
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / (1 << n))


def sign_flip(differences: Sequence[float] | NDArray[np.float64], seed: int = 0) -> float:
    """Give the two-sided p-value that paired differences have mean zero, by flipping their signs (Fisher 1935)."""
    stats = np.asarray(differences, np.float64).reshape(-1, 1)
    return _swap_p(Metric.mean("difference"), np.zeros_like(stats), stats, np.random.default_rng(seed))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests so that the chance of any false finding stays at the level (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - place)))
        adjusted[i] = highest
    return adjusted


def detectable(n: int, deviation: float, power: float = 0.8, level: float = 0.05) -> float:
    """Give the smallest true mean difference that a two-sided paired test of `n` rows finds with chance `power`.

    `deviation` is the standard deviation of the differences; the formula is the
    normal one, (z_(1 - level/2) + z_power) * deviation / sqrt(n) (Cohen 1988, section 2.4).
    """
    return (_NORMAL.inv_cdf(1 - level / 2) + _NORMAL.inv_cdf(power)) * deviation / math.sqrt(n)


def _same_rows(a: NDArray[Any], b: NDArray[Any]) -> None:
    if len(a) != len(b) or not len(a):
        raise DataError(f"{len(a)} answers against {len(b)}", fix="compare runs over the same rows, at least one")


def _draws(n: int, times: int, random: np.random.Generator) -> Iterator[Stats]:
    """Draw `times` resamples of `n` rows, in blocks [k, n] of how often each row was drawn."""
    block = max(1, _BLOCK // n)
    for start in range(0, times, block):
        k = min(block, times - start)
        rows = random.integers(0, n, size=(k, n))
        yield np.stack([np.bincount(row, minlength=n) for row in rows]).astype(np.float64)


def _values(metric: Metric, stats: Stats, drawn: Stats) -> Stats:
    if metric.of_rows is None:
        return metric.values(drawn @ stats, len(stats))
    return np.array([metric.of_rows(np.repeat(stats, row.astype(int), axis=0)) for row in drawn])


def paired_values(metric: Metric, a: Stats, b: Stats, random: np.random.Generator) -> tuple[Stats, Stats]:
    """Give the values of two systems on the same resamples of their rows, [resamples] each. Raises as `paired`."""
    _same_rows(a, b)
    drawn = list(_draws(len(a), RESAMPLES, random))
    first, second = (np.concatenate([_values(metric, stats, weights) for weights in drawn]) for stats in (a, b))
    return first, second


def _paired_draws(metric: Metric, a: Stats, b: Stats, seed: int) -> tuple[float, Stats, np.random.Generator]:
    random = np.random.default_rng(seed)
    first, second = paired_values(metric, a, b, random)
    return metric.value(b) - metric.value(a), second - first, random


def _swap_p(metric: Metric, a: Stats, b: Stats, random: np.random.Generator, swaps: int = SWAPS) -> float:
    n = len(a)
    before, after = metric.value(a), metric.value(b)
    # Swaps that tie with what was seen count as extreme, whatever the order of summation made of them.
    observed = abs(after - before) - 1e-11 * max(abs(before), abs(after))
    exact = n <= EXACT_ROWS
    blocks = iter([np.array(list(product([0.0, 1.0], repeat=n)))]) if exact else _swaps(n, random, swaps)
    tried = extreme = 0
    for block in blocks:
        extreme += int((np.abs(_swapped(metric, a, b, block)) >= observed).sum())
        tried += len(block)
    return extreme / tried if exact else (extreme + 1) / (tried + 1)


def _swaps(n: int, random: np.random.Generator, swaps: int) -> Iterator[Stats]:
    block = max(1, _BLOCK // n)
    for start in range(0, swaps, block):
        yield random.integers(0, 2, size=(min(block, swaps - start), n), dtype=np.int8).astype(np.float64)


def _swapped(metric: Metric, a: Stats, b: Stats, swaps: Stats) -> Stats:
    """Give the difference b - a after each of `swaps` [k, rows]."""
    if metric.of_rows is None:
        moved = swaps @ (b - a)
        return metric.values(b.sum(0) - moved, len(b)) - metric.values(a.sum(0) + moved, len(a))
    take = swaps[:, :, None] > 0
    return np.array([metric.of_rows(np.where(swap, a, b)) - metric.of_rows(np.where(swap, b, a)) for swap in take])


def _bca_shares(metric: Metric, stats: Stats, value: float, found: Stats) -> tuple[float, float]:
    below = ((found < value).sum() + (found == value).sum() / 2) / len(found)
    if not 0 < below < 1 or np.ptp(found) == 0:
        return 0.025, 0.975  # the value lies outside its resamples: nothing to correct by
    bias = _NORMAL.inv_cdf(float(below))
    left = _jackknife(metric, stats)
    off = left.mean() - left
    spread = float((off**2).sum())
    speed = float((off**3).sum()) / (6 * spread**1.5) if spread else 0.0

    def share(z: float) -> float:
        return float(_NORMAL.cdf(bias + (bias + z) / (1 - speed * (bias + z))))

    return share(_NORMAL.inv_cdf(0.025)), share(_NORMAL.inv_cdf(0.975))


def _jackknife(metric: Metric, stats: Stats) -> Stats:
    """Give the value without each row in turn."""
    if metric.of_rows is None:
        return metric.values(stats.sum(0) - stats, len(stats) - 1)
    return np.array([metric.of_rows(np.delete(stats, i, axis=0)) for i in range(len(stats))])
