"""Whole-answer comparison."""

from collections.abc import Sequence

from tunesmith.metrics.words import words


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Give 1.0 if the prediction has the same words as any reference, else 0.0.

    Letter case, punctuation and spacing do not count; an empty prediction never matches.
    """
    said = words(prediction)
    return float(bool(said) and any(said == words(reference) for reference in references))
