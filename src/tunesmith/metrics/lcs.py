"""Longest common subsequences: lengths, the places of one of them, and the weighted form.

Lengths and places use one big integer per row of the table (Hyyro 2004,
"Bit-parallel LCS-length computation revisited"), so a row costs a few machine
operations per 64 tokens instead of one Python step per cell.
"""

from collections.abc import Sequence

Row = int


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Give the length of the longest common subsequence of `a` and `b`."""
    row = full = (1 << len(a)) - 1
    places = _places(a)
    for token in b:
        if token in places:
            matched = row & places[token]
            row = ((row + matched) | (row - matched)) & full
    return len(a) - row.bit_count()


def union_places(wanted: Sequence[str], lines: Sequence[Sequence[str]]) -> int:
    """Mark the places of `wanted` that lie on its longest common subsequence with any of `lines`, as a bit mask.

    Of several longest ones the one counts that ROUGE-1.5.5 and `rouge_score`
    find, walking back from the end: a match is taken; otherwise the last token
    of `wanted` is given up if that costs nothing, else that of the line.
    """
    places = _places(wanted)
    union = 0
    for line in lines:
        for place, _ in _walk_back(wanted, line, _rows(places, len(wanted), line)):
            union |= 1 << place
    return union


def matches(wanted: Sequence[str], line: Sequence[str]) -> dict[int, int]:
    """Give the places of `wanted` that `union_places` marks for one line, each with its place in the line."""
    return dict(reversed(_walk_back(wanted, line, _rows(_places(wanted), len(wanted), line))))


def weighted(a: Sequence[str], b: Sequence[str], weight: float) -> float:
    """Give the weighted length: runs of k consecutive matches count k^weight (Lin 2004, section 4)."""
    best = [0.0] * (len(b) + 1)
    runs = [0] * (len(b) + 1)
    for x in a:
        diagonal, run = 0.0, 0  # of the row above, one to the left
        for j, y in enumerate(b, 1):
            above, run_above = best[j], runs[j]
            if x == y:
                best[j], runs[j] = diagonal + (run + 1) ** weight - run**weight, run + 1
            else:
                best[j], runs[j] = max(above, best[j - 1]), 0
            diagonal, run = above, run_above
    return best[-1]


def weighted_places(wanted: Sequence[str], line: Sequence[str], weight: float) -> int:
    """Mark the places of `wanted` on the weighted subsequence that ROUGE-1.5.5 walks back along, as a bit mask."""
    width = len(line) + 1
    best = [[0.0] * width for _ in range(len(wanted) + 1)]
    runs = [[0] * width for _ in range(len(wanted) + 1)]
    for i, x in enumerate(wanted, 1):
        for j, y in enumerate(line, 1):
            if x == y:
                run = runs[i - 1][j - 1]
                best[i][j], runs[i][j] = best[i - 1][j - 1] + (run + 1) ** weight - run**weight, run + 1
            else:
                best[i][j] = max(best[i - 1][j], best[i][j - 1])
    i, j, mask = len(wanted), len(line), 0
    while i and j:
        if wanted[i - 1] == line[j - 1]:
            i, j = i - 1, j - 1
            mask |= 1 << i
        elif best[i - 1][j] >= best[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return mask


def _places(tokens: Sequence[str]) -> dict[str, int]:
    """Give the places of each token, as bits."""
    places: dict[str, int] = {}
    bit = 1
    for token in tokens:
        places[token] = places.get(token, 0) | bit
        bit <<= 1
    return places


def _rows(places: dict[str, int], size: int, line: Sequence[str]) -> list[Row]:
    """Give the row after each token of `line`: bit i is 0 where the table grows from i to i + 1."""
    row = full = (1 << size) - 1
    rows = []
    for token in line:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & full
        rows.append(row)
    return rows


def _walk_back(wanted: Sequence[str], line: Sequence[str], rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Give the matched places in both, from the last to the first."""
    i, j = len(wanted), len(line)
    found = []
    while i and j:
        if wanted[i - 1] == line[j - 1]:
            i, j = i - 1, j - 1
            found.append((i, j))
        elif rows[j - 1] >> (i - 1) & 1:
            i -= 1
        else:
            j -= 1
    return found
