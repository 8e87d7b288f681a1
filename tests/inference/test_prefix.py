"""The plan for reading sequences along their prefix tree: every token once, each on its own path."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.encode import common
from tunesmith.inference.prefix import read_along

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), min_size=1, max_size=20)


def walked(reading):
    """Follow the plan with one path, as the attention does: give the path at each place."""
    path, paths = [], []
    for one in reading.passes:
        row = 0
        for length, start in one.segments:
            assert one.depths[row : row + length] == list(range(start, start + length))
            for n in range(length):
                path = [*path[: start + n], one.ids[row + n]]
                paths.append(tuple(path))
            row += length
        assert row == len(one.ids)
    return paths


@given(SEQUENCES, st.integers(1, 30))
@settings(max_examples=200, deadline=None)
def test_each_sequence_lies_on_one_path_and_no_beginning_is_read_twice(sequences, pass_tokens):
    reading = read_along(sequences, [len(ids) for ids in sequences], pass_tokens)
    paths = walked(reading)
    assert len(paths) == len(set(paths)) == len({ids[:n] for ids in sequences for n in range(1, len(ids) + 1)})
    for ids, places in zip(sequences, reading.ends, strict=True):
        assert [paths[place] for place in places] == [ids[: n + 1] for n in range(len(ids))]


@given(SEQUENCES, st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_no_pass_is_larger_than_asked(sequences, pass_tokens):
    reading = read_along(sequences, [1] * len(sequences), pass_tokens)
    assert all(0 < len(one.ids) <= pass_tokens for one in reading.passes)
    assert all(len(places) == 1 for places in reading.ends)


def test_the_plan_does_not_depend_on_the_order_asked():
    sequences = [tuple(random.Random(i).choices(range(3), k=8)) for i in range(30)]
    shuffled = random.Random(1).sample(sequences, len(sequences))
    one, other = (read_along(each, [1] * 30, 10) for each in (sequences, shuffled))
    told = [[(each.ids, each.depths, each.segments) for each in plan.passes] for plan in (one, other)]
    assert told[0] == told[1]


@given(st.lists(st.integers(0, 1)).map(tuple), st.lists(st.integers(0, 1)).map(tuple))
def test_common_counts_equal_tokens_from_the_start(one, other):
    n = common(one, other)
    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]
