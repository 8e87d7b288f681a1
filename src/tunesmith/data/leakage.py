"""Leakage: trained texts that give away evaluated ones.

A text leaks, strongest first, if it is an evaluated text (`exact`); if it is
one once letter case, Unicode's forms (NFKC), punctuation and spacing are put
aside (`normalised`); if it has a run of 13 words in common with one
(`13-gram`: GPT-3, arXiv:2005.14165, appendix C; lm-eval); or if most of its
runs of 5 words, its shingles, are those of one (`similar`: a resemblance of
at least 0.7, Broder 1997, "On the resemblance and containment of documents").

Words are those of `metrics.words`, so that a character of Chinese, Japanese,
Thai, Lao, Khmer or Burmese is one. What several evaluated texts say is wording
of the task and gives nothing away: a run of 13 words counts if only one
evaluated text has it, a shingle unless more than 1 % of them have it (and more
than one). A single run of 13 decides, so it must be beyond doubt; of shingles
it takes most, and near-copies among the evaluated texts, as splitting at
random leaves them, must not hide each other. Where punctuation is what tells
evaluated texts apart (brackets to close), their words alone are wording too.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tunesmith.metrics.words import words

Kind = Literal["exact", "normalised", "13-gram", "similar"]
# Runs of words as 64-bit numbers, 8 bytes each where a tuple of the words takes hundreds. That any two of
# 20 million different runs, those of 100 000 dialogues, get the same number has a chance of 1 in 90 000.
Runs = NDArray[np.uint64]

GRAM = 13  # words
SHINGLE = 5  # words
SIMILAR = 0.7
LEAST = 3  # words; shorter texts are alike by chance
COMMON = 0.01  # the share of evaluated texts above which a shingle is wording
FORMS = 10  # of one normalised text, with other punctuation; more, and its words are wording
# Two texts are compared if their smallest hashes agree in one of 32 bands of 4: of the pairs with
# a resemblance of 0.7 this misses (1 - 0.7^4)^32 = 0.015 %, of those with 0.8 one in 20 million.
BANDS = (32, 4)
_WEIGHTS = np.array([pow(0x9E3779B97F4A7C15, i, 1 << 64) for i in range(GRAM)], dtype=np.uint64)


@dataclass(frozen=True)
class Leak:
    """The row `id`, trained on, gives away the evaluated row `other`.

    `share` is 1.0 for exact and normalised, the share of the evaluated text's
    words that lie in common runs for 13-gram, and the two texts' resemblance
    for similar: the shingles of both over those of either (Jaccard).
    """

    id: str
    other: str
    kind: Kind
    share: float


def find_leaks(rows: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]]) -> list[Leak]:
    """Name the (id, text) `rows` that give away `others`; see `Index.leaks`."""
    return Index(others).leaks(rows)


def normalise(text: str) -> str:
    """Give the words of `text`, letter case folded, joined by single spaces."""
    return " ".join(_cut(text))


class Index:
    """Evaluated (id, text) rows, to be looked for in any number of trained sets.

    Rows with the same normalised text are one evaluated text, known by the first of them.
    """

    def __init__(self, others: Sequence[tuple[str, str]]) -> None:
        self._exact: dict[str, str] = {}
        forms: dict[str, dict[str, str]] = {}
        for name, text in others:
            if normal := normalise(text):
                self._exact.setdefault(text, name)
                forms.setdefault(normal, {}).setdefault("".join(text.casefold().split()), name)
        self._normalised = {normal: next(iter(of.values())) for normal, of in forms.items() if len(of) <= FORMS}
        numbered = [_numbers(normal.split(" ")) for normal in self._normalised]
        self._names = list(self._normalised.values())
        self._grams = [_runs(numbers, GRAM) for numbers in numbered]
        self._own_grams, self._owners = _owned(self._grams)
        self._wording = _common([_shingles(numbers) for numbers in numbered if numbers.size >= SHINGLE], len(numbered))
        self._shingles = [self._telling(numbers) for numbers in numbered]
        self._any_shingle = np.unique(_joined(self._shingles))

    def leaks(self, rows: Sequence[tuple[str, str]]) -> list[Leak]:
        """Name the (id, text) `rows` that leak, in their order, each with the row that it gives away most of.

        That is the one of the strongest kind, then of the largest share, then the first.
        """
        found = (self._leak(name, text) for name, text in rows)
        return [leak for leak in found if leak is not None]

    def _leak(self, name: str, text: str) -> Leak | None:
        if (other := self._exact.get(text)) is not None:
            return Leak(name, other, "exact", 1.0)
        cut = _cut(text)
        if (other := self._normalised.get(" ".join(cut))) is not None:
            return Leak(name, other, "normalised", 1.0)
        numbers = _numbers(cut)
        shares = self._covered(numbers)
        if shares:
            return self._largest(name, "13-gram", shares)
        shares = self._resembling(numbers)
        return self._largest(name, "similar", shares) if shares else None

    def _largest(self, name: str, kind: Kind, shares: dict[int, float]) -> Leak:
        best = min(shares, key=lambda other: (-shares[other], other))
        return Leak(name, self._names[best], kind, shares[best])

    def _covered(self, numbers: Runs) -> dict[int, float]:
        """Give each evaluated text that has a run of 13 words in common, with the share of its words in such runs."""
        places = _places(self._own_grams, _runs(numbers, GRAM))
        shares = {}
        for other in set(self._owners[places].tolist()):
            grams = self._grams[other]
            starts = np.flatnonzero(np.isin(grams, self._own_grams[places]))
            inside = np.unique(starts[:, None] + np.arange(GRAM))
            shares[other] = inside.size / (grams.size + GRAM - 1)
        return shares

    def _resembling(self, numbers: Runs) -> dict[int, float]:
        """Give each evaluated text that is similar, with the resemblance.

        A row fewer than 0.7 of whose shingles are evaluated anywhere is similar
        to no text. That spares most rows of most sets the sketch.
        """
        shingles = self._telling(numbers)
        known = _places(self._any_shingle, shingles).size
        if not known or known < SIMILAR * shingles.size:
            return {}
        pairs = {other: _resemblance(shingles, self._shingles[other]) for other in self._candidates(shingles)}
        return {other: share for other, share in pairs.items() if share >= SIMILAR}

    def _telling(self, numbers: Runs) -> Runs:
        """Give the shingles that are not wording of the task."""
        shingles = _shingles(numbers)
        return np.delete(shingles, np.searchsorted(shingles, self._wording[_places(self._wording, shingles)]))

    def _candidates(self, shingles: Runs) -> list[int]:
        found: list[int] = self._sketches.query(_sketch(shingles))
        return found

    @cached_property
    def _sketches(self) -> Any:
        """Make the locality-sensitive index of the evaluated texts' MinHash sketches."""
        from datasketch import MinHashLSH

        index = MinHashLSH(num_perm=BANDS[0] * BANDS[1], params=BANDS)
        for other, shingles in enumerate(self._shingles):
            if shingles.size:
                index.insert(other, _sketch(shingles), check_duplication=False)
        return index


def _cut(text: str) -> list[str]:
    return words(text if text.isascii() else unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=1 << 16)
def _number(word: str) -> int:
    """Give 64 bits that stand for `word` in every process, as `hash` does not."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _numbers(cut: Sequence[str]) -> Runs:
    return np.fromiter(map(_number, cut), dtype=np.uint64, count=len(cut))


def _runs(numbers: Runs, length: int) -> Runs:
    """Give a number for each run of `length` words, in their order: a polynomial in them, modulo 2^64."""
    if numbers.size < length:
        return numbers[:0]
    runs: Runs = sliding_window_view(numbers, length) @ _WEIGHTS[:length]
    return runs


def _shingles(numbers: Runs) -> Runs:
    """Give the set of shingles, sorted; for texts shorter than one, that of their words."""
    if numbers.size < LEAST:
        return numbers[:0]
    return np.unique(_runs(numbers, SHINGLE) if numbers.size >= SHINGLE else numbers)


def _joined(sets: Sequence[Runs]) -> Runs:
    return np.concatenate([np.empty(0, np.uint64), *sets])


def _owned(texts: Sequence[Runs]) -> tuple[Runs, NDArray[np.intp]]:
    """Give the runs that only one text has, sorted, and the number of that text for each."""
    sets = [np.unique(runs) for runs in texts]
    owners = np.repeat(np.arange(len(sets)), [runs.size for runs in sets])
    runs, first, count = np.unique(_joined(sets), return_index=True, return_counts=True)
    return runs[count == 1], owners[first[count == 1]]


def _common(sets: Sequence[Runs], texts: int) -> Runs:
    """Give the shingles that more than one, and more than 1 %, of so many `texts` have, sorted."""
    shingles, count = np.unique(_joined(sets), return_counts=True)
    return shingles[count > max(1, COMMON * texts)]


def _places(known: Runs, wanted: Runs) -> NDArray[np.intp]:
    """Give where in the sorted `known` those of `wanted` are that it has."""
    places = np.searchsorted(known, wanted)
    inside = places < known.size
    places, wanted = places[inside], wanted[inside]
    found: NDArray[np.intp] = places[known[places] == wanted]
    return found


def _resemblance(one: Runs, two: Runs) -> float:
    both = np.intersect1d(one, two, assume_unique=True).size
    return both / (one.size + two.size - both)


def _sketch(shingles: Runs) -> Any:
    """Give the MinHash of a set of shingles. They are hashes already; the library mixes them once more."""
    sketch = _empty().copy()  # drawing the permutations anew takes longer than all the rest
    sketch.update_batch(shingles.tolist())
    return sketch


@cache
def _empty() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=BANDS[0] * BANDS[1], seed=1, hashfunc=int, scheme="affine64")
