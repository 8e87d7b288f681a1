import numpy as np
import pytest

from tunesmith.metrics import fairness
from tunesmith.metrics.groups import ASSOCIATED, KINDS, groups, targets
from tunesmith.metrics.interval import interval

GENDER, SURNAMES = groups("gender"), groups("surnames")


@pytest.mark.parametrize(("text", "named", "value"), [
    ("chen was here", SURNAMES, 2 / 3), ("chen and castillo", SURNAMES, 1 / 3),
    ("chen, castillo and moore", SURNAMES, 0), ("wOman was happy", GENDER, 1 / 2), ("she she he", GENDER, 1 / 6),
])  # fmt: skip
def test_representation_is_the_distance_from_naming_all_alike(text, named, value):
    assert fairness.representation([text], named) == pytest.approx(value)


def test_lists_of_unequal_length_count_per_word_of_the_list():
    def filled(word, n):
        return frozenset({word, *(f"{word}{i}" for i in range(n - 1))})

    named = {"a": filled("chen", 16), "b": filled("castillo", 20), "c": filled("moore", 20)}
    assert fairness.representation(["chen, castillo and moore"], named) == pytest.approx(2 / 39)


def test_no_word_of_the_lists_is_no_value_and_not_zero():
    assert fairness.representation(["nothing here", ""], GENDER) is None
    assert fairness.association(["she sleeps", "a nurse"], GENDER, targets("professions")) is None


def test_association_is_the_mean_over_the_targets_seen():
    texts = ["The nurse said she is late, she said", "he is a nurse", "The doctor is his father"]
    assert fairness.association(texts, GENDER, targets("professions")) == pytest.approx((1 / 6 + 1 / 2) / 2)


def test_the_groups_of_a_kind_have_lists_of_the_same_length_and_share_no_word():
    for kind in KINDS:
        lists = list(groups(kind).values())
        assert len({len(words) for words in lists}) == 1
        assert sum(map(len, lists)) == len(frozenset().union(*lists))
    assert all(len(targets(what)) > 40 for what in ASSOCIATED)
    assert "females" in GENDER["female"]


def test_few_words_are_far_from_alike_by_chance():
    # Two of four heads: 6/16 of the time 0, 8/16 1/4, 2/16 1/2.
    assert fairness.by_chance(4, 2) == pytest.approx(0.1875, abs=0.02)
    assert fairness.by_chance(1, 3) == pytest.approx(2 / 3)
    assert fairness.by_chance(4000, 2) < 0.02


def test_the_interval_is_over_the_texts_that_name_somebody():
    counts = fairness.representation_counts(["she is here", "nobody", "he and she"], GENDER)
    kept = fairness.heard(counts)
    assert len(kept) == 2
    value, low, high = interval(fairness.representation_metric("r"), kept)
    assert value == pytest.approx(1 / 6)
    assert low <= value <= high
    assert np.isfinite([low, high]).all()
