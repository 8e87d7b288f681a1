import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from tunesmith.errors import ConfigError, DataError
from tunesmith.metrics import rouge
from tunesmith.metrics.kinds import Grams

SHARED = Path(__file__).parents[3] / "shared" / "data"
THEIRS = (*(f"rouge{n}" for n in range(1, 10)), "rougeL", "rougeLsum")
FAMILY = (*rouge.KINDS, "rougeW:1.5", "rougeS0", "rougeSU2")
GUNMAN = "police killed the gunman"
ASCII = st.text(st.sampled_from("abAB 12,.-'\n"), max_size=60)
WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "mat", "dogs", "running"]), max_size=14).map(" ".join)
LINES = st.lists(WORDS, max_size=4).map("\n".join)


def f1(prediction, references, kind, **options):
    return rouge.score(prediction, references, (kind,), **options)[kind].f1


@pytest.mark.parametrize(("prediction", "expected"), [
    ("police kill the gunman", (0.75, 1 / 3, 0.75, 0.5, 0.6)),
    ("the gunman kill police", (0.75, 1 / 3, 0.5, 1 / 6, 0.4)),
    ("the gunman police killed", (1.0, 2 / 3, 0.5, 1 / 3, 0.6)),
])  # fmt: skip
def test_the_examples_of_the_rouge_paper(prediction, expected):
    scores = rouge.score(prediction, GUNMAN, ("rouge1", "rouge2", "rougeL", "rougeS", "rougeSU"))
    assert [score.f1 for score in scores.values()] == pytest.approx(expected)


@pytest.mark.parametrize(("prediction", "expected"), [
    ("police kill the gunman", 0.55556), ("the gunman kill police", 0.22222), ("the gunman police killed", 0.44444),
])  # fmt: skip
def test_the_script_never_counts_the_last_word_alone(prediction, expected):
    assert f1(prediction, GUNMAN, "rougeSU", variant="rouge155") == pytest.approx(expected, abs=1e-5)
    assert f1("hello", "hello", "rougeSU", variant="rouge155") == 0
    assert f1("hello", "hello", "rougeSU") == 1


def test_weighted_subsequences_as_in_the_paper():
    wanted = "a b c d e f g"
    for kind, together, apart in (("rougeW:2", 0.571, 0.286), ("rougeW", 0.57143, 0.45354)):
        assert f1("a b c d h i k", wanted, kind) == pytest.approx(together, abs=1e-3)
        assert f1("a h b k c i d", wanted, kind) == pytest.approx(apart, abs=1e-3)
    assert f1("police kill the gunman", GUNMAN, "rougeW") == pytest.approx(0.67569, abs=1e-5)


def test_weighted_subsequences_as_the_script_has_them():
    same = rouge.score("a b c d e", "a b c d e", ("rougeW",), variant="rouge155")["rougeW"]
    assert same == pytest.approx((1.0, 0.72478, 0.84043), abs=1e-5)
    apart, together = (
        rouge.score(text, "a b c d e f g", ("rougeW",), variant="rouge155")["rougeW"]
        for text in ("a h b k c i d", "a b c d h i k")
    )
    assert apart == together
    assert apart == pytest.approx((0.57143, 0.38721, 0.46162), abs=1e-5)


def test_a_gap_is_the_number_of_words_between():
    near, far = "a x1 x2 x3 x4 b", "a x1 x2 x3 x4 x5 b"
    assert rouge.score(near, "a b", ("rougeS4",))["rougeS4"][:2] == pytest.approx((1 / 15, 1.0))
    assert f1(far, "a b", "rougeS4") == 0
    assert rouge.score(far, "a b", ("rougeSU4",), variant="rouge155")["rougeSU4"].recall == 0.5
    assert f1("police kill the gunman", GUNMAN, "rougeS0") == f1("police kill the gunman", GUNMAN, "rouge2")


def test_repeated_words_count_once_for_each_time_they_occur():
    scores = rouge.score("the the the the", ["the cat the dog"])
    assert [scores[kind].f1 for kind in ("rouge1", "rougeL", "rouge2")] == [0.5, 0.5, 0]


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_what_two_bags_share_is_the_smaller_count_of_each_thing(a, b):
    assert Grams(a).shared(Grams(b)) == sum(min(a.count(x), b.count(x)) for x in "abc")


def test_precision_and_recall_are_kept_apart():
    for prediction, precision2, recall2 in (("testing", 0, 0), ("testing one", 1, 0.5), ("testing two", 0, 0)):
        scores = rouge.score(prediction, ["testing one two"])
        words = len(prediction.split())
        assert scores["rouge1"][:2] == pytest.approx((1.0, words / 3))
        assert scores["rouge2"][:2] == pytest.approx((precision2, recall2))
        assert scores["rougeL"][:2] == pytest.approx((1.0, words / 3))


def test_alpha_near_one_favours_precision():
    found = [f1("police kill the gunman today", GUNMAN, "rouge1", alpha=alpha) for alpha in (0.2, 0.5, 0.8)]
    assert found == pytest.approx([0.71429, 0.66667, 0.625], abs=1e-5)


def test_the_union_over_lines_counts_each_word_once():
    prediction, reference = "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5"
    found = rouge.score(prediction, reference, ("rougeLsum",))["rougeLsum"]
    assert found == pytest.approx((0.4, 0.8, 0.53333), abs=1e-5)


MAT = ("the cat sat on the mat", ["the cat was on the mat", "there is a cat on the mat"])


@pytest.mark.parametrize(("multi", "expected"), [
    ("pooled", ((0.75, 0.69231), (0.5, 0.45455), (0.75, 0.69231), (0.53333, 0.45714), (0.575, 0.5))),
    ("best_recall", ((0.83333,) * 2, (0.6,) * 2, (0.83333,) * 2, (0.66667,) * 2, (0.7,) * 2)),
])  # fmt: skip
def test_several_references_as_the_script_treats_them(multi, expected):
    kinds = ("rouge1", "rouge2", "rougeL", "rougeS4", "rougeSU4")
    scores = rouge.score(*MAT, kinds, multi=multi, variant="rouge155")
    for kind, pair in zip(kinds, expected, strict=True):
        assert scores[kind][:2] == pytest.approx(pair, abs=1e-5)


def test_the_mean_over_references_is_of_each_side():
    alone = [rouge.score(MAT[0], one, ("rouge1",))["rouge1"] for one in MAT[1]]
    assert rouge.score(*MAT, ("rouge1",), multi="mean")["rouge1"] == pytest.approx(np.mean(alone, axis=0))


def script_cases():
    file = SHARED / "rouge155_vectors.json"
    if not file.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="../shared/data is absent"))]
    return [pytest.param(case, id=f"{i}") for i, case in enumerate(json.loads(file.read_text())["cases"])]


@pytest.mark.parametrize("case", script_cases())
def test_the_script_rouge_1_5_5(case):
    given = case["opts"].split()
    options = {"variant": "rouge155", "multi": "best_recall" if "B" in given else "pooled"}
    if "-m" in given:
        options["stemmer"] = "rouge155"
    if "-s" in given:
        options["stopwords"] = {"the", "a", "of"}
    if "-p" in given:
        options["alpha"] = float(given[given.index("-p") + 1])
    for name, expected in case["scores"].items():
        kind = {"ROUGE-L": "rougeLsum"}.get(name, name.lower().replace("rouge-", "rouge").replace("*", ""))
        kind = kind.replace("rougew-", "rougeW:").replace("rouges", "rougeS").replace("Su", "SU")
        found = rouge.score(case["peer"], case["models"], (kind,), **options)[kind]
        # The script rounds precision and recall to five decimals before it takes F.
        assert found == pytest.approx((expected["P"], expected["R"], expected["F"]), abs=2e-5), name


def test_a_thousand_random_pairs_equal_rouge_score():
    draw = random.Random(0)
    vocabulary = [
        *[
            "the",
            "a",
            "cat",
            "cats",
            "sat",
            "running",
            "runs",
            "happily",
            "nations",
            "of",
            "conditional",
            "7",
            "don't",
            "well-known",
            "news",
        ]
    ]

    def text():
        lines = [draw.choices(vocabulary, k=draw.randint(0, 12)) for _ in range(draw.randint(1, 3))]
        return "\n".join(map(" ".join, lines))

    for stemmed in (False, True):
        scorer = RougeScorer(list(THEIRS), use_stemmer=stemmed)
        for _ in range(500):
            prediction, reference = text(), text()
            theirs = scorer.score(reference, prediction)
            ours = rouge.score(prediction, reference, THEIRS, stemmer="porter" if stemmed else None)
            for kind in THEIRS:
                assert tuple(ours[kind]) == pytest.approx(tuple(theirs[kind]), abs=1e-9), (kind, prediction, reference)


@given(ASCII, ASCII)
def test_ascii_scores_equal_rouge_score(prediction, reference):
    theirs = RougeScorer(list(THEIRS)).score(reference, prediction)
    ours = rouge.score(prediction, [reference], THEIRS)
    for kind in THEIRS:
        assert tuple(ours[kind]) == pytest.approx(tuple(theirs[kind]), abs=1e-12)


@given(ASCII, st.lists(ASCII, min_size=1, max_size=3))
def test_of_several_references_the_best_f1_counts(prediction, references):
    theirs = RougeScorer(["rouge1", "rougeLsum"]).score_multi(references, prediction)
    ours = rouge.score(prediction, references, ("rouge1", "rougeLsum"))
    for kind in ours:
        assert ours[kind].f1 == pytest.approx(theirs[kind].fmeasure, abs=1e-12)


def test_real_summaries_with_stems_equal_rouge_score():
    file = SHARED / "dialogsum" / "dev.jsonl"
    if not file.is_file():
        pytest.skip("../shared/data is absent")
    summaries = [json.loads(line)["summary"] for line in file.read_text(encoding="utf-8").splitlines()]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    for one, other in pairwise(summaries[:201]):
        theirs = scorer.score(other, one)
        for kind, found in rouge.score(one, other, tuple(theirs), stemmer="porter").items():
            assert tuple(found) == pytest.approx(tuple(theirs[kind]), abs=1e-9)


@given(LINES, LINES, st.sampled_from(FAMILY), st.sampled_from(["paper", "rouge155"]))
def test_scores_lie_between_zero_and_one_and_f_between_its_sides(prediction, reference, kind, variant):
    precision, recall, f = rouge.score(prediction, reference, (kind,), variant=variant)[kind]
    assert 0 <= precision <= 1 + 1e-12
    assert 0 <= recall <= 1 + 1e-12
    assert min(precision, recall) - 1e-12 <= f <= max(precision, recall) + 1e-12


@given(WORDS, WORDS, st.sampled_from(FAMILY))
def test_f_is_symmetric_for_single_lines(a, b, kind):
    assert f1(a, b, kind) == pytest.approx(f1(b, a, kind), abs=1e-12)


@given(LINES.filter(lambda text: len(text.split()) >= 9), st.sampled_from(FAMILY))
def test_identical_texts_score_one(text, kind):
    assert f1(text, text, kind) == pytest.approx(1.0)


@given(LINES, st.lists(LINES, min_size=1, max_size=4), st.randoms(), st.sampled_from(FAMILY),
       st.sampled_from(["best", "pooled", "mean"]))  # fmt: skip
def test_the_order_of_references_does_not_matter(prediction, references, draw, kind, multi):
    shuffled = draw.sample(references, len(references))
    assert f1(prediction, references, kind, multi=multi) == pytest.approx(f1(prediction, shuffled, kind, multi=multi))


@given(WORDS, WORDS, WORDS)
def test_adding_words_to_both_sides_never_lowers_the_shared_words(a, b, more):
    hits = lambda x, y: rouge.score(x, y, ("rouge1",))["rouge1"].recall * len(y.split())  # noqa: E731
    assert hits(f"{a} {more}", f"{b} {more}") >= hits(a, b) + len(more.split()) - 1e-9


def test_a_corpus_is_the_plain_mean_and_keeps_its_rows():
    predictions, references = ["a b", "", "c d"], [["a b"], ["x"], ["c e", "d"]]
    made = rouge.corpus(predictions, references, ("rouge1", "rougeL"))
    each = [rouge.score(*pair, ("rouge1", "rougeL")) for pair in zip(predictions, references, strict=True)]
    for kind in ("rouge1", "rougeL"):
        assert made.items[kind] == pytest.approx(np.array([row[kind] for row in each]))
        assert made.mean[kind] == pytest.approx(made.items[kind].mean(0))
    assert made.empty == 1
    assert "multi:best" in made.signature


def test_empty_sides_score_zero():
    for prediction, reference in (("", "a"), ("a", ""), ("", ""), ("...", "a"), ("\n", "a\nb")):
        for kind in FAMILY:
            for variant in ("paper", "rouge155"):
                assert f1(prediction, reference, kind, variant=variant) == 0


def test_stop_words_go_before_stems_are_taken():
    assert f1("the cats", "a cat", "rouge1", stopwords={"the", "a"}, stemmer="porter") == 1
    assert f1("the cats", "a cat", "rouge1", stopwords=["cats"]) == 0


def test_every_choice_is_in_the_signature():
    plain = rouge.signature()
    for options in ({"tokenizer": "char"}, {"stemmer": "porter"}, {"stopwords": {"a"}}, {"multi": "mean"},
                    {"variant": "rouge155"}, {"alpha": 0.8}):  # fmt: skip
        assert rouge.signature(**options) != plain


@pytest.mark.parametrize(("kind", "options", "fix"), [
    ("rougeQ", {}, "did you mean 'rouge"), ("rouge10", {}, "did you mean"), ("rougeW:0.5", {}, "1.2 is usual"),
    ("rouge1", {"stemmer": "prter"}, "did you mean 'porter'?"), ("rouge1", {"tokenizer": "zhh"}, "'zh'"),
    ("rouge1", {"multi": "bets"}, "did you mean 'best'?"), ("rouge1", {"variant": "papr"}, "did you mean 'paper'?"),
    ("rouge1", {"alpha": 2.0}, "from 0 to 1"), ("rougeW:999", {}, "1.2 is usual"),
    ("rouge1", {"stem": "porter"}, "did you mean 'stemmer'?"),
    ("rouge1", {"stopwords": "the"}, "a collection of words"),
])  # fmt: skip
def test_a_wrong_kind_or_option_is_refused(kind, options, fix):
    with pytest.raises(ConfigError) as error:
        rouge.score("a", "a", (kind,), **options)
    assert fix in error.value.fix


def test_nothing_to_score_is_refused():
    with pytest.raises(DataError, match="needs a reference"):
        rouge.score("a", [])
    with pytest.raises(DataError, match="no predictions"):
        rouge.corpus([], [])
    with pytest.raises(DataError, match="one text in place of a list"):
        rouge.corpus("ab", "ab")
    with pytest.raises(DataError, match="2 predictions, 1 references"):
        rouge.corpus(["a", "b"], ["a"])


def test_any_gap_and_long_texts_are_counted_without_being_kept():
    text = " ".join(f"w{i}" for i in range(300))
    assert f1(text, text, "rougeS") == f1("a b", "a b", "rougeS20000000") == 1
    assert rouge.signature(stopwords={"a"}) != rouge.signature(stopwords={"the"})
    kept = rouge._counting({}).cut(text)
    kept.pairs(None)
    assert list(kept._made) in ([], [1])
