"""The verb `score`: answers marked by several metrics, each with its interval."""

from collections.abc import Sequence
from typing import NamedTuple

from tunesmith.errors import DataError
from tunesmith.metrics import Metric, Stats, metric
from tunesmith.metrics.interval import Paired, interval, interval_name, paired

DEFAULT = ("rouge1", "rouge2", "rougeL")


class Mark(NamedTuple):
    """One metric over `n` answers with its 95 % interval; `empty` answers have no text, and count as they are.

    `signature` names every choice behind the value and the interval.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    empty: int
    signature: str


def score(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    metrics: Sequence[str] = DEFAULT,
    language: str = "en",
    seed: int = 0,
) -> list[Mark]:
    """Mark `predictions` against `references`, one or several for each, by each of `metrics`.

    >>> [(mark.metric, mark.value) for mark in score(["a cat sat"], ["a cat sat"], ["rouge1", "bleu"])]
    [('rouge1', 1.0), ('bleu', 0.0)]

    (Corpus BLEU is 0 there because three words hold no run of four.) Raises
    ConfigError for an unknown metric, DataError for no rows or a row without reference.
    """
    if isinstance(predictions, str):
        raise DataError("the predictions are one text, not a list of texts", fix="give a list of predictions")
    said, wanted = list(predictions), _lists(references)
    marked = ((one, one.stats(said, wanted)) for one in (metric(name, language) for name in metrics))
    return [_mark(one, stats, said, wanted, seed) for one, stats in marked]


def compare(
    a: Sequence[str],
    b: Sequence[str],
    references: Sequence[str | Sequence[str]],
    metrics: Sequence[str] = DEFAULT,
    language: str = "en",
) -> list[tuple[Mark, Mark, Paired]]:
    """Mark two sets of predictions for the same rows, and compare `b` with `a`, by each metric. Raises as `score`."""
    wanted = _lists(references)
    found = []
    for one in (metric(name, language) for name in metrics):
        before, after = one.stats(a, wanted), one.stats(b, wanted)
        found.append((_mark(one, before, a, wanted), _mark(one, after, b, wanted), paired(one, before, after)))
    return found


def _mark(
    one: Metric, stats: Stats, predictions: Sequence[str], references: Sequence[Sequence[str]], seed: int = 0
) -> Mark:
    value, low, high = interval(one, stats, seed)
    empty = sum(not text.strip() for text in predictions)
    numbers = {len(wanted) for wanted in references}
    number = str(numbers.pop()) if len(numbers) == 1 else "var"
    signature = f"{one.signature}|nrefs:{number}|interval:{interval_name(one, seed)}"
    return Mark(one.name, value, low, high, len(stats), empty, signature)


def _lists(references: Sequence[str | Sequence[str]]) -> list[Sequence[str]]:
    if isinstance(references, str):
        raise DataError("the references are one text, not one for each prediction", fix="give a list of references")
    return [(one,) if isinstance(one, str) else one for one in references]
