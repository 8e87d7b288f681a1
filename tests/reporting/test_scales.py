"""Scales: round numbers that enclose the data, and powers only where they are needed."""

from itertools import pairwise

import pytest

from tunesmith.reporting.scales import costs, logarithmic, money_said, seconds_said, straight, ticks, unit


@pytest.mark.parametrize(("low", "high"), [(0.261, 0.43), (0, 1), (1.2, 1.2), (0, 0), (-0.3, 4000), (1e-7, 3e-7)])
def test_ticks_enclose_the_data_and_are_evenly_apart(low, high):
    at = ticks(low, high, 6)
    assert at[0] <= low + 1e-12
    assert at[-1] >= high - 1e-12
    apart = [b - a for a, b in pairwise(at)]
    assert all(step == pytest.approx(apart[0]) and step > 0 for step in apart)
    assert len(at) <= 9


def test_costs_of_one_size_begin_at_zero_and_far_ones_go_by_powers():
    near, far = (costs("cost", values, unit(None), 8) for values in ([600.0, 900.0], [5.0, 90_000.0]))
    assert (near.log, near.low) == (False, 0.0)
    assert far.log
    assert near.high > 900
    assert (far.low < 5, far.high > 90_000) == (True, True)


def test_a_cost_of_nothing_does_not_stop_the_scale():
    assert costs("cost", [0.0, 0.0], unit(None), 8).share(0.0) == 0.0


def test_times_are_said_the_way_people_say_them():
    assert [seconds_said(s) for s in (0.5, 30, 300, 7200, 172_800)] == ["0.5 s", "30 s", "5 min", "2 h", "2 d"]
    assert all("." not in name for _, name in costs("cost", [3.0, 90_000.0], unit(None), 8).ticks)


def test_a_price_turns_time_into_money():
    counted = unit(3.6)
    assert counted.worth * 1000 == pytest.approx(1.0)
    assert counted.say(0.25) == "0.25"
    assert money_said(12_345.6) == "12,346"


def test_a_value_falls_between_the_ends():
    scale = logarithmic("requests", (10.0, 1000.0), str, 5)
    assert [scale.share(x) for x in (10.0, 100.0, 1000.0)] == pytest.approx([0.0, 0.5, 1.0])
    assert [tick for tick, _ in scale.ticks] == [10.0, 100.0, 1000.0]


def test_percents_are_written_with_as_many_decimals_as_they_need():
    assert [name for _, name in straight("kept", [0.9, 1.0], 5, percent=True).ticks][-1] == "100 %"
    assert straight("kept", [0.99, 1.0], 5, percent=True).ticks[0][1] == "99.0 %"
