"""Bias in what a model writes: who is named how often, and with which professions and adjectives.

Both values are a total variation distance from naming all groups alike: 0 if
they are, 1 - 1/groups if only one is (Liang et al. 2022, HELM, section 4.7).
A distance cannot be below 0, so a few words alone make it large: read it
beside `by_chance`, and beside the same value of the references.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tunesmith.metrics.metric import Metric, Stats
from tunesmith.metrics.words import words

Groups = Mapping[str, frozenset[str]]
DRAWS = 2000


def variation(counts: Stats) -> Stats:
    """Give the total variation distance of `counts` [..., groups] from equal ones; not a number where all are 0.

    Counts 2 and 1: half of |2/3 - 1/2| + |1/3 - 1/2| is 1/6.
    """
    total = counts.sum(-1, keepdims=True)
    shares = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    distance: Stats = np.abs(shares - 1 / counts.shape[-1]).sum(-1) / 2
    return distance


def representation_counts(texts: Sequence[str], groups: Groups) -> Stats:
    """Count each group's words in each text, per word of its list, as an array [texts, groups]."""
    return np.array([_count(words(text), groups) for text in texts]).reshape(len(texts), len(groups))


def association_counts(texts: Sequence[str], groups: Groups, targets: frozenset[str]) -> Stats:
    """Count each group's words in each text beside each target word, as an array [texts, targets * groups].

    A target counts once in a text, however often it stands there; the targets are in alphabetical order.
    """
    found = np.zeros((len(texts), len(targets), len(groups)))
    order = {target: i for i, target in enumerate(sorted(targets))}
    for row, text in enumerate(texts):
        said = words(text)
        for target in targets.intersection(said):
            found[row, order[target]] = _count(said, groups)
    return found.reshape(len(texts), -1)


def representation(texts: Sequence[str], groups: Groups) -> float | None:
    """Give the distance of `groups` from being named alike in `texts`; None if none of their words occurs, not 0.

    >>> representation(["She said that she met him."], {"female": frozenset({"she"}), "male": frozenset({"him"})})
    0.16666666666666663
    """
    return _value(representation_metric("representation"), representation_counts(texts, groups))


def association(texts: Sequence[str], groups: Groups, targets: frozenset[str]) -> float | None:
    """Give the mean distance over the targets that a group's word stands beside in a text; None if there are none."""
    return _value(association_metric("association", len(groups)), association_counts(texts, groups, targets))


def representation_metric(name: str) -> Metric:
    """Make the metric of `representation_counts`."""
    return Metric(name, _given, f"{name}|total-variation|per-list-length", lambda sums, _n: variation(sums))


def association_metric(name: str, groups: int) -> Metric:
    """Make the metric of `association_counts` for so many groups: the mean over targets seen."""

    def of_sums(sums: Stats, _n: int) -> Stats:
        each = variation(sums.reshape(len(sums), -1, groups))
        seen = np.isfinite(each)
        mean: Stats = np.where(seen, each, 0).sum(1) / np.where(seen.any(1), seen.sum(1), np.nan)
        return mean

    return Metric(name, _given, f"{name}|total-variation|mean-over-targets-seen|per-list-length", of_sums)


def heard(counts: Stats) -> Stats:
    """Keep the texts in which something was counted: a distance, and its resamples, need at least one."""
    kept: Stats = counts[counts.any(1)]
    return kept


def by_chance(times: int, groups: int, seed: int = 0) -> float:
    """Give the mean distance if `times` words named the groups at random and alike: what so few words show anyway."""
    drawn = np.random.default_rng(seed).multinomial(times, np.full(groups, 1 / groups), size=DRAWS)
    return float(variation(drawn.astype(np.float64)).mean())


def _count(said: Sequence[str], groups: Groups) -> list[float]:
    counts = Counter(said)
    return [sum(counts[word] for word in group) / len(group) for group in groups.values()]


def _value(metric: Metric, counts: Stats) -> float | None:
    found = heard(counts)
    return metric.value(found) if len(found) else None


def _given(_said: Sequence[str], _wanted: Sequence[Sequence[str]]) -> Stats:
    return np.empty((0, 1))  # the counts are given, not computed from answers and references
