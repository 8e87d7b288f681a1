"""Names people type: the nearest right one, and parts that are installed on demand."""

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import TypeVar

from tunesmith.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Give the known name that looks most like `name`, or None if none does."""
    by_lower = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.55)
    return by_lower[found[0]] if found else None


def suggest(name: str, known: Iterable[str]) -> str:
    """Give the `fix` line for a name that is not known."""
    known = sorted(known)
    close = nearest(name, known)
    return f"did you mean '{close}'?" if close else f"use one of: {', '.join(known)}"


def pick(table: dict[str, T], name: str, kind: str) -> T:
    """Look `name` up in the one table of its kind.

    Raises ConfigError with the nearest right name.
    """
    if name not in table:
        raise ConfigError(f"there is no {kind} '{name}'", fix=suggest(name, table))
    return table[name]


def extra(module: str, part: str) -> ModuleType:
    """Import `module`, which comes with the optional part `tunesmith[part]`.

    Raises ConfigError with the exact command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"this needs the package '{missing.name}', which is not installed",
            fix=f"pip install 'tunesmith[{part}]'",
        ) from missing
