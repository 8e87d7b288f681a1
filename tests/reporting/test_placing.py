"""Placing: names cover neither each other nor the points, where there is room."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.reporting.placing import Box, Post, _box, apart, at_end, place

AREA = Box(0, 0, 1000, 400)


def post(x, y, width=80.0):
    return Post(x, y, y - 30, y + 30, x, x, width)


def test_names_of_points_side_by_side_do_not_touch():
    posts = [post(100, 200), post(130, 200), post(160, 205), post(700, 100)]
    boxes = [_box(one, at) for one, at in zip(posts, place(posts, [], AREA), strict=True)]
    assert all(a.shared(b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_name_of_a_level_line_leaves_the_points_free():
    alone, _ = at_end(200, 80, [], AREA)
    assert (alone.align, alone.dy) == ("right", -10)
    for posts in ([post(960, 195)], [post(960, 195), post(40, 195)], [post(960, 160), post(40, 195), post(940, 240)]):
        _, box = at_end(200, 80, posts, AREA)
        assert all(box.shared(Box(one.x - 8, one.y - 8, one.x + 8, one.y + 8)) == 0 for one in posts)


def test_names_of_points_keep_off_a_name_that_stands_already():
    here = post(500, 200)
    there = _box(here, place([here], [], AREA)[0])
    moved = _box(here, place([here], [], AREA, [there])[0])
    assert moved.shared(there) == 0


def test_a_name_stays_inside_and_leaves_the_path_free():
    at_the_edge, far = post(990, 200), post(100, 200)
    assert place([at_the_edge], [], AREA)[0].align != "left"
    right = place([far], [], AREA)[0]
    off = place([far, post(900, 200)], [(far, post(900, 200))], AREA)[0]
    assert right.align == "left"
    assert right.dy == 0
    assert off != right


@given(st.lists(st.floats(0, 300), min_size=1, max_size=12))
def test_moved_positions_keep_their_order_and_their_distance(wanted):
    placed = apart(wanted, 20, 0, 300)
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    assert all(placed[b] - placed[a] >= 20 - 1e-9 for a, b in pairwise(order))


def test_positions_far_apart_stay():
    assert apart([10.0, 100.0, 50.0], 20, 0, 200) == [10.0, 100.0, 50.0]
