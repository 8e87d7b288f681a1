"""Records that refuse what they do not know, and YAML files read into them.

Every noun with validation is a `Record`: frozen, and a key it has no field for
is an error that names the nearest right one.
"""

import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tunesmith.errors import ConfigError
from tunesmith.names import suggest


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]  # one name stands for a list of it


class Record(BaseModel):
    """A frozen, validated record; see `parse` for how mistakes are reported."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Validate `values`, which came from `where` (a file or an option).

        Raises ConfigError naming the first wrong key and how to mend it.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as wrong:
            raise _explain(cls, wrong.errors()[0], where) from None

    def to_yaml(self) -> str:
        """Write every field out, defaults included, so that the file alone repeats the run."""
        values = self.model_dump(mode="json")
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping. Raises ConfigError with the line that is wrong."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file", fix="check the path, or name an embedded task such as 'demo'")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise ConfigError(f"{path}:{line} {wrong.problem}", fix="mend the YAML of that line") from None
    except (UnicodeDecodeError, yaml.YAMLError) as wrong:
        raise ConfigError(f"{path}: {wrong}", fix="save the file as UTF-8 text in YAML") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no mapping of keys to values", fix="write 'key: value' lines")
    return values


def override(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply `a.b=value` settings to nested `values`; each value is read as YAML.

    Changing a method's name drops the old method's other fields, which belong
    to that method alone.
    """
    result = dict(values)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"-s {setting}: is not of the form key=value", fix="write e.g. -s train.epochs=2")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"-s {setting}: the value is not YAML", fix="put the value in quotes") from None
        result = _set(result, path.split("."), value)
    return result


def _set(values: Mapping[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    head, *rest = keys
    if not rest:
        return {**values, head: value}
    inner = values.get(head)
    inner = {"name": inner} if isinstance(inner, str) else inner or {}
    if not isinstance(inner, dict):
        raise ConfigError(f"-s {'.'.join(keys)}: '{head}' has no fields of its own", fix=f"set '{head}' itself")
    if rest == ["name"] and inner.get("name") != value:
        inner = {}
    return {**values, head: _set(inner, rest, value)}


def _explain(model: type[BaseModel], error: ErrorDetails, where: str) -> ConfigError:
    """Turn pydantic's first complaint into our two lines."""
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, path[:-1])
        owner = ".".join(path[:-1]) or model.__name__.lower()
        return ConfigError(f"{where}: {owner} has no field '{path[-1]}'", fix=suggest(path[-1], fields))
    name = ".".join(path) or model.__name__.lower()
    if error["type"] == "missing":
        return ConfigError(f"{where}: '{name}' is missing", fix=f"add '{path[-1]}: ...'")
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        context = error.get("ctx", {})
        known = [part.strip(" '") for part in str(context.get("expected_tags", "")).split(",") if part.strip()]
        asked = str(context.get("tag", ""))
        if not asked:
            return ConfigError(f"{where}: '{name}' has no name", fix=f"add 'name:', one of: {', '.join(known)}")
        return ConfigError(f"{where}: {name} '{asked}' does not exist", fix=suggest(asked, known))
    problem = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    shown = f" (got {given!r})" if isinstance(given, (str, int, float, bool)) or given is None else ""
    return ConfigError(f"{where}: {name}: {problem}{shown}", fix=f"correct '{name}'")


def _fields_at(model: type[BaseModel], path: Iterable[str]) -> list[str]:
    """List the fields of the record that `path` leads to, through unions and lists."""
    here: list[type[BaseModel]] = [model]
    for part in path:
        inner = [r for m in here if part in m.model_fields for r in _records(m.model_fields[part].annotation)]
        tagged = [r for r in here if getattr(r.model_fields.get("name"), "default", None) == part]
        here = inner or tagged or here
    return sorted({field for found in here for field in found.model_fields})


def _records(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in typing.get_args(annotation) for found in _records(part)]
