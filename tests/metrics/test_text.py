import pytest

from tunesmith.metrics import metric
from tunesmith.metrics.text import squad_exact, squad_f1, squad_words


def test_exact_match_ignores_case_and_punctuation_and_empty_answers():
    mark = metric("exact_match")
    stats = mark.stats(["Blue.", "red", "", "我喝茶"], [("blue",), ("green", "Red"), ("",), ("我喝茶。",)])
    assert mark.value(stats) == pytest.approx(3 / 4)


def test_verbatim_sees_the_signs_that_exact_match_does_not():
    mark = metric("verbatim")
    stats = mark.stats(["] )", ") ]", "Blue.", ""], [("]  )\n",), ("] )",), ("red", "Blue."), ("",)])
    assert stats.ravel().tolist() == [1, 0, 1, 0]


def test_squad_counts_words_as_often_as_they_occur():
    assert squad_f1("cat cat sat", ["cat sat sat"]) == pytest.approx(2 / 3)
    assert squad_f1("The U.S. army", ["us army", "army"]) == 1
    assert squad_f1("a b", ["c"]) == squad_f1("", ["c"]) == squad_f1("", [""]) == squad_f1("the", ["the"]) == 0


def test_squad_takes_punctuation_and_articles_out():
    assert squad_words("An isn't-it, the A-team!") == ["isntit", "ateam"]
    assert squad_exact("The Cat.", ["dog", "cat"]) == 1
    assert squad_exact("", [""]) == 0
    assert squad_exact("A", ["a", "B"]) == 1  # though nothing is left of it, as in SQuAD's script


def test_squad_counts_unspaced_scripts_by_character():
    assert squad_words("「北京」，中国 the 2024") == ["北", "京", "中", "国", "2024"]
    assert squad_f1("1990\u20131995", ["1990"]) == 0
    assert squad_f1("it\u2019s paris", ["it's paris"]) == 1
    assert squad_f1("北京市", ["北京"]) == pytest.approx(4 / 5)
