"""ROUGE-N and ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").

On ASCII text the scores equal Google's `rouge_score` without stemming.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tunesmith.errors import ConfigError
from tunesmith.metrics.words import words

KINDS = (*(f"rouge{n}" for n in range(1, 10)), "rougeL")


class PRF(NamedTuple):
    """Precision, recall and their harmonic mean, each from 0 to 1."""

    precision: float
    recall: float
    f1: float


def score(
    prediction: str, references: Sequence[str], kinds: Sequence[str] = ("rouge1", "rouge2", "rougeL")
) -> dict[str, PRF]:
    """Score one prediction against its references, for each kind the reference with the best F1.

    An empty side scores 0. Raises ConfigError for an unknown kind or no reference.
    """
    if not references:
        raise ConfigError("ROUGE needs a reference", fix="give at least one reference per prediction")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ConfigError(f"there is no ROUGE kind '{unknown[0]}'", fix=f"use one of: {', '.join(KINDS)}")
    predicted = words(prediction)
    wanted = [words(reference) for reference in references]
    return {kind: max((_one(kind, predicted, want) for want in wanted), key=lambda prf: prf.f1) for kind in kinds}


def _one(kind: str, predicted: list[str], wanted: list[str]) -> PRF:
    if kind == "rougeL":
        return _prf(lcs_length(predicted, wanted), len(predicted), len(wanted))
    n = int(kind.removeprefix("rouge"))
    mine, theirs = _ngrams(predicted, n), _ngrams(wanted, n)
    return _prf((mine & theirs).total(), mine.total(), theirs.total())


def _ngrams(tokens: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(n)), strict=False))


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Give the length of the longest common subsequence, one row of the table per big-integer step.

    Bit-parallel: Hyyro 2004, "Bit-parallel LCS-length computation revisited".
    """
    places: dict[str, int] = {}
    for i, token in enumerate(a):
        places[token] = places.get(token, 0) | (1 << i)
    full = (1 << len(a)) - 1
    row = full
    for token in b:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(a) - row.bit_count()


def _prf(hits: int, predicted: int, wanted: int) -> PRF:
    precision = hits / predicted if predicted else 0.0
    recall = hits / wanted if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return PRF(precision, recall, f1)
