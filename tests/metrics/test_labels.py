import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as sk

from tunesmith.errors import DataError
from tunesmith.metrics import labels, metric
from tunesmith.metrics.interval import paired

LABEL = st.sampled_from(["yes", "no", "maybe"])
PAIRS = st.lists(st.tuples(LABEL, LABEL), min_size=2, max_size=30)
NUMBERS = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=3, max_size=30)


def value(name, predictions, references):
    mark = metric(name)
    return mark.value(mark.stats(predictions, [(one,) for one in references]))


@given(PAIRS)
def test_labels_equal_scikit_learn(pairs):
    said, wanted = map(list, zip(*pairs, strict=True))
    assume(set(said) <= set(wanted) and len(set(wanted)) > 1)
    assert value("accuracy", said, wanted) == pytest.approx(sk.accuracy_score(wanted, said))
    assert value("macro_f1", said, wanted) == pytest.approx(sk.f1_score(wanted, said, average="macro", zero_division=0))
    assert value("micro_f1", said, wanted) == pytest.approx(sk.f1_score(wanted, said, average="micro"))
    assert value("matthews", said, wanted) == pytest.approx(sk.matthews_corrcoef(wanted, said), abs=1e-12)
    if "yes" in wanted:
        one = sk.f1_score(wanted, said, labels=["yes"], average="macro", zero_division=0)
        assert value("f1:yes", said, wanted) == pytest.approx(one)


def test_answers_that_are_no_label_are_wrong_and_one_class():
    said, wanted = ["Yes.", "no idea", "", "no"], ["yes", "yes", "no", "no"]
    labels = {"labels": ["yes", "no"], "zero_division": 0}
    plain = ["yes", "other", "other", "no"]
    assert value("macro_f1", said, wanted) == pytest.approx(sk.f1_score(wanted, plain, average="macro", **labels))
    assert value("micro_f1", said, wanted) == pytest.approx(sk.f1_score(wanted, plain, average="micro", **labels))
    assert value("matthews", said, wanted) == pytest.approx(sk.matthews_corrcoef(wanted, plain))
    assert value("accuracy", said, wanted) == 0.5


@given(NUMBERS)
def test_correlations_equal_scipy(pairs):
    said, wanted = map(np.array, zip(*pairs, strict=True))
    assume(np.ptp(said) > 0 and np.ptp(wanted) > 0)
    text = [str(number) for number in said], [str(number) for number in wanted]
    assert value("pearson", *text) == pytest.approx(scipy.stats.pearsonr(said, wanted).statistic, abs=1e-9)
    assert value("spearman", *text) == pytest.approx(scipy.stats.spearmanr(said, wanted).statistic, abs=1e-9)


def test_large_numbers_lose_no_precision():
    wanted = [str(1e6 + i / 10) for i in range(20)]
    said = [str(1e6 + (i + i % 3) / 10) for i in range(20)]
    expected = scipy.stats.pearsonr([float(x) for x in said], [float(x) for x in wanted]).statistic
    assert value("pearson", said, wanted) == pytest.approx(expected, abs=1e-6)


def test_an_answer_without_a_number_lowers_the_correlation():
    wanted = ["1", "2", "3", "4", "5"]
    assert value("pearson", ["score: 1.0", "2", "3", "4", "5"], wanted) == pytest.approx(1)
    filled = scipy.stats.pearsonr([1, 2, 4, 5, 3], [1, 2, 4, 5, 3.0]).statistic
    assert value("pearson", ["1", "2", "no idea", "4", "5"], wanted) == pytest.approx(filled)
    for name in ("pearson", "spearman"):
        assert value(name, ["1", "2", "3", "4", "?"], wanted) < 1
        assert value(name, ["", "?", "a", "b", "c"], wanted) == 0


def test_corpus_metrics_of_labels_have_paired_tests():
    wanted = [(label,) for label in ["yes", "no"] * 30]
    good, bad = [label for (label,) in wanted], ["yes"] * 60
    for name in ("macro_f1", "matthews", "spearman"):
        mark = metric(name)
        text = {"yes": "1", "no": "0"}  # numbers for the correlation, labels like any other for the rest
        truth = [(text[one],) for (one,) in wanted]
        a, b = (mark.stats([text[label] for label in side], truth) for side in (bad, good))
        found = paired(mark, a[:12], b[:12])
        assert found.difference > 0.4
        assert found.p < 0.05


@pytest.mark.parametrize(("name", "predictions", "references", "message"), [
    ("macro_f1", ["a"], [("a", "b")], "row 1 has 2 references"),
    ("matthews", ["a"] * 101, [(f"text {i}",) for i in range(101)], "101 different labels"),
    ("f1:yes", ["a"], [("no",)], "no reference is 'yes'"),
    ("pearson", ["1"], [("one",)], "row 1 has no number"),
])  # fmt: skip
def test_what_cannot_be_scored_is_refused(name, predictions, references, message):
    with pytest.raises(DataError, match=message):
        metric(name).stats(predictions, references)


def test_signs_tell_labels_apart():
    for name in ("accuracy", "macro_f1", "micro_f1"):
        assert value(name, ["1", "1"], ["-1", "1"]) < 1
        assert value(name, ["-1", "C#", "+"], ["-1", "C++", "-"]) < 1
        assert value(name, ["**Yes**.", " no "], ["yes", "No"]) == 1
        assert value(name, ["«yes»\r\n", "_no_\u2014"], ["yes", "no"]) == 1
        assert value(name, ["\ufeffनहीं।", "हाँ"], ["नहीं", "हाँ"]) == 1
    with pytest.raises(DataError, match="row 2 is no label"):
        metric("macro_f1").stats(["a", "b"], [("a",), ("...",)])


@pytest.mark.parametrize(("text", "number"), [
    ("GPT-4: 3.5", 3.5), ("1,000", 1000), ("-2", -2), ("score:-3", -3), ("３．５", 3.5), ("1e-3", 0.001), ("a1", None),
    ("4 of 5", 4), (".5", 0.5), ("1e999", None), ("\u22125", -5), ("4.5kg", 4.5), ("1,000km", 1000), ("5\u00b2", 5),
])  # fmt: skip
def test_the_first_number_that_stands_alone_counts(text, number):
    found = labels._number(text)
    assert np.isnan(found) if number is None else found == number
