"""Task: rows, wordings and marking, written down once in a YAML file."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from tunesmith.config import Record, read_yaml
from tunesmith.data.file_task import file_task
from tunesmith.data.rows import FORMATS, Row, Source, draw, fingerprint, first, read_rows
from tunesmith.data.shots import Pool, pick_shots
from tunesmith.data.template import Kind, Prompt, Shot, Template, compiles, derived, holds, is_expression, uses
from tunesmith.data.wordings import wordings
from tunesmith.errors import ConfigError, DataError
from tunesmith.names import pick, suggest

Split = Literal["train", "validation", "test"]


class Sources(Record):
    """The splits of a task; `train` also provides the shots of few-shot prompts."""

    train: Source | None = None
    validation: Source | None = None
    test: Source | None = None


class Generation(Record):
    """How long an answer may grow, in tokens, its stop token included."""

    max_new_tokens: PositiveInt = 96


class Task(Record):
    """Everything about one task that does not depend on a model.

    `templates` are wordings of its own, or name a family of them (`data/wordings.py`), as `cluster` does where there
    are none; of a family, those in `language` are taken. `fields` makes further fields of a row's own, by Jinja: what
    the wordings call `premise` may be `sentence1` here. `where` is an expression over a row's fields, those made
    included, such as "{{ answer }}": rows for which it is empty or false are no part of the task.
    `extract` names the extractor (`metrics/extract.py`) that finds the answer in what a model generates; `norm`
    says what a long choice is given for its length where choices are told apart by likelihood (`metrics/choice.py`).
    """

    name: str
    cluster: str = "other"
    language: str = "en"
    source: Sources
    fields: dict[str, str] = Field(default_factory=dict)
    where: str = ""
    references: tuple[str, ...] = ()
    metrics: tuple[str, ...] = Field(default=("rouge1", "rouge2", "rougeL"), min_length=1)
    generation: Generation = Generation()
    extract: str | None = None
    norm: Literal["none", "chars", "bytes"] = "none"
    templates: tuple[Template, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _named_wordings(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        asked = values.get("templates") or values.get("cluster")
        if not isinstance(asked, str):
            return values
        return {**values, "templates": wordings(asked, str(values.get("language", "en")))}

    @field_validator("templates")
    @classmethod
    def _apart(cls, templates: tuple[Template, ...]) -> tuple[Template, ...]:
        names = [template.name for template in templates]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two templates are named '{twice}'")
        return templates

    @field_validator("fields")
    @classmethod
    def _compile(cls, fields: dict[str, str]) -> dict[str, str]:
        wrong = next((name for name, text in fields.items() if not compiles(text)), None)
        if wrong is not None:
            raise ValueError(f"'{wrong}' is not Jinja")
        return fields

    @field_validator("where")
    @classmethod
    def _expresses(cls, text: str) -> str:
        if text and not is_expression(text):
            raise ValueError('is not one expression such as "{{ answer }}"')
        return text

    def rows(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Row]:
        """Read the rows of `split`, at most `limit`, in file order or a seeded one when limited.

        Raises DataError if the task has no such split or a reference field is missing in part.
        """
        source: Source | None = getattr(self.source, split)
        if source is None:
            raise DataError(f"task '{self.name}' has no {split} split", fix=f"add 'source.{split}' to the task file")
        rows = read_rows(source, self._wanted())
        rows = [derived(row, self.fields) for row in rows] if self.fields else rows
        rows = [row for row in rows if holds(row, self.where)] if self.where else rows
        if not rows:
            raise DataError(f"{source.place}: 'where' leaves no row of the {split} split", fix="correct 'where'")
        lacking = [name for name in self.references if not any(name in row.fields for row in rows)]
        if lacking and len(lacking) < len(self.references):
            fix = suggest(lacking[0], rows[0].fields)
            raise DataError(f"{source.place}: no row has the reference field '{lacking[0]}'", fix=fix)
        return first(rows, limit, seed)

    def _wanted(self) -> frozenset[str]:
        """Name the fields that the wordings and references want of the files, those that the task makes aside."""
        wanted = frozenset(self.references).union(*(template.fields() for template in self.templates))
        return ((wanted | uses(self.where)) - set(self.fields)) | uses(*self.fields.values())

    def splits(self) -> list[Split]:
        """Name the splits the task has."""
        return [split for split in get_args(Split) if getattr(self.source, split) is not None]

    def provenance(self) -> dict[str, dict[str, str | int]]:
        """Say for each split where it is, how many rows it has, and their fingerprint."""
        told: dict[str, dict[str, str | int]] = {}
        for split in self.splits():
            rows = self.rows(split)
            told[split] = {"place": getattr(self.source, split).place, "rows": len(rows), "sha256": fingerprint(rows)}
        return told

    def template(self, name: str) -> Template:
        """Look a wording up by name. Raises ConfigError with the nearest right one."""
        for template in self.templates:
            if template.name == name:
                return template
        known = [template.name for template in self.templates]
        raise ConfigError(f"task '{self.name}' has no template '{name}'", fix=suggest(name, known))

    def prompts(
        self,
        split: Split,
        shots: int = 0,
        seed: int = 0,
        template: str | None = None,
        limit: int | None = None,
        listed: bool = True,
    ) -> list[Prompt]:
        """Render the questions of `split`, each with `shots` examples from the training split.

        `template` is a wording's name; None takes the first, and "any" draws one for each row from (seed, id), so
        that training sees all wordings that ask for the answer itself. `listed` says whether wordings
        with a place for their choices list them.
        """
        pool = Pool.of(self.rows("train") if shots else ())
        prompts = []
        for row in self.rows(split, limit, seed):
            wording = self.wording(template, row.id, seed)
            shown = (
                [wording.render(shot, options=listed) for shot in pick_shots(pool, row.id, shots, seed)]
                if shots
                else []
            )
            prompt = wording.render(row, self.references, listed)
            prompts.append(prompt.with_shots([Shot(shot.question, shot.answer) for shot in shown]))
        return prompts

    def of_kind(self, kind: Kind) -> tuple[Template, ...]:
        """Give the wordings of one kind, in order."""
        return tuple(template for template in self.templates if template.kind == kind)

    def wording(self, name: str | None, row_id: str, seed: int) -> Template:
        """Give the wording of that name, the first for None, or one drawn from (seed, id) for "any"."""
        direct = self.of_kind("direct") or self.templates
        if name == "any":
            return direct[int(draw(seed, f"template/{row_id}"), 16) % len(direct)]
        return self.template(name) if name else direct[0]


def split_named(name: str) -> Split:
    """Give the split of that name. Raises ConfigError with the nearest right one."""
    return pick({split: split for split in get_args(Split)}, name, "split")


def load_task(name: str, beside: Path | None = None) -> Task:
    """Load a task file by path, a data file that stands for a task, or an embedded task by name.

    A relative path is looked for in the folder `beside`, then in the working
    directory. Raises ConfigError if there is neither.
    """
    embedded = files("tunesmith") / "tasks" / f"{name}.yaml"
    if name in embedded_tasks() and not Path(name).is_file():
        return read_task(Path(str(embedded)))
    places = [folder / name for folder in (beside, Path()) if folder is not None]
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        return read_task(found)
    if Path(name).suffix in (".yaml", ".yml") or _is_data(Path(name)):
        raise ConfigError(f"{name}: no such file", fix="check the path")
    raise ConfigError(
        f"there is no task '{name}'", fix=f"{suggest(name, embedded_tasks())}, or the path of a task file"
    )


def embedded_tasks() -> list[str]:
    """Name the tasks that come with the package."""
    return sorted(
        Path(item.name).stem for item in (files("tunesmith") / "tasks").iterdir() if item.name.endswith(".yaml")
    )


def read_task(path: Path) -> Task:
    """Read one task file; the files it names are relative to it. A data file stands for a task of its own."""
    if _is_data(path):
        return Task.parse(file_task(path), where=str(path))
    values = read_yaml(path)
    sources = values.get("source")
    if isinstance(sources, dict):
        values["source"] = {split: _absolute(source, path.parent) for split, source in sources.items()}
    return Task.parse(values, where=str(path))


def _is_data(path: Path) -> bool:
    return path.suffix.removeprefix(".").lower() in FORMATS


def _absolute(source: Any, folder: Path) -> Any:
    if isinstance(source, dict) and isinstance(source.get("file"), str):
        return {**source, "file": (folder / source["file"]).resolve()}
    return source
