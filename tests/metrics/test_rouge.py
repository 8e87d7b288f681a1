import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tunesmith.errors import ConfigError
from tunesmith.metrics import rouge
from tunesmith.metrics.words import words

KINDS = ("rouge1", "rouge2", "rouge3", "rougeL")
GUNMAN = "police killed the gunman"


@pytest.mark.parametrize(("prediction", "expected"), [
    ("police kill the gunman", (0.75, 0.33333, 0.75)),
    ("the gunman kill police", (0.75, 0.33333, 0.5)),
    ("the gunman police killed", (1.0, 0.66667, 0.5)),
])  # fmt: skip
def test_the_examples_of_the_rouge_paper(prediction, expected):
    scores = rouge.score(prediction, [GUNMAN])
    assert [scores[kind].f1 for kind in ("rouge1", "rouge2", "rougeL")] == pytest.approx(expected, abs=1e-5)


def test_repeated_words_count_once_for_each_time_they_occur():
    scores = rouge.score("the the the the", ["the cat the dog"])
    assert scores["rouge1"].f1 == 0.5
    assert scores["rougeL"].f1 == 0.5
    assert scores["rouge2"].f1 == 0


def test_precision_and_recall_are_kept_apart():
    score = rouge.score("testing", ["testing one two"])["rouge1"]
    assert score == pytest.approx((1.0, 1 / 3, 0.5))


ASCII = st.text(st.sampled_from("abAB 12,.-'\n"), max_size=60)


@given(ASCII, ASCII)
def test_ascii_scores_equal_rouge_score(prediction, reference):
    theirs = RougeScorer(list(KINDS)).score(reference, prediction)
    ours = rouge.score(prediction, [reference], KINDS)
    for kind in KINDS:
        assert tuple(ours[kind]) == pytest.approx(tuple(theirs[kind]), abs=1e-12)


@given(ASCII, st.lists(ASCII, min_size=1, max_size=3))
def test_of_several_references_the_best_f1_counts(prediction, references):
    theirs = RougeScorer(["rouge1", "rougeL"]).score_multi(references, prediction)
    ours = rouge.score(prediction, references, ("rouge1", "rougeL"))
    for kind in ours:
        assert ours[kind].f1 == pytest.approx(theirs[kind].fmeasure, abs=1e-12)


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.lists(st.sampled_from("abcd"), max_size=40))
def test_the_bit_parallel_length_equals_the_table(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    assert rouge.lcs_length(a, b) == table[-1][-1]


def test_empty_sides_score_zero():
    for prediction, reference in (("", "a"), ("a", ""), ("", ""), ("...", "a")):
        assert rouge.score(prediction, [reference])["rouge1"].f1 == 0


def test_accents_and_scripts_without_spaces_are_counted():
    assert rouge.score("café crème", ["cafe creme"])["rouge1"].f1 == 0
    assert rouge.score("我爱北京", ["我爱北京"])["rouge2"].f1 == 1
    assert words("Zoë trinkt Ｔee") == ["zoë", "trinkt", "tee"]
    assert words("我喜歡喝茶。") == list("我喜歡喝茶")


def test_unknown_kinds_and_missing_references_are_refused():
    with pytest.raises(ConfigError, match="rougeQ"):
        rouge.score("a", ["a"], ("rougeQ",))
    with pytest.raises(ConfigError, match="needs a reference"):
        rouge.score("a", [])
