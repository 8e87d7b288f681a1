import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import ConfigError, DataError
from tunesmith.metrics import METRICS, metric
from tunesmith.metrics.interval import bootstrap, paired

SENTENCE = st.text(st.sampled_from("abc dog cat.,"), min_size=1, max_size=40)


def value(name, predictions, references):
    mark = metric(name)
    stats = mark.stats(predictions, references)
    return float(mark.values(stats.sum(0, keepdims=True), len(stats))[0])


@given(st.lists(st.tuples(SENTENCE, SENTENCE, SENTENCE), min_size=1, max_size=6))
def test_bleu_equals_sacrebleu(rows):
    predictions = [row[0] for row in rows]
    streams = [[row[1] for row in rows], [row[2] for row in rows]]
    ours = value("bleu", predictions, [(row[1], row[2]) for row in rows])
    assert ours * 100 == pytest.approx(sacrebleu.corpus_bleu(predictions, streams).score, abs=1e-8)


def test_exact_match_ignores_case_and_punctuation_and_empty_answers():
    assert value("exact_match", ["Blue.", "red", ""], [("blue",), ("green", "Red"), ("",)]) == pytest.approx(2 / 3)


def test_no_answers_are_no_score():
    with pytest.raises(DataError, match="there are no answers"):
        metric("rouge1").stats([], [])


def test_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(ConfigError) as error:
        metric("rogue1")
    assert error.value.fix == "did you mean 'rouge1'?"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_how_it_was_computed(name):
    assert METRICS[name].signature


def test_the_value_is_the_plain_mean_and_the_interval_that_of_normal_theory():
    rows = np.random.default_rng(1).normal(0.5, 0.1, size=(400, 1))
    found = bootstrap(metric("rouge1"), rows)
    error = rows.std(ddof=1) / 20
    assert found.value == pytest.approx(rows.mean(), abs=1e-12)
    assert found.low == pytest.approx(rows.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(rows.mean() + 1.96 * error, abs=0.15 * error)
    assert bootstrap(metric("rouge1"), rows) == found


def test_five_gains_of_five_have_the_exact_p_of_two_in_thirty_two():
    a = np.zeros((5, 1))
    assert paired(metric("rouge1"), a, a + np.array([[0.1], [0.2], [0.3], [0.4], [0.5]])).p == pytest.approx(2 / 32)


def test_the_same_answers_differ_by_nothing():
    rows = np.random.default_rng(0).random((30, 1))
    assert paired(metric("rouge1"), rows, rows) == (0.0, 0.0, 0.0, 1.0)


def test_pairing_finds_what_unpaired_intervals_hide():
    random = np.random.default_rng(0)
    a = random.random((100, 1))
    b = a + 0.02 + random.normal(0, 0.02, size=(100, 1))
    found = paired(metric("rouge1"), a, b)
    assert found.p < 0.001
    assert 0 < found.low < found.difference < found.high
    assert paired(metric("rouge1"), b, a).difference == pytest.approx(-found.difference)


def test_a_paired_test_of_noise_rejects_about_five_percent():
    random = np.random.default_rng(3)
    rejected = 0
    for _ in range(200):
        a, b = random.random((2, 12, 1))
        rejected += paired(metric("rouge1"), a, b).p < 0.05
    assert 2 <= rejected <= 20


def test_bleu_is_tested_on_its_corpus_value():
    mark = metric("bleu")
    references = [(f"the cat number {i} sat on the mat today",) for i in range(40)]
    good = mark.stats([r[0] for r in references], references)
    bad = mark.stats(["a dog ran"] * 40, references)
    found = paired(mark, bad, good)
    assert found.difference == pytest.approx(1.0, abs=0.01)
    assert found.p < 0.001


def test_different_numbers_of_rows_are_refused():
    with pytest.raises(DataError, match="3 answers against 4"):
        paired(metric("rouge1"), np.zeros((3, 1)), np.zeros((4, 1)))


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="nan"):
        bootstrap(metric("rouge1"), np.array([[np.nan], [0.5]]))
