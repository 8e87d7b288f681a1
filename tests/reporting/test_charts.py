"""Charts: what is drawn is where the numbers say, readable, and well-formed."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tunesmith.reporting.charts import NARROW, TEXT, WIDE, Mark, both, ladder, loss, smooth, thin, ticks

MARKS = [Mark("zero-shot", 0.29, 0.26, 0.32, 60, "before"), Mark("LoRA", 0.41, 0.39, 0.43, 60, "after")]
STEPS = [(float(i), 2.0 - i / 50) for i in range(1, 41)]
VALIDATION = [(0.0, 2.1), (20.0, 1.7), (40.0, 1.3)]


def read(drawing):
    return ElementTree.fromstring(drawing)  # noqa: S314 - our own text


def drawings():
    return [
        *both(lambda width: ladder(MARKS, "ROUGE-1", width)),
        *both(lambda width: loss(STEPS, VALIDATION, 5, width)),
    ]


@pytest.mark.parametrize("drawing", drawings())
def test_every_chart_is_xml_with_a_title_a_description_and_a_viewbox(drawing):
    svg = read(drawing)
    assert svg.get("role") == "img"
    assert svg.find("title").text
    assert svg.find("desc").text
    assert svg.get("viewBox").startswith("0 0 ")


@pytest.mark.parametrize("drawing", drawings())
def test_no_chart_loads_anything_or_fixes_a_colour(drawing):
    assert "http" not in drawing
    colours = [e.get(key) for e in read(drawing).iter() for key in ("fill", "stroke")]
    assert all(c in (None, "none", "transparent") or c.startswith("var(--") for c in colours)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_all_text_stays_inside_and_keeps_its_size_on_a_phone(width):
    for drawing in (ladder(MARKS, "ROUGE-1", width), loss(STEPS, VALIDATION, 5, width)):
        svg = read(drawing)
        height = float(svg.get("height"))
        assert float(svg.get("font-size")) == TEXT
        assert all(0 <= float(t.get("x")) <= width and 0 <= float(t.get("y")) <= height for t in svg.iter("text"))
        assert not any(t.get("font-size") for t in svg.iter("text"))


def test_the_whisker_ends_where_the_interval_ends():
    svg = read(ladder(MARKS, "ROUGE-1"))
    for group, mark in zip(svg.findall("g"), MARKS, strict=True):
        xs = [float(p.split(",")[0]) for p in group.find("polyline").get("points").split()]
        dot = float(group.find("circle").get("cx"))
        share = (mark.value - mark.low) / (mark.high - mark.low)
        assert dot == pytest.approx(xs[0] + share * (xs[1] - xs[0]), abs=0.05)


def test_all_marks_share_one_scale():
    groups = read(ladder(MARKS, "ROUGE-1")).findall("g")
    (a, b), (c, d) = ([float(p.split(",")[0]) for p in g.find("polyline").get("points").split()] for g in groups)
    assert (b - a) / 0.06 == pytest.approx((d - c) / 0.04, rel=0.01)


def test_a_mark_says_its_numbers_when_pointed_at():
    assert "LoRA: 0.410, 95 % interval 0.390 to 0.430, 60 rows" in ladder(MARKS, "ROUGE-1")


def test_names_are_escaped():
    drawing = ladder([Mark("<script>&", 0.5, 0.4, 0.6, 9)], "a < b")
    assert "<script>" not in drawing
    assert "<script>&: 0.500" in read(drawing).find("g/title").text


def test_a_name_too_long_is_shortened_in_the_drawing_and_whole_in_the_tooltip():
    name = "a very long rung " * 10
    svg = read(ladder([Mark(name, 0.5, 0.4, 0.6, 9)], "ROUGE-1", NARROW))
    assert svg.find("g/text").text.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert svg.find("g/title").text.startswith(name)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_an_interval_of_no_width_can_be_drawn(value):
    read(ladder([Mark("same", value, value, value, 1)], "exact match"))


@pytest.mark.parametrize(("steps", "validation"), [([(1.0, 2.0)], []), ([(1.0, 0.0)], [(0.0, 0.0)]), ([], VALIDATION)])
def test_the_shortest_trainings_can_be_drawn(steps, validation):
    read(loss(steps, validation, 1, NARROW))


def test_every_validation_is_a_point_and_the_axes_carry_their_units():
    drawing = loss(STEPS, VALIDATION, 5)
    assert len(list(read(drawing).iter("circle"))) == len(VALIDATION)
    assert "validation after step 20: 1.700" in drawing
    assert ">nats per answer token<" in drawing
    assert ">step<" in drawing


@pytest.mark.parametrize(
    ("low", "high"), [(0.26, 0.43), (0, 1), (1.2, 3.9), (0, 12345), (0.4999, 0.5001), (2, 2), (0, 0)]
)
def test_ticks_are_round_evenly_spaced_few_and_enclose_the_data(low, high):
    found = ticks(low, high, 6)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 9
    gaps = [b - a for a, b in pairwise(found)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps))
    assert f"{gaps[0]:e}"[0] in "125"


def test_smoothing_keeps_a_constant_and_does_not_lag():
    assert smooth([2.0] * 7, 5) == [2.0] * 7
    assert smooth([0.0, 0.0, 3.0, 0.0, 0.0], 3) == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert smooth([1.0, 5.0], 1) == [1.0, 5.0]


def test_thinning_a_long_line_keeps_its_extremes_and_order():
    line = [(float(i), float((i * 7919) % 10007)) for i in range(20000)]
    few = thin(line, 1000)
    assert len(few) <= 1000
    assert few == sorted(few)
    assert max(v for _, v in few) == max(v for _, v in line)
    assert min(v for _, v in few) == min(v for _, v in line)
    assert thin(line[:50], 1000) == line[:50]
