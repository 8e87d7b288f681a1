"""The shape of a metric: statistics per row, and the value of their sum.

A mean (ROUGE) and a corpus score (BLEU, macro F1) have the same shape, so one
code gives all of them intervals and paired tests. The few metrics that no sum
determines (Spearman's rank correlation) give `of_rows` instead.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError

Stats = NDArray[np.float64]


def given(_said: Sequence[str], _wanted: Sequence[Sequence[str]]) -> Stats:
    """Stand for the rows of a metric whose statistics come from elsewhere. Raises TypeError: no answer has them."""
    raise TypeError("the statistics of this metric are given, and not computed from answers")


@dataclass(frozen=True)
class Metric:
    """One way to mark answers.

    rows: (predictions, references) -> statistics [rows, width].
    of_sums: (statistics summed over rows [k, width], number of rows) -> values [k]; None: the mean of the first column.
    of_rows: statistics -> value, where sums are not enough.
    signature: every choice made, sacrebleu's way.
    proportion: whether the value is the share of rows that are right.
    by_row: whether one row alone has a value; a correlation or an F1 of labels needs many.
    """

    name: str
    rows: Callable[[Sequence[str], Sequence[Sequence[str]]], Stats]
    signature: str
    of_sums: Callable[[Stats, int], Stats] | None = None
    of_rows: Callable[[Stats], float] | None = None
    proportion: bool = False
    by_row: bool = True

    @classmethod
    def mean(cls, name: str) -> "Metric":
        """Make a metric that is the mean of statistics which are given and not computed from answers."""
        return cls(name, given, signature=f"{name}|mean")

    def stats(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        """Reduce each row to statistics, as an array [rows, width].

        Raises DataError if there are no rows, for a score over nothing is no
        score, if a row has no reference, or if a statistic is not a number.
        """
        if not predictions:
            raise DataError(f"{self.name}: there are no answers to mark", fix="raise the limit, or check the split")
        if len(predictions) != len(references):
            raise DataError(
                f"{self.name}: {len(predictions)} answers, {len(references)} references", fix="give one for the other"
            )
        odd = next((text for texts in (predictions, *references) for text in texts if not isinstance(text, str)), None)
        if odd is not None:
            raise DataError(f"{self.name}: {odd!r} is {type(odd).__name__}, not text", fix="give texts")
        bare = next((i for i, wanted in enumerate(references) if not wanted), None)
        if bare is not None:
            raise DataError(f"{self.name}: row {bare + 1} has no reference", fix="give at least one reference per row")
        found = np.asarray(self.rows(predictions, references), dtype=np.float64)
        if not np.isfinite(found).all():
            wrong = int(np.argmin(np.isfinite(found).all(1))) + 1
            raise DataError(f"{self.name}: the score of row {wrong} is not a number", fix="look at that row's answer")
        return found

    def values(self, sums: Stats, n: int) -> Stats:
        """Give the value of each row of `sums` [k, width], statistics summed over `n` answers."""
        if self.of_sums is None:
            means: Stats = sums[:, 0] / n
            return means
        return self.of_sums(sums, n)

    def value(self, stats: Stats) -> float:
        """Give the value on all rows. Raises DataError if it is not a number."""
        found = self.of_rows(stats) if self.of_rows else float(self.values(stats.sum(0, keepdims=True), len(stats))[0])
        if not np.isfinite(found):
            raise DataError(
                f"{self.name}: the score is {found}", fix="look at the answers: a metric must give a number"
            )
        return found
