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
    return [_mark(metric(name, language), said, wanted, seed) for name in metrics]


def compare(
    a: Sequence[str], b: Sequence[str], references: Sequence[str | Sequence[str]], name: str, language: str = "en"
) -> Paired:
    """Compare predictions `b` with predictions `a` by one metric, row by row. Raises as `score`."""
    one = metric(name, language)
    wanted = _lists(references)
    return paired(one, one.stats(a, wanted), one.stats(b, wanted))


def _mark(one: Metric, predictions: Sequence[str], references: Sequence[Sequence[str]], seed: int) -> Mark:
    stats: Stats = one.stats(predictions, references)
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
