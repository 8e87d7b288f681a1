import numpy as np
import pytest

from tunesmith.errors import ConfigError, DataError
from tunesmith.metrics import LOWER_IS_BETTER, METRICS, UNPARSED, Metric, metric
from tunesmith.metrics.interval import bootstrap, paired, wilson
from tunesmith.metrics.score import score

NAMES = (*METRICS, "rouge1", "rougeLsum", "rougeSU4", "rougeW:1.5", "rouge1+stem", "rouge2+zh+stem", "f1:2")
TRUTH = [("1",), ("2",), ("2",), ("3",), ("1",), ("2",)]


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_says_how_it_was_computed(name):
    assert metric(name).name == name
    assert metric(name).signature.startswith(name.partition("+")[0])


@pytest.mark.parametrize("name", [name for name in NAMES if name != UNPARSED])
def test_every_metric_prefers_right_answers_and_can_be_compared(name):
    mark = metric(name)
    truth = [tuple(" ".join([text] * 6) for text in row) for row in TRUTH] if name == "bleu" or "S" in name else TRUTH
    good = [row[0] for row in truth]
    bad = [good[(i + 1) % 6] for i in range(6)]
    a, b = mark.stats(bad, truth), mark.stats(good, truth)
    found = paired(mark, a, b)
    assert (found.difference < 0) == (name in LOWER_IS_BETTER)
    assert found.low <= found.difference <= found.high
    assert found.difference == pytest.approx(-paired(mark, b, a).difference)
    interval = bootstrap(mark, a, resamples=100)
    assert interval.low <= interval.value <= interval.high


@pytest.mark.parametrize("name", NAMES)
def test_empty_answers_count_and_win_nothing(name):
    mark = metric(name)
    empty = mark.value(mark.stats([""] * 6, TRUTH))
    assert empty == (1 if name in LOWER_IS_BETTER else 0)


@pytest.mark.parametrize("name", ["rouge1", "bleu", "exact_match", "spearman"])
def test_no_answers_are_no_score(name):
    with pytest.raises(DataError, match="there are no answers"):
        metric(name).stats([], [])
    with pytest.raises(DataError, match="row 2 has no reference"):
        metric(name).stats(["1", "2"], [("1",), ()])
    with pytest.raises(DataError, match="1 answers, 2 references"):
        metric(name).stats(["1"], [("1",), ("2",)])
    with pytest.raises(DataError, match="nan is float, not text"):
        metric(name).stats([float("nan")], [("1",)])


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="nan"):
        bootstrap(metric("rouge1"), np.array([[np.nan], [0.5]]))
    broken = Metric("ratio", lambda said, _wanted: np.array([[1.0], [np.inf]]), "ratio")
    with pytest.raises(DataError, match="ratio: the score of row 2 is not a number"):
        broken.stats(["a", "b"], [("a",), ("b",)])


def test_the_share_of_unparsed_answers_has_an_interval_and_can_be_compared():
    (mark,) = score(["", "2", " ", "3", "1"], ["1", "2", "2", "3", "1"], [UNPARSED])
    assert (mark.value, mark.n, mark.empty) == (0.4, 5, 2)
    assert (mark.low, mark.high) == pytest.approx(wilson(2, 5)[1:])
    assert "wilson" in mark.signature
    one = metric(UNPARSED)
    found = paired(one, one.stats(["", ""], [("1",)] * 2), one.stats(["1", "2"], [("1",)] * 2))
    assert found.difference == -1


def test_an_unknown_metric_is_answered_with_the_nearest():
    for wrong, right in (
        ("rogue1", "rouge1"),
        ("belu", "bleu"),
        ("rougeLsun", "rougeLsum"),
        ("matthew", "matthews"),
        ("rougel", "rougeL"),
        ("rouge1+stam", "zh"),
    ):
        with pytest.raises(ConfigError) as error:
            metric(wrong)
        assert right in error.value.fix
    with pytest.raises(ConfigError, match="names two tokenizers"):
        metric("rouge1+zh+ja")
    with pytest.raises(ConfigError, match="outside 1 to 10"):
        metric("rougeW:0.5")
