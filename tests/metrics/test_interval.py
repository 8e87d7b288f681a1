import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import ConfigError, DataError
from tunesmith.metrics import metric
from tunesmith.metrics.interval import (
    bootstrap,
    detectable,
    holm,
    interval,
    interval_name,
    mcnemar,
    paired,
    paired_bootstrap,
    sign_flip,
    wilson,
)

ROUGE = metric("rouge1")


def test_the_value_is_the_plain_mean_and_the_interval_that_of_normal_theory():
    rows = np.random.default_rng(1).normal(0.5, 0.1, size=(400, 1))
    error = rows.std(ddof=1) / 20
    for method in ("percentile", "bca"):
        found = bootstrap(ROUGE, rows, method=method)
        assert found.value == pytest.approx(rows.mean(), abs=1e-12)
        assert found.low == pytest.approx(rows.mean() - 1.96 * error, abs=0.15 * error)
        assert found.high == pytest.approx(rows.mean() + 1.96 * error, abs=0.15 * error)
        assert bootstrap(ROUGE, rows, method=method) == found


def test_the_spread_of_resamples_is_the_standard_error():
    # lighteval's was sd / sqrt(resamples): some thirty times too small.
    rows = np.random.default_rng(2).random((100, 1))
    found = bootstrap(ROUGE, rows)
    assert (found.high - found.low) / 3.92 == pytest.approx(rows.std() / 10, rel=0.1)


def test_bca_equals_scipys_on_skewed_rows():
    rows = np.random.default_rng(3).exponential(size=(60, 1))
    ours = bootstrap(ROUGE, rows, method="bca", resamples=20_000)
    theirs = scipy.stats.bootstrap((rows[:, 0],), np.mean, n_resamples=20_000, method="BCa", rng=0).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_bca_reaches_further_on_the_long_side():
    rows = np.random.default_rng(4).exponential(size=(40, 1)) ** 2
    plain, corrected = bootstrap(ROUGE, rows), bootstrap(ROUGE, rows, method="bca")
    assert corrected.high > plain.high
    assert corrected.low > plain.low


def test_rows_that_are_all_alike_have_an_interval_of_no_width():
    rows = np.full((20, 1), 0.25)
    for method in ("percentile", "bca"):
        assert bootstrap(ROUGE, rows, method=method) == (0.25, 0.25, 0.25)


def test_wilson_as_by_hand_and_as_scipy():
    assert wilson(8, 10) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    for right, n in ((0, 5), (5, 5), (37, 80)):
        theirs = scipy.stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right, n)[1:] == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    for right, n in ((0, 0), (11, 10)):
        with pytest.raises(DataError, match="is no share"):
            wilson(right, n)


def test_a_share_of_right_answers_never_claims_certainty():
    mark = metric("exact_match")
    found = interval(mark, np.ones((20, 1)))
    assert found == wilson(20, 20)
    assert found.low < 0.9
    assert interval_name(mark) == "wilson"
    assert "bootstrap" in interval_name(ROUGE)


def test_five_gains_of_five_have_the_exact_p_of_two_in_thirty_two():
    gains = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert sign_flip(gains) == pytest.approx(2 / 32)
    assert paired(ROUGE, np.zeros((5, 1)), np.array(gains)[:, None]).p == pytest.approx(2 / 32)


def test_drawn_sign_flips_come_near_scipys_permutation_test():
    differences = np.random.default_rng(5).normal(0.15, 0.5, 40)
    theirs = scipy.stats.permutation_test(
        (differences, np.zeros(40)), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples",
        vectorized=True, n_resamples=20_000, rng=0,
    ).pvalue  # fmt: skip
    assert sign_flip(differences) == pytest.approx(theirs, abs=0.01)


def test_mcnemar_as_by_hand_and_as_the_sign_flip_of_right_answers():
    a, b = [1] * 10 + [0] * 2 + [1] * 5, [0] * 10 + [1] * 2 + [1] * 5
    assert mcnemar(a, b) == pytest.approx(158 / 4096)
    assert mcnemar(a, a) == 1
    few = slice(4, 17)
    assert mcnemar(a[few], b[few]) == pytest.approx(sign_flip(np.array(a[few]) - np.array(b[few])))
    mark = metric("accuracy")
    assert paired(mark, np.array(a, float)[:, None], np.array(b, float)[:, None]).p == pytest.approx(158 / 4096)


@given(st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_equals_the_binomial_test(only_a, only_b):
    a, b = [True] * only_a + [False] * only_b + [True], [False] * only_a + [True] * only_b + [True]
    expected = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
    assert mcnemar(a, b) == pytest.approx(expected)


def test_holm_as_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferronis(p_values):
    n, order = len(p_values), sorted(p_values)
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        by_hand = max(min(1.0, (n - j) * q) for j, q in enumerate(order) if q <= p)
        assert adjusted == pytest.approx(by_hand)
        assert p <= adjusted <= min(1.0, n * p) + 1e-12


def test_the_smallest_detectable_difference_is_found_with_the_stated_power():
    assert detectable(100, 1.0) == pytest.approx((1.959964 + 0.841621) / 10, abs=1e-6)
    effect, random = detectable(50, 1.0), np.random.default_rng(6)
    found = [scipy.stats.ttest_1samp(random.normal(effect, 1, 50), 0).pvalue < 0.05 for _ in range(1000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_the_same_answers_differ_by_nothing():
    rows = np.random.default_rng(0).random((30, 1))
    assert paired(ROUGE, rows, rows) == (0.0, 0.0, 0.0, 1.0)
    assert paired_bootstrap(ROUGE, rows, rows).p == 1


def test_pairing_finds_what_unpaired_intervals_hide():
    random = np.random.default_rng(0)
    a = random.random((100, 1))
    b = a + 0.02 + random.normal(0, 0.02, size=(100, 1))
    for test in (paired, paired_bootstrap):
        found = test(ROUGE, a, b)
        assert found.p < 0.001
        assert 0 < found.low < found.difference < found.high
        assert test(ROUGE, b, a).difference == pytest.approx(-found.difference)


@pytest.mark.parametrize("test", [paired, paired_bootstrap])
def test_a_paired_test_of_noise_rejects_about_five_percent(test):
    random = np.random.default_rng(3)
    rejected = 0
    for _ in range(200):
        a, b = random.random((2, 30, 1))
        rejected += test(ROUGE, a, b).p < 0.05
    assert 2 <= rejected <= 22


def test_bleu_is_resampled_from_its_counts_and_tested_on_its_corpus_value():
    mark = metric("bleu")
    references = [(f"the cat number {i} sat on the mat today",) for i in range(40)]
    good = mark.stats([r[0] for r in references], references)
    bad = mark.stats(["a dog ran"] * 40, references)
    found = paired(mark, bad, good)
    assert found.difference == pytest.approx(1.0, abs=0.01)
    assert found.p < 0.001
    mixed = np.concatenate([good[:20], bad[:20]])
    draws = np.random.default_rng(0).integers(0, 40, size=(1000, 40))
    by_hand = np.quantile([mark.value(mixed[rows]) for rows in draws], [0.025, 0.975])
    assert bootstrap(mark, mixed)[1:] == pytest.approx(tuple(by_hand), abs=0.02)


def test_metrics_that_no_sum_determines_are_resampled_row_by_row():
    mark, random = metric("spearman"), np.random.default_rng(7)
    x = random.normal(size=60)
    stats = np.stack([x, x + random.normal(size=60)], axis=1)
    found = bootstrap(mark, stats, method="bca", resamples=500)
    theirs = scipy.stats.bootstrap(
        (stats[:, 0], stats[:, 1]), lambda a, b: scipy.stats.spearmanr(a, b).statistic, paired=True,
        vectorized=False, n_resamples=500, method="BCa", rng=0,
    ).confidence_interval  # fmt: skip
    assert found[1:] == pytest.approx((theirs.low, theirs.high), abs=0.05)


def test_blocks_do_not_change_the_numbers(monkeypatch):
    rows = np.random.default_rng(8).random((50, 1))
    whole = bootstrap(ROUGE, rows), paired(ROUGE, rows, rows[::-1].copy())
    monkeypatch.setattr("tunesmith.metrics.interval._BLOCK", 173)
    again = bootstrap(ROUGE, rows), paired(ROUGE, rows, rows[::-1].copy())
    for one, other in zip(whole, again, strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def test_intervals_hold_the_true_value_about_as_often_as_they_say():
    random = np.random.default_rng(9)
    held = 0
    for _ in range(200):
        found = bootstrap(ROUGE, random.beta(2, 5, size=(60, 1)), resamples=400)
        held += found.low <= 2 / 7 <= found.high
    assert 178 <= held <= 199


def test_different_numbers_of_rows_are_refused():
    for test in (paired, paired_bootstrap):
        with pytest.raises(DataError, match="3 answers against 4"):
            test(ROUGE, np.zeros((3, 1)), np.zeros((4, 1)))


def test_one_row_has_an_interval_too():
    assert bootstrap(ROUGE, np.array([[0.5]])) == (0.5, 0.5, 0.5)
    assert math.isclose(partial(bootstrap, method="bca")(ROUGE, np.array([[0.5]])).value, 0.5)


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e9])
def test_ties_count_as_extreme_at_any_scale(scale):
    differences = np.array([0.1, 0.2, 0.3, -0.1, 0.2, -0.3, 0.1, 0.2]) * scale
    signs = np.array(np.meshgrid(*[[1, -1]] * 8)).reshape(8, -1).T
    whole = np.round(np.abs(signs @ np.array([1, 2, 3, -1, 2, -3, 1, 2]))).astype(int)
    assert sign_flip(differences) == pytest.approx((whole >= 7).mean())


def test_mcnemar_is_quick_and_refuses_other_rows():
    assert mcnemar([True] * 20_000 + [False] * 20_000, [False] * 20_000 + [True] * 20_000) == 1
    with pytest.raises(DataError):
        mcnemar([True], [False] * 10)
    with pytest.raises(DataError):
        mcnemar([], [])


def test_an_unknown_bootstrap_is_refused():
    with pytest.raises(ConfigError, match="there is no bootstrap 'BCA'"):
        bootstrap(ROUGE, np.ones((2, 1)), method="BCA")
