"""Words: how a text is cut before it is counted, in every script.

`auto`, the default, gives ASCII text exactly the words of Google's
`rouge_score`. Other text is normalised (NFKC) and lower-cased, keeps its
accents and vowel signs, and is cut into words where its script puts spaces
and into characters where it does not:

>>> words("Zoë trinkt Tee.")
['zoë', 'trinkt', 'tee']
>>> words("我喜歡喝茶。")
['我', '喜', '歡', '喝', '茶']

Worked by hand, reference 我喜歡喝茶。 and prediction 我真的很喜歡喝茶。: by character the
reference has 5 words and the prediction 8, of which 5 match, so ROUGE-1 has
recall 5/5, precision 5/8 and F1 = 2·5/(5 + 8) = 10/13. The reference has the 4
pairs 我喜 喜歡 歡喝 喝茶, the prediction 7, and 3 match (not 我喜), so ROUGE-2 has
F1 = 2·3/(4 + 7) = 6/11. By word (`zh`) they are 我 喜歡 喝茶 and 我 真的 很 喜歡 喝茶: ROUGE-1
has F1 = 2·3/(3 + 5) = 3/4; of 2 and 4 pairs only 喜歡 喝茶 matches, so ROUGE-2 has
F1 = 2·1/(2 + 4) = 1/3.
"""

import re
import string
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

from tunesmith.names import extra, pick

Cut = Callable[[str], list[str]]

_ASCII = re.compile(r"[a-z0-9]+")
# Written without spaces between words. ー belongs to both kana, and so to neither in Unicode's table.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = r"[\p{L}\p{N}]"
_ALONE = rf"[[{_UNSPACED}]&&{_LETTER}]\p{{M}}*"
_TOGETHER = rf"[{_LETTER}--[{_UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_UNSPACED}]]*"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Hyphenation and joining hints, which change how a word looks but not which word it is.
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200c\u200d\u2060\ufeff"))


@cache
def _pattern(unit: str) -> Any:
    """Compile a pattern with Unicode properties; only text that is not ASCII pays for the import."""
    import regex

    return regex.compile(unit, regex.VERSION1)


def words(text: str) -> list[str]:
    """Cut `text` into lower-case words, and unspaced scripts into characters with their marks.

    Scripts are those of Unicode's Script property. A mark (accent, vowel sign, tone) stays
    with the letter before it; Hangul is cut at spaces.
    """
    if text.isascii():
        return _ASCII.findall(text.lower())
    return list(_pattern(f"{_ALONE}|{_TOGETHER}").findall(_fold(text)))


def spans(text: str) -> list[tuple[int, int, str]]:
    """Give where each word of `text` as it is written begins and ends, and the word as `words` has it.

    A word is found in the text as it stands, so that a page can mark it there.
    """
    if text.isascii():
        return [(*found.span(), found.group().lower()) for found in re.finditer(r"[A-Za-z0-9]+", text)]
    found_in = _pattern(f"{_ALONE}|{_TOGETHER}").finditer(text)
    return [(*found.span(), _fold(found.group())) for found in found_in]


def ascii_words(text: str) -> list[str]:
    """Cut `text` as `rouge_score` and ROUGE-1.5.5 do: runs of a-z and 0-9; all else separates, accents and Han too."""
    return _ASCII.findall(text.lower())


def characters(text: str) -> list[str]:
    """Cut `text` into letters and digits with their marks, whatever the script."""
    return list(_pattern(rf"{_LETTER}\p{{M}}*").findall(_fold(text)))


def bare_pieces(text: str) -> list[str]:
    """Take punctuation out of lower-cased `text`, then cut it at spaces, and unspaced scripts into characters."""
    bare = _fold(text).translate(_NO_PUNCTUATION)
    if bare.isascii():
        return bare.split()
    return list(_pattern(rf"{_ALONE}|[^\s{_UNSPACED}]+").findall(_pattern(r"\p{P}").sub("", bare)))


def spread_unspaced(text: str) -> str:
    """Put spaces around each character of a script that has none between words."""
    return str(_pattern(_ALONE).sub(r" \g<0> ", text))


def chinese_words(text: str) -> list[str]:
    """Cut runs of Han into words with `jieba`, and all else as `words` does. Raises ConfigError without the extra."""
    jieba = _jieba()
    pieces = _pattern(r"\p{Han}+|\P{Han}+").findall(_fold(text))
    return [word for piece in pieces for word in (jieba.lcut(piece) if _is_han(piece) else words(piece))]


def japanese_words(text: str) -> list[str]:
    """Cut `text` into words with MeCab, as `sacrebleu` does for Japanese. Raises ConfigError without the extra."""
    cut = _mecab()(_fold(text)).split()
    return [word for word in cut if _pattern(_LETTER).search(word)]


TOKENIZERS: dict[str, Cut] = {
    "auto": words,
    "ascii": ascii_words,
    "char": characters,
    "zh": chinese_words,
    "ja": japanese_words,
}


def tokenizer(name: str) -> Cut:
    """Look a tokeniser up by name. Raises ConfigError with the nearest right one."""
    return pick(TOKENIZERS, name, "tokenizer")


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_INVISIBLE).lower()


def _is_han(piece: str) -> bool:
    return _pattern(r"\p{Han}").match(piece) is not None


def cut_by(name: str) -> str:
    """Name a tokeniser for signatures, with the version of the library behind it."""
    if name == "zh":
        return f"zh-jieba-{version('jieba')}"
    return f"ja-{_mecab().signature()}" if name == "ja" else name


@cache
def _jieba() -> Any:
    """Load jieba's own dictionary, apart from any that the host program has changed, and without its cache file."""
    jieba: Any = extra("jieba", "zh")
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer


@cache
def _mecab() -> Any:
    extra("MeCab", "ja")
    extra("ipadic", "ja")
    from sacrebleu.tokenizers.tokenizer_ja_mecab import TokenizerJaMecab

    return TokenizerJaMecab()
