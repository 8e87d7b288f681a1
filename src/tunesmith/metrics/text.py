"""Whole answers and shared words: exact match, and SQuAD's exact match and F1."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tunesmith.metrics.metric import Metric, Stats
from tunesmith.metrics.words import bare_pieces, words

_ARTICLES = {"a", "an", "the"}


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Give 1.0 if the prediction has the same words as any reference, else 0.0.

    Letter case, punctuation and spacing do not count; an empty prediction never matches.
    """
    said = words(prediction)
    return float(bool(said) and any(said == words(reference) for reference in references))


def verbatim(prediction: str, references: Sequence[str]) -> float:
    """Give 1.0 if the prediction is any reference character by character, else 0.0; the width of spaces aside.

    For answers that are signs, such as brackets, of which `exact_match` sees nothing.
    """
    said = prediction.split()
    return float(bool(said) and any(said == reference.split() for reference in references))


def squad_words(text: str) -> list[str]:
    """Cut `text` as SQuAD's script does: lower case, no punctuation, no articles, words between spaces.

    Punctuation is taken out, not replaced ("U.S." is "us"). Unlike the script,
    punctuation of all scripts goes, and scripts without spaces are cut into characters.
    """
    return [word for word in bare_pieces(text) if word not in _ARTICLES]


def squad_exact(prediction: str, references: Sequence[str]) -> float:
    """Give 1.0 if the prediction equals any reference in `squad_words`, else 0.0; an empty prediction never does."""
    said = squad_words(prediction)
    return float(bool(prediction.strip()) and any(said == squad_words(reference) for reference in references))


def squad_f1(prediction: str, references: Sequence[str]) -> float:
    """Give the best F1 of shared words with any reference (Rajpurkar et al. 2016, section 6.1).

    Words are counted as often as they occur: prediction "cat cat sat" against
    "cat sat sat" shares cat and sat once each, so F1 = 2·2/(3 + 3) = 2/3.
    """
    said = Counter(squad_words(prediction))
    return max(_f1(said, Counter(squad_words(reference))) for reference in references)


def _f1(a: Counter[str], b: Counter[str]) -> float:
    return 2 * (a & b).total() / (a.total() + b.total()) if a and b else 0.0


def by_row(name: str, mark: Callable[[str, Sequence[str]], float], signature: str, *, proportion: bool) -> Metric:
    """Make a metric that is the mean of `mark` over rows."""

    def rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        return np.array([[mark(said, wanted)] for said, wanted in zip(predictions, references, strict=True)])

    return Metric(name, rows, signature, proportion=proportion)
