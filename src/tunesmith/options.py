"""Options of the command line that hold more than one value, read from their text."""

from collections.abc import Callable
from typing import Any

from tunesmith.errors import ConfigError


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
