"""Choices: which answer a model finds likeliest, and what long answers are given for their length."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError
from tunesmith.names import pick

Norm = Literal["none", "chars", "bytes", "mutual_information"]


def normalised(
    log_likelihoods: Sequence[float],
    choices: Sequence[str],
    norm: Norm = "none",
    without_context: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """Give the score of each choice from its log-likelihood in nats.

    A long answer is less likely for its length alone. "chars" divides by the
    choice's characters (lm-eval's acc_norm), "bytes" by its UTF-8 bytes
    (acc_bytes: right where choices mix scripts), "mutual_information" subtracts its
    log-likelihood without the question (`without_context`, Holtzman et al. 2021).
    Raises ConfigError for another norm, DataError for an empty choice, sides that
    differ in number, or a score that is not a number.
    """
    pick(dict.fromkeys(("none", "chars", "bytes", "mutual_information")), norm, "way to pay for length")
    scores = np.asarray(log_likelihoods, np.float64)
    if len(scores) != len(choices) or not choices:
        raise DataError(f"{len(scores)} log-likelihoods for {len(choices)} choices", fix="give one for each choice")
    if norm in ("chars", "bytes"):
        sizes = [len(choice.encode() if norm == "bytes" else choice) for choice in choices]
        if not all(sizes):
            raise DataError("a choice is empty: it has no length to divide by", fix='use norm="none"')
        scores = scores / sizes
    elif norm == "mutual_information":
        if without_context is None or len(without_context) != len(choices):
            raise DataError("mutual information needs each choice's log-likelihood without its question",
                            fix="score the choices after an empty question, too")  # fmt: skip
        scores = scores - np.asarray(without_context, np.float64)
    if np.isnan(scores).any():
        raise DataError("a choice's score is not a number", fix="look at that choice's log-likelihood")
    return scores


def credit(scores: Sequence[float] | NDArray[np.float64], right: int) -> float:
    """Give 1 if choice `right` scores highest, 0 if not, 1/k if it shares the first place with k - 1 others.

    Taking the first of tied choices, as lm-eval does, favours answer A.
    """
    found = np.asarray(scores, np.float64)
    if np.isnan(found).any() or not 0 <= right < len(found):
        raise DataError("a choice's score is not a number, or the right one is none of them", fix="look at that row")
    best = np.flatnonzero(found == found.max())
    return 1.0 / len(best) if right in best else 0.0
