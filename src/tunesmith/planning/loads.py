"""Loads: what one forward pass is given to compute, counted from the lengths of its rows alone."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

Laying = Literal["packed", "padded", "encoder-decoder"]


class Load(NamedTuple):
    """One forward pass: `tokens` go through the blocks, `scores` are pairs of a query and a key, of one head.

    Of an encoder-decoder they are the decoder's, cross attention included; `read` and `read_scores` the encoder's.
    `answers` carry loss; `projected` positions get logits. `real` are the rows' own tokens, padding left out.
    `widest` is how many of the scores are computed at a time: a block of one document, or all of a padded batch.
    """

    tokens: int
    scores: int
    answers: int
    projected: int
    real: int
    widest: int
    read: int = 0
    read_scores: int = 0


class Length(NamedTuple):
    """The tokens of one row: those read and those that carry loss."""

    prompt: int
    answer: int

    @property
    def size(self) -> int:
        """Count both."""
        return self.prompt + self.answer


def load_of(rows: Sequence[Length], laying: Laying, block: int, shared: int = 0) -> Load:
    """Count what a pass over `rows` computes.

    Packed rows attend in blocks of `block` queries, each against the keys up to its own end, and what all rows
    `shared` stands once before them. Others are padded to the longest of the batch.
    """
    answers, real = sum(row.answer for row in rows), sum(row.size for row in rows)
    if laying == "packed":
        rests = [row.size - shared for row in rows]
        scores = [*_blocks(0, shared, block), *(one for rest in rests for one in _blocks(shared, rest, block))]
        return Load(shared + sum(rests), sum(scores), answers, answers, real, max(scores))
    n = len(rows)
    if laying == "padded":
        longest = max(row.size for row in rows)
        return Load(n * longest, n * longest**2, answers, answers, real, n * longest**2)
    asked, said = max(row.prompt for row in rows), max(row.answer for row in rows)
    seen = n * said * (said + asked)
    return Load(n * said, seen, answers, n * said, real, seen, n * asked, n * asked**2)


def _blocks(shared: int, length: int, block: int) -> Iterator[int]:
    """Give queries times keys of each block of a document that stands behind `shared` tokens."""
    for low in range(0, length, block):
        high = min(length, low + block)
        yield (high - low) * (shared + high)


def worst_rows(batch_tokens: int, max_tokens: int, share: float) -> list[Length]:
    """Fill a batch with rows of `max_tokens`, of which `share` carries loss: the most that a recipe allows."""
    answer = max(1, round(share * max_tokens))
    return [Length(max_tokens - answer, answer)] * max(1, batch_tokens // max_tokens)
