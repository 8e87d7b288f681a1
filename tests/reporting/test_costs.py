"""Charts of cost: each rung stands where its numbers say, and crossings where the lines meet."""

import json

import pytest

from tunesmith.reporting.costs import Crossing, Frame, Line, Spot, quality, totals
from tunesmith.reporting.scales import unit

SPOTS = [
    Spot("zero-shot", 700.0, 0.24, 0.21, 0.27, "ROUGE-1 0.240", group="a"),
    Spot("4-shot", 2000.0, 0.28, 0.25, 0.31, "ROUGE-1 0.280", "good", "a"),
    Spot("LoRA", 900.0, 0.33, 0.30, 0.36, "ROUGE-1 0.330", "recommended", "a"),
]
LINES = [Line("4-shot", 0.0, 2.0), Line("LoRA", 200.0, 1.0, "recommended")]


def frame(**more):
    return Frame("cost", "ROUGE-1", unit(None), **more)


def points(declared):
    return {
        row["name"]: (row["x"], row["y"])
        for layer in declared["layer"]
        if layer["mark"]["type"] == "point"
        for row in layer["data"]["values"]
    }


def test_every_rung_stands_at_its_cost_and_quality():
    chart = quality(SPOTS, frame(), "title")
    for declared in (chart.wide, chart.narrow):
        assert points(declared) == {spot.name: (spot.x, spot.y) for spot in SPOTS}
    assert "LoRA: ROUGE-1 0.330" in chart.words


def test_every_rung_is_named_at_its_point():
    wide = quality(SPOTS, frame(), "title").wide
    names = [layer["data"]["values"][0]["name"] for layer in wide["layer"] if layer["mark"]["type"] == "text"]
    assert set(names) == {spot.name for spot in SPOTS}


def test_the_target_is_a_line_and_within_the_axis():
    wide = quality(SPOTS, frame(target=0.5), "title").wide
    assert "target 0.5" in json.dumps(wide)
    assert wide["layer"][0]["encoding"]["y"]["scale"]["domain"][1] >= 0.5


def test_the_targets_name_is_drawn_above_the_points_and_leaves_them_free():
    chart = quality(SPOTS, frame(target=0.285), "title")
    for declared, side in ((chart.wide, "right"), (chart.narrow, "left")):  # on a phone 4-shot stands at the right end
        kinds = [layer["mark"]["type"] for layer in declared["layer"]]
        words = next(layer for layer in declared["layer"] if layer["mark"]["type"] == "text")
        assert words["data"]["values"][0]["name"] == "target 0.285"
        assert words["mark"]["align"] == side
        assert kinds.index("text") > max(i for i, kind in enumerate(kinds) if kind == "point")


def test_one_model_has_no_legend_and_several_have_colours_dashes_and_one():
    several = [*SPOTS, Spot("zero-shot", 100.0, 0.1, 0.05, 0.15, "told", group="b")]
    path = next(layer for layer in quality(several, frame(), "t").wide["layer"] if layer["mark"]["type"] == "line")
    assert path["encoding"]["color"]["legend"]
    assert path["encoding"]["strokeDash"]["scale"]["domain"] == ["a", "b"]
    alone = next(layer for layer in quality(SPOTS, frame(), "t").wide["layer"] if layer["mark"]["type"] == "line")
    assert "color" not in alone["encoding"]


def test_a_crowd_is_named_on_a_phone_only_where_it_is_good_enough():
    crowd = [*SPOTS, *(Spot(f"{i}-shot", 800.0 + i, 0.2, 0.1, 0.3, "told", group="a") for i in range(10, 20))]
    chart = quality(crowd, frame(), "t")
    wide, narrow = ({row["data"]["values"][0]["name"] for row in spec["layer"] if row["mark"]["type"] == "text"}
                    for spec in (chart.wide, chart.narrow))  # fmt: skip
    assert narrow == {"4-shot", "LoRA"}
    assert wide == {spot.name for spot in crowd}


def test_an_interval_of_x_is_drawn_level():
    kept = [Spot("LoRA", 0.9, 0.33, 0.3, 0.36, "told", across=(0.8, 1.0)), Spot("base", 1.0, 0.2, 0.1, 0.3, "told")]
    wide = quality(kept, frame(percent=True, joined=False), "t").wide
    rules = [layer["encoding"] for layer in wide["layer"] if layer["mark"]["type"] == "rule"]
    assert [rule["x"]["field"] for rule in rules if "x2" in rule] == ["left"]


def test_lines_cross_where_the_totals_are_equal():
    assert LINES[0].total(200) == LINES[1].total(200)
    chart = totals(LINES, [Crossing("LoRA", "4-shot", 200.0, 400.0)], 1000, unit(None))
    assert "LoRA is cheaper than 4-shot from 200 requests on" in chart.words
    crossing = next(layer for layer in chart.wide["layer"] if layer["mark"]["type"] == "point")
    assert crossing["data"]["values"][0]["x"] == 200.0
    low, high = crossing["encoding"]["x"]["scale"]["domain"]
    assert (low, high) == (10.0, 10_000.0)


def test_a_rung_that_costs_nothing_to_make_is_drawn_by_powers():
    wide = totals([Line("cheap", 0.0, 0.001), *LINES], [], 1000, unit(None)).wide
    assert min(wide["layer"][1]["encoding"]["y"]["scale"]["domain"]) > 0


@pytest.mark.parametrize("others", [[], LINES])
def test_what_costs_nothing_at_all_is_named_and_drawn_no_line(others):
    chart = totals([Line("free", 0.0, 0.0), *others], [], 1000, unit(None))
    for still in chart.stills:
        assert ">free</text>" in still


def test_points_that_cost_nothing_stand_at_the_left_end():
    free = [Spot("free", 0.0, 0.2, 0.1, 0.3, "told"), *SPOTS, Spot("dear", 90_000.0, 0.2, 0.1, 0.3, "told")]
    for spots in (free, free[:1]):
        wide = quality(spots, frame(), "t").wide
        scale = next(layer["encoding"]["x"]["scale"] for layer in wide["layer"] if layer["mark"]["type"] == "point")
        assert (scale["type"], scale["domain"][0]) == ("linear", 0.0)


@pytest.mark.parametrize("chart", [quality(SPOTS, frame(target=0.4), "t"), totals(LINES, [], 1000, unit(2.5))])
def test_still_drawings_name_every_rung(chart):
    for still in chart.stills:
        assert ">LoRA</text>" in still
        assert ">4-shot</text>" in still
