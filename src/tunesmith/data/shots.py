"""The examples shown in a few-shot prompt."""

import random
from collections.abc import Sequence

from tunesmith.data.rows import Row, draw
from tunesmith.errors import DataError


def pick_shots(pool: Sequence[Row], for_id: str, k: int, seed: int) -> list[Row]:
    """Choose `k` rows from `pool` for one question, never the question itself.

    The draw depends only on (seed, for_id): the same question gets the same
    shots whatever came before it, on any machine, with any limit or order.

    Raises DataError if the pool is too small.
    """
    others = sorted((row for row in pool if row.id != for_id), key=lambda row: row.id)
    if k > len(others):
        raise DataError(f"{k} shots asked, {len(others)} rows to choose from", fix=f"use at most {len(others)} shots")
    return random.Random(draw(seed, for_id)).sample(others, k)
