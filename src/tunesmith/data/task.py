"""Task: rows, wordings and marking, written down once in a YAML file."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, PositiveInt

from tunesmith.config import Record, read_yaml
from tunesmith.data.rows import Row, Source, draw, fingerprint, first, read_rows
from tunesmith.data.shots import pick_shots
from tunesmith.data.template import Prompt, Shot, Template
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

    `extract` names the extractor (`metrics/extract.py`) that finds the answer in what a model generates; `norm`
    says what a long choice is given for its length where choices are told apart by likelihood (`metrics/choice.py`).
    """

    name: str
    cluster: str = "other"
    source: Sources
    references: tuple[str, ...] = ()
    metrics: tuple[str, ...] = Field(default=("rouge1", "rouge2", "rougeL"), min_length=1)
    generation: Generation = Generation()
    extract: str | None = None
    norm: Literal["none", "chars", "bytes"] = "none"
    templates: tuple[Template, ...] = Field(min_length=1)

    def rows(self, split: Split, limit: int | None = None, seed: int = 0) -> list[Row]:
        """Read the rows of `split`, at most `limit`, in file order or a seeded one when limited.

        Raises DataError if the task has no such split or a reference field is missing in part.
        """
        source: Source | None = getattr(self.source, split)
        if source is None:
            raise DataError(f"task '{self.name}' has no {split} split", fix=f"add 'source.{split}' to the task file")
        rows = read_rows(source)
        lacking = [name for name in self.references if not any(name in row.fields for row in rows)]
        if lacking and len(lacking) < len(self.references):
            fix = suggest(lacking[0], rows[0].fields)
            raise DataError(f"{source.place}: no row has the reference field '{lacking[0]}'", fix=fix)
        return first(rows, limit, seed)

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
    ) -> list[Prompt]:
        """Render the questions of `split`, each with `shots` examples from the training split.

        `template` is a wording's name; None takes the first, and "any" draws
        one for each row from (seed, id), so that training sees all wordings.
        """
        pool = self.rows("train") if shots else []
        prompts = []
        for row in self.rows(split, limit, seed):
            wording = self._wording(template, row.id, seed)
            shown = [wording.render(shot) for shot in pick_shots(pool, row.id, shots, seed)] if shots else []
            prompt = wording.render(row, self.references)
            prompts.append(prompt.with_shots([Shot(shot.question, shot.answer) for shot in shown]))
        return prompts

    def _wording(self, name: str | None, row_id: str, seed: int) -> Template:
        if name == "any":
            return self.templates[int(draw(seed, f"template/{row_id}"), 16) % len(self.templates)]
        return self.template(name) if name else self.templates[0]


def split_named(name: str) -> Split:
    """Give the split of that name. Raises ConfigError with the nearest right one."""
    return pick({split: split for split in get_args(Split)}, name, "split")


def load_task(name: str, beside: Path | None = None) -> Task:
    """Load a task file by path, or an embedded task by name.

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
    if Path(name).suffix in (".yaml", ".yml"):
        raise ConfigError(f"{name}: no such file", fix="check the path of the task file")
    raise ConfigError(
        f"there is no task '{name}'", fix=f"{suggest(name, embedded_tasks())}, or the path of a task file"
    )


def embedded_tasks() -> list[str]:
    """Name the tasks that come with the package."""
    return sorted(
        Path(item.name).stem for item in (files("tunesmith") / "tasks").iterdir() if item.name.endswith(".yaml")
    )


def read_task(path: Path) -> Task:
    """Read one task file; the files it names are relative to it."""
    values = read_yaml(path)
    sources = values.get("source")
    if isinstance(sources, dict):
        values["source"] = {split: _absolute(source, path.parent) for split, source in sources.items()}
    return Task.parse(values, where=str(path))


def _absolute(source: Any, folder: Path) -> Any:
    if isinstance(source, dict) and isinstance(source.get("file"), str):
        return {**source, "file": (folder / source["file"]).resolve()}
    return source
