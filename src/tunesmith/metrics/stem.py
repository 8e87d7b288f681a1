"""Stems: words reduced to their root by Porter's rules, in the two dialects that ROUGE is computed with.

Porter 1980, "An algorithm for suffix stripping". `porter` gives what
`rouge_score` gives (NLTK's extensions); `rouge155` gives what the script
ROUGE-1.5.5 gives with `-m`. Words of up to three characters, and words that
are not ASCII, stay as they are.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from importlib.resources import files

Stem = Callable[[str], str]
Rules = dict[str, str]

_STEP_2: Rules = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al",
    "entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al",
    "iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
    "logi": "log",
}  # fmt: skip
_STEP_2_NLTK: Rules = {**_STEP_2, "fulli": "ful"}
_STEP_3: Rules = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = ("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ou", "ism", "ate", "iti", "ous", "ive", "ize")  # fmt: skip  # noqa: E501
_STEP_4_ALL = (*_STEP_4, "ment", "ent", "sion", "tion")
_LETTERS = {code: "v" if chr(code) in "aeiou" else "y" if chr(code) == "y" else "c" for code in range(128)}
_IRREGULAR = {
    "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "innings": "inning", "outings": "outing",
    "cannings": "canning", "news": "news", "inning": "inning", "outing": "outing", "canning": "canning",
    "howe": "howe", "proceed": "proceed", "exceed": "exceed", "succeed": "succeed",
}  # fmt: skip


@lru_cache(maxsize=1 << 17)
def porter(word: str) -> str:
    """Stem as `rouge_score` does with `use_stemmer=True`: Porter's rules with NLTK's extensions."""
    if len(word) <= 3 or not word.isascii():
        return word
    return _IRREGULAR.get(word) or _finish(_middle(_porter_endings(word), nltk=True), nltk=True)


@lru_cache(maxsize=1 << 17)
def rouge155(word: str) -> str:
    """Stem as ROUGE-1.5.5 does with `-m`: irregular forms by WordNet's lists, else Lin's variant of Porter's rules.

    The script was released with the lists of WordNet 2.0; these are those of
    3.0. Where two lists disagree the script's choice depends on the order in
    which its data was built; here it is adjectives, adverbs, nouns, verbs, and
    the last counts (six words, among them better and best, which become well).
    """
    if len(word) <= 3 or not word.isascii():
        return word
    return _wordnet().get(word) or _finish(_middle(_original_endings(word), nltk=False), nltk=False)


STEMMERS: dict[str, Stem] = {"porter": porter, "rouge155": rouge155}


@cache
def _wordnet() -> dict[str, str]:
    text = files("tunesmith").joinpath("metrics", "irregular.txt").read_text(encoding="utf-8")
    pairs = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {word: stem for word, stem in pairs}  # noqa: C416 - says what the two columns are


def _shape(word: str) -> str:
    """Write c for each consonant and v for each vowel; y is a vowel after a consonant."""
    shape = word.translate(_LETTERS)
    while (place := shape.find("y")) >= 0:
        kind = "v" if place and shape[place - 1] == "c" else "c"
        shape = shape[:place] + kind + shape[place + 1 :]
    return shape


def _measure(stem: str) -> int:
    """Count the changes from vowels to consonants: Porter's m."""
    return _shape(stem).count("vc")


def _has_vowel(stem: str) -> bool:
    return "v" in _shape(stem)


def _short(word: str, nltk: bool) -> bool:
    """Tell whether a word ends like hop or file: consonant, vowel, consonant other than w, x, y (Porter's *o)."""
    shape = _shape(word)
    return (shape.endswith("cvc") and word[-1] not in "wxy") or (nltk and shape == "vc")


def _porter_endings(word: str) -> str:
    """Steps 1a to 1c with NLTK's extensions: ties -> tie, spied -> spi, enjoy stays."""
    word = _short_ie(word) if word.endswith("ies") else _plural(word)
    word = _short_ie(word) if word.endswith("ied") else _past(word, nltk=True)
    if word.endswith("y") and len(word) > 2 and _shape(word[:-1]).endswith("c"):
        word = word[:-1] + "i"
    return word


def _short_ie(word: str) -> str:
    """Cut ties and tied to tie, but flies and spied to fli and spi."""
    return word[:-1] if len(word) == 4 else word[:-2]


def _original_endings(word: str) -> str:
    """Steps 1a to 1c of the paper."""
    word = word[:-2] if word.endswith("ies") else _plural(word)
    word = _past(word, nltk=False)
    return word[:-1] + "i" if word.endswith("y") and _has_vowel(word[:-1]) else word


def _plural(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _past(word: str, nltk: bool) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    stem = word[:-2] if word.endswith("ed") else word[:-3]
    if not word.endswith(("ed", "ing")) or not _has_vowel(stem):
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if len(stem) > 1 and stem[-1] == stem[-2] and _shape(stem).endswith("c"):
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if _measure(stem) == 1 and _short(stem, nltk) else stem


def _middle(word: str, nltk: bool) -> str:
    """Steps 2 and 3: double suffixes become single ones, where m > 0."""
    if nltk and word.endswith("alli") and _measure(word[:-4]) > 0:
        return _middle(word[:-2], nltk)
    rules = _STEP_2_NLTK if nltk else _STEP_2
    # NLTK asks for m > 0 of what stands before -ogi, the original of what stands before -logi.
    longer = nltk and word.endswith("logi") and _measure(word[:-3]) > 0
    return _replace(word[:-1] if longer else _replace(word, rules), _STEP_3)


def _replace(word: str, rules: Rules) -> str:
    suffix = _longest(word, tuple(rules))
    if not suffix or _measure(word.removesuffix(suffix)) == 0:
        return word
    return word.removesuffix(suffix) + rules[suffix]


def _longest(word: str, ends: tuple[str, ...]) -> str:
    """Give the longest of `ends` that the word has, or nothing."""
    if not word.endswith(ends):  # most words have none, and this asks for all in one call
        return ""
    return max((end for end in ends if word.endswith(end)), key=len)


def _finish(word: str, nltk: bool) -> str:
    """Steps 4 and 5: suffixes go where m > 1; then a last e and a double l."""
    word = _suffixes(word) if nltk else _suffixes_of_lin(word)
    if word.endswith("e"):
        m = _measure(word[:-1])
        if m > 1 or (m == 1 and not _short(word[:-1], nltk)):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _suffixes(word: str) -> str:
    suffix = _longest(word, _STEP_4_ALL)
    return _drop(word, "ion" if suffix in ("sion", "tion") else suffix)


def _suffixes_of_lin(word: str) -> str:
    """Step 4 as ROUGE-1.5.5 has it: -ment, then -ent or -ion, are tried after the others and not instead of them."""
    word = _drop(word, _longest(word, _STEP_4))
    word = _drop(word, "ment")
    if word.endswith("ent"):
        return _drop(word, "ent")
    return _drop(word, "ion") if word.endswith(("sion", "tion")) else word


def _drop(word: str, suffix: str) -> str:
    stem = word.removesuffix(suffix)
    return stem if stem != word and _measure(stem) > 1 else word
