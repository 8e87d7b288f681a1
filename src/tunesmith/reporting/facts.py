"""Facts: what the runs were asked and where they come from, as far as their folders say."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.reporting.gather import Gathered
from tunesmith.reporting.numbers import size, whole
from tunesmith.runs.run import Run

FEW = 4  # from so many on, tasks are counted in the title and not named
ASKED = {
    "model": "Model",
    "task": "Task",
    "split": "Split",
    "shots": "Worked examples",
    "template": "Wording (template)",
    "limit": "Rows at most",
    "seed": "Seed",
    "strength": "Strength of the adapter",
}


class Fact(NamedTuple):
    """One thing that the runs agree on, or each value with the names of the runs it holds for."""

    name: str
    values: tuple[tuple[str, str], ...]


def agree(named: Iterable[tuple[str, Mapping[str, str]]]) -> list[Fact]:
    """Merge the facts of several runs: one value where all have the same, else each with the runs it holds for."""
    holders: dict[str, dict[str, list[str]]] = {}
    for name, facts in named:
        for key, value in facts.items():
            holders.setdefault(key, {}).setdefault(value, []).append(name)
    return [Fact(key, tuple(_held(values))) for key, values in holders.items()]


def _held(values: Mapping[str, list[str]]) -> Iterable[tuple[str, str]]:
    """Give each value with its runs; they go without saying where there is one value only."""
    for value, names in values.items():
        yield value, ", ".join(dict.fromkeys(names)) if len(values) > 1 else ""


def provenance(run: Run) -> dict[str, Any]:
    """Give what the run wrote about its origin, or nothing if it has not come that far."""
    return run.provenance() if (run.folder / "provenance.json").is_file() else {}


def heading(told: Gathered, tasks: Iterable[str]) -> dict[str, str]:
    """Give the page's title, the models it is about, and the day of the last run."""
    runs = list(told.named())
    tasks = list(dict.fromkeys(list(tasks) or [_learned(run) for run in runs]))
    models = [_model(run) for run in runs]
    days = [str(provenance(run).get("created") or "")[:10] for run in runs]
    return {
        "task": ", ".join(tasks) if len(tasks) < FEW else f"{len(tasks)} tasks",
        "model": ", ".join(dict.fromkeys(models)),
        "day": max(days, default=""),
    }


def _learned(run: Run) -> str:
    """Name what a training learned."""
    values = run.asked()
    mixed = (values.get("mixture") or {}).get("tasks", ())
    return f"a mixture of {len(mixed)} parts" if mixed else Path(str(values.get("task") or run.name)).stem


def _model(run: Run) -> str:
    """Name the model; of one that a training has saved whole, the model it was made from."""
    asked, loaded = run.asked(), str((provenance(run).get("model") or {}).get("name") or "")
    made = asked.get("adapter") and loaded.startswith(str(asked["adapter"]))
    return str(asked.get("model", "") if made or not loaded else loaded)


def asked(run: Run) -> dict[str, str]:
    """Give what an evaluation was asked, as facts that can be set against another's."""
    values = run.asked()
    return {title: str(values[name]) for name, title in ASKED.items() if values.get(name) is not None}


def origin(run: Run) -> dict[str, str]:
    """Give where the numbers come from: software, hardware, model and data."""
    known = provenance(run)
    model, hardware = known.get("model") or {}, known.get("hardware") or {}
    cores, memory, parameters = hardware.get("cores"), hardware.get("memory_bytes"), model.get("parameters")
    processor = _listed(hardware.get("processor"), cores and f"{cores} cores", memory and f"{size(memory)} memory")
    device = hardware.get("device")
    facts = {
        "Model": _listed(model.get("name"), model.get("kind")),
        "Parameters loaded": parameters and whole(parameters),
        "Model SHA-256": model.get("sha256"),
        **{f"Data, {split}": _data(found or {}) for split, found in (known.get("data") or {}).items()},
        "Number format": _listed(known.get("dtype"), known.get("dtype_reason")),
        "Seed": known.get("seed"),
        "Processor": processor,
        "Device": device if device != hardware.get("processor") else None,
        "Platform": known.get("platform"),
        "Python": known.get("python"),
        "tunesmith": known.get("tunesmith"),
        "Packages": _listed(*(f"{name} {version}" for name, version in (known.get("packages") or {}).items())),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def data_rows(run: Run) -> dict[str, int]:
    """Give how many rows each split had that the run read."""
    data = provenance(run).get("data") or {}
    return {split: found["rows"] for split, found in data.items() if found and found.get("rows") is not None}


def _data(found: Mapping[str, Any]) -> str:
    rows, sha256 = found.get("rows"), found.get("sha256")
    return _listed(found.get("place"), rows is not None and f"{rows:,} rows", sha256 and f"SHA-256 {sha256}")


def _listed(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part)


def commands(told: Gathered) -> list[str]:
    """Give the commands that made the runs, each once, in the order to repeat them.

    A climb's own command makes all of its parts again, so theirs are left out.
    """
    climbs = [climb for climb in told.climbs if provenance(climb).get("command")]
    parts = [run for run in told.named() if told.inside.get(run) not in climbs]
    said = [provenance(run).get("command") for run in (*climbs, *parts)]
    return list(dict.fromkeys(str(command) for command in said if command))
