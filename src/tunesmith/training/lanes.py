"""Side by side on a processor: parts of a batch in threads, each with its share of the cores.

Between the large products of a step lie thousands of small operations. With
all cores on each of them, they wait for one another at every one; with a part
of the batch each, they meet once a step (decision 0010). torch lets go of the
interpreter inside its operations, so threads suffice.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

LANES = 2


class Sized(Protocol):
    """A row, as far as it matters here: so many tokens."""

    @property
    def size(self) -> int:
        """Count its tokens."""


T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S", bound=Sized)


class Run(Protocol):
    """Apply a function to each part; give the results in the order of the parts, each as soon as it is its turn."""

    def __call__(self, function: Callable[[T], R], parts: Sequence[T], ahead: int = 0, /) -> Iterator[R]:
        """Give `map(function, parts)`; a part is begun when no more than `ahead` results wait besides those at work.

        Results that are large, as gradients are, would otherwise pile up behind a part that takes longer.
        """


def alone(function: Callable[[T], R], parts: Sequence[T], ahead: int = 0) -> Iterator[R]:
    """Take one part after the other, all cores on each."""
    return map(function, parts)


@contextmanager
def side_by_side() -> Iterator[Run]:
    """Give a `Run` that takes `LANES` parts at the same time; one after the other if there is a single core.

    Each thread has torch's settings of its own: a function that needs no
    gradients says so itself. Outside of a call the number of torch's threads
    is what it was.
    """
    threads = torch.get_num_threads()
    if threads < LANES:
        yield alone
        return
    with ThreadPoolExecutor(LANES, thread_name_prefix="lane") as pool:

        def run(function: Callable[[T], R], parts: Sequence[T], ahead: int = 0, /) -> Iterator[R]:
            def within(part: T) -> R:
                torch.set_num_threads(threads // LANES)
                return function(part)

            if len(parts) < LANES:
                yield from map(function, parts)
                return
            try:
                yield from _in_turn(pool, within, parts, LANES + ahead)
            finally:
                torch.set_num_threads(threads)

        yield run


def _in_turn(pool: Executor, function: Callable[[T], R], parts: Sequence[T], most: int) -> Iterator[R]:
    """Give results in the order of the parts, `most` of which are begun and not yet given at any time."""
    begun: deque[Future[R]] = deque()
    for part in parts:
        if len(begun) == most:
            yield begun.popleft().result()
        begun.append(pool.submit(function, part))
    while begun:
        yield begun.popleft().result()


def cut(rows: Sequence[S], width: int) -> list[list[S]]:
    """Cut the rows of a packed batch into parts that take equally long, as nearly as whole rows allow.

    A row takes its length, and as much again for attention at twice the model's
    `width`. Of all sums that some of the rows can have, bit `n` of `sums[i]`
    telling whether the first `i` can have `n`, the one nearest to half is taken.
    """
    costs = [row.size + row.size**2 // (2 * width) for row in rows]
    sums = [1]
    for cost in costs:
        sums.append(sums[-1] | sums[-1] << cost)
    half = sum(costs) // 2
    below = sums[-1] & ((1 << half + 1) - 1)
    left = below.bit_length() - 1
    parts: tuple[list[S], list[S]] = ([], [])
    for i in range(len(rows), 0, -1):
        takes = not sums[i - 1] >> left & 1
        parts[takes].append(rows[i - 1])
        left -= costs[i - 1] * takes
    return [part[::-1] for part in parts if part]
