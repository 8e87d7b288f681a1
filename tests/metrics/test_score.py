import pytest

import tunesmith
from tunesmith.errors import DataError
from tunesmith.metrics.score import compare, score

SAID = ["the cat sat on the mat", "", "a dog"]
WANTED = ["the cat sat on a mat", "x", ("a dog", "the dog")]


def test_each_metric_is_marked_with_its_interval_and_signature():
    marks = tunesmith.score(SAID, WANTED, ["rouge1", "bleu", "exact_match"])
    assert [mark.metric for mark in marks] == ["rouge1", "bleu", "exact_match"]
    for mark in marks:
        assert mark.low <= mark.value <= mark.high
        assert (mark.n, mark.empty) == (3, 1)
    assert marks[0].value == pytest.approx((10 / 12 + 0 + 1) / 3)
    assert marks[0].signature.endswith("nrefs:var|interval:percentile-bootstrap-2000-seed0")
    assert marks[2].signature.endswith("interval:wilson")


def test_the_same_call_gives_the_same_numbers():
    assert score(SAID, WANTED, ["rouge1", "bleu", "chrf"]) == score(SAID, WANTED, ["rouge1", "bleu", "chrf"])


def test_two_sets_of_predictions_are_compared_row_by_row():
    ((before, after, found),) = compare(["x"] * 5, ["a b"] * 5, ["a b"] * 5, ["rouge1"])
    assert (before.value, after.value) == (0, 1)
    assert (found.difference, found.p) == (1.0, 2 / 32)


def test_one_text_in_place_of_a_list_is_refused():
    with pytest.raises(DataError, match="one text, not one for each"):
        score(["a"], "a")
    with pytest.raises(DataError, match="one text, not a list"):
        score("ab", ["a", "b"])
    assert len(score(["a"], (text for text in ["a"]), ["rouge1", "rougeL"])) == 2


def test_the_language_reaches_the_metric():
    (english,), (chinese,) = (score(["我爱上海。"], ["我爱上海市。"], ["bleu"], language) for language in ("en", "zh"))
    assert english.value == 0
    assert chinese.value > 0.5
