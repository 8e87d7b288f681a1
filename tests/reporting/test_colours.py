"""Colours: words and lines can be told from the paper, in both schemes."""

import re
from importlib.resources import files

import pytest

LOOK = files("tunesmith.reporting").joinpath("page", "page.css").read_text(encoding="utf-8")


def contrast(a, b):
    """Give the contrast of two colours (WCAG 2.2, relative luminance)."""
    return (max(_light(a), _light(b)) + 0.05) / (min(_light(a), _light(b)) + 0.05)


def _light(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_are_told_from_paper_and_so_are_lines(scheme):
    named = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", LOOK)
    colours = {name: pair[scheme] for name, *pair in named}
    for ground in ("paper", "raised", "tint"):
        for name in ("ink", "soft", "accent"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in ("before", "after", *(f"series-{i}" for i in range(1, 7))):
        assert contrast(colours[name], colours["paper"]) >= 3.0, name
