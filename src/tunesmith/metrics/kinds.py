"""The kinds of ROUGE: what each counts in a prediction and a reference, and how (Lin 2004)."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations
from typing import Literal, NamedTuple

from tunesmith.errors import ConfigError
from tunesmith.metrics.lcs import lcs_length, union_places, weighted, weighted_places
from tunesmith.names import suggest

KINDS = (*(f"rouge{n}" for n in range(1, 10)), "rougeL", "rougeLsum", "rougeS", "rougeS4", "rougeSU", "rougeSU4", "rougeW")  # fmt: skip  # noqa: E501
WEIGHT = 1.2
_KIND = re.compile(r"rouge(?:(?P<n>[1-9])|(?P<lcs>L|Lsum)|(?P<skip>SU?)(?P<gap>\d*)|W(?::(?P<weight>\d+(?:\.\d+)?))?)")

Variant = Literal["paper", "rouge155"]


class Hits(NamedTuple):
    """What one prediction shares with one reference, and how much either has; each to the power `weight` for W."""

    shared: float
    predicted: float
    wanted: float


class Grams:
    """Things to count, each as often as it occurs; `size` is their number."""

    __slots__ = ("_counts", "distinct", "size", "things")

    def __init__(self, things: Sequence[Hashable]) -> None:
        self.things = things
        self.size = len(things)
        self.distinct = set(things)
        self._counts: Counter[Hashable] | None = None

    def counts(self) -> Counter[Hashable]:
        """Count each thing."""
        if self._counts is None:
            self._counts = Counter(self.things)
        return self._counts

    def shared(self, other: "Grams") -> int:
        """Count what both have, each thing as often as the side that has it less often."""
        common = self.distinct & other.distinct
        if not common or self.size == len(self.distinct) or other.size == len(other.distinct):
            return len(common)  # one side repeats nothing
        mine, theirs = self.counts(), other.counts()
        return sum([min(mine[thing], theirs[thing]) for thing in common])


class Text:
    """A text cut into lines of words; what several kinds count is made once."""

    __slots__ = ("_made", "lines", "tokens")

    def __init__(self, lines: list[list[str]]) -> None:
        self.lines = lines
        self.tokens = lines[0] if len(lines) == 1 else list(chain.from_iterable(lines))
        self._made: dict[int, Grams] = {}

    def runs(self, n: int) -> Grams:
        """Give the runs of `n` words."""
        made = self._made.get(n)
        if made is None:
            tokens = self.tokens
            runs = tokens if n == 1 else list(zip(*[tokens[i:] for i in range(n)], strict=False))
            made = self._made[n] = Grams(runs)
        return made

    def pairs(self, gap: int | None) -> Grams:
        """Give the ordered pairs with at most `gap` words between, any number if None.

        They are as many as the square of the words, so they are not kept.
        """
        tokens = self.tokens
        if gap is None:
            return Grams(list(combinations(tokens, 2)))
        apart = range(1, min(gap + 2, len(tokens)))
        return Grams([pair for d in apart for pair in zip(tokens, tokens[d:], strict=False)])


@dataclass(frozen=True)
class Kind:
    """How one kind counts; ratios of its hits are brought back by the power 1 / `weight`."""

    count: Callable[[Text, Text], Hits]
    weight: float = 1.0


def is_kind(name: str) -> bool:
    """Tell whether `name` is a kind of ROUGE."""
    return _KIND.fullmatch(name) is not None


@lru_cache
def kind_named(name: str, variant: Variant) -> Kind:
    """Read the name of a kind. Raises ConfigError."""
    found = _KIND.fullmatch(name)
    if found is None:
        raise ConfigError(f"there is no ROUGE kind '{name}'", fix=suggest(name, KINDS))
    if found["n"]:
        return Kind(_runs(int(found["n"])))
    if found["lcs"]:
        return Kind(_longest if found["lcs"] == "L" else _longest_by_line)
    if found["skip"]:
        return Kind(_pairs(int(found["gap"]) if found["gap"] else None, found["skip"] == "SU", variant))
    weight = float(found["weight"] or WEIGHT)
    if not 1 <= weight <= 10:
        raise ConfigError(
            f"{name}: the weight lies outside 1 to 10", fix="1.2 is usual; below 1 gaps would be favoured"
        )
    return Kind(_weighted(weight) if variant == "paper" else _weighted_by_line(weight), weight)


def _runs(n: int) -> Callable[[Text, Text], Hits]:
    def count(predicted: Text, wanted: Text) -> Hits:
        a, b = predicted.runs(n), wanted.runs(n)
        return Hits(a.shared(b), a.size, b.size)

    return count


def _longest(predicted: Text, wanted: Text) -> Hits:
    return Hits(lcs_length(wanted.tokens, predicted.tokens), len(predicted.tokens), len(wanted.tokens))


def _longest_by_line(predicted: Text, wanted: Text) -> Hits:
    """Count union subsequences (paper, section 3.2); a word never counts more often than either text has it."""
    left = _left(predicted, wanted)
    shared = 0
    for line in wanted.lines:
        mask = union_places(line, predicted.lines)
        shared += sum(_take(left, word) for i, word in enumerate(line) if mask >> i & 1)
    return Hits(shared, len(predicted.tokens), len(wanted.tokens))


def _left(predicted: Text, wanted: Text) -> Counter[Hashable]:
    """Give how often each word may still be counted."""
    return predicted.runs(1).counts() & wanted.runs(1).counts()


def _take(left: Counter[Hashable], word: str) -> bool:
    """Use up one occurrence of `word`; tell whether there was one."""
    if left[word] <= 0:
        return False
    left[word] -= 1
    return True


def _pairs(gap: int | None, with_words: bool, variant: Variant) -> Callable[[Text, Text], Hits]:
    """Count pairs, with single words for SU.

    The paper gives every word once, through a marker at the start; ROUGE-1.5.5
    never counts the last one.
    """

    def count(predicted: Text, wanted: Text) -> Hits:
        a, b = predicted.pairs(gap), wanted.pairs(gap)
        if not with_words:
            return Hits(a.shared(b), a.size, b.size)
        end = None if variant == "paper" else -1
        alone, theirs = Grams(predicted.tokens[:end]), Grams(wanted.tokens[:end])
        return Hits(a.shared(b) + alone.shared(theirs), a.size + alone.size, b.size + theirs.size)

    return count


def _weighted(weight: float) -> Callable[[Text, Text], Hits]:
    """Count as the paper does (section 4): R = f^-1(WLCS / f(m)), so identical texts give 1."""

    def count(predicted: Text, wanted: Text) -> Hits:
        shared = weighted(wanted.tokens, predicted.tokens, weight)
        return Hits(shared, len(predicted.tokens) ** weight, len(wanted.tokens) ** weight)

    return count


def _weighted_by_line(weight: float) -> Callable[[Text, Text], Hits]:
    """Count as ROUGE-1.5.5 does: runs are those of marked places in the reference, whose length is weighted twice."""

    def count(predicted: Text, wanted: Text) -> Hits:
        left = _left(predicted, wanted)
        shared = 0.0
        for line in wanted.lines:
            mask = 0
            for said in predicted.lines:
                mask |= weighted_places(line, said, weight)
            shared += _run_weights(line, mask, left, weight)
        base = sum(len(line) ** weight for line in wanted.lines) ** weight
        return Hits(shared, len(predicted.tokens) ** weight, base)

    return count


def _run_weights(line: Sequence[str], mask: int, left: Counter[Hashable], weight: float) -> float:
    """Sum run^weight over runs of marked words that could still be taken; one that could not neither adds nor ends."""
    shared, run = 0.0, 0
    for i, word in enumerate(line):
        if mask >> i & 1 and _take(left, word):
            run += 1
            if not mask >> (i + 1) & 1:
                shared, run = shared + run**weight, 0
    return shared
