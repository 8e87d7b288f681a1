"""The worst case: what a model scores on each row if the least favourable way to ask is chosen."""

from collections.abc import Sequence

import numpy as np

from tunesmith.errors import ConfigError
from tunesmith.metrics import LOWER_IS_BETTER
from tunesmith.metrics.metric import Metric, Stats


def by_row(metric: Metric) -> Metric:
    """Give the metric back if one row alone has a value. Raises ConfigError otherwise: it has no worst row."""
    if not metric.by_row:
        raise ConfigError(
            f"{metric.name} has no value for one row alone, and so no worst case",
            fix="name a metric in the task that has: accuracy, exact_match, rouge1, ...",
        )
    return metric


def worst(metric: Metric, ways: Sequence[Stats]) -> Stats:
    """Give the statistics [rows, width] of each row's worst way to be asked; the first way where several are as bad.

    `ways` are the statistics of the same rows, asked in several ways. Worst is
    the lowest value, or the highest of a metric that is better lower (TER).
    A corpus score (BLEU) is then that of the rows chosen. Raises ConfigError for a metric without a value by row.
    """
    by_row(metric)
    sign = -1.0 if metric.name in LOWER_IS_BETTER else 1.0
    values = np.stack([sign * np.concatenate([metric.values(row[None], 1) for row in stats]) for stats in ways])
    chosen: Stats = np.stack(ways)[values.argmin(0), np.arange(len(ways[0]))]
    return chosen
