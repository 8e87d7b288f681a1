import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import ConfigError
from tunesmith.metrics import metric

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


def test_the_example_of_sacrebleus_readme():
    assert value("bleu", HYPOTHESES, REFERENCES) == pytest.approx(1.0)
    system = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ("The dog bit the man.", "The dog had bit the man."),
        ("It was not unexpected.", "No one was surprised."),
        ("The man bit him first.", "The man had bitten the dog."),
    ]
    assert value("bleu", system, references) * 100 == pytest.approx(48.530827, abs=1e-6)


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


def test_a_missing_tokenizer_of_sacrebleu_is_answered_with_its_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mecab_ko", None)
    with pytest.raises(ConfigError) as error:
        metric("bleu", "ko")
    assert error.value.fix == "pip install 'tunesmith[ko]'"


def test_the_signature_names_sacrebleus_choices_and_version():
    expected = f"bleu|sacrebleu|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}|share"
    assert metric("bleu").signature == expected
