"""Run: one folder, written so that it never looks more complete than it is.

Whole files are written aside and renamed; `steps.jsonl` grows by a line; the
empty file `DONE` comes last.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tunesmith.config import Record
from tunesmith.data.ledger import Ledger
from tunesmith.errors import DiskError, RunError
from tunesmith.planning.plan import Plan
from tunesmith.runs import lock
from tunesmith.runs.records import (
    Answer,
    Check,
    Choice,
    Forgetting,
    Protocol,
    Score,
    Step,
    Summary,
    TextLoss,
    Trouble,
    VirtualToken,
)

R = TypeVar("R", bound=Record)
LOGS: dict[type[Record], str] = {Step: "steps.jsonl", Trouble: "troubles.jsonl", Check: "checks.jsonl"}
SPARE_BYTES = 64 * 2**20  # logs, answers and the report


@dataclass(frozen=True)
class Run:
    """A run folder: what was asked, what happened, what came out."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, asked: Mapping[str, Any], need_bytes: int = 0) -> "Run":
        """Start a run in a new or empty folder, and write down what was asked.

        Raises RunError if the folder holds anything, DiskError if the disk has
        less room than `need_bytes` and some spare.
        """
        vacant(folder)
        check_disk(folder, need_bytes + SPARE_BYTES)
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder)
        run.write_text("recipe.yaml", yaml.safe_dump(dict(asked), sort_keys=False, allow_unicode=True, width=100))
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open an existing run. Raises RunError if the folder is none."""
        if not (folder / "recipe.yaml").is_file():
            raise RunError(f"{folder}: is not a run folder", fix="name a folder that train, eval or climb has made")
        return cls(folder)

    @classmethod
    def begin(cls, folder: Path, asked: Mapping[str, Any]) -> "Run":
        """Start a run, or take up one that asked the same and did not come to its end.

        Raises RunError if the folder holds anything else.
        """
        if not begun(folder, str(asked["verb"])):
            return cls.create(folder, asked)
        run = cls.open(folder)
        run.refuse_other(asked)
        return run

    def refuse_other(self, asked: Mapping[str, Any]) -> None:
        """Refuse to go on with a run that was asked something else, naming what. Raises RunError."""
        changed = differences(self.asked(), dict(asked))
        if changed:
            more = f" (and {len(changed) - 1} more)" if changed[1:] else ""
            raise RunError(
                f"{self.folder}: holds a run that asked something else: {changed[0]}{more}",
                fix="go on with what it was begun with, or name a new folder",
            )

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.resolve().name

    @property
    def done(self) -> bool:
        """Tell whether the run came to its end."""
        return (self.folder / "DONE").is_file()

    @property
    def trains(self) -> bool:
        """Tell whether the run is a training."""
        return self.asked().get("verb") == "train"

    def append(self, record: Step | Trouble | Check) -> None:
        """Add one line to the log of its kind."""
        with (self.folder / LOGS[type(record)]).open("a", encoding="utf-8") as log:
            log.write(record.model_dump_json() + "\n")

    def copy_logs(self, folder: Path) -> None:
        """Copy the logs into `folder`, where a checkpoint is being made."""
        for name in LOGS.values():
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)

    def restore_logs(self, folder: Path | None) -> None:
        """Put the logs back as they were at a checkpoint; None empties them, for a start from the beginning."""
        for name in LOGS.values():
            kept = folder / name if folder else None
            if kept and kept.is_file():
                self.write_text(name, kept.read_text(encoding="utf-8"))
            else:
                (self.folder / name).unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a whole file aside, then put it in place in one move."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.part")
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    def write_json(self, name: str, values: Any) -> None:
        """Write a JSON file in one move."""
        self.write_text(name, json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def write_lines(self, name: str, records: Iterable[Record]) -> None:
        """Write one JSON line per record, in one move."""
        self.write_text(name, "".join(record.model_dump_json() + "\n" for record in records))

    def finish(self, summary: Summary) -> None:
        """Write the summary, and `DONE` unless the run was stopped early."""
        self.write_json("summary.json", summary.model_dump())
        if not summary.stopped_early:
            self.write_text("DONE", "")

    def asked(self) -> dict[str, Any]:
        """Give what was asked, every default written out."""
        values = yaml.safe_load((self.folder / "recipe.yaml").read_text(encoding="utf-8"))
        return dict(values)

    def provenance(self) -> dict[str, Any]:
        """Give versions, hardware, seeds and hashes."""
        return dict(self._json("provenance.json"))

    def ledger(self) -> Ledger | None:
        """Give what happened to the rows, if the run trained."""
        if not (self.folder / "ledger.json").is_file():
            return None
        return Ledger.parse(self._json("ledger.json"), where=str(self.folder / "ledger.json"))

    def summary(self) -> Summary:
        """Give what the run took. Raises RunError if it has not come that far."""
        return Summary.parse(self._json("summary.json"), where=str(self.folder / "summary.json"))

    def steps(self) -> list[Step]:
        """Give the training log, in order."""
        return list(self._lines("steps.jsonl", Step))

    def troubles(self) -> list[Trouble]:
        """Give the steps that were skipped or looked wrong, in order."""
        return list(self._lines("troubles.jsonl", Trouble))

    def checks(self) -> list[Check]:
        """Give the looks at what is forgotten while training, in order."""
        return list(self._lines("checks.jsonl", Check))

    def forgetting(self) -> Forgetting | None:
        """Give what the training made the model forget; None if that was not measured."""
        if not (self.folder / "forgetting.json").is_file():
            return None
        return Forgetting.parse(self._json("forgetting.json"), where=str(self.folder / "forgetting.json"))

    def plan(self) -> Plan | None:
        """Give what was planned before the first step; None if it could not be told."""
        if not (self.folder / "plan.json").is_file():
            return None
        return Plan.parse(self._json("plan.json"), where=str(self.folder / "plan.json"))

    def abilities(self, task: str) -> list[Answer]:
        """Give the answers, after the training, to one task by which forgetting was measured."""
        return list(self._lines(f"forgetting/after/{task}.jsonl", Answer))

    def text_losses(self) -> list[TextLoss]:
        """Give how likely the trained model finds each passage of the general text; empty if that was not measured."""
        return list(self._lines("forgetting/after-text.jsonl", TextLoss))

    def scores(self) -> list[Score]:
        """Give the scores; empty if the run evaluated nothing."""
        return list(self._lines("scores.jsonl", Score))

    def virtual_tokens(self) -> list[VirtualToken]:
        """Give what the trained virtual tokens are nearest to, in order; empty if the run trained none."""
        return list(self._lines("virtual_tokens.jsonl", VirtualToken))

    def answers(self, task: str) -> list[Answer]:
        """Give the answers to one task, in the order of the split."""
        return list(self._lines(f"answers/{task}.jsonl", Answer))

    def choices(self, task: str) -> list[Choice]:
        """Give the choices made in one task of a benchmark, in the order of its rows."""
        return list(self._lines(f"choices/{task}.jsonl", Choice))

    def protocols(self) -> list[Protocol]:
        """Give how each task of the benchmarks was asked; empty if the run is no `bench`."""
        return list(self._lines("protocols.jsonl", Protocol))

    def tasks(self) -> list[str]:
        """Name the tasks that were answered."""
        return sorted(path.stem for path in (self.folder / "answers").glob("*.jsonl"))

    def _json(self, name: str) -> Any:
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(
                f"{path}: is missing; the run did not come to its end", fix="run it again in a new folder"
            ) from None
        except json.JSONDecodeError as wrong:
            raise RunError(
                f"{path} line {wrong.lineno}: is not JSON: {wrong.msg}", fix="run it again in a new folder"
            ) from None

    def _lines(self, name: str, kind: type[R]) -> Iterator[R]:
        path = self.folder / name
        if not path.is_file():
            return
        # Only whole lines: one that a crash cut off is no fact.
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
            try:
                values = json.loads(line)
            except json.JSONDecodeError as wrong:
                raise RunError(
                    f"{path} line {number}: is not JSON: {wrong.msg}", fix="mend or remove that line"
                ) from None
            yield kind.parse(values, where=f"{path} line {number}")


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Name the fields in which two nested records differ, with both values."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            found for key in keys for found in differences(before.get(key), now.get(key), f"{name}.{key}".strip("."))
        ]
    plain = [list(side) if isinstance(side, tuple) else side for side in (before, now)]
    return [] if plain[0] == plain[1] else [f"{name}: {plain[0]} then, {plain[1]} now"]


def begun(folder: Path, verb: str) -> bool:
    """Tell whether the folder holds a run of this verb that did not come to its end."""
    if not (folder / "recipe.yaml").is_file():
        return False
    run = Run(folder)
    return not run.done and run.asked().get("verb") == verb


def vacant(folder: Path) -> None:
    """Refuse a folder that holds anything. Raises RunError."""
    # A run killed in its first moments leaves its lock, and what was to become its recipe.
    nothing = {lock.NAME, ".recipe.yaml.part"}
    if folder.exists() and (not folder.is_dir() or any(path.name not in nothing for path in folder.iterdir())):
        raise RunError(f"{folder}: is not empty", fix="name a new folder; nothing is ever overwritten")


def check_disk(folder: Path, need_bytes: int) -> None:
    """Refuse to start what the disk cannot hold. Raises DiskError."""
    place = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.exists())
    free = shutil.disk_usage(place).free
    if free < need_bytes:
        raise DiskError(
            f"{folder}: {free / 2**20:.0f} MiB free on the disk, {need_bytes / 2**20:.0f} MiB needed",
            fix="free some space, or name a folder on another disk",
        )
