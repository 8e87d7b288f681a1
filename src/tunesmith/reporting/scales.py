"""Scales: which numbers stand at an axis, and where a value falls on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

DAY = 86_400
TIMES = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18_000, 36_000,
    DAY, 2 * DAY, 5 * DAY, 10 * DAY, 20 * DAY, 50 * DAY, 100 * DAY, 200 * DAY, 500 * DAY, 1000 * DAY, 10_000 * DAY,
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """What a cost is counted in: how much a second is worth, and how an amount is said."""

    worth: float
    say: Callable[[float], str]
    is_time: bool


@dataclass(frozen=True)
class Scale:
    """An axis: its title, its ends, and the numbers along it as they are written."""

    title: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Give where a value falls: 0 at the low end, 1 at the high end."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def scale(self) -> dict[str, Any]:
        """Give the scale as Vega-Lite has it."""
        kind = {"type": "log"} if self.log else {"type": "linear", "zero": False}
        return {**kind, "domain": [self.low, self.high], "nice": False}

    def axis(self, **more: Any) -> dict[str, Any]:
        """Give the axis as Vega-Lite has it, with the ticks in words."""
        values, names = [tick for tick, _ in self.ticks], [name for _, name in self.ticks]
        label = f"{names!r}[indexof({values!r}, datum.value)]"
        return {"title": self.title, "values": values, "labelExpr": label, "labelOverlap": False, **more}


def seconds_said(seconds: float) -> str:
    """Write a time at an axis: 30 s, 5 min, 2 h, 3 d."""
    for unit, size in (("d", DAY), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.3g} {unit}"
    return f"{seconds:g} s"


def money_said(amount: float) -> str:
    """Write an amount of money at an axis; its currency is that of the price."""
    return f"{amount:,.0f}" if amount >= 1000 else f"{amount:.3g}"


def unit(price: float | None) -> Unit:
    """Count in money where an hour has a price, else in time."""
    if price is None:
        return Unit(1.0, seconds_said, True)
    return Unit(price / 3600, money_said, False)


def costs(title: str, values: Sequence[float], counted: Unit, most: int) -> Scale:
    """Give a scale for costs: from 0 where they are of one size or one is 0, by powers where one is far dearer."""
    found = [value for value in values if value > 0] or [1.0]
    if max(found) < 8 * min(found) or min(values) <= 0:
        high = max(found) * 1.12
        steps = TIMES if counted.is_time else _decades(high / 1000, high)
        apart = next((step for step in steps if high / step <= most), high)
        at = [apart * k for k in range(int(high / apart) + 1)]
        return Scale(title, 0.0, high, tuple((tick, counted.say(tick)) for tick in at))
    return logarithmic(title, (min(found) / 1.6, max(found) * 1.6), counted.say, most, counted.is_time)


def logarithmic(
    title: str, ends: tuple[float, float], say: Callable[[float], str], most: int, is_time: bool = False
) -> Scale:
    """Give a scale by powers, with round numbers along it; of times, those that people say."""
    low, high = ends
    steps = TIMES if is_time else _decades(low, high)
    inside = [step for step in steps if low <= step <= high]
    if not is_time and len(inside) > most:
        inside = [step for step in inside if f"{step:e}".startswith("1.0")]
    every = max(1, math.ceil(len(inside) / most))
    return Scale(title, low, high, tuple((tick, say(tick)) for tick in inside[::every]), log=True)


def straight(title: str, values: Sequence[float], most: int, percent: bool = False, room: float = 0.0) -> Scale:
    """Give a scale that encloses the values; it need not begin at 0: positions are compared, not lengths."""
    span = (max(values) - min(values)) * room
    at = ticks(min(values) - span, max(values) + span, most)
    decimals = _decimals(at, percent)
    said = [f"{100 * tick:.{decimals}f} %" if percent else f"{tick:,.{decimals}f}" for tick in at]
    said = [name.replace("-", "\N{MINUS SIGN}") for name in said]
    return Scale(title, at[0], at[-1], tuple(zip(at, said, strict=True)))


def ticks(low: float, high: float, most: int) -> list[float]:
    """Give round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high], in about `most` steps."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    apart = next(power * times for times in (1, 2, 5, 10) if power * times * most >= span * 0.999)
    start, end = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [round(apart * k, 12) for k in range(start, max(end, start + 1) + 1)]


def _decimals(at: Sequence[float], percent: bool) -> int:
    """Give as many decimals as the distance of the ticks needs."""
    apart = (at[1] - at[0]) * (100 if percent else 1)
    return max(0, -math.floor(math.log10(apart) + 1e-9))


def _decades(low: float, high: float) -> tuple[float, ...]:
    """Give 1, 2 and 5 times each power of ten between the ends."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return tuple(float(f"{times}e{power}") for power in powers for times in (1, 2, 5))
