"""Calibration: whether a model is right as often as it is sure.

`confidence` [rows] is the probability a model gave its answer, `correct` [rows]
whether the answer was right. Raises DataError for no rows, sides that differ in
number, or a confidence outside 0 to 1.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import ConfigError, DataError
from tunesmith.names import pick

Numbers = Sequence[float] | NDArray[np.float64]
BINS = 10


def expected_error(
    confidence: Numbers, correct: Numbers, bins: int = BINS, by: Literal["width", "mass"] = "width"
) -> float:
    """Give the expected calibration error: sum over bins of |bin| / n * |accuracy - mean confidence| (Guo et al. 2017).

    "width" cuts 0 to 1 into bins of equal width (Guo; an edge belongs to the
    lower bin), "mass" into bins of equally many rows (HELM's; rows of equal confidence count
    as equally often right, so that the order of rows does not matter). Raises ConfigError for another `by`.
    Confidence .95 .85 .75 .65, correct 1 0 1 1: in tenths each row is alone, (.05 + .85 + .25 + .35) / 4 = .375.
    """
    sure, right = _checked(confidence, correct)
    pick(dict.fromkeys(("width", "mass")), by, "way to make bins")
    if bins < 1:
        raise ConfigError(f"{bins} bins", fix="use at least one; 10 are usual")
    if by == "mass":
        right = _by_confidence(sure, right)
        sure = -np.sort(-sure)
        parts = np.array_split(np.arange(len(sure)), min(bins, len(sure)))
    else:
        which = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
        parts = [np.flatnonzero(which == i) for i in range(bins)]
    return float(sum(abs(right[part].sum() - sure[part].sum()) for part in parts) / len(sure))


def brier(probabilities: NDArray[np.float64], right: Sequence[int]) -> float:
    """Give the Brier score over all choices: mean over rows of sum_k (p_k - [k is right])^2, 0 to 2 (Brier 1950).

    `probabilities` [rows, choices]. BIG-bench divides this by the number of choices.
    Probabilities .7 .2 .1 of which the first is right: .09 + .04 + .01 = .14.
    """
    gold = np.asarray(right, int)
    if probabilities.ndim != 2 or len(probabilities) != len(gold) or not len(gold):
        raise DataError(f"{len(probabilities)} rows of probabilities for {len(gold)} answers", fix="give one for each")
    if not ((probabilities >= 0) & (probabilities <= 1)).all() or not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        raise DataError("a row of probabilities does not sum to 1", fix="give probabilities, not logits or percentages")
    if not ((gold >= 0) & (gold < probabilities.shape[1])).all():
        raise DataError("a right choice has no probability", fix="count choices from 0")
    wanted = np.eye(probabilities.shape[1])[gold]
    return float(((probabilities - wanted) ** 2).sum(1).mean())


def brier_of_answer(confidence: Numbers, correct: Numbers) -> float:
    """Give the Brier score of the chosen answer alone: mean (confidence - correct)^2, 0 to 1."""
    sure, right = _checked(confidence, correct)
    return float(((sure - right) ** 2).mean())


def selective_accuracy(confidence: Numbers, correct: Numbers, share: float = 0.1) -> float:
    """Give the accuracy on the `share` of rows the model is surest of, at least one (El-Yaniv and Wiener 2010).

    Where the cut falls among rows of equal confidence, their mean accuracy counts.
    """
    surest = _by_confidence(*_checked(confidence, correct))
    return float(surest[: max(1, int(share * len(surest)))].mean())


def selective_area(confidence: Numbers, correct: Numbers) -> float:
    """Give the mean of `selective_accuracy` over the shares 1/n, 2/n, ..., 1: HELM's area under the curve."""
    surest = _by_confidence(*_checked(confidence, correct))
    return float((np.cumsum(surest) / np.arange(1, len(surest) + 1)).mean())


def _by_confidence(sure: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give correctness from the surest row down, averaged among rows of equal confidence."""
    _, places, counts = np.unique(-sure, return_inverse=True, return_counts=True)
    return np.repeat(np.bincount(places, weights=right) / counts, counts)


def _checked(confidence: Numbers, correct: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if len(sure) != len(right) or not len(sure):
        raise DataError(
            f"{len(sure)} confidences for {len(right)} answers", fix="give one for each of at least one answer"
        )
    if not ((right >= 0) & (right <= 1)).all():
        raise DataError("an answer's correctness lies outside 0 to 1", fix="give 0 or 1 for each")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise DataError("a confidence lies outside 0 to 1", fix="give probabilities, not logits or percentages")
    return sure, right
