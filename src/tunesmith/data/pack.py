"""Packing: many rows into one batch, in an order that depends on the seed alone."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from tunesmith.data.encode import Encoded
from tunesmith.data.rows import draw

WINDOW = 64  # batches whose rows are sorted by length together: enough to pad little, few enough to mix

T = TypeVar("T")


class Layout(NamedTuple):
    """How documents lie in a packed row: a beginning of `shared` tokens that all have, then the rest of each.

    With nothing shared, `lengths` are those of the whole documents.
    """

    shared: int
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Count the tokens of the row."""
        return self.shared + sum(self.lengths)


def epoch_order(rows: Sequence[Encoded], seed: int, epoch: int) -> list[Encoded]:
    """Shuffle the rows; the order depends only on (seed, epoch, ids)."""
    return sorted(rows, key=lambda row: draw(seed, f"{epoch}/{row.id}"))


def pack(rows: Sequence[Encoded], batch_tokens: int) -> list[list[Encoded]]:
    """Fill batches with whole rows, in order, up to `batch_tokens` real tokens each.

    Nothing is padded or split; a row longer than the budget is a batch of its own.
    """
    batches: list[list[Encoded]] = []
    room = 0
    for row in rows:
        if row.size > room:
            batches.append([])
            room = batch_tokens
        batches[-1].append(row)
        room -= row.size
    return batches


def pack_padded(rows: Sequence[Encoded], batch_tokens: int, seed: int) -> list[list[Encoded]]:
    """Fill batches for an encoder-decoder, whose rows are padded to the longest of the batch.

    Rows of similar length share a batch: they are sorted within windows, cut so
    that the padded size of prompt and answer stays within `batch_tokens`, and
    the batches are put back into a seeded order.
    """
    mean = sum(row.size for row in rows) / len(rows)
    window = max(1, int(WINDOW * batch_tokens / mean))
    batches: list[list[Encoded]] = []
    for start in range(0, len(rows), window):
        batch: list[Encoded] = []
        for row in sorted(rows[start : start + window], key=lambda row: (len(row.prompt), len(row.answer))):
            if batch and _padded([*batch, row]) > batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(row)
        batches.append(batch)
    return sorted(batches, key=lambda batch: draw(seed, batch[0].id))


def groups(batches: Sequence[T], size: int) -> list[list[T]]:
    """Cut `batches` into groups of `size`; the last may be smaller."""
    return [list(batches[start : start + size]) for start in range(0, len(batches), size)]


def _padded(batch: Sequence[Encoded]) -> int:
    return len(batch) * (max(len(row.prompt) for row in batch) + max(len(row.answer) for row in batch))
