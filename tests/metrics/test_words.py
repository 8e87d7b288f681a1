import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.tokenizers import DefaultTokenizer

from tunesmith.errors import ConfigError
from tunesmith.metrics import rouge, words
from tunesmith.metrics.words import TOKENIZERS, tokenizer

WANTED, SAID = "我喜歡喝茶。", "我真的很喜歡喝茶。"


def f1(kind, **options):
    return rouge.score(SAID, WANTED, (kind,), **options)[kind].f1


def test_chinese_by_character():
    assert words.words(WANTED) == list("我喜歡喝茶")
    assert [f1(kind) for kind in ("rouge1", "rouge2", "rougeL")] == pytest.approx([10 / 13, 6 / 11, 10 / 13])


def test_chinese_by_word():
    assert words.chinese_words(WANTED) == ["我", "喜歡", "喝茶"]
    assert words.chinese_words(SAID) == ["我", "真的", "很", "喜歡", "喝茶"]
    assert [f1(kind, tokenizer="zh") for kind in ("rouge1", "rouge2", "rougeL")] == pytest.approx([3 / 4, 1 / 3, 3 / 4])


@pytest.mark.parametrize(("text", "expected"), [
    ("Zoë trinkt Ｔee, ﬁne", ["zoë", "trinkt", "tee", "fine"]),
    ("हिन्दी में", ["हिन्दी", "में"]),
    ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
    ("東京タワー、コーヒー。", list("東京タワーコーヒー")),
    ("한국어 문장", ["한국어", "문장"]),
    ("Привет, мир", ["привет", "мир"]),
    ("می‌خواهم", ["میخواهم"]),
    ("我2024年喝iPhone茶", ["我", "2024", "年", "喝", "iphone", "茶"]),
    ("𠀀𠀁 ❤️ ☕", ["𠀀", "𠀁"]),
    ("cafe\u0301 café", ["café", "café"]),
    ("ΣΊΣΥΦΟΣ σίσυφος", ["σίσυφος", "σίσυφος"]),
])  # fmt: skip
def test_words_in_many_scripts(text, expected):
    assert words.words(text) == expected


def test_a_character_keeps_its_marks():
    assert words.characters("नमस्ते a1") == ["न", "म", "स्", "ते", "a", "1"]


def test_japanese_words_are_mecabs():
    assert words.japanese_words("東京タワーへ行った。") == ["東京", "タワー", "へ", "行っ", "た"]


@given(st.text(st.characters(codec="ascii")))
def test_ascii_words_equal_rouge_score(text):
    theirs = DefaultTokenizer(use_stemmer=False).tokenize(text)
    assert words.words(text) == words.ascii_words(text) == theirs


@given(st.text(max_size=30))
def test_no_tokenizer_returns_an_empty_word_or_fails(text):
    for name in ("auto", "ascii", "char", "zh"):
        assert all(word.strip() for word in TOKENIZERS[name](text))


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_line_break_always_separates(a, b):
    assert words.words(f"{a}\n{b}") == words.words(a) + words.words(b)


def test_an_unknown_tokenizer_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="there is no tokenizer 'atuo'") as error:
        tokenizer("atuo")
    assert error.value.fix == "did you mean 'auto'?"


@pytest.mark.parametrize(("name", "module", "part"), [("zh", "jieba", "zh"), ("ja", "MeCab", "ja")])
def test_a_missing_extra_is_answered_with_its_command(monkeypatch, name, module, part):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    for cached in (words._jieba, words._mecab):
        cached.cache_clear()
    with pytest.raises(ConfigError) as error:
        TOKENIZERS[name]("茶")
    assert re.search(rf"pip install 'tunesmith\[{part}\]'", error.value.fix)
