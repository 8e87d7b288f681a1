"""Mixtures: many tasks in one training, each with its share, and how their rows are asked.

`Mixture` is what a recipe says; `blend.load` reads its tasks and gives the rows that a model learns from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tunesmith.config import Names, Record, read_yaml
from tunesmith.data.rows import draw
from tunesmith.data.template import Kind
from tunesmith.errors import ConfigError

K = TypeVar("K")
Shots = dict[NonNegativeInt, PositiveFloat]
Kinds = dict[Kind, PositiveFloat]


class Part(Record):
    """One part of a mixture: a task, by name or file, or another mixture, inline or by file.

    `rate` is its weight among the parts; `shots`, `kinds` and `options` are as in `Mixture`, for this part alone.
    """

    task: str | None = None
    mixture: "Mixture | str | None" = None
    rate: PositiveFloat | None = None
    shots: Shots | None = Field(default=None, min_length=1)
    kinds: Kinds | None = Field(default=None, min_length=1)
    options: float | None = Field(default=None, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _one_thing(self) -> "Part":
        if (self.task is None) == (self.mixture is None):
            raise ValueError("names either a 'task' or a 'mixture'")
        return self


class Mixture(Record):
    """Which tasks are learned together, in which shares, and how their rows are asked.

    Without rates a part weighs as many as it has rows, at most `cap` of each task (FLAN: 3 000; `rates` cites the
    formula); `temperature` above 1 evens these weights out. `rows` is how many rows one epoch has; without it, as many
    as the capped tasks have together. `hold_out` names clusters or tasks that are not learned but kept for evaluation,
    wherever they stand. `shots` is in which shares rows show how many worked examples (none, if it is not said),
    `kinds` in which shares wordings of each kind are used where a task has them (those that ask for the answer),
    `options` in which share of the rows a wording's choices are listed (all). A mixture within another
    that does not say these three takes them from the outer one, and is under its cap.
    """

    tasks: tuple[Part, ...] = Field(min_length=1)
    cap: PositiveInt | None = None
    temperature: PositiveFloat = 1.0
    rows: PositiveInt | None = None
    hold_out: Names = ()
    shots: Shots | None = Field(default=None, min_length=1)
    kinds: Kinds | None = Field(default=None, min_length=1)
    options: float | None = Field(default=None, ge=0.0, le=1.0)

    @model_validator(mode="before")
    @classmethod
    def _names(cls, values: Any) -> Any:
        """Let a name stand for the part that is that task."""
        if not isinstance(values, dict) or not isinstance(values.get("tasks"), (list, tuple)):
            return values
        return {**values, "tasks": [{"task": one} if isinstance(one, str) else one for one in values["tasks"]]}

    @model_validator(mode="after")
    def _all_or_no_rates(self) -> "Mixture":
        given = [part.rate is not None for part in self.tasks]
        if any(given) and not all(given):
            raise ValueError("gives a 'rate' to some of its tasks: give one to each, or to none")
        if any(given) and self.temperature != 1.0:
            raise ValueError("has both rates and a temperature: write the rates that are meant")
        return self


def rates(weights: Mapping[str, float], cap: float | None = None, temperature: float = 1.0) -> dict[str, float]:
    """Give each task its share: min(weight, cap)^(1/temperature), divided by the sum of all.

    With rows as weights these are the examples-proportional rates with a cap K and the temperature-scaled
    rates of T5 (Raffel et al. 2020, section 3.5.2); FLAN caps at 3 000 rows (Wei et al. 2022, section 2.1).
    """
    scaled = {name: min(weight, cap or weight) ** (1.0 / temperature) for name, weight in weights.items()}
    whole = sum(scaled.values())
    return {name: one / whole for name, one in scaled.items()}


def apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Share `total` rows out by largest remainder, so that none is lost; each task gets at least one."""
    if total < len(shares):
        raise ConfigError(f"{total} rows are too few for {len(shares)} tasks", fix="raise mixture.rows")
    exact = {name: share * total for name, share in shares.items()}
    counts = {name: max(1, int(value + 1e-9)) for name, value in exact.items()}
    by_need = sorted(exact, key=lambda name: (counts[name] - exact[name], name))
    spare = total - sum(counts.values())
    for name in by_need[: max(0, spare)]:
        counts[name] += 1
    for _ in range(-spare):  # what the smallest were lifted by
        counts[max((name for name in counts if counts[name] > 1), key=lambda name: counts[name] - exact[name])] -= 1
    return counts


def chosen(shares: Mapping[K, float], seed: int, name: str) -> K:
    """Draw one of the keys in proportion to its share, from (seed, name) alone."""
    point = int(draw(seed, name), 16) / 16**64 * sum(shares.values())
    for key, share in shares.items():
        point -= share
        if point < 0:
            return key
    return list(shares)[-1]


def load_mixture(path: Path) -> Mixture:
    """Read a mixture file; the files it names are relative to it. Raises ConfigError."""
    return Mixture.parse(mixture_values(path), where=str(path))


def mixture_values(path: Path) -> dict[str, Any]:
    """Read a mixture file as plain values; the files it names are relative to it. Raises ConfigError."""
    values = read_yaml(path)
    if not isinstance(values.get("tasks"), list):
        raise ConfigError(f"{path}: is no mixture", fix="name what it mixes under 'tasks:'")
    return _within(values, path.parent)


def _within(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {**values, "tasks": [_beside(part, folder) for part in values["tasks"]]}


def _beside(part: Any, folder: Path) -> Any:
    """Name files below `folder` as seen from here, in mixtures within as well."""
    if isinstance(part, str):
        here = folder / part
        return str(here) if here.is_file() else part
    if isinstance(part, dict) and isinstance(part.get("tasks"), list):
        return _within(part, folder)
    if isinstance(part, dict):
        return {**part, **{key: _beside(part[key], folder) for key in ("task", "mixture") if key in part}}
    return part
