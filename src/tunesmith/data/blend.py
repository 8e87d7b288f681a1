"""Blends: the tasks of a mixture with their rows, and the stream that a model learns from.

Everything drawn is a function of (seed, task, row, pass): not of the order, nor of what came before.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tunesmith.config import read_yaml
from tunesmith.data.mixture import Mixture, Part, apportion, chosen, load_mixture, rates
from tunesmith.data.rows import Row, draw, first
from tunesmith.data.shots import Pool, pick_shots
from tunesmith.data.task import Task, load_task
from tunesmith.data.template import Kind, Prompt, Shot, Template
from tunesmith.errors import ConfigError, DataError
from tunesmith.names import suggest


class Asking(NamedTuple):
    """How the rows of a part are asked."""

    shots: Mapping[int, float]
    kinds: Mapping[Kind, float]
    options: float

    def by(self, said: Mixture | Part) -> "Asking":
        """Give the same but for what a mixture or a part says of it."""
        options = self.options if said.options is None else said.options
        return Asking(said.shots or self.shots, said.kinds or self.kinds, options)


PLAIN = Asking({0: 1.0}, {"direct": 1.0}, 1.0)


@dataclass(frozen=True)
class Member:
    """One task of a blend: its training rows, its share of the stream, and how its rows are asked.

    `pool` is what worked examples are taken from: all training rows, limited or not; `thoughtful` are those of them
    that have what a chain of thought is made of.
    """

    task: Task
    rows: tuple[Row, ...]
    rate: float
    asking: Asking
    pool: Pool
    thoughtful: Pool


@dataclass(frozen=True)
class Drawn:
    """One row of the stream: its task, the row, what is asked of it, and how often it was asked before.

    `name` is the task's name and the row's id; from the second time on the prompt's id has that number besides.
    """

    task: Task
    row: Row
    prompt: Prompt
    name: str
    turn: int = 0


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
        """Give the rows of one epoch, from 0, in the order in which they are learned from.

        Each task goes on where its epoch before ended, and begins anew, in another order and asked in
        another way, when all its rows have been used: a capped task shows further rows in every epoch.
        """
        counts = self.counts()
        drawn = [one for member in self.members for one in self._of(member, counts[member.task.name], number)]
        return sorted(drawn, key=lambda one: draw(self.seed, f"{number}/{one.prompt.id}"))

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
    name = f"{member.task.name}/{row.id}"
    key = name + (f"#{turn + 1}" if turn else "")
    wording = _wording(member, row, key, seed)
    listed = int(draw(seed, f"options/{key}"), 16) < member.asking.options * 16**64
    prompt = replace(wording.render(row, member.task.references, listed), id=key)
    if k := chosen(member.asking.shots, seed, f"shots/{key}"):
        pool = member.thoughtful if wording.kind == "chain_of_thought" else member.pool
        shown = [wording.render(one, options=listed) for one in pick_shots(pool, row.id, k, seed)]
        prompt = prompt.with_shots([Shot(one.question, one.answer) for one in shown])
    return Drawn(member.task, row, prompt, name, turn)


def load(mixture: Mixture, limit: int | None = None, seed: int = 0, leave_out: Collection[str] = ()) -> Blend:
    """Read the tasks of a mixture and their training rows, at most `limit` of each in a seeded order.

    Rows named in `leave_out`, as the task's name and the row's id, are neither learned nor shown. Raises ConfigError
    or DataError: a task that does not exist, has no training rows or is named twice, a hold-out that no task belongs
    to, a mixture within itself, or nothing left to learn.
    """
    mixture = _whole(mixture)
    reading = _Reading(limit, seed, frozenset(_hold_outs(mixture)), frozenset(leave_out))
    found = _branch(mixture, PLAIN, None, reading)
    tasks = [*(member.task for member in found.members), *found.held]
    names = [task.name for task in tasks]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"the mixture names the task '{twice}' twice", fix="name it once, with a 'rate'")
    known = {name for task in tasks for name in (task.cluster, task.name)}
    stranger = next((name for name in sorted(reading.hold_out) if name not in known), None)
    if stranger is not None:
        raise ConfigError(f"no task of the mixture is '{stranger}' or belongs to it", fix=suggest(stranger, known))
    if not found.members:
        raise ConfigError("every task of the mixture is held out", fix="hold out fewer")
    return Blend(found.members, found.size, found.held, seed)


def load_tasks(name: str) -> list[Task]:
    """Load what `name` names: a task, or all tasks of a mixture or of a recipe with one, those held out last.

    Raises ConfigError or DataError.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return [load_task(name)]
    values = read_yaml(path)
    inner = values.get("mixture")
    if isinstance(inner, str):
        return load_tasks(inner)
    if inner is None and "tasks" not in values:
        asks_for_one = "source" not in values and ({"task", "model", "method", "train"} & set(values))
        return [load_task(str(values.get("task") or "demo") if asks_for_one else name)]
    blend = load(load_mixture(path) if inner is None else Mixture.parse(inner, where=name))
    return [*(member.task for member in blend.members), *blend.held]


class _Reading(NamedTuple):
    """What holds for all parts of a mixture, however deep."""

    limit: int | None
    seed: int
    hold_out: frozenset[str]
    leave_out: frozenset[str]


class _Found(NamedTuple):
    """What a part comes to: its members with their shares of it, its tasks held out, its rows of one epoch."""

    members: tuple[Member, ...]
    held: tuple[Task, ...]
    size: int


def _whole(mixture: Mixture, within: tuple[Path, ...] = ()) -> Mixture:
    """Read the mixtures that a mixture names by file into it."""
    parts = []
    for part in mixture.tasks:
        inner, path = part.mixture, None
        if isinstance(inner, str):
            path = Path(inner).resolve()
            if path in within:
                raise ConfigError(f"{inner}: is a part of itself", fix="name a mixture that does not name this one")
            inner = load_mixture(Path(inner))
        whole = inner and _whole(inner, (*within, path) if path else within)
        parts.append(part.model_copy(update={"mixture": whole}))
    return mixture.model_copy(update={"tasks": tuple(parts)})


def _hold_outs(mixture: Mixture) -> list[str]:
    inner = [part.mixture for part in mixture.tasks if isinstance(part.mixture, Mixture)]
    return [*mixture.hold_out, *(name for one in inner for name in _hold_outs(one))]


def _branch(mixture: Mixture, outer: Asking, cap: int | None, reading: _Reading) -> _Found:
    """Share a mixture's epoch out among its parts."""
    asking = outer.by(mixture)
    cap = min((one for one in (cap, mixture.cap) if one), default=None)
    found = [_part(part, asking, cap, reading) for part in mixture.tasks]
    learned = [(part, one) for part, one in zip(mixture.tasks, found, strict=True) if one.members]
    weights = {str(i): float(part.rate or one.size) for i, (part, one) in enumerate(learned)}
    shares = rates(weights, temperature=mixture.temperature) if weights else {}
    members = [
        replace(member, rate=shares[str(i)] * member.rate)
        for i, (_, one) in enumerate(learned)
        for member in one.members
    ]
    size = mixture.rows or sum(one.size for _, one in learned)
    return _Found(tuple(members), tuple(task for one in found for task in one.held), size)


def _part(part: Part, outer: Asking, cap: int | None, reading: _Reading) -> _Found:
    asking = outer.by(part)
    if isinstance(part.mixture, Mixture):
        said = {name: getattr(part, name) for name in ("shots", "kinds", "options") if getattr(part, name) is not None}
        return _branch(part.mixture.model_copy(update=said), asking, cap, reading)
    return _leaf(load_task(str(part.task)), asking, cap, reading)


def _leaf(task: Task, asking: Asking, cap: int | None, reading: _Reading) -> _Found:
    if {task.cluster, task.name} & reading.hold_out:
        return _Found((), (task,), 0)
    rows = task.rows("train")
    out = {row.id for row in rows if f"{task.name}/{row.id}" in reading.leave_out}
    pool = [row for row in rows if row.id not in out]
    learned = [row for row in first(rows, reading.limit, reading.seed) if row.id not in out]
    if not learned:
        raise DataError(f"every training row of task '{task.name}' is left out", fix="take it out of the mixture")
    thoughts = task.of_kind("chain_of_thought")
    thoughtful = [row for row in pool if all(_fills(one, row) for one in thoughts)] if thoughts else []
    member = Member(task, tuple(learned), 1.0, asking, Pool.of(pool), Pool.of(thoughtful))
    return _Found((member,), (), min(len(learned), cap or len(learned)))


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
