"""Charts as small SVG texts: data in, one `<svg>` out, nothing read and nothing kept.

A viewBox unit is one CSS pixel, so text has the same size as the page's. A
drawing that shrank with the screen would lose its labels on a phone; each chart
is therefore drawn for a width, `WIDE` or `NARROW`, and the page shows one.
Colours are variables of the page, so that light and dark share one drawing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

WIDE, NARROW = 1000, 340
TEXT = 13  # pixels
CHARACTER = 7.2  # pixels, the mean width of one at that size

INK = "var(--ink, #1c1e21)"
SOFT = "var(--soft, #5c6166)"
LINE = "var(--line, #e2dfd8)"
PAPER = "var(--paper, #fdfcfa)"
HALO: dict[str, str | float] = {"stroke": PAPER, "stroke_width": 4, "stroke_linejoin": "round", "paint_order": "stroke"}
ACCENT = "var(--accent, #0d6b66)"
ROLES = {"before": "var(--before, #b0520a)", "after": "var(--after, #1f63ad)", "other": SOFT}

Role = Literal["before", "after", "other"]
Place = tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """One score to draw: its value, the ends of its 95 % interval, and what it rests on."""

    name: str
    value: float
    low: float
    high: float
    n: int
    role: Role = "other"

    def tooltip(self) -> str:
        """Say the mark in words."""
        return f"{self.name}: {self.value:.3f}, 95 % interval {self.low:.3f} to {self.high:.3f}, {self.n} rows"


@dataclass(frozen=True)
class Scale:
    """A straight map from the data's [low, high] to the pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Give the pixel of `value`."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def both(draw: Callable[[int], str]) -> tuple[str, str]:
    """Draw for a wide page and for a phone."""
    return draw(WIDE), draw(NARROW)


def ladder(marks: Sequence[Mark], axis: str, width: int = WIDE) -> str:
    """Draw each mark with its interval as a whisker, one below the other; a dashed line continues the first.

    Names stand left of the whiskers, or above them where the drawing is narrow.
    The axis encloses the intervals and need not begin at 0: positions are compared, not lengths.
    """
    wide = width >= 600
    row, top = (42 if wide else 54), 10
    gutter = min(260.0, 28 + CHARACTER * max(len(mark.name) for mark in marks)) if wide else 14.0
    bottom = top + row * len(marks)
    bounds = ticks(min(mark.low for mark in marks), max(mark.high for mark in marks), 7 if wide else 4)
    x = Scale(bounds[0], bounds[-1], gutter, width - (64 if wide else 14))
    first = x(marks[0].value)
    body = [_axis_x(x, bounds, top, bottom, axis)]
    body.append(_stroke([(first, top), (first, bottom)], ROLES["before"], 1, dash="3 4"))
    body += [_whisker(mark, x, top + row * i, row, width) for i, mark in enumerate(marks)]
    words = "; ".join(mark.tooltip() for mark in marks)
    return _svg(width, bottom + 48, f"{axis} of each rung with its 95 % interval", words, body)


def loss(
    steps: Sequence[Place],
    validation: Sequence[Place],
    window: int,
    width: int = WIDE,
    unit: str = "nats per answer token",
) -> str:
    """Draw a training: loss of each step faint, its running mean over `window` steps bold, validation as points."""
    wide = width >= 600
    top, bottom, left, right = 34, (300 if wide else 240), 46, width - 30
    values = [value for _, value in [*steps, *validation]]
    last = max(1, *(step for step, _ in [*steps, *validation]))
    x = Scale(0, last, left, right)
    levels = ticks(min(values), max(values), 6 if wide else 5)
    y = Scale(levels[0], levels[-1], bottom, top)
    whole = [tick for tick in ticks(0, last, 8 if wide else 5) if tick <= last and tick == int(tick)]
    mean = list(zip([step for step, _ in steps], smooth([value for _, value in steps], window), strict=True))
    body = [_axis_y(y, levels, left, right, unit), _axis_x(x, whole, bottom, bottom, "step")]
    body += [
        _stroke(_placed(thin(line), x, y), ACCENT, size, opacity)
        for line, size, opacity in ((steps, 1, 0.35), (mean, 2.4, 1))
    ]
    body.append(_stroke(_placed(validation, x, y), INK, 1, dash="2 4"))
    body += [
        _dot(step, value, x, y, named=at in (0, len(validation) - 1)) for at, (step, value) in enumerate(validation)
    ]
    return _svg(width, bottom + 48, "Loss of training and validation", _loss_words(steps, validation, unit), body)


def ticks(low: float, high: float, most: int) -> list[float]:
    """Give round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high], in about `most` steps."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    apart = next(power * times for times in (1, 2, 5, 10) if power * times * most >= span * 0.999)
    start, end = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [round(apart * k, 12) for k in range(start, max(end, start + 1) + 1)]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Give the mean of the `window` values around each; at the ends, of those there are.

    Centred, so that the curve does not lag behind the steps it summarises.
    """
    half = window // 2
    around = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(near) / len(near) for near in around]


def thin(line: Sequence[Place], most: int = 1000) -> list[Place]:
    """Give at most about `most` points that look the same: the lowest and highest of each stretch, in order."""
    if len(line) <= most:
        return list(line)
    size = math.ceil(2 * len(line) / most)
    stretches = [line[i : i + size] for i in range(0, len(line), size)]
    ends = [{min(part, key=lambda place: place[1]), max(part, key=lambda place: place[1])} for part in stretches]
    return [place for pair in ends for place in sorted(pair)]


def _loss_words(steps: Sequence[Place], validation: Sequence[Place], unit: str) -> str:
    lines = [("Training", steps), ("Validation", validation)]
    said = [f"{name}: from {line[0][1]:.3f} to {line[-1][1]:.3f} {unit}" for name, line in lines if line]
    return "; ".join(said)


def _whisker(mark: Mark, x: Scale, top: float, row: float, width: float) -> str:
    """Draw one row: name, whisker with end caps, point, value. All of the row shows the tooltip."""
    wide = width >= 600
    middle, baseline = (top + row / 2, top + row / 2 + 4.5) if wide else (top + row - 17, top + 18)
    colour = ROLES[mark.role]
    low, high = x(mark.low), x(mark.high)
    lines = [[(low, middle), (high, middle)], *([(end, middle - 7), (end, middle + 7)] for end in (low, high))]
    room = int((x.start - 14) / CHARACTER) if wide else int((width - 70) / CHARACTER)
    parts = [
        _tag("title", escape(mark.tooltip())),
        _tag("rect", x=0, y=top, width=width, height=row, fill="transparent"),
        *(_stroke(line, colour, 2) for line in lines),
        _tag("circle", cx=x(mark.value), cy=middle, r=6, fill=colour, stroke=PAPER, stroke_width=2),
        _text(0, baseline, _shorten(mark.name, room), INK, **HALO),
        _text(width, baseline, f"{mark.value:.3f}", INK, text_anchor="end", font_weight=600, **HALO),
    ]
    return _tag("g", *parts)


def _dot(step: float, value: float, x: Scale, y: Scale, named: bool) -> str:
    """Draw one validation; `named` ones carry their value, below the point where the top is near."""
    across, down = x(step), y(value)
    anchor = "start" if across < x.start + 20 else "end" if across > x.end - 20 else "middle"
    place = down + 22 if down - 12 < y.end + 6 else down - 12
    label = _text(across, place, f"{value:.2f}", INK, text_anchor=anchor, font_weight=600, **HALO)
    point = _tag("circle", cx=across, cy=down, r=4.5, fill=PAPER, stroke=INK, stroke_width=2)
    return _tag("g", _tag("title", f"validation after step {step:g}: {value:.3f}"), point, label if named else "")


def _axis_x(x: Scale, at: Sequence[float], top: float, bottom: float, name: str) -> str:
    lines = [_stroke([(x(tick), top), (x(tick), bottom)], LINE, 1) for tick in at]
    numbers = [
        _text(x(tick), bottom + 18, said, SOFT, text_anchor="middle") for tick, said in zip(at, _names(at), strict=True)
    ]
    return "".join([*lines, *numbers, _text((x.start + x.end) / 2, bottom + 40, name, SOFT, text_anchor="middle")])


def _axis_y(y: Scale, at: Sequence[float], left: float, right: float, name: str) -> str:
    lines = [_stroke([(left, y(tick)), (right, y(tick))], LINE, 1) for tick in at]
    numbers = [
        _text(left - 10, y(tick) + 4.5, said, SOFT, text_anchor="end")
        for tick, said in zip(at, _names(at), strict=True)
    ]
    return "".join([*lines, *numbers, _text(0, 14, name, SOFT)])


def _names(at: Sequence[float]) -> list[str]:
    """Write the ticks with as many decimals as their distance needs."""
    apart = at[1] - at[0] if len(at) > 1 else 1.0
    decimals = max(0, -math.floor(math.log10(apart) + 1e-9))
    return [f"{tick:,.{decimals}f}" for tick in at]


def _placed(line: Sequence[Place], x: Scale, y: Scale) -> list[Place]:
    return [(x(step), y(value)) for step, value in line]


def _stroke(line: Sequence[Place], colour: str, width: float, opacity: float = 1, dash: str = "none") -> str:
    """Draw a line through the points; a single point becomes a dot, none becomes nothing."""
    if not line:
        return ""
    points = " ".join(f"{_number(x)},{_number(y)}" for x, y in ([*line, *line] if len(line) == 1 else line))
    cap = "butt" if dash != "none" else "round"
    look: dict[str, str | float] = {"stroke": colour, "stroke_width": width, "stroke_opacity": opacity}
    ends: dict[str, str | float] = {"stroke_dasharray": dash, "stroke_linecap": cap, "stroke_linejoin": "round"}
    return _tag("polyline", points=points, fill="none", **look, **ends)


def _text(x: float, y: float, text: str, colour: str, **look: str | float) -> str:
    return _tag("text", escape(text), x=x, y=y, fill=colour, **look)


def _svg(width: float, height: float, title: str, description: str, body: Sequence[str]) -> str:
    about = [_tag("title", escape(title)), _tag("desc", escape(description))]
    box = f"0 0 {_number(width)} {_number(height)}"
    return _tag("svg", *about, *body, role="img", viewBox=box, width=width, height=height, font_size=TEXT)


def _tag(name: str, *inside: str, **attributes: str | float) -> str:
    """Give one element; attributes are escaped here, `inside` is markup already."""
    pairs = [(key.replace("_", "-"), _number(value)) for key, value in attributes.items()]
    written = "".join(f' {key}="{escape(value)}"' for key, value in pairs)
    return f"<{name}{written}>{''.join(inside)}</{name}>"


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):.10g}"


def _shorten(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
