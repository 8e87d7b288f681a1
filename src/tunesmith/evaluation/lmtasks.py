"""lm-eval's tasks: found by name, given their data, asked of a model.

Its prompts, shots, filters and marks are used as they are. What differs is
said here: the questions of a limit are drawn by what they hold, not taken from
the top, and shots that lm-eval draws anew for each question, from a random
state that depends on all questions before, are drawn once.
"""

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset
from lm_eval.api.samplers import ContextSampler
from lm_eval.tasks import TaskManager

from tunesmith.data.rows import draw
from tunesmith.errors import ConfigError, DataError, TunesmithError
from tunesmith.evaluation.harness import Harness
from tunesmith.evaluation.record import RECORD
from tunesmith.evaluation.upstream import READERS, Place
from tunesmith.inference.generate import Generated
from tunesmith.names import suggest

Index = Mapping[str, Any]
REPLACED = {"record": RECORD}  # tasks whose own definition cannot be loaded
UNPARSED = ("", "[invalid]")  # what lm-eval's filters give where they find nothing


class FixedShots(ContextSampler):  # type: ignore[misc]
    """The same shots for every question: they depend on the seed alone, never on which questions came before."""

    def set_rnd(self, rnd: int | None) -> "FixedShots":
        """Take a seed."""
        self._order = sorted(self.df, key=lambda row: draw(rnd or 0, _canonical(row)))
        return self

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **_: Any) -> list[Any]:
        """Give `n` rows, never the question itself. Raises DataError if there are too few."""
        found = list(islice((row for row in self._order if row != eval_doc), n))
        if len(found) < n:
            raise DataError(f"{n} shots asked, {len(found)} rows to choose from", fix=f"use at most {len(found)} shots")
        return found


@dataclass(frozen=True)
class Outcome:
    """One question of a task and what came of it: lm-eval's marks by name, and the answers they are about."""

    id: str
    requests: tuple[Any, ...]
    marks: Mapping[str, Any]
    made: tuple[Generated, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A task with the questions to ask: `ids` by the place of each row; `chosen` are places, None for all."""

    name: str
    task: Any
    ids: tuple[str, ...]
    chosen: frozenset[int] | None = None

    @property
    def shots(self) -> int:
        """How many worked examples come before each question."""
        return int(self.task.config.num_fewshot or 0)

    @property
    def split(self) -> str:
        """The split the questions are from."""
        return str(self.task.config.test_split or self.task.config.validation_split)

    @property
    def version(self) -> str:
        """lm-eval's version of the task."""
        return str(self.task.VERSION)

    @property
    def generates(self) -> bool:
        """Whether the model writes its answers; otherwise likelihoods choose among given ones."""
        return bool(self.task.OUTPUT_TYPE == "generate_until")


@cache
def index() -> TaskManager:
    """Read the names of all of lm-eval's tasks; takes some seconds, once."""
    with quiet():
        return TaskManager()


def leaves(known: Index, name: str) -> list[str]:
    """Give the tasks that a task, group or tag of lm-eval stands for. Raises ConfigError for an unknown name."""
    if name not in known:
        raise ConfigError(f"there is no benchmark '{name}'", fix=suggest(name, known))
    entry = known[name]
    if entry.kind.name == "TAG":
        return sorted(entry.tags)
    return _members(known, entry.cfg["task"]) if entry.kind.name == "GROUP" else [name]


def _members(known: Index, listed: Any) -> list[str]:
    """Walk the tasks of a group, some of which are groups written in place."""
    if isinstance(listed, str):
        return leaves(known, listed)
    if isinstance(listed, dict):
        return _members(known, listed["task"] if "task" in listed else listed["group"])
    return [leaf for one in listed for leaf in _members(known, one)]


def reader(known: Index, leaf: str, folder: Path, shots: bool) -> Callable[..., Any]:
    """Give the function that reads a task's rows from upstream files. Raises DataError if there are none."""
    config = known[leaf].cfg or {}
    hub = config.get("dataset_path")
    if hub not in READERS:
        raise DataError(
            f"--data: how the files of '{leaf}' are written is not known",
            fix="leave --data out; the hub's data are used",
        )
    splits = READERS[hub](Place(folder, config["dataset_name"], shots))
    return lambda **_: {name: Dataset.from_list(rows) for name, rows in splits.items()}


def build(manager: TaskManager, specs: Sequence[Mapping[str, Any]] | str) -> dict[str, Any]:
    """Make tasks, of registered names with changes to their configuration or of one name as it is.

    Raises DataError if their data cannot be loaded.
    """
    wanted: list[Any] = [specs] if isinstance(specs, str) else [spec for spec in specs if spec["task"] in REPLACED]
    if len(wanted) < len(specs) and not isinstance(specs, str):
        wanted.append({"group": "bench", "task": [dict(spec) for spec in specs if spec["task"] not in REPLACED]})
    try:
        with quiet():
            return dict(manager.load(wanted)["tasks"])
    except TunesmithError:
        raise
    except Exception as wrong:  # the hub and the tasks raise a dozen unrelated kinds; each means "cannot be had"
        what = specs if isinstance(specs, str) else ", ".join(str(spec["task"]) for spec in specs[:3])
        raise DataError(
            f"the data of {what} cannot be loaded: {(str(wrong) or type(wrong).__name__).splitlines()[0]}",
            fix="check the network, or name a folder of upstream files with --data",
        ) from wrong


def prepare(name: str, task: Any, shots: int | None, seed: int) -> Asked:
    """Set a task's shots, as many as asked or as it has; None keeps its own number.

    A task that shows none by its nature keeps none, as lm-eval has it.
    """
    if shots is not None and task.config.num_fewshot != 0:
        task.set_config("num_fewshot", min(shots, most_shots(task)))
    sampler: Any = getattr(task, "sampler", None)
    if type(sampler) is ContextSampler:
        task.sampler = FixedShots(sampler.df)
    task.set_fewshot_seed(seed)
    return Asked(name, task, _ids(task.eval_docs))


def most_shots(task: Any) -> int:
    """Give how many worked examples a task has: BBH's authors wrote three for each."""
    written = getattr(getattr(task, "sampler", None), "df", None)
    return len(written) if written else 10**6


def limited(tasks: Sequence[Asked], limit: int | None, seed: int) -> list[Asked]:
    """Choose `limit` questions over all tasks, in proportion to their sizes, at least one of each.

    Which ones of a task depends on (seed, what the questions hold) alone, not on
    the order of the rows, and a smaller limit's questions are among a larger
    one's. Raises ConfigError for a limit below the number of tasks.
    """
    if limit is None or limit >= sum(len(one.ids) for one in tasks):
        return list(tasks)
    if limit < len(tasks):
        raise ConfigError(
            f"--limit {limit}: fewer questions than the {len(tasks)} tasks", fix=f"use --limit {len(tasks)}"
        )
    places = []
    for number, one in enumerate(tasks):
        order = sorted(range(len(one.ids)), key=lambda i, one=one: draw(seed, one.ids[i]))  # type: ignore[misc]
        # The first of each comes first; then each task's questions are spread evenly from 0 to 1.
        places += [(rank > 0, (rank + 0.5) / len(order), one.name, number, i) for rank, i in enumerate(order)]
    kept: dict[int, set[int]] = defaultdict(set)
    for *_, number, i in sorted(places)[:limit]:
        kept[number].add(i)
    return [Asked(one.name, one.task, one.ids, frozenset(kept[i])) for i, one in enumerate(tasks)]


def requests_of(asked: Asked, harness: Harness, chat: bool) -> list[Any]:
    """Write the requests of a task's questions; `doc_id` is the place of the question's row."""
    options = (
        {"apply_chat_template": True, "fewshot_as_multiturn": True, "chat_template": harness.apply_chat_template,
         "tokenizer_name": harness.tokenizer_name}
        if chat
        else {}
    )  # fmt: skip
    with quiet():
        asked.task.build_all_requests(samples=asked.chosen, **options)
    places = sorted(asked.chosen) if asked.chosen is not None else range(len(asked.ids))
    for request in asked.task.instances:
        request.task_name, request.doc_id = asked.name, places[request.doc_id]
    return list(asked.task.instances)


def answer(harness: Harness, requests: Sequence[Any]) -> dict[int, list[Generated]]:
    """Let the model answer all requests, those of a kind in one call; give what was generated for each request.

    Everything that a run asks of the model is asked here.
    """
    made: dict[int, list[Generated]] = defaultdict(list)
    by_kind: dict[str, list[Any]] = defaultdict(list)
    for request in requests:
        by_kind[request.request_type] += [request] * (request.repeats or 1)
    for kind, group in by_kind.items():
        if kind == "generate_until":
            for request, one in zip(group, harness.generated(group), strict=True):
                made[id(request)].append(one)
                request.resps.append(one.text)
        else:
            for request, found in zip(group, getattr(harness, kind)(group), strict=True):
                request.resps.append(found)
    return made


def outcomes(
    asked: Asked, made: Mapping[int, list[Generated]], read: Callable[[str], str | None] | None = None
) -> list[Outcome]:
    """Mark a task's answers as lm-eval does; a mark of a named filter is called `metric,filter`.

    Written answers are also marked `unparsed` if no answer was found in them.
    With `read`, which finds the answer in a text, `accuracy` is whether that is the right one.
    """
    with quiet():
        asked.task.apply_filters()
    by_row: dict[int, list[Any]] = defaultdict(list)
    for request in asked.task.instances:
        by_row[request.doc_id].append(request)
    found = []
    for place, group in sorted(by_row.items()):
        group.sort(key=lambda request: request.idx)
        marks: dict[str, Any] = {}
        for name in group[0].filtered_resps:
            given = asked.task.process_results(group[0].doc, [request.filtered_resps[name] for request in group])
            if asked.generates:
                given = {**given, "unparsed": float(group[0].filtered_resps[name] in UNPARSED)}
            marks.update({key if name == "none" else f"{key},{name}": value for key, value in given.items()})
        texts = tuple(one for request in group for one in made.get(id(request), ()))
        if read and texts:
            answer_read = read(texts[0].text)
            right = str(asked.task.doc_to_target(group[0].doc))
            marks.update({"accuracy": float(answer_read == right), "unparsed": float(answer_read is None)})
        found.append(Outcome(asked.ids[place], tuple(group), marks, texts))
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's notices and one bar per task from the terminal; what matters of them we say ourselves."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logger.setLevel(before)


def _ids(rows: Any) -> tuple[str, ...]:
    """Name each question by a hash of what it holds; equal ones are numbered apart."""
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        # The hub's rows are numbered; the number is no part of the question.
        held = {key: value for key, value in dict(row).items() if key != "idx"} if isinstance(row, dict) else row
        name = hashlib.sha256(_canonical(held).encode()).hexdigest()[:12]
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return tuple(names)


def _canonical(row: Any) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
