"""Leakage: rows of one split that give away rows of another."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

GRAM = 13  # words; the length that GPT-3 (arXiv:2005.14165, appendix C) and lm-eval use


@dataclass(frozen=True)
class Leak:
    """A row that repeats a text of another split: `kind` is `same` or `13-gram`."""

    id: str
    other: str
    kind: str


def find_leaks(rows: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]]) -> list[Leak]:
    """Name the rows of (id, text) pairs that share text with `others`.

    Two texts leak if they are the same once letter case, punctuation and
    spacing are put aside, or if they share a run of 13 words. A run that
    occurs in more than one of the `others` is wording of the task, and does
    not count.
    """
    whole: dict[str, str] = {}
    grams: dict[tuple[str, ...], set[str]] = {}
    for name, text in others:
        whole.setdefault(normalise(text), name)
        for gram in _grams(text):
            grams.setdefault(gram, set()).add(name)
    found = []
    for name, text in rows:
        if (same := whole.get(normalise(text))) is not None:
            found.append(Leak(name, same, "same"))
            continue
        shared = [grams[gram] for gram in _grams(text) if len(grams.get(gram, ())) == 1]
        if shared:
            found.append(Leak(name, min(min(owners) for owners in shared), f"{GRAM}-gram"))
    return found


def normalise(text: str) -> str:
    """Give `text` as lower-case words joined by single spaces."""
    return " ".join(_words(text))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower())


def _grams(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)}
