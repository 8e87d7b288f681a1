"""Words: how a text is cut before it is counted."""

import re
import unicodedata

_ASCII = re.compile(r"[a-z0-9]+")
# Scripts written without spaces are counted by character; every other run of letters and digits is a word.
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
SIGNATURE = "words:unicode-nfkc-lower"


def words(text: str) -> list[str]:
    """Cut `text` into lower-case words.

    ASCII text gives exactly the tokens of Google's `rouge_score`; other text
    is normalised (NFKC) and keeps its accents, and scripts without spaces are
    cut into characters, where `rouge_score` would drop both.
    """
    if text.isascii():
        return _ASCII.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())
