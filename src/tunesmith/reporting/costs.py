"""The charts of what quality costs: points against an axis of cost, and cost against the number of requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from tunesmith.reporting.charts import dashes, legend, text_width
from tunesmith.reporting.drawing import ACCENT, INK, PAPER, RULE, SERIES, SOFT, WIDE, Chart, Spec, chart, rows, spec
from tunesmith.reporting.drawing import lettering as written
from tunesmith.reporting.placing import Box, Place, Post, apart, at_end, place
from tunesmith.reporting.scales import Scale, Unit, costs, logarithmic, straight

CROWD = 9  # more names than these have no room on a phone: the rungs that are not good enough go without

Standing = Literal["recommended", "good", "other"]
POINT: dict[Standing, Spec] = {
    "recommended": {"size": 330, "strokeWidth": 2, "filled": True},
    "good": {"size": 130, "strokeWidth": 2, "filled": True},
    "other": {"size": 110, "strokeWidth": 2.2, "filled": False, "fill": PAPER},
}


@dataclass(frozen=True)
class Spot:
    """A rung to draw: what it costs (x), its quality (y) with the ends of the interval, and how it stands."""

    name: str
    x: float
    y: float
    low: float
    high: float
    told: str
    standing: Standing = "other"
    group: str = ""
    across: tuple[float, float] | None = None  # the ends of the interval of x, if it has one


@dataclass(frozen=True)
class Frame:
    """What the axes of a chart of spots are called; `target` is the quality that was asked for.

    `percent` says that x is a share, else it is an amount of `counted`. `groups` are those of the page in their order,
    so that each has one colour in all charts.
    """

    x: str
    y: str
    counted: Unit
    target: float | None = None
    percent: bool = False
    joined: bool = True
    groups: tuple[str, ...] = ()


def quality(spots: Sequence[Spot], frame: Frame, title: str) -> Chart:
    """Declare quality with its interval against cost, each rung named at its point."""
    return chart(title, "; ".join(f"{spot.name}: {spot.told}" for spot in spots), partial(_quality, spots, frame))


def _quality(spots: Sequence[Spot], frame: Frame, width: float) -> Spec:
    wide = width == WIDE
    height = 430.0 if wide else 400.0
    ends = [end for spot in spots for end in (spot.low, spot.high)]
    y = straight(frame.y, [*ends, *([frame.target] if frame.target is not None else [])], 7 if wide else 6, room=0.12)
    xs = [x for spot in spots for x in (spot.x, *(spot.across or ()))]
    most = 8 if wide else 4
    x = (
        straight(frame.x, xs, most, percent=True, room=0.05)
        if frame.percent
        else costs(frame.x, xs, frame.counted, most)
    )
    groups = list(dict.fromkeys([*frame.groups, *(spot.group for spot in spots)]))
    values = [_row(spot, groups) for spot in spots]
    named = spots if wide or len(spots) <= CROWD else [spot for spot in spots if spot.standing != "other"]
    title_x = x.axis(grid=False, titlePadding=14, labelFlush=False)
    axes = {
        "x": {"field": "x", "type": "quantitative", "scale": x.scale(), "axis": title_x},
        "y": {"field": "y", "type": "quantitative", "scale": y.scale(), "axis": y.axis(title=None)},
    }
    told = None if frame.target is None else _target(frame.target, axes, (x, y), spots, (width - 50, height))
    places = _places(named, frame.joined, (x, y), (width - 50, height), [told.box] if told else [])
    layers = [
        *([told.rule] if told else []),
        *([_path(values, axes, groups, wide)] if frame.joined else []),
        *_whiskers(values, axes),
        *_points(values, axes, spots),
        *(told.words if told else []),
        *_named(named, axes, places),
    ]
    title = {"text": frame.y, "offset": 14}
    return spec(width, height, layers, title=title)


def _row(spot: Spot, groups: Sequence[str]) -> dict[str, Any]:
    """Give a spot as data; one model's colour is the page's own, several have their own."""
    alone = ACCENT if spot.standing == "recommended" else INK if spot.standing == "good" else SOFT
    colour = alone if len(groups) == 1 else _colours(groups)["range"][groups.index(spot.group)]
    kept = {"name": spot.name, "x": spot.x, "y": spot.y, "low": spot.low, "high": spot.high, "group": spot.group}
    ends = dict(zip(("left", "right"), spot.across or (), strict=False))
    return {**kept, **ends, "standing": spot.standing, "colour": colour, "said": f"{spot.name}: {spot.told}"}


def _colour() -> Spec:
    return {"field": "colour", "type": "nominal", "scale": None}


def _told() -> Spec:
    return {"field": "said", "type": "nominal"}


def _colours(groups: Sequence[str]) -> Spec:
    """Give each model a colour; the grey one, which stands for a base, comes last."""
    turned = [*SERIES[1:], SERIES[0]]
    return {"domain": list(groups), "range": [turned[i % len(turned)] for i in range(len(groups))]}


def _path(values: Sequence[Spec], axes: Spec, groups: Sequence[str], wide: bool) -> Spec:
    """Join the rungs of a model, from the first to the last."""
    numbered = [{**value, "order": i} for i, value in enumerate(values)]
    look = {"type": "line", "strokeWidth": 1.5, "aria": False, **({"color": RULE} if len(groups) == 1 else {})}
    told = legend(len(groups), wide, "stroke")
    several = {
        "color": {"field": "group", "type": "nominal", "scale": _colours(groups), "legend": told},
        "strokeDash": {"field": "group", "type": "nominal", "scale": dashes(groups), "legend": told},
    }
    by = several if len(groups) > 1 else {}
    return {"data": rows(numbered), "mark": look, "encoding": {**axes, "order": {"field": "order"}, **by}}


def _whiskers(values: Sequence[Spec], axes: Spec) -> list[Spec]:
    """Give the intervals: upright those of quality, level those of x."""
    mark = {"type": "rule", "strokeWidth": 2, "strokeCap": "round", "aria": False}
    up = {"x": axes["x"], "y": {**axes["y"], "field": "low"}, "y2": {"field": "high"}, "color": _colour()}
    level = {"y": axes["y"], "x": {**axes["x"], "field": "left"}, "x2": {"field": "right"}, "color": _colour()}
    wide = [value for value in values if "left" in value]
    found = [{"data": rows(values), "mark": mark, "encoding": up}]
    return [*found, *([{"data": rows(wide), "mark": mark, "encoding": level}] if wide else [])]


def _points(values: Sequence[Spec], axes: Spec, spots: Sequence[Spot]) -> list[Spec]:
    """Give the points, those of each standing with its own look; the recommended one lies on top."""
    found = []
    for standing in ("other", "good", "recommended"):
        kept = [value for value, spot in zip(values, spots, strict=True) if spot.standing == standing]
        look = {"type": "point", "opacity": 1, **POINT[standing]}
        if kept:
            paint = {"stroke": _colour()} if standing == "other" else {"color": _colour()}
            found.append({"data": rows(kept), "mark": look, "encoding": {**axes, **paint, "tooltip": _told()}})
    return found


def _places(
    spots: Sequence[Spot], joined: bool, scales: tuple[Scale, Scale], size: tuple[float, float], kept: Sequence[Box]
) -> list[Place]:
    """Choose where each name stands, for a frame of this size; another one stands in each box of `kept`."""
    x, y = scales
    posts = [_post(spot, x, y, size) for spot in spots]
    path = [
        (a, b) for a, b, one, other in zip(posts, posts[1:], spots, spots[1:], strict=False) if one.group == other.group
    ]
    return place(posts, path if joined else [], _area(size), kept)


def _area(size: tuple[float, float]) -> Box:
    return Box(-8, 0, *size)


def _post(spot: Spot, x: Scale, y: Scale, size: tuple[float, float]) -> Post:
    """Give a spot in pixels."""
    (wide, high), (left, right) = size, spot.across or (spot.x, spot.x)
    middle, top, bottom = (high * (1 - y.share(value)) for value in (spot.y, spot.high, spot.low))
    name = text_width(spot.name) * (1.08 if spot.standing == "recommended" else 1.0)
    return Post(wide * x.share(spot.x), middle, top, bottom, wide * x.share(left), wide * x.share(right), name)


def _named(spots: Sequence[Spot], axes: Spec, places: Sequence[Place]) -> list[Spec]:
    found: list[Spec] = []
    for spot, at in zip(spots, places, strict=True):
        bold = {"fontWeight": 700} if spot.standing == "recommended" else {}
        colour = SOFT if spot.standing == "other" else INK
        words = {"dx": at.dx, "dy": at.dy, "align": at.align, "color": colour, **bold}
        data = rows([{"x": spot.x, "y": spot.y, "name": spot.name}])
        found += written(words, {**axes, "text": {"field": "name"}}, data)
    return found


class Target(NamedTuple):
    """The line that a rung was asked to reach, its name, and the box that the name fills."""

    rule: Spec
    words: list[Spec]
    box: Box


def _target(
    target: float, axes: Spec, scales: tuple[Scale, Scale], spots: Sequence[Spot], size: tuple[float, float]
) -> Target:
    """Give the line that a rung was asked to reach; its name stands where it covers no point, if there is room."""
    name, at = f"target {target:g}", {"y": {**axes["y"], "field": "y"}}
    line, posts = size[1] * (1 - scales[1].share(target)), [_post(spot, *scales, size) for spot in spots]
    stands, box = at_end(line, text_width(name), posts, _area(size))
    data = rows([{"y": target, "name": name}])
    rule = {"data": data, "mark": {"type": "rule", "strokeDash": [6, 4], "color": INK, "aria": False}, "encoding": at}
    words = {"align": stands.align, "dy": stands.dy, "color": INK}
    end = {"x": {"value": "width" if stands.align == "right" else 0}}
    return Target(rule, written(words, {**at, "text": {"field": "name"}, **end}, data), box)


@dataclass(frozen=True)
class Line:
    """What one rung costs in all: the making once, and each request, in the unit of the page."""

    name: str
    making: float
    request: float
    standing: Standing = "other"

    def total(self, requests: float) -> float:
        """Give the cost of making it and answering so many requests."""
        return self.making + requests * self.request


@dataclass(frozen=True)
class Crossing:
    """From `requests` on, `rung` is cheaper in all than `than`."""

    rung: str
    than: str
    requests: float
    total: float


def totals(lines: Sequence[Line], crossings: Sequence[Crossing], requests: float, counted: Unit) -> Chart:
    """Declare the cost in all against the number of requests, with the points where one rung overtakes another."""
    said = [f"{line.name}: {counted.say(line.total(requests))} for {requests:,.0f} requests" for line in lines]
    said += [f"{one.rung} is cheaper than {one.than} from {one.requests:,.0f} requests on" for one in crossings]
    draw = partial(_totals, lines, crossings, requests, counted)
    return chart("Cost in all, against the number of requests", "; ".join(said), draw)


def _totals(lines: Sequence[Line], crossings: Sequence[Crossing], requests: float, counted: Unit, width: float) -> Spec:
    wide = width == WIDE
    height = 380.0 if wide else 360.0
    ends = [requests, *(one.requests for one in crossings)]
    x = logarithmic("requests answered", (min(10.0, min(ends) / 3), max(ends) * 10), _count, 8 if wide else 4)
    grid = [x.low * (x.high / x.low) ** (i / 60) for i in range(61)]
    every = [line.total(at) for line in lines for at in (grid[0], grid[-1]) if line.total(at) > 0] or [1.0]
    y = logarithmic("", (min(every) / 1.3, max(every) * 1.3), counted.say, 7, counted.is_time)
    axes = {
        "x": {"field": "x", "type": "quantitative", "scale": x.scale(), "axis": x.axis()},
        "y": {"field": "y", "type": "quantitative", "scale": y.scale(), "axis": y.axis(title=None)},
    }
    layers = [
        _counted(requests, axes),
        *_drawn(lines, grid, axes),
        *_crossed(crossings, axes, counted),
        *_ends(lines, y, axes, height),
    ]
    title = {"text": "cost in all: making it, and every request", "offset": 14}
    return spec(width, height, layers, title=title, padding={"left": 2, "top": 2, "bottom": 2, "right": 14})


def _count(amount: float) -> str:
    """Write a number of requests at an axis."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if amount >= size:
            return f"{amount / size:g} {unit}"
    return f"{amount:g}"


def _counted(requests: float, axes: Spec) -> Spec:
    """Give the line at the number of requests by which the rungs were weighed."""
    at = {"x": {**axes["x"], "field": "x"}}
    data = rows([{"x": requests, "said": f"weighed for {requests:,.0f} requests"}])
    mark = {"type": "rule", "strokeDash": [3, 4], "color": RULE, "strokeWidth": 1.5}
    return {"data": data, "mark": mark, "encoding": {**at, "tooltip": _told()}}


def _drawn(lines: Sequence[Line], grid: Sequence[float], axes: Spec) -> list[Spec]:
    """Give the lines: the recommended rung bold, the others told apart by dashes, each named at its end."""
    found = []
    for i, line in enumerate(lines):
        kept = [{"x": at, "y": line.total(at), "said": line.name} for at in grid if line.total(at) > 0]
        main = line.standing == "recommended"
        look = {"strokeWidth": 3, "color": ACCENT} if main else {"strokeWidth": 1.6, "color": SOFT, **_dash(i)}
        told = {"tooltip": _told()}
        mark = {"type": "line", "aria": False, **look}
        found.append({"data": rows(kept), "mark": mark, "encoding": {**axes, **told}})
    return found


def _dash(i: int) -> Spec:
    return {"strokeDash": dashes([str(k) for k in range(i + 1)])["range"][i]}


def _crossed(crossings: Sequence[Crossing], axes: Spec, counted: Unit) -> list[Spec]:
    if not crossings:
        return []
    kept = [
        {"x": one.requests, "y": one.total,
         "said": f"from {one.requests:,.0f} requests on, {one.rung} is cheaper than {one.than}"} for one in crossings
    ]  # fmt: skip
    point = {"type": "point", "filled": False, "fill": PAPER, "stroke": INK, "strokeWidth": 2, "size": 90, "opacity": 1}
    return [{"data": rows(kept), "mark": point, "encoding": {**axes, "tooltip": _told()}}]


def _ends(lines: Sequence[Line], y: Scale, axes: Spec, height: float) -> list[Spec]:
    """Name each line at its right end, the names moved apart."""
    high = max(axes["x"]["scale"]["domain"])
    wanted = [height * (1 - y.share(max(line.total(high), y.low))) for line in lines]  # what is free ends at the foot
    found: list[Spec] = []
    for line, at in zip(lines, apart(wanted, 17, 0, height), strict=True):
        bold = {"fontWeight": 700, "color": INK} if line.standing == "recommended" else {"color": SOFT}
        mark = {"type": "text", "align": "left", "dx": 8, **bold}
        place_at = {"x": {"value": "width"}, "y": {"value": at}, "text": {"field": "name"}}
        found.append({"data": rows([{"name": line.name}]), "mark": mark, "encoding": place_at})
    return found
