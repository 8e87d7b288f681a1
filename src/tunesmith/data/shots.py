"""The examples shown in a few-shot prompt."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.data.rows import Row, draw
from tunesmith.errors import DataError


@dataclass(frozen=True)
class Pool:
    """Rows to choose examples from, in the order of their ids, and the place of each; made once for many questions."""

    rows: tuple[Row, ...]
    places: Mapping[str, int]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Pool":
        """Order rows, whose ids are unique, by their ids."""
        ordered = tuple(sorted(rows, key=lambda row: row.id))
        return cls(ordered, {row.id: place for place, row in enumerate(ordered)})


def pick_shots(pool: Pool | Sequence[Row], for_id: str, k: int, seed: int) -> list[Row]:
    """Choose `k` rows from `pool` for one question, never the question itself.

    The draw depends only on (seed, for_id): the same question gets the same
    shots whatever came before it, on any machine, with any limit or order.

    Raises DataError if the pool is too small.
    """
    pool = pool if isinstance(pool, Pool) else Pool.of(pool)
    itself = pool.places.get(for_id, len(pool.rows))
    others = len(pool.rows) - (itself < len(pool.rows))
    if k > others:
        raise DataError(f"{k} shots asked, {others} rows to choose from", fix=f"use at most {others} shots")
    picked = random.Random(draw(seed, for_id)).sample(range(others), k)
    return [pool.rows[place + (place >= itself)] for place in picked]
