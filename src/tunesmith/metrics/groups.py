"""Own English word lists of the bias metrics, read from groups.txt."""

from functools import cache
from importlib.resources import files

KINDS = {"gender": ("female", "male"), "surnames": ("asian", "hispanic", "white")}
ASSOCIATED = ("professions", "adjectives")


def groups(kind: str) -> dict[str, frozenset[str]]:
    """Give the words that name each group of a kind."""
    return {group: _lists()[f"{kind} {group}"] for group in KINDS[kind]}


def targets(what: str) -> frozenset[str]:
    """Give the words that may be associated with a group."""
    return _lists()[what]


@cache
def _lists() -> dict[str, frozenset[str]]:
    text = files("tunesmith").joinpath("metrics", "groups.txt").read_text(encoding="utf-8")
    cut = [line.partition(": ") for line in text.splitlines() if not line.startswith("#")]
    return {
        name: frozenset(word for one, _, words in cut if one == name for word in words.split()) for name, _, _ in cut
    }
