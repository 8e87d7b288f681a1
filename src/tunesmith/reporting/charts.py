"""The charts of scores and losses: data in, declarations out, nothing read and nothing kept."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from tunesmith.reporting.drawing import (
    ACCENT,
    CHARACTER,
    DASHES,
    INK,
    PAPER,
    RULE,
    SERIES,
    SOFT,
    WIDE,
    Chart,
    Spec,
    chart,
    lettering,
    rows,
    spec,
)
from tunesmith.reporting.numbers import fixed, percent
from tunesmith.reporting.scales import Scale, straight, ticks

Role = Literal["before", "after", "other"]
Point = tuple[float, float]
ROLES = {"before": "var(--before)", "after": "var(--after)", "other": SOFT}


@dataclass(frozen=True)
class Mark:
    """One score to draw: its value, the ends of its 95 % interval, and what it rests on."""

    name: str
    value: float
    low: float
    high: float
    n: int
    role: Role = "other"

    def said(self, share: bool = False) -> str:
        """Say the mark in words."""
        write = percent if share else fixed
        return f"{self.name} {write(self.value)}, 95 % interval {write(self.low)} to {write(self.high)}, {self.n} rows"


def dots(marks: Sequence[Mark], axis: str, share: bool = False) -> Chart:
    """Declare each mark with its interval as a whisker, one below the other.

    A dashed line continues the first where it is what the others are set against. Names stand left of the whiskers,
    or above them where the drawing is narrow. With `share` the values are percents.
    """
    words = "; ".join(mark.said(share) for mark in marks)
    return chart(f"{axis}, with 95 % intervals", words, partial(_dots, marks, axis, share))


def _dots(marks: Sequence[Mark], axis: str, share: bool, width: float) -> Spec:
    wide, ends = width == WIDE, [end for mark in marks for end in (mark.low, mark.high)]
    scale = straight(axis, ends, 8 if wide else 4, share)
    values = [
        {"name": m.name, "value": m.value, "low": m.low, "high": m.high, "colour": ROLES[m.role], "said": m.said(share),
         "number": percent(m.value) if share else fixed(m.value)} for m in marks
    ]  # fmt: skip
    x = {"type": "quantitative", "scale": scale.scale(), "axis": scale.axis(orient="bottom")}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    y = names([mark.name for mark in marks], wide)
    told = {"field": "said", "type": "nominal"}
    ends_of = {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}, "color": colour, "tooltip": told}
    at = {"y": y, "x": {"field": "value", **x}, "color": colour, "tooltip": told}
    number = {"y": y, "x": {"field": "high", **x}, "text": {"field": "number"}}
    first = {"x": {"datum": marks[0].value, **x}}
    continued = {"mark": {"type": "rule", "strokeDash": [3, 4], "color": RULE}, "encoding": first}
    layers = [
        *([continued] if marks[0].role == "before" else []),
        {"mark": {"type": "rule", "strokeWidth": 2.5, "strokeCap": "round"}, "encoding": ends_of},
        {"mark": {"type": "point", "filled": True, "size": 130, "stroke": PAPER, "strokeWidth": 2, "opacity": 1},
         "encoding": at},
        {"mark": {"type": "text", "align": "left", "dx": 9, "fontWeight": 600, "color": INK}, "encoding": number},
    ]  # fmt: skip
    return spec(width, (44 if wide else 54) * len(marks), layers, data=rows(values))


def names(of: Sequence[str], wide: bool) -> Spec:
    """Give the axis of named rows: names at the left, or above the rows where there is no room for a column."""
    beside = {"labelLimit": 280, "labelPadding": 16}
    above = {"labelAlign": "left", "labelPadding": 0, "labelOffset": -19, "labelLimit": 320}
    look = {"title": None, "grid": False, "labelColor": INK, **(beside if wide else above)}
    return {"field": "name", "type": "nominal", "sort": list(of), "axis": look, "scale": {"paddingOuter": 0.1}}


@dataclass(frozen=True)
class Bar:
    """One task's score by one run, with its 95 % interval."""

    task: str
    run: str
    value: float
    low: float
    high: float
    told: str


def bars(found: Sequence[Bar], axis: str) -> Chart:
    """Declare a group of bars for each task, one bar for each run, from 0, with intervals as whiskers."""
    said = [f"{bar.task}, {bar.run}: {bar.told}" for bar in found]
    return chart(f"{axis}, task by task", "; ".join(said), partial(_bars, found, axis))


def _bars(found: Sequence[Bar], axis: str, width: float) -> Spec:
    wide = width == WIDE
    runs, tasks = (list(dict.fromkeys(kept)) for kept in ([b.run for b in found], [b.task for b in found]))
    scale = straight(axis, [0.0, *(end for bar in found for end in (bar.low, bar.high))], 8 if wide else 4)
    values = [
        {"name": b.task, "run": b.run, "value": b.value, "low": b.low, "high": b.high, "number": fixed(b.value),
         "said": f"{b.task}, {b.run}: {b.told}"} for b in found
    ]  # fmt: skip
    thick = 18.0 if len(runs) < 5 else 14.0
    step = thick * len(runs) + (16 if wide else 34)
    band = {"paddingInner": 1 - thick * len(runs) / step, "paddingOuter": 0.1 if wide else 0.35}
    y = {**names(tasks, wide), "scale": band}
    if not wide:
        y["axis"] = {**y["axis"], "labelOffset": -(thick * len(runs) / 2 + 10)}
    offset = {"field": "run", "sort": runs, "scale": {"paddingInner": 0.12}}
    x = {"type": "quantitative", "scale": scale.scale(), "axis": scale.axis()}
    shared = {"y": y, "yOffset": offset, "tooltip": {"field": "said", "type": "nominal"}}
    colour = {"field": "run", "type": "nominal", "sort": runs, "scale": series(runs), "legend": legend(len(runs), wide)}
    bar = {"x": {"field": "value", **x}, "x2": {"datum": 0}, "color": colour}
    whisker = {"x": {"field": "low", **x}, "x2": {"field": "high"}}
    number = {"x": {"field": "high", **x}, "text": {"field": "number"}}
    layers = [
        {"mark": {"type": "bar", "cornerRadiusEnd": 2, "opacity": 0.85}, "encoding": {**shared, **bar}},
        {"mark": {"type": "rule", "color": INK, "strokeWidth": 1.5}, "encoding": {**shared, **whisker}},
        {"mark": {"type": "text", "align": "left", "dx": 7, "fontSize": 12}, "encoding": {**shared, **number}},
    ]
    return spec(width, step * len(tasks), layers, data=rows(values))


def series(of: Sequence[str]) -> Spec:
    """Give the colours of several series, in their order."""
    return {"domain": list(of), "range": [SERIES[i % len(SERIES)] for i in range(len(of))]}


def dashes(of: Sequence[str]) -> Spec:
    """Give the dashes of several series: colour alone carries nothing."""
    return {"domain": list(of), "range": [DASHES[i % len(DASHES)] for i in range(len(of))]}


def legend(n: int, wide: bool, symbol: str = "square") -> Spec | None:
    """Give a legend above the chart, where there is more than one thing to tell apart."""
    look = {"orient": "top", "direction": "horizontal", "title": None, "labelColor": INK, "labelFontSize": 13}
    room = {"columns": 6 if wide else 2, "labelLimit": 240, "offset": 14, "columnPadding": 22}
    return {**look, **room, "symbolType": symbol, "symbolSize": 160} if n > 1 else None


def loss(steps: Sequence[Point], validation: Sequence[Point], window: int) -> Chart:
    """Declare a training: loss of each step faint, its running mean over `window` steps bold, validation as points."""
    lines = [("Training loss", steps), ("Validation loss", validation)]
    said = [f"{name}: from {line[0][1]:.3f} to {line[-1][1]:.3f} nats per answer token" for name, line in lines if line]
    return chart("Loss of training and validation", "; ".join(said), partial(_loss, steps, validation, window))


def _loss(steps: Sequence[Point], validation: Sequence[Point], window: int, width: float) -> Spec:
    wide, every = width == WIDE, [*steps, *validation]
    mean = list(zip([step for step, _ in steps], smooth([value for _, value in steps], window), strict=True))
    y = straight("", [value for _, value in every], 6 if wide else 5)
    last = max(1.0, *(step for step, _ in every))
    at = [tick for tick in ticks(0, last, 8 if wide else 5) if tick <= last and tick == int(tick)]
    x = Scale("step", 0, last, tuple((tick, f"{tick:,.0f}") for tick in at))
    frame = {
        "x": {"field": "step", "type": "quantitative", "scale": x.scale(), "axis": x.axis(grid=False)},
        "y": {"field": "loss", "type": "quantitative", "scale": y.scale(), "axis": y.axis(title=None)},
    }
    layers = [
        _curve(thin(steps), frame, {"strokeWidth": 1, "opacity": 0.4, "color": ACCENT}),
        _curve(thin(mean), frame, {"strokeWidth": 2.6, "color": ACCENT}),
        *_pointed(steps, frame),
        *(_checked(validation, frame, last) if validation else []),
    ]
    return spec(width, 300 if wide else 230, layers, title={"text": "nats per answer token", "offset": 12})


def _placed(line: Sequence[Point], kind: str) -> Spec:
    named = [{"step": step, "loss": value, "said": f"{kind} step {step:,.0f}: {value:.3f}"} for step, value in line]
    return rows(named)


def _curve(line: Sequence[Point], frame: Spec, look: Spec) -> Spec:
    return {"data": _placed(line, "after"), "mark": {"type": "line", "aria": False, **look}, "encoding": frame}


def _pointed(steps: Sequence[Point], frame: Spec) -> list[Spec]:
    """Give a point that follows the pointer along the curve and says its numbers."""
    near = {"type": "point", "on": "pointermove", "nearest": True, "clear": "pointerout", "encodings": ["x"]}
    shown = {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0}
    told = {"field": "said", "type": "nominal"}
    dot = {"type": "point", "filled": True, "size": 70, "color": ACCENT}
    encoding = {**frame, "opacity": shown, "tooltip": told}
    data = _placed(thin(steps, 400), "training loss in")
    return [{"data": data, "params": [{"name": "near", "select": near}], "mark": dot, "encoding": encoding}]


def _checked(validation: Sequence[Point], frame: Spec, last: float) -> list[Spec]:
    """Give the validations: points on a dotted line, the first and the last with their value."""
    data = _placed(validation, "validation loss after")
    told = {"tooltip": {"field": "said", "type": "nominal"}}
    line = {"type": "line", "strokeDash": [2, 4], "color": INK, "strokeWidth": 1.2, "aria": False}
    point = {"type": "point", "filled": False, "fill": PAPER, "stroke": INK, "strokeWidth": 2, "size": 70, "opacity": 1}
    found: list[Spec] = [{"data": data, "mark": line, "encoding": frame}]
    found.append({"data": data, "mark": point, "encoding": {**frame, **told}})
    for step, value in dict.fromkeys((validation[0], validation[-1])):
        side = "left" if step < last / 20 else "right" if step > last * 0.95 else "center"
        words = {"dy": -15, "align": side, "fontWeight": 600, "color": INK}
        named = rows([{"step": step, "loss": value, "number": f"{value:.2f}"}])
        found += lettering(words, {**frame, "text": {"field": "number"}}, named)
    return found


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Give the mean of the `window` values around each; at the ends, of those there are.

    Centred, so that the curve does not lag behind the steps it summarises.
    """
    half = window // 2
    around = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(near) / len(near) for near in around]


def thin(line: Sequence[Point], most: int = 1000) -> list[Point]:
    """Give at most about `most` points that look the same: the lowest and highest of each stretch, in order."""
    if len(line) <= most:
        return list(line)
    size = math.ceil(2 * len(line) / most)
    stretches = [line[i : i + size] for i in range(0, len(line), size)]
    ends = [{min(part, key=lambda place: place[1]), max(part, key=lambda place: place[1])} for part in stretches]
    return [place for pair in ends for place in sorted(pair)]


def text_width(text: str) -> float:
    """Guess how wide a text is, in pixels."""
    return CHARACTER * len(text)
