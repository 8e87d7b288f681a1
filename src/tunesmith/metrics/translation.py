"""BLEU, through `sacrebleu`: its counts per row, and its score of summed counts."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDERS = 4


@cache
def _sacrebleu() -> Any:
    from sacrebleu.metrics import BLEU

    # effective_order keeps sacrebleu from warning about sentences; the counts taken here do not depend on it.
    return BLEU(tokenize="13a", effective_order=True)


def bleu_counts(prediction: str, references: Sequence[str]) -> list[float]:
    """Give one row's statistics: matches and totals of orders 1 to 4, own length, reference length."""
    result = _sacrebleu().sentence_score(prediction, list(references))
    return [*result.counts, *result.totals, result.sys_len, result.ref_len]


def bleu_score(counts: NDArray[np.float64]) -> float:
    """Give corpus BLEU, as a share from 0 to 1, of statistics summed over rows."""
    from sacrebleu.metrics import BLEU

    numbers = [int(number) for number in counts]
    return float(
        BLEU.compute_bleu(
            correct=numbers[:ORDERS],
            total=numbers[ORDERS : 2 * ORDERS],
            sys_len=numbers[-2],
            ref_len=numbers[-1],
            smooth_method="exp",
        ).score
        / 100
    )
