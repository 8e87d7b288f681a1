"""Mixtures: many tasks in one training, each with its share, and how their rows are asked.

`Mixture` is what a recipe says; `Mixture.load` reads its tasks and gives a `Blend`, whose `stream` is what a model
learns from. Everything drawn is a function of (seed, task, row, pass): not of the order, nor of what came before.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tunesmith.config import Record, read_yaml
from tunesmith.data.rows import Row, draw, first
from tunesmith.data.shots import Pool, pick_shots
from tunesmith.data.task import Task, load_task
from tunesmith.data.template import Kind, Prompt, Shot, Template
from tunesmith.errors import ConfigError, DataError
from tunesmith.names import suggest

K = TypeVar("K")


class Part(Record):
    """One part of a mixture: a task, by name or file, or another mixture, inline or by file.

    `rate` is its weight among the parts; `shots`, `kinds` and `options` are as in `Mixture`, for this part alone.
    """

    task: str | None = None
    mixture: "Mixture | str | None" = None
    rate: PositiveFloat | None = None
    shots: dict[NonNegativeInt, PositiveFloat] | None = Field(default=None, min_length=1)
    kinds: dict[Kind, PositiveFloat] | None = Field(default=None, min_length=1)
    options: float | None = Field(default=None, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _one_thing(self) -> "Part":
        if (self.task is None) == (self.mixture is None):
            raise ValueError("names either a 'task' or a 'mixture'")
        return self


class Mixture(Record):
    """Which tasks are learned together, in which shares, and how their rows are asked.

    Without rates a part weighs as many as it has rows, at most `cap` (FLAN: 3 000; `rates` cites the formula);
    `temperature` above 1 evens the weights out. `rows` is how many rows one epoch has; without it, as many as the
    capped tasks have together. `hold_out` names clusters or tasks that are not learned but kept for evaluation.
    `shots` is in which shares rows show how many worked examples, `kinds` in which shares wordings of each kind
    are used where a task has them, `options` in which share of the rows a wording's choices are listed.
    """

    tasks: tuple[Part, ...] = Field(min_length=1)
    cap: PositiveInt | None = None
    temperature: PositiveFloat = 1.0
    rows: PositiveInt | None = None
    hold_out: tuple[str, ...] = ()
    shots: dict[NonNegativeInt, PositiveFloat] = Field(default={0: 1.0}, min_length=1)
    kinds: dict[Kind, PositiveFloat] = Field(default={"direct": 1.0}, min_length=1)
    options: float = Field(default=1.0, ge=0.0, le=1.0)

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
        return self

    def load(self, limit: int | None = None, seed: int = 0) -> "Blend":
        """Read the tasks and their training rows, at most `limit` of each in a seeded order.

        Raises ConfigError or DataError: a task that does not exist, has no training rows or is named
        twice, a hold-out that no task belongs to, or nothing left to learn.
        """
        asking = Asking(self.shots, self.kinds, self.options)
        loaded = [_load(part, asking, limit, seed) for part in self.tasks]
        tasks = [member.task for one in loaded for member in one.members]
        _once(tasks)
        _known(self.hold_out, tasks)
        held = [task for task in tasks if {task.cluster, task.name} & set(self.hold_out)]
        kept = [one.without(held) for one in loaded]
        kept = [one for one in kept if one.members]
        if not kept:
            raise ConfigError("every task of the mixture is held out", fix="hold out fewer")
        weights = {str(i): one.weight(self.cap) for i, one in enumerate(kept)}
        shares = rates(weights, temperature=self.temperature)
        members = [
            replace(member, rate=shares[str(i)] * member.rate) for i, one in enumerate(kept) for member in one.members
        ]
        total = self.rows or sum(one.rows(self.cap) for one in kept)
        inner = [task for one in loaded for task in one.held]
        return Blend(tuple(members), total, (*held, *inner), seed)


class Asking(NamedTuple):
    """How the rows of a part are asked."""

    shots: Mapping[int, float]
    kinds: Mapping[Kind, float]
    options: float


@dataclass(frozen=True)
class Member:
    """One task of a blend: its training rows, its share of the stream, and how its rows are asked."""

    task: Task
    rows: tuple[Row, ...]
    rate: float
    asking: Asking
    pools: dict[str, Pool] = field(default_factory=dict, repr=False, compare=False)

    def pool(self, wording: Template) -> Pool:
        """Give the rows that can be examples in a wording; ordered once for all questions."""
        if wording.name not in self.pools:
            self.pools[wording.name] = Pool.of([row for row in self.rows if _fills(wording, row)])
        return self.pools[wording.name]


@dataclass(frozen=True)
class Drawn:
    """One row of the stream: its task, the row, what is asked of it, and how often it was asked before.

    The prompt's id is the task's name and the row's id, and from the second time on that number.
    """

    task: Task
    row: Row
    prompt: Prompt
    turn: int = 0

    @property
    def name(self) -> str:
        """The prompt's id as it was the first time."""
        return self.prompt.id.removesuffix(f"#{self.turn + 1}") if self.turn else self.prompt.id


@dataclass(frozen=True)
class Blend:
    """A mixture with its rows: `total` of them make one epoch; `held` are the tasks that are not learned."""

    members: tuple[Member, ...]
    total: int
    held: tuple[Task, ...]
    seed: int

    def rates(self) -> dict[str, float]:
        """Give the share of each task."""
        return {member.task.name: member.rate for member in self.members}

    def counts(self) -> dict[str, int]:
        """Give how many rows of each task one epoch has; they add up to `total`."""
        return apportion(self.rates(), self.total)

    def epoch(self, number: int) -> list[Drawn]:
        """Give the rows of one epoch, from 0, in the order of the stream.

        Each task goes on where its epoch before ended, and begins anew, in another order and asked in
        another way, when all its rows have been used: a capped task shows further rows in every epoch.
        """
        counts = self.counts()
        drawn = [one for member in self.members for one in self._of(member, counts[member.task.name], number)]
        return sorted(drawn, key=lambda one: draw(self.seed, f"mixture/{number}/{one.prompt.id}"))

    def stream(self) -> Iterator[Prompt]:
        """Give prompts without end, epoch after epoch."""
        for number in itertools.count():
            yield from (drawn.prompt for drawn in self.epoch(number))

    def _of(self, member: Member, count: int, number: int) -> Iterator[Drawn]:
        """Give the rows `number` * `count` to (`number` + 1) * `count` of one task's own endless stream."""
        order: dict[int, list[Row]] = {}
        for place in range(number * count, (number + 1) * count):
            turn, i = divmod(place, len(member.rows))
            if turn not in order:
                order[turn] = self._turn(member, turn)
            yield ask(member, order[turn][i], turn, self.seed)

    def _turn(self, member: Member, turn: int) -> list[Row]:
        return sorted(member.rows, key=lambda row: draw(self.seed, f"{member.task.name}/{turn}/{row.id}"))


def ask(member: Member, row: Row, turn: int, seed: int) -> Drawn:
    """Ask one row of a task, as it is asked the `turn`-th time: wording, examples and listed choices are drawn."""
    key = f"{member.task.name}/{row.id}" + (f"#{turn + 1}" if turn else "")
    wording = _wording(member, row, key, seed)
    listed = int(draw(seed, f"options/{key}"), 16) < member.asking.options * 16**64
    prompt = replace(wording.render(row, member.task.references, listed), id=key)
    if k := chosen(member.asking.shots, seed, f"shots/{key}"):
        shown = [wording.render(one, options=listed) for one in pick_shots(member.pool(wording), row.id, k, seed)]
        prompt = prompt.with_shots([Shot(one.question, one.answer) for one in shown])
    return Drawn(member.task, row, prompt, turn)


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


def load_tasks(name: str) -> list[Task]:
    """Load what `name` names: a task, or all tasks of a mixture or of a recipe with one, those held out last.

    Raises ConfigError or DataError.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return [load_task(name)]
    values = read_yaml(path)
    if "source" in values:
        return [load_task(name)]
    inner = values.get("mixture", values)
    if isinstance(inner, str):
        return load_tasks(inner)
    if "tasks" not in inner:
        return [load_task(str(values.get("task", name)))]
    mixture = load_mixture(path) if inner is values else Mixture.parse(inner, where=name)
    blend = mixture.load()
    return [*(member.task for member in blend.members), *blend.held]


def load_mixture(path: Path) -> Mixture:
    """Read a mixture file; the files it names are relative to it. Raises ConfigError."""
    return Mixture.parse(mixture_values(path), where=str(path))


def mixture_values(path: Path) -> dict[str, Any]:
    """Read a mixture file as plain values; the files it names are relative to it. Raises ConfigError."""
    values = read_yaml(path)
    parts = values.get("tasks")
    if not isinstance(parts, list):
        raise ConfigError(f"{path}: is no mixture", fix="name what it mixes under 'tasks:'")
    return {**values, "tasks": [_beside(part, path.parent) for part in parts]}


def _beside(part: Any, folder: Path) -> Any:
    """Name files below `folder` as seen from here."""
    if isinstance(part, str):
        here = folder / part
        return str(here) if here.is_file() else part
    if isinstance(part, dict):
        names = {key: _beside(part[key], folder) for key in ("task", "mixture") if isinstance(part.get(key), str)}
        return {**part, **names}
    return part


class _Loaded(NamedTuple):
    """What one part gives: its members with their shares of it, its tasks held out, its own rate and size."""

    members: tuple[Member, ...]
    held: tuple[Task, ...]
    rate: float | None
    size: int | None  # of a nested mixture: its rows of one epoch

    def without(self, held: Sequence[Task]) -> "_Loaded":
        names = {task.name for task in held}
        kept = [member for member in self.members if member.task.name not in names]
        share = sum(member.rate for member in kept)
        evened = tuple(replace(member, rate=member.rate / share) for member in kept)
        return self._replace(members=evened, size=round(self.size * share) if self.size else None)

    def rows(self, cap: int | None) -> int:
        if self.size is not None:
            return self.size
        own = len(self.members[0].rows)
        return min(own, cap or own)

    def weight(self, cap: int | None) -> float:
        return self.rate or self.rows(cap)


def _load(part: Part, outer: Asking, limit: int | None, seed: int) -> _Loaded:
    if part.mixture is not None:
        return _load_nested(part, part.mixture, limit, seed)
    options = outer.options if part.options is None else part.options
    asking = Asking(part.shots or outer.shots, part.kinds or outer.kinds, options)
    task = load_task(str(part.task))
    return _Loaded((Member(task, tuple(first(task.rows("train"), limit, seed)), 1.0, asking),), (), part.rate, None)


def _load_nested(part: Part, mixture: Mixture | str, limit: int | None, seed: int) -> _Loaded:
    """Load a mixture within a mixture; what the part says of its asking goes before what the inner one says."""
    inner = load_mixture(Path(mixture)) if isinstance(mixture, str) else mixture
    told = {name: getattr(part, name) for name in ("shots", "kinds", "options") if getattr(part, name) is not None}
    blend = inner.model_copy(update=told).load(limit, seed)
    return _Loaded(blend.members, blend.held, part.rate, blend.total)


def _once(tasks: Sequence[Task]) -> None:
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"the mixture names the task '{twice}' twice", fix="name it once, with a 'rate'")


def _known(hold_out: Sequence[str], tasks: Sequence[Task]) -> None:
    known = {name for task in tasks for name in (task.cluster, task.name)}
    stranger = next((name for name in hold_out if name not in known), None)
    if stranger is not None:
        raise ConfigError(f"no task of the mixture is '{stranger}' or belongs to it", fix=suggest(stranger, known))


def _wording(member: Member, row: Row, key: str, seed: int) -> Template:
    """Draw the kind among those that the task has for this row, then one of its wordings."""
    fit = {kind: [one for one in member.task.of_kind(kind) if _fills(one, row)] for kind in member.asking.kinds}
    shares = {kind: share for kind, share in member.asking.kinds.items() if fit[kind]}
    if not shares:
        asked = ", ".join(member.asking.kinds)
        raise DataError(
            f"task '{member.task.name}' has no wording of kind {asked} for row {row.id}",
            fix="add 'direct' to the mixture's kinds, or such a template to the task",
        )
    wordings = fit[chosen(shares, seed, f"kind/{key}")]
    return wordings[int(draw(seed, f"template/{key}"), 16) % len(wordings)]


def _fills(wording: Template, row: Row) -> bool:
    """Tell whether a row has what a chain of thought is made of; what other wordings lack is an error of theirs."""
    return wording.kind != "chain_of_thought" or wording.model_copy(update={"choices": ()}).fields() <= set(row.fields)
