"""Options of the command line that hold more than one value, read from their text."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from tunesmith.errors import ConfigError

Prices = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        metavar="[MACHINE=]PRICE",
        help="What an hour costs, in any money: of the first machine, 2.5, or of another, 1x80=2.5; may be repeated.",
    ),
]


def metric_and_value(option: str, text: str | None) -> tuple[str, float] | None:
    """Read `metric=value`. Raises ConfigError."""
    if text is None:
        return None
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise ConfigError(
            f"{option} {text}: is not of the form metric=value", fix=f"write e.g. {option} rouge1=0.40"
        ) from None


def numbers(option: str, text: str | None, kind: Callable[[str], Any] = float) -> tuple[Any, ...]:
    """Read numbers of one `kind`, separated by commas; no text holds none. Raises ConfigError."""
    try:
        return tuple(kind(part) for part in text.split(",")) if text else ()
    except ValueError:
        example = "2,4,8" if kind is int else "0.5,0.5"
        raise ConfigError(f"{option} {text}: is no list of numbers", fix=f"write e.g. {option} {example}") from None


def prices(option: str, texts: Sequence[str]) -> dict[str, float]:
    """Read prices, by machine: "" is the first, of which the price stands alone. Raises ConfigError."""
    found = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not 0 <= found[name] < math.inf:
            raise ConfigError(
                f"{option} {text}: is no price of an hour", fix=f"write e.g. {option} 2.5, or {option} 1x80=2.5"
            )
    return found
