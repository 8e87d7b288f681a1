"""From a recipe to rows ready for training: rendered, encoded, admitted and accounted for."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from tunesmith.data.blend import Blend, Drawn, Member, load
from tunesmith.data.encode import Encoded, Encoder
from tunesmith.data.leakage import Index, Kind, Leak, normalise
from tunesmith.data.ledger import Ledger, Share, admit, duplicates
from tunesmith.data.mixture import Mixture, Part
from tunesmith.data.rows import Row, first
from tunesmith.data.task import Task, load_task
from tunesmith.data.template import Prompt
from tunesmith.data.unlearned import measured
from tunesmith.errors import DataError
from tunesmith.models.load import Place, load_encoder
from tunesmith.models.virtual import ids
from tunesmith.recipe import Recipe

FEW_LABELS = 64
LONGER = 5  # words, or characters of a script without spaces
KINDS: tuple[Kind, ...] = get_args(Kind)  # the strongest first


@dataclass(frozen=True)
class Prepared:
    """The rows of one training, epoch by epoch, and the prompts of the first one's.

    `sources` says where each split came from and its fingerprint.
    """

    prompts: list[Prompt]
    epochs: tuple[tuple[Encoded, ...], ...]
    validation: list[Encoded]
    ledger: Ledger
    sources: dict[str, dict[str, str | int]]

    @property
    def rows(self) -> tuple[Encoded, ...]:
        """Give the rows of the first epoch."""
        return self.epochs[0]


def training_encoder(place: Place, recipe: Recipe) -> Encoder:
    """Load the tokenizer, with the virtual tokens that the recipe's method puts before every prompt."""
    return replace(load_encoder(place, recipe.prompting), virtual=ids(recipe.method.virtual_tokens))


def load_work(recipe: Recipe) -> Task | Blend:
    """Load what a recipe learns: its task, or the tasks of its mixture. Raises ConfigError or DataError."""
    mixture = _mixture(recipe)
    return load_task(str(recipe.task)) if mixture is None else load(mixture, recipe.limit.train, recipe.seed)


def _mixture(recipe: Recipe) -> Mixture | None:
    """Give the mixture of a recipe; a task with rows of others replayed beside it is one."""
    if recipe.replay is None:
        return recipe.mixture
    task, replay = str(recipe.task), recipe.replay
    own = len(first(load_task(task).rows("train"), recipe.limit.train, recipe.seed))
    others = max(len(replay.tasks), round(own * replay.share / (1 - replay.share)))
    beside = Mixture.parse({"tasks": replay.tasks}, where="replay")
    return Mixture(tasks=(Part(task=task, rate=own), Part(mixture=beside, rate=others)), rows=own + others)


def prepare_rows(work: Task | Blend, recipe: Recipe, encoder: Encoder) -> Prepared:
    """Render, encode and admit the training and validation rows.

    Raises DataError or FitError for rows that cannot be used as they are.
    """
    tasks, held = _tasks(work), list(work.held) if isinstance(work, Blend) else []
    asked = measured(recipe.forgetting, tasks, held)
    work, leaks = _clean(work, recipe, _evaluated(work, tasks, held, asked))
    drawn = [[_fitting(encoder, one, recipe) for one in epoch] for epoch in _drawn(work, recipe, leaks)]
    admitted = [
        admit([encoder.encode(one.prompt, one.task.name) for one, _ in epoch], recipe.length) for epoch in drawn
    ]
    epochs = [tuple(kept) for kept, _ in admitted]
    if isinstance(work, Task):  # the same rows each time, asked in the same way
        epochs *= recipe.train.epochs
    ledger = admitted[0][1].model_copy(
        update={
            "trimmed": _union(told.trimmed for _, told in admitted),
            "dropped": _union(told.dropped for _, told in admitted),
            "fewer_examples": tuple(one.prompt.id for epoch in drawn for one, fewer in epoch if fewer),
            "duplicate": duplicates(one.prompt for one, _ in drawn[0] if not one.turn),
            "leaked": _union([leak.id] for leak in leaks),
            "leaks": tuple(leaks),
            "left_out": recipe.leaked == "drop",
            "tasks": _shares(work, epochs) if isinstance(work, Blend) else (),
            "held": tuple(task.name for task in held),
            "epochs": len(epochs),
        }
    )
    validation = [row for task in tasks for row in _validation(task, recipe, encoder)]
    prompts = [one.prompt for one, _ in drawn[0]]
    return Prepared(prompts, tuple(epochs), validation, ledger, _sources(work, asked))


def labels(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """Give the answers that the rows choose from, if they are few: the labels of a classification."""
    found = tuple(dict.fromkeys(prompt.answer for prompt in prompts))
    return found if len(found) <= FEW_LABELS else ()


def _tasks(work: Task | Blend) -> list[Task]:
    return [work] if isinstance(work, Task) else [member.task for member in work.members]


def _drawn(work: Task | Blend, recipe: Recipe, leaks: Sequence[Leak]) -> list[list[Drawn]]:
    """Give what is learned from in each epoch; of a single task one epoch stands for all."""
    if isinstance(work, Blend):
        return [work.epoch(number) for number in range(recipe.train.epochs)]
    out = {leak.id for leak in leaks} if recipe.leaked == "drop" else set()
    rows = {row.id: row for row in first(work.rows("train"), recipe.limit.train, recipe.seed)}
    prompts = work.prompts("train", seed=recipe.seed, template=recipe.template, limit=recipe.limit.train)
    drawn = [Drawn(work, rows[prompt.id], prompt, prompt.id) for prompt in prompts if prompt.id not in out]
    if not drawn:
        raise DataError("every training row shares text with rows of evaluation", fix="-s leaked=tell, or other rows")
    return [drawn]


def _fitting(encoder: Encoder, one: Drawn, recipe: Recipe) -> tuple[Drawn, bool]:
    """Show only as many worked examples as there is room for; tell whether those were fewer than asked."""
    asked = len(one.prompt.shots)
    while one.prompt.shots and encoder.encode(one.prompt).size > recipe.length.max_tokens:
        one = replace(one, prompt=one.prompt.with_shots(one.prompt.shots[:-1]))
    return one, len(one.prompt.shots) < asked


def _validation(task: Task, recipe: Recipe, encoder: Encoder) -> list[Encoded]:
    """Encode the validation rows, the same wording for each; those too long are left out of the mean."""
    if task.source.validation is None:
        return []
    wording = None if recipe.template == "any" else recipe.template
    prompts = task.prompts("validation", seed=recipe.seed, template=wording, limit=recipe.limit.validation)
    rows = [encoder.encode(prompt, task.name) for prompt in prompts]
    return [row for row in rows if row.size <= recipe.length.max_tokens]


def _clean(work: Task | Blend, recipe: Recipe, held: Index) -> tuple[Task | Blend, list[Leak]]:
    """Find the rows that share text with rows of evaluation; leave them out, or refuse them, if the recipe says so.

    Every row that may be learned is looked at. What is left out is not shown as an example either.
    """
    if isinstance(work, Task):
        rows = first(work.rows("train"), recipe.limit.train, recipe.seed)
        leaks = _strongest(held, [(row.id, text) for row in rows for text in _texts(work, row)])
    else:
        named = [(one, row, f"{one.task.name}/{row.id}") for one in work.members for row in _shown(one, recipe)]
        leaks = _strongest(held, [(name, text) for one, row, name in named for text in _texts(one.task, row)])
    if leaks and recipe.leaked == "error":
        raise DataError(
            f"{len(leaks)} training rows share text with rows of evaluation: "
            f"{leaks[0].id} with {leaks[0].other} ({leaks[0].kind})",
            fix="-s leaked=drop leaves them out",
        )
    mixture = _mixture(recipe)
    if leaks and recipe.leaked == "drop" and mixture is not None:
        work = load(mixture, recipe.limit.train, recipe.seed, {leak.id for leak in leaks})
    return work, leaks


def _strongest(held: Index, texts: Sequence[tuple[str, str]]) -> list[Leak]:
    """Give the strongest leak of each row, whichever of its texts it is in."""
    found: dict[str, Leak] = {}
    for leak in held.leaks(texts):
        if leak.id not in found or KINDS.index(leak.kind) < KINDS.index(found[leak.id].kind):
            found[leak.id] = leak
    return list(found.values())


def _shown(member: Member, recipe: Recipe) -> Sequence[Row]:
    """Give the rows that may be learned from, or shown as examples, in any epoch."""
    return member.pool.rows if set(member.asking.shots) != {0} else member.rows


def _evaluated(work: Task | Blend, tasks: Sequence[Task], held: Sequence[Task], asked: Sequence[Task]) -> Index:
    """Give the texts of all rows that something is evaluated on: of tasks that are not learned, all splits."""
    named = {task.name for task in (*held, *asked)}
    others = {task.name: task for task in (*tasks, *held, *asked)}
    texts = []
    for name, task in others.items():
        alone = isinstance(work, Task) and name not in named
        for split in task.splits():
            if split != "train" or name in named:
                rows = task.rows(split)
                texts += [(row.id if alone else f"{name}/{split}/{row.id}", _texts(task, row)[0]) for row in rows]
    return Index(texts)


def _texts(task: Task, row: Row) -> list[str]:
    """Give the fields that make the question, joined, and each longer one: a text may be copied beside an instruction.

    The wording around them, the choices and the answer are left out.
    """
    direct = task.of_kind("direct") or task.templates
    asks = frozenset().union(*(one.asks() for one in direct))
    choices = frozenset().union(*(one.listed() for one in direct))
    fields = [str(row.fields[name]) for name in sorted(asks - choices) if row.fields.get(name)]
    longer = [text for text in fields if len(normalise(text).split()) >= LONGER] if len(fields) > 1 else []
    return ["\n".join(fields), *longer]


def _shares(blend: Blend, epochs: Sequence[Sequence[Encoded]]) -> tuple[Share, ...]:
    """Account for each task: what it has, and what of it is learned over all epochs."""
    by_task: dict[str, list[Encoded]] = {member.task.name: [] for member in blend.members}
    for row in (row for epoch in epochs for row in epoch):
        by_task[row.task].append(row)
    return tuple(
        Share(
            task=member.task.name,
            cluster=member.task.cluster,
            size=len(member.rows),
            rate=member.rate,
            rows=len(rows),
            tokens=sum(row.size for row in rows),
            answer_tokens=sum(len(row.answer) for row in rows),
            epochs=len(rows) / len(member.rows),
        )
        for member, rows in zip(blend.members, by_task.values(), strict=True)
    )


def _sources(work: Task | Blend, asked: Sequence[Task]) -> dict[str, dict[str, str | int]]:
    """Say of each split where it is, how many rows it has, and their fingerprint; of what forgetting asks, in all."""
    if isinstance(work, Task):
        told = work.provenance()
    else:
        tasks = [*_tasks(work), *work.held]
        told = {f"{task.name}/{split}": one for task in tasks for split, one in task.provenance().items()}
    if not asked:
        return told
    others = [one for task in asked for one in task.provenance().values()]
    whole = hashlib.sha256("".join(str(one["sha256"]) for one in others).encode()).hexdigest()
    names = ", ".join(task.name for task in asked)
    return {**told, "forgetting": {"place": names, "rows": sum(int(one["rows"]) for one in others), "sha256": whole}}


def _union(told: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in told for name in names))
