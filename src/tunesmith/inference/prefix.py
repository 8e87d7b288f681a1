"""What many sequences have in common is computed once: a plan for reading them along their prefix tree.

Sorted, sequences that begin alike lie next to each other, and each needs only
the tokens that its predecessor does not begin with. Read in that order, the
keys of a single path from the root are enough to go on from: those of what was
left behind are never needed again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from tunesmith.data.encode import common

Ids = tuple[int, ...]


@dataclass
class Pass:
    """Tokens that go through the network together.

    `ids` and `depths` [tokens] are the tokens and their places in their
    sequences; `segments` are runs of them (length, depth of the first), each
    following on a path that earlier ones have laid, and `of` the sequences they were read for.
    """

    ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    segments: list[tuple[int, int]] = field(default_factory=list)
    of: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], start: int, of: int) -> None:
        """Append a segment of `ids`, the first at depth `start`, read for sequence `of`."""
        self.ids += ids
        self.depths += range(start, start + len(ids))
        self.segments.append((len(ids), start))
        self.of.append(of)

    def last_rows(self) -> list[int]:
        """Give where each segment's last token is."""
        return [end - 1 for end in accumulate(length for length, _ in self.segments)]


@dataclass(frozen=True)
class Reading:
    """All passes, and where in them the last tokens of each sequence are: `ends[i]` are their places.

    Places count through all passes; what sequences have in common has one place.
    """

    passes: list[Pass]
    ends: list[list[int]]
    deepest: int

    @property
    def tokens(self) -> int:
        """Count the tokens that are computed."""
        return sum(len(one.ids) for one in self.passes)


def read_along(
    sequences: Sequence[Ids], last: Sequence[int], pass_tokens: int, share: bool = True, known: Ids = ()
) -> Reading:
    """Plan the reading of `sequences` in passes of at most `pass_tokens` tokens, no common beginning twice.

    The places of the last `last[i]` tokens of sequence `i` are given with it. Unless they `share`, every one is read
    from its own beginning. The tokens of `known` have been read before and lie ready; their places are below 0.
    """
    passes: list[Pass] = [Pass()]
    ends: list[list[int]] = [[] for _ in sequences]
    path, before = list(range(-len(known), 0)), known
    count = 0
    for i in sorted(range(len(sequences)), key=sequences.__getitem__):
        ids = sequences[i]
        start = common(before, ids) if share else 0
        for low, part in _parts(ids, start, passes, pass_tokens):
            passes[-1].add(part, low, i)
        path[start:] = range(count, count + len(ids) - start)
        count += len(ids) - start
        ends[i], before = path[len(ids) - last[i] :], ids
    return Reading([one for one in passes if one.ids], ends, max(map(len, sequences)))


def _parts(ids: Ids, start: int, passes: list[Pass], pass_tokens: int) -> Iterator[tuple[int, Ids]]:
    """Cut what follows `start` where the last pass is full, and begin a new one there.

    A segment that fits into a pass of its own is not cut for the sake of filling the last one.
    """
    while start < len(ids):
        room = pass_tokens - len(passes[-1].ids)
        left = len(ids) - start
        if room < min(left, pass_tokens):
            passes.append(Pass())
            room = pass_tokens
        yield start, ids[start : start + room]
        start += min(left, room)
