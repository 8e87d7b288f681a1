"""Marking: which words of an answer are in its reference, and which of them the other answer has not."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from tunesmith.metrics.lcs import matches
from tunesmith.metrics.words import spans

Kind = Literal["", "shared", "alone"]


class Piece(NamedTuple):
    """A stretch of an answer: `shared` with the reference, shared by this answer `alone`, or neither."""

    text: str
    kind: Kind


def pieces(answer: str, references: Sequence[str], other: str | None = None) -> list[Piece]:
    """Cut an answer where its marking changes; the pieces together are the answer.

    Marked is what ROUGE-L counts: the words on a longest common subsequence
    with a reference, of several references the nearest. Of these, `alone` are
    those that stand for words of the reference which `other` has not found.
    """
    cut = spans(answer)
    nearest = max((_words(one) for one in references), key=lambda one: len(matches(_words(answer), one)), default=[])
    mine = matches(_words(answer), nearest)
    theirs = None if other is None else set(matches(_words(other), nearest).values())
    kinds: list[tuple[int, int, Kind]] = []
    for i, (start, end, _) in enumerate(cut):
        alone = theirs is not None and i in mine and mine[i] not in theirs
        kinds.append((start, end, "alone" if alone else "shared" if i in mine else ""))
    return _joined(_filled(answer, kinds))


def _words(text: str) -> list[str]:
    return [word for *_, word in spans(text)]


def _filled(answer: str, kinds: Sequence[tuple[int, int, Kind]]) -> list[Piece]:
    """Give the words and what stands between them, which is marked where both neighbours are alike."""
    found: list[Piece] = []
    at = 0
    last: Kind = ""
    for start, end, kind in kinds:
        between = answer[at:start]
        found.append(Piece(between, kind if kind == last and not between.strip() else ""))
        found.append(Piece(answer[start:end], kind))
        at, last = end, kind
    return [*found, Piece(answer[at:], "")]


def _joined(found: Sequence[Piece]) -> list[Piece]:
    """Join neighbours of one kind."""
    joined: list[Piece] = []
    for piece in found:
        if joined and joined[-1].kind == piece.kind:
            joined[-1] = Piece(joined[-1].text + piece.text, piece.kind)
        elif piece.text:
            joined.append(piece)
    return joined
