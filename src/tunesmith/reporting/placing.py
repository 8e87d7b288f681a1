"""Placing: where the names of points stand, so that none covers another's."""

from collections.abc import Sequence
from typing import NamedTuple

GAP, HALF = 11.0, 8.0  # pixels from a point to its name, and half a line of text


class Box(NamedTuple):
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: "Box") -> float:
        """Give the area that two boxes share."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)


class Post(NamedTuple):
    """A point with its whiskers, from `top` to `bottom` and from `left` to `right`, and how wide its name is."""

    x: float
    y: float
    top: float
    bottom: float
    left: float
    right: float
    width: float


class Place(NamedTuple):
    """Where a name stands: its distance from the point, and which of its ends is there."""

    dx: float
    dy: float
    align: str


def place(posts: Sequence[Post], path: Sequence[tuple[Post, Post]], area: Box, kept: Sequence[Box] = ()) -> list[Place]:
    """Give each name the place where it covers least of points and of the path, taking turns until nothing moves.

    What stands in the boxes `kept` is a name too. The earlier candidate wins a tie: right of the point, left, above,
    below.
    """
    chosen = [_candidates(post)[0] for post in posts]
    drawn = [*_drawn(posts), *_along(path)]
    for _ in range(4):
        before = list(chosen)
        for i, post in enumerate(posts):
            others = [*kept, *(_box(posts[j], chosen[j]) for j in range(len(posts)) if j != i)]
            chosen[i] = min(_candidates(post), key=lambda at: _cost(_box(post, at), others, drawn, area))
        if chosen == before:
            break
    return chosen


def at_end(line: float, width: float, posts: Sequence[Post], area: Box) -> tuple[Place, Box]:
    """Choose where the name of a level line at `line` covers least: at its right end or its left, above it or below.

    Gives the place, whose `dx` is from that end, and the box it fills. The earlier candidate wins a tie.
    """
    found = []
    for dy in (-10.0, 12.0):
        for align, left in (("right", area.right - width), ("left", 0.0)):
            found.append((Place(0, dy, align), Box(left, line + dy - HALF, left + width, line + dy + HALF)))
    drawn = _drawn(posts)
    return min(found, key=lambda one: _cost(one[1], [], drawn, area))


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move positions as little as needed to stand `gap` apart, in their order, within [low, high] if there is room."""
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    placed = [0.0] * len(wanted)
    at = low - gap
    for i in order:
        at = max(wanted[i], at + gap)
        placed[i] = at
    limit = high + gap
    for i in reversed(order):
        limit = min(placed[i], limit - gap)
        placed[i] = limit
    return placed


def _candidates(post: Post) -> list[Place]:
    above, below = post.top - post.y - HALF - 4, post.bottom - post.y + HALF + 4
    beside = [Place(GAP, dy, "left") for dy in (0, -12, 12)] + [Place(-GAP, dy, "right") for dy in (0, -12, 12)]
    over = [Place(0, dy, "center") for dy in (above, below)]
    turned = [Place(shift, dy, side) for dy in (above, below) for shift, side in ((-8, "left"), (8, "right"))]
    far = [Place(sign * 4, dy, side) for dy in (above - 16, below + 16) for sign, side in ((-1, "left"), (1, "right"))]
    return [*beside, *over, *turned, *far]


def _box(post: Post, at: Place) -> Box:
    x, y = post.x + at.dx, post.y + at.dy
    left = x - {"left": 0.0, "center": 0.5, "right": 1.0}[at.align] * post.width
    return Box(left, y - HALF, left + post.width, y + HALF)


def _drawn(posts: Sequence[Post]) -> list[tuple[float, Box]]:
    """Give what is drawn, with how much it matters to see it: points most, then whiskers."""
    points = [(4.0, Box(post.x - 8, post.y - 8, post.x + 8, post.y + 8)) for post in posts]
    upright = [(2.0, Box(post.x - 3, post.top, post.x + 3, post.bottom)) for post in posts]
    level = [(2.0, Box(post.left, post.y - 3, post.right, post.y + 3)) for post in posts]
    return [*points, *upright, *level]


def _along(path: Sequence[tuple[Post, Post]]) -> list[tuple[float, Box]]:
    """Give the lines between points, as small boxes along them."""
    found = []
    for a, b in path:
        for i in range(1, 40):
            x, y = a.x + (b.x - a.x) * i / 40, a.y + (b.y - a.y) * i / 40
            found.append((1.0, Box(x - 2, y - 2, x + 2, y + 2)))
    return found


def _cost(box: Box, others: Sequence[Box], drawn: Sequence[tuple[float, Box]], area: Box) -> float:
    """Count what a name covers: other names most, then what is drawn; outside is worst."""
    covered = sum(6 * box.shared(other) for other in others)
    covered += sum(weight * box.shared(one) for weight, one in drawn)
    outside = (box.right - box.left) * (box.bottom - box.top) - box.shared(area)
    return covered + 10 * outside
