"""Charts as declarations for Vega-Lite, and what makes them pictures: a still drawing, or the library in the page.

A chart is data in, specification out. A drawing that shrank with the screen
would lose its labels on a phone, so each is declared for a wide page and for a
narrow one. Colours are variables of the page: light and dark share one drawing.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

Spec = dict[str, Any]

WIDE, NARROW = 1040.0, 350.0  # CSS pixels, axes included
FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"
TEXT = 13  # pixels
CHARACTER = 6.9  # pixels, the mean width of one at that size

INK, SOFT, LINE, PAPER = "var(--ink)", "var(--soft)", "var(--line)", "var(--paper)"
RULE, ACCENT = "var(--rule)", "var(--accent)"
SERIES = tuple(f"var(--series-{i})" for i in range(1, 7))
DASHES = ([1, 0], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2])


@dataclass(frozen=True)
class Chart:
    """One chart: its title, what it shows in words, and its declarations for a wide page and a phone."""

    title: str
    words: str
    wide: Spec
    narrow: Spec

    @property
    def stills(self) -> tuple[str, str]:
        """Draw it for a reader whose browser runs no scripts, and for paper."""
        return still(self.wide), still(self.narrow)

    @property
    def live(self) -> dict[str, Spec]:
        """Give the declarations with the width left to the page."""
        return {name: {**spec, "width": "container"} for name, spec in (("wide", self.wide), ("narrow", self.narrow))}


def chart(title: str, words: str, draw: Callable[[float], Spec]) -> Chart:
    """Declare a chart for both widths."""
    return Chart(title, words, draw(WIDE), draw(NARROW))


def spec(width: float, height: float, layers: Sequence[Spec], **more: Any) -> Spec:
    """Give a whole declaration: layers in one frame, with the look that all charts share."""
    frame = {"width": width, "height": height, "autosize": {"type": "fit-x", "contains": "padding"}, "padding": 2}
    return {**frame, "config": _look(), "layer": list(layers), **more}


def _look() -> Spec:
    """Give the look: hairlines, quiet axes, no frame."""
    words = {"labelFontSize": TEXT, "titleFontSize": TEXT, "titleFontWeight": "normal", "titlePadding": 12}
    lines = {"grid": True, "gridColor": LINE, "domain": False, "ticks": False, "labelPadding": 8}
    colours = {"labelColor": SOFT, "titleColor": SOFT}
    return {
        "font": FONT,
        "background": "transparent",
        "view": {"stroke": None},
        "axis": {**words, **lines, **colours},
        "text": {"fontSize": TEXT, "color": INK},
        "title": {"color": SOFT, "fontSize": TEXT, "fontWeight": "normal", "anchor": "start", "frame": "group"},
        "line": {"strokeCap": "round", "strokeJoin": "round"},
    }


def rows(values: Sequence[Mapping[str, Any]]) -> Spec:
    """Give data in place."""
    return {"values": [dict(value) for value in values]}


def lettering(words: Spec, encoding: Spec, data: Spec) -> list[Spec]:
    """Give text with a halo of paper behind it, so that lines may pass."""
    bare = {key: value for key, value in words.items() if key != "color"}
    halo = {**bare, "stroke": PAPER, "strokeWidth": 4, "strokeJoin": "round", "fill": PAPER, "aria": False}
    return [{"data": data, "mark": {"type": "text", **look}, "encoding": encoding} for look in (halo, words)]


def still(declared: Spec) -> str:
    """Draw a declaration as one SVG text that takes the width it is given."""
    return _still(json.dumps(declared, sort_keys=True))


@cache
def _still(declared: str) -> str:
    import vl_convert

    drawn = str(vl_convert.vegalite_to_svg(declared))
    start = drawn.index("<svg")
    head = re.sub(r' (width|height|xmlns:xlink|version|class)="[^"]*"', "", drawn[start : drawn.index(">", start)])
    return f'{head} aria-hidden="true" focusable="false"{drawn[drawn.index(">", start) :]}'


@cache
def script() -> str:
    """Give what draws the charts in the page: the library, and the page's own few lines."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).rstrip() + "\n" + page_script()


@cache
def page_script() -> str:
    """Give the page's own few lines, which are all that a page without charts needs."""
    return files("tunesmith.reporting").joinpath("page", "page.js").read_text(encoding="utf-8")


def digest(code: str) -> str:
    """Give the hash by which a content security policy lets this script run, and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode('utf-8')).digest()).decode()}"
