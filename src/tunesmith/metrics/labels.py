"""Labels and numbers: accuracy, F1 per label, Matthews' and the two correlations.

Labels are the same if they are so without letter case, outer punctuation and
spacing: "Yes." is "yes", but "-1" is not "1" and "C++" is not "C#". An answer
that is none of the references' labels is wrong and counts as one further
label, "other"; its share is what a prompt or an extractor should bring down.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np

from tunesmith.errors import DataError
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.metrics.text import by_row

MOST_LABELS = 100
SIGNATURE = f"labels:nfkc-casefold-bare|version:tunesmith-{version('tunesmith')}"
# Digits inside a name (GPT-4) are no number; commas may set off thousands.
_NUMBER = re.compile(r"(?<![\w.-])[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_SIGNS = str.maketrans(
    {"\N{MINUS SIGN}": "-", **dict.fromkeys("\u00b9\u00b2\u00b3\u2070\u2074\u2075\u2076\u2077\u2078\u2079", " ")}
)


def label(text: str) -> str:
    """Give the form in which labels are compared."""
    bare = _outer().sub("", unicodedata.normalize("NFKC", text).translate(_SIGNS).casefold())
    return " ".join(bare.split())


@cache
def _outer() -> Any:
    """Match punctuation and spaces at either end, but for the signs that tell labels apart."""
    import regex

    return regex.compile(r"^[[\p{P}\p{Cf}\s`]--[-#%&@]]+|[[\p{P}\p{Cf}\s`]--[-#%&@]]+$", regex.VERSION1)


def accuracy() -> Metric:
    """Make the share of answers whose label is that of any reference; an empty answer never is."""

    def mark(prediction: str, references: Sequence[str]) -> float:
        said = label(prediction)
        return float(bool(said) and any(said == label(reference) for reference in references))

    return by_row("accuracy", mark, f"accuracy|any|{SIGNATURE}", proportion=True)


def label_metric(name: str, of_counts: Callable[[Stats, Stats, Stats], Stats]) -> Metric:
    """Make a metric of (right, said, wanted) counts per label, each [k, labels]; the last label is "other"."""

    def rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        return _counts(name, predictions, references)

    def of_sums(sums: Stats, _n: int) -> Stats:
        right, said, wanted = np.split(sums, 3, axis=1)
        return of_counts(right, said, wanted)

    return Metric(name, rows, f"{name}|{SIGNATURE}|other:one-label", of_sums, by_row=False)


def f1_of(positive: str) -> Metric:
    """Make the F1 of one label, as GLUE's F1 of the positive class (MRPC, QQP). Raises DataError if no row has it."""
    name = f"f1:{positive}"

    def rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        said = np.array([label(text) == label(positive) for text in predictions])
        wanted = np.array([label(one) == label(positive) for one in _only(name, references)])
        if not wanted.any():
            raise DataError(f"{name}: no reference is '{positive}'", fix="name a label that the references have")
        return np.stack([said & wanted, said, wanted], axis=1).astype(np.float64)

    def of_sums(sums: Stats, _n: int) -> Stats:
        return _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])

    return Metric(name, rows, f"{name}|positive|{SIGNATURE}", of_sums, by_row=False)


def macro_f1(right: Stats, said: Stats, wanted: Stats) -> Stats:
    """Give the mean F1 over the references' labels, each counting alike (scikit-learn's `average="macro"`)."""
    present = wanted[:, :-1] + said[:, :-1] > 0  # a resample may lack a label altogether
    f1 = _ratio(2 * right, said + wanted)[:, :-1]
    return _ratio((f1 * present).sum(1), present.sum(1).astype(np.float64))


def micro_f1(right: Stats, said: Stats, wanted: Stats) -> Stats:
    """Give the F1 of all decisions pooled; "other" answers lower recall alone."""
    return _ratio(2 * right[:, :-1].sum(1), said[:, :-1].sum(1) + wanted[:, :-1].sum(1))


def matthews(right: Stats, said: Stats, wanted: Stats) -> Stats:
    """Give Matthews' correlation, for any number of labels (Gorodkin 2004); 0 where one side has a single label."""
    n, hits = wanted.sum(1), right.sum(1)
    covariance = hits * n - (said * wanted).sum(1)
    return _ratio(covariance, np.sqrt((n**2 - (said**2).sum(1)) * (n**2 - (wanted**2).sum(1))))


def pearson() -> Metric:
    """Make Pearson's correlation of the numbers in answers and references.

    An answer without a number is taken as the mean of the others, which
    adds nothing to the covariance: it lowers the correlation, and no scale has to be assumed.
    """

    def of_sums(sums: Stats, n: int) -> Stats:
        known, x, xx, xy, y_known, y, yy = sums.T
        mean = _ratio(x, known)
        spread = np.sqrt(np.maximum(xx - known * mean**2, 0) * np.maximum(yy - y**2 / n, 0))
        return _ratio(xy - mean * y_known, spread)

    def rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        pairs = _numbers("pearson", predictions, references)
        x, y = pairs.T - np.nanmean(pairs[:, 1])  # closer to zero, so that sums of squares lose nothing
        known, said = ~np.isnan(x), np.nan_to_num(x)
        return np.stack([known, said, said**2, said * y, known * y, y, y**2], axis=1)

    return Metric("pearson", rows, "pearson|number:first", of_sums, by_row=False)


def spearman() -> Metric:
    """Make Spearman's rank correlation; ties share their mean rank, an answer without a number takes the middle."""

    def rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        pairs = _numbers("spearman", predictions, references)
        known = pairs[~np.isnan(pairs[:, 0]), 0]
        return np.nan_to_num(pairs, nan=float(np.median(known)) if len(known) else 0.0)

    def of_rows(stats: Stats) -> float:
        x, y = (_ranks(column) for column in stats.T)
        x, y = x - x.mean(), y - y.mean()
        spread = math.sqrt(float((x * x).sum() * (y * y).sum()))
        return float((x * y).sum()) / spread if spread else 0.0

    return Metric("spearman", rows, "spearman|number:first", of_rows=of_rows, by_row=False)


def _ratio(above: Stats, below: Stats) -> Stats:
    return np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0)


def _ranks(column: Stats) -> Stats:
    _, places, counts = np.unique(column, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[places]


def _only(name: str, references: Sequence[Sequence[str]]) -> list[str]:
    many = next((i for i, wanted in enumerate(references) if len(wanted) != 1), None)
    if many is not None:
        raise DataError(f"{name}: row {many + 1} has {len(references[many])} references", fix="give exactly one label")
    return [wanted[0] for wanted in references]


def _counts(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
    wanted = [label(one) for one in _only(name, references)]
    if "" in wanted:
        raise DataError(
            f"{name}: the reference of row {wanted.index('') + 1} is no label", fix="give one with a letter"
        )
    labels = {one: i for i, one in enumerate(sorted(set(wanted)))}
    if len(labels) > MOST_LABELS:
        raise DataError(
            f"{name}: the references have {len(labels)} different labels", fix="use rouge1 or squad_f1 for free text"
        )
    other, width = len(labels), len(labels) + 1
    said = np.array([labels.get(label(text), other) for text in predictions])
    gold = np.array([labels[one] for one in wanted])
    kinds = np.eye(width)
    right = kinds[gold] * (said == gold)[:, None]
    return np.concatenate([right, kinds[said], kinds[gold]], axis=1)


def _numbers(name: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
    wanted = [_number(one) for one in _only(name, references)]
    if any(math.isnan(number) for number in wanted):
        row = next(i for i, number in enumerate(wanted) if math.isnan(number))
        raise DataError(f"{name}: the reference of row {row + 1} has no number", fix="give a number as reference")
    return np.array([[_number(said), number] for said, number in zip(predictions, wanted, strict=True)])


def _number(text: str) -> float:
    found = _NUMBER.search(unicodedata.normalize("NFKC", text.translate(_SIGNS)))
    number = float(found.group().replace(",", "")) if found else math.nan
    return number if math.isfinite(number) else math.nan
