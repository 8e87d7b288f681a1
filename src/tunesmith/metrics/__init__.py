"""Metrics: marks for answers, each from 0 to 1, higher is better.

A metric reduces every row to a vector of statistics and turns their sum over
rows into the value. That is all that intervals and paired tests need, so a
mean (ROUGE) and a corpus score (BLEU) share the same code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.metrics import rouge, text, translation, words
from tunesmith.names import pick

Stats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One way to mark answers; `signature` names every choice made."""

    name: str
    row: Callable[[str, Sequence[str]], list[float]]
    of_sums: Callable[[Stats], float] | None
    signature: str

    def stats(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        """Reduce each row to statistics, as an array [rows, width].

        Raises DataError if there are no rows: a score over nothing is no score.
        """
        if not predictions:
            raise DataError(f"{self.name}: there are no answers to mark", fix="raise the limit, or check the split")
        rows = [self.row(answer, wanted) for answer, wanted in zip(predictions, references, strict=True)]
        return np.array(rows, dtype=np.float64)

    def values(self, sums: Stats, n: int) -> Stats:
        """Give the value of each row of `sums` [k, width], statistics summed over `n` answers."""
        if self.of_sums is None:
            means: Stats = sums[:, 0] / n
            return means
        return np.array([self.of_sums(row) for row in sums])


def _rouge(kind: str) -> Metric:
    def row(prediction: str, references: Sequence[str]) -> list[float]:
        return [rouge.score(prediction, references, (kind,))[kind].f1]

    return Metric(kind, row, None, f"{kind}|f1|multi:best|stem:no|{words.SIGNATURE}")


METRICS: dict[str, Metric] = {
    **{kind: _rouge(kind) for kind in rouge.KINDS},
    "bleu": Metric(
        "bleu", translation.bleu_counts, translation.bleu_score, "bleu|sacrebleu|corpus|tok:13a|smooth:exp|share"
    ),
    "exact_match": Metric(
        "exact_match", lambda said, wanted: [text.exact_match(said, wanted)], None, f"exact_match|any|{words.SIGNATURE}"
    ),
}


def metric(name: str) -> Metric:
    """Look a metric up by name. Raises ConfigError with the nearest right one."""
    return pick(METRICS, name, "metric")
