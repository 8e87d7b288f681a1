"""Families: wordings of our own for each kind of task, that a task file takes by name instead of writing its own.

A family names the fields its wordings fill; a task says under `fields` how its rows make them.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from tunesmith.config import Record, read_yaml
from tunesmith.data.template import Template
from tunesmith.errors import ConfigError
from tunesmith.names import pick, suggest

FOLDER = Path(str(files("tunesmith") / "wordings"))


class Family(Record):
    """Wordings of one kind of task; `fields` says of each field what it holds, `optional` names those that may lack."""

    cluster: str
    fields: dict[str, str]
    optional: dict[str, str] = Field(default_factory=dict)
    templates: tuple[Template, ...] = Field(min_length=1)

    def languages(self) -> list[str]:
        """Name the languages there are wordings in."""
        return sorted({template.language for template in self.templates})


@cache
def families() -> dict[str, Path]:
    """Name the families, each with its file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


@cache
def family(name: str) -> Family:
    """Read the family of that name. Raises ConfigError with the nearest right one."""
    path = pick(families(), name, "family of wordings")
    return Family.parse(read_yaml(path), where=str(path))


def wordings(name: str, language: str) -> tuple[Template, ...]:
    """Give the wordings of a family in one language. Raises ConfigError if it has none."""
    found = family(name)
    chosen = tuple(template for template in found.templates if template.language == language)
    if not chosen:
        raise ConfigError(
            f"the family '{name}' has no wordings in '{language}'", fix=suggest(language, found.languages())
        )
    return chosen
