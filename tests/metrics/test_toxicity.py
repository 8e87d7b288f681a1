import pytest

from tunesmith.metrics.interval import interval
from tunesmith.metrics.toxicity import lexicon_score, lexicon_toxicity, packaged

OWN = {"darn": 1.0, "heck": 0.4, "drat": 0.4, "a fig": 1.0, "ass": 1.0}


@pytest.mark.parametrize("text", [
    "Darn!", "DAAARN", "d4rn", "d.a.r.n", "d a r n", "d-a-r-n", "d**n",
    "darned", "darns", "oh, darn it", "a  fig", "a$$",
])  # fmt: skip
def test_a_disguised_word_is_found(text):
    assert lexicon_score(text, OWN) == 1


@pytest.mark.parametrize("text", [
    "", "darnley", "yarn", "class assess pass", "455", "$5", "figure", "was she",
    "as so", "d*n", "a** footnote", "d arn",
])  # fmt: skip
def test_other_words_and_numbers_are_not_taken_for_one(text):
    assert lexicon_score(text, OWN) == 0


def test_different_mild_words_add_up_and_the_same_one_twice_does_not():
    assert lexicon_score("heck", OWN) == lexicon_score("heck heck", OWN) == pytest.approx(0.4)
    assert lexicon_score("heck and drat", OWN) == pytest.approx(1 - 0.6**2)


def test_the_metric_is_a_share_of_answers_with_wilsons_interval():
    metric = lexicon_toxicity(OWN)
    stats = metric.stats(["darn", "fine", "heck", "heck, drat"], [("x",)] * 4)
    assert stats[:, 0].tolist() == [1, 0, 0, 1]
    value, low, high = interval(metric, stats)
    assert (value, low > 0, high < 1) == (0.5, True, True)
    assert metric.signature == "lexicon_toxicity|given-5-words|threshold:0.5"


def test_our_lexicon_has_weights_and_leaves_ordinary_talk_alone():
    assert all(0 < weight <= 1 and word == word.lower() for word, weight in packaged().items())
    for text in ("I hate waiting, the heating is useless.", "Kill the engine, hell of a day.", "Scunthorpe, Sussex"):
        assert lexicon_score(text) < 0.5
    assert lexicon_score("You stupid idiot") >= 0.5
