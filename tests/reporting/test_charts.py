"""Charts: what is declared is what the numbers say, for a wide page and a phone."""

import json
import re
from itertools import pairwise

import pytest

from tunesmith.reporting.charts import Bar, Mark, bars, dots, loss, smooth, thin

MARKS = [Mark("zero-shot", 0.29, 0.26, 0.32, 60, "before"), Mark("LoRA", 0.41, 0.39, 0.43, 60, "after")]
STEPS = [(float(i), 2.0 - i / 50) for i in range(1, 41)]
VALIDATION = [(0.0, 2.1), (20.0, 1.7), (40.0, 1.3)]
BARS = [
    Bar(task, run, value, value - 0.05, value + 0.05, f"accuracy {value:.3f}")
    for task, value in (("topic", 0.5), ("nli", 0.3))
    for run in ("zero-shot", "LoRA")
]


def charts():
    return [dots(MARKS, "ROUGE-1"), bars(BARS, "accuracy"), loss(STEPS, VALIDATION, 5)]


@pytest.mark.parametrize("chart", charts(), ids=lambda chart: chart.title)
def test_every_chart_says_its_numbers_in_words(chart):
    assert chart.title
    assert re.search(r"\d\.\d\d\d", chart.words)


@pytest.mark.parametrize("chart", charts(), ids=lambda chart: chart.title)
def test_no_chart_loads_anything_or_fixes_a_colour(chart):
    for declared in (chart.wide, chart.narrow):
        assert "http" not in json.dumps(declared)
        assert "url" not in json.dumps(declared)
    for still in chart.stills:
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', still))
        assert all(colour in ("none", "transparent") or colour.startswith("var(--") for colour in colours), colours


@pytest.mark.parametrize("chart", charts(), ids=lambda chart: chart.title)
def test_a_still_drawing_takes_the_width_it_is_given(chart):
    for still, width in zip(chart.stills, (1040, 350), strict=True):
        head = still[: still.index(">")]
        assert head.startswith("<svg")
        assert ' width="' not in head
        found = float(re.search(r'viewBox="0 0 ([\d.]+)', head).group(1))
        assert found == pytest.approx(width, abs=1)


def test_the_width_of_a_live_chart_is_left_to_the_page():
    chart = dots(MARKS, "ROUGE-1")
    assert {spec["width"] for spec in chart.live.values()} == {"container"}


def test_a_mark_is_drawn_with_its_interval_and_says_it():
    values = dots(MARKS, "ROUGE-1").wide["data"]["values"]
    assert [(row["low"], row["value"], row["high"]) for row in values] == [(0.26, 0.29, 0.32), (0.39, 0.41, 0.43)]
    assert values[1]["said"] == "LoRA 0.410, 95 % interval 0.390 to 0.430, 60 rows"


def test_shares_are_written_as_percents():
    values = dots(MARKS, "share", share=True).wide["data"]["values"]
    assert values[0]["number"] == "29.0 %"


def test_only_a_first_mark_that_others_are_set_against_is_continued():
    others = [Mark("2-shot", 0.29, 0.26, 0.32, 60), *MARKS[1:]]
    assert len(dots(MARKS, "ROUGE-1").wide["layer"]) == len(dots(others, "ROUGE-1").wide["layer"]) + 1


def test_bars_begin_at_zero_and_group_by_task():
    wide = bars(BARS, "accuracy").wide
    bar = wide["layer"][0]["encoding"]
    assert bar["x2"] == {"datum": 0}
    assert bar["x"]["scale"]["domain"][0] == 0
    assert bar["y"]["sort"] == ["topic", "nli"]
    assert bar["yOffset"]["sort"] == ["zero-shot", "LoRA"]


def test_several_runs_have_a_legend_and_one_has_none():
    alone = [bar for bar in BARS if bar.run == "LoRA"]
    assert bars(BARS, "accuracy").wide["layer"][0]["encoding"]["color"]["legend"]
    assert bars(alone, "accuracy").wide["layer"][0]["encoding"]["color"]["legend"] is None


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_an_interval_of_no_width_can_be_drawn(value):
    assert "<svg" in dots([Mark("same", value, value, value, 1)], "exact match").stills[1]


@pytest.mark.parametrize(("steps", "validation"), [([(1.0, 2.0)], []), ([(1.0, 0.0)], [(0.0, 0.0)]), ([], VALIDATION)])
def test_the_shortest_trainings_can_be_drawn(steps, validation):
    assert "<svg" in loss(steps, validation, 1).stills[1]


def test_names_are_escaped_in_a_still_drawing():
    assert "<script>" not in dots([Mark("<script>&", 0.5, 0.4, 0.6, 9)], "a < b").stills[0]


def test_a_loss_without_validation_draws_no_points_of_it():
    assert len(loss(STEPS, [], 5).wide["layer"]) < len(loss(STEPS, VALIDATION, 5).wide["layer"])
    assert "Validation" not in loss(STEPS, [], 5).words


def test_the_running_mean_is_centred_and_does_not_lag():
    line = [float(i) for i in range(20)]
    assert smooth(line, 5)[2:-2] == line[2:-2]
    assert smooth(line, 1) == line
    assert smooth([1.0, 2.0, 3.0], 3) == [1.5, 2.0, 2.5]


def test_a_long_line_keeps_its_shape_in_few_points():
    line = [(float(i), float((i * 7919) % 1013)) for i in range(20_000)]
    few = thin(line, 1000)
    assert len(few) <= 1000
    assert all(a[0] < b[0] for a, b in pairwise(few))
    assert max(v for _, v in few) == max(v for _, v in line)
    assert min(v for _, v in few) == min(v for _, v in line)
    assert thin(line[:50], 1000) == line[:50]
