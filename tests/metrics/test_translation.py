import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import ConfigError
from tunesmith.metrics import metric, translation

SENTENCE = st.text(st.sampled_from("abc dog cat.,"), min_size=1, max_size=40)
ROWS = st.lists(st.tuples(SENTENCE, SENTENCE, SENTENCE), min_size=1, max_size=6)
HYPOTHESES = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
REFERENCES = [
    ("The dog bit the man.", "The dog had bit the man."),
    ("It was not unexpected.", "No one was surprised."),
    ("The man bit him first.", "The man had bitten the dog."),
]


def value(name, predictions, references, language="en"):
    mark = metric(name, language)
    return mark.value(mark.stats(predictions, references))


@given(ROWS)
def test_scores_equal_sacrebleu(rows):
    predictions = [row[0] for row in rows]
    references = [row[1:] for row in rows]
    streams = [list(stream) for stream in zip(*references, strict=True)]
    scorers = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf, "ter": sacrebleu.corpus_ter}
    for name, theirs in scorers.items():
        assert value(name, predictions, references) * 100 == pytest.approx(theirs(predictions, streams).score, abs=1e-8)
    plus = sacrebleu.corpus_chrf(predictions, streams, word_order=2).score
    assert value("chrf++", predictions, references) * 100 == pytest.approx(plus, abs=1e-8)


@given(ROWS)
def test_sentence_bleu_is_the_mean_of_sacrebleus(rows):
    references = [row[1:] for row in rows]
    theirs = [sacrebleu.sentence_bleu(row[0], list(row[1:])).score for row in rows]
    ours = value("sentence_bleu", [row[0] for row in rows], references)
    assert ours * 100 == pytest.approx(sum(theirs) / len(theirs), abs=1e-8)


def test_an_answer_equal_to_a_reference_scores_one():
    assert value("bleu", HYPOTHESES, REFERENCES) == pytest.approx(1.0)


SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]


def chosen(make, said, wanted, **choices):
    mark = make("en", **choices)
    return mark.value(mark.stats(said, wanted)) * 100


@pytest.mark.parametrize(("choices", "expected"), [
    ({}, 48.530827), ({"tokenize": "none"}, 49.1919566), ({"tokenize": "intl"}, 43.91623493),
    *(({"max_ngram_order": n}, score) for n, score in enumerate((77.65, 60.50, 53.93, 48.53, 46.14, 43.28), 1)),
])  # fmt: skip
def test_the_example_of_sacrebleus_readme_with_other_choices(choices, expected):
    tolerance = 0.005 if "max_ngram_order" in choices else 1e-6
    assert chosen(translation.bleu, SYSTEM, REFERENCES, **choices) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("said", "wanted", "choices", "expected"), [
    ("am I am a character sequence", "I am a symbol string sequence a a", {"smooth_value": 0.1}, 15.55722182),
    ("am I am a character sequence", "I am a symbol string sequence a a", {"smooth_value": 0.0}, 0),
    ("this is a fest", "this is a test", {"smooth_value": 0.01}, 22.3606797749979),
    ("test", "a test", {"smooth_value": 0.01}, 36.78794411714425),
    ("a little test", "a test", {"smooth_value": 0.01}, 3.218297948685433),
    ("the cat sat on mat", "the cat sat on the mat", {"smooth_method": "none"}, 57.893007),
    ("the cat sat on mat", "the cat sat on the mat", {"smooth_method": "add-k", "smooth_value": 1}, 65.11126),
    ("the the the the the the the", "the cat is on the mat", {"max_ngram_order": 1}, 28.571429),
    ("the cat", "the cat", {}, 100),
])  # fmt: skip
def test_bleu_vectors_of_single_sentences(said, wanted, choices, expected):
    choices = {"smooth_method": "floor"} | choices if "smooth_value" in choices else choices
    found = chosen(translation.sentence_bleu, [said], [(wanted,)], **choices)
    assert found == pytest.approx(expected, abs=1e-5)


PAPINENI = (
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
)


def test_the_candidates_of_papineni():
    first = "It is a guide to action which ensures that the military always obeys the commands of the party"
    second = "It is to insure the troops forever hearing the activity guidebook that party direct"
    choices = {"lowercase": True, "tokenize": "none"}
    assert chosen(translation.bleu, [first], [PAPINENI], **choices) == pytest.approx(50.456668, abs=1e-5)
    assert chosen(translation.bleu, [second], [PAPINENI], **choices) == pytest.approx(6.963003, abs=1e-5)
    assert chosen(translation.bleu, [second], [PAPINENI], smooth_method="none", **choices) == 0


@pytest.mark.parametrize(("said", "wanted", "effective", "eps"), [
    ("a", "a", 100, 16.6667), ("aa", "ab", 25, 8.3333), ("a b c", "abc", 100, 50),
])  # fmt: skip
def test_chrf_vectors_of_orders_that_a_text_lacks(said, wanted, effective, eps):
    assert chosen(translation.chrf, [said], [(wanted,)], beta=3) == pytest.approx(effective, abs=1e-4)
    assert chosen(translation.chrf, [said], [(wanted,)], beta=3, eps_smoothing=True) == pytest.approx(eps, abs=1e-4)
    assert chosen(translation.chrf, ["a", "b"], [("a",), ("c",)], beta=3) == pytest.approx(50)


def test_short_and_empty_answers():
    assert value("bleu", ["the cat"], [("the cat",)]) == 0
    assert value("sentence_bleu", ["the cat"], [("the cat",)]) == pytest.approx(1.0)
    for name in ("bleu", "sentence_bleu", "chrf", "chrf++"):
        assert value(name, [""], [("the cat",)]) == 0
    assert value("ter", [""], [("the cat",)]) == 1
    assert value("ter", ["a b c d e f"], [("x",)]) == 6


@pytest.mark.parametrize(("said", "wanted", "chrf", "plus"), [
    ("the cat", "the cat sat", 55.77101, 57.76381), ("ab", "ba", 50, 33.33333),
    ("我爱上海", "我爱北京", 20.83333, None),
])  # fmt: skip
def test_chrf_vectors(said, wanted, chrf, plus):
    assert value("chrf", [said], [(wanted,)]) * 100 == pytest.approx(chrf, abs=1e-5)
    if plus:
        assert value("chrf++", [said], [(wanted,)]) * 100 == pytest.approx(plus, abs=1e-5)


def test_chinese_is_cut_by_character_and_japanese_by_mecab():
    chinese = ["我爱上海。"], [("我爱北京天安门。",)]
    assert value("sentence_bleu", *chinese, "zh") * 100 == pytest.approx(12.97585, abs=1e-5)
    assert value("sentence_bleu", *chinese, "en") == 0
    japanese = sacrebleu.corpus_bleu(["東京が好きです。"], [["私は東京が好きです。"]], tokenize="ja-mecab").score
    ours = value("bleu", ["東京が好きです。"], [("私は東京が好きです。",)], "ja")
    assert ours * 100 == pytest.approx(japanese, abs=1e-8)
    assert value("ter", ["我爱上海"], [("我爱北京",)], "zh") == 0.5
    assert value("ter", ["ありがとね"], [("ありがとう",)], "ja") == 0.2
    assert value("ter", ["𠮷𠮷𠮷𠮷"], [("𠮷𠮷𠮷田",)], "zh") == 0.25
    assert value("sentence_bleu", ["ฉันรักกรุงเทพ"], [("ฉันรักกรุงเทพ",)], "th") == pytest.approx(1.0)


def test_rare_han_characters_are_cut_too():
    # 𠮷 is of Extension B: sacrebleu's zh leaves 𠮷𠮷 as one word that matches nothing.
    assert sacrebleu.sentence_bleu("𠮷𠮷", ["𠮷𠮷𠮷"], tokenize="zh").score == 0
    assert value("sentence_bleu", ["𠮷𠮷"], [("𠮷𠮷𠮷",)], "zh") > 0.5
    assert "han:all" in metric("bleu", "zh").signature


CHINESE = st.text(st.sampled_from("我爱北京上海天安门。,a1 "), min_size=1)


@given(CHINESE, CHINESE)
def test_ordinary_chinese_equals_sacrebleu(said, wanted):
    theirs = sacrebleu.corpus_bleu([said], [[wanted]], tokenize="zh").score
    assert value("bleu", [said], [(wanted,)], "zh") * 100 == pytest.approx(theirs, abs=1e-8)


def test_rows_may_have_different_numbers_of_references():
    assert value("bleu", HYPOTHESES, [REFERENCES[0], REFERENCES[1][:1], REFERENCES[2]]) == pytest.approx(1.0)


@pytest.mark.parametrize(("name", "language"), [("chrf++", "zh"), ("chrf++", "th"), ("ter", "km")])
def test_words_between_spaces_are_refused_where_there_are_none(name, language):
    with pytest.raises(ConfigError, match=f"'{language}' has none") as error:
        metric(name, language)
    assert "use chrf" in error.value.fix


@pytest.mark.parametrize(("language", "fix"), [("jp", "'ja'"), ("Chinese", "such as en"), ("", "such as en")])
def test_what_is_no_language_is_refused(language, fix):
    with pytest.raises(ConfigError) as error:
        metric("bleu", language)
    assert fix in error.value.fix


def test_a_region_does_not_change_the_language():
    assert "tok:zh" in metric("bleu", "zh-TW").signature
    assert metric("bleu", "zho").signature == metric("bleu", "zh").signature
    with pytest.raises(ConfigError, match="'zh' has none"):
        metric("chrf++", "yue")


def test_a_missing_tokenizer_of_sacrebleu_is_answered_with_its_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mecab_ko", None)
    with pytest.raises(ConfigError) as error:
        metric("bleu", "ko")
    assert error.value.fix == "pip install 'tunesmith[ko]'"


def test_every_choice_is_in_the_signature():
    plain = translation.bleu("en").signature, translation.chrf("en").signature
    assert translation.bleu("en", max_ngram_order=2).signature != plain[0]
    assert translation.chrf("en", beta=3).signature != plain[1]


def test_the_signature_names_sacrebleus_choices_and_version():
    expected = f"bleu|sacrebleu|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}|share"
    assert metric("bleu").signature == expected
