"""From a recipe to rows ready for training: rendered, encoded, admitted and accounted for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tunesmith.data.encode import Encoded, Encoder
from tunesmith.data.leakage import Leak, find_leaks
from tunesmith.data.ledger import Ledger, Share, admit, duplicates
from tunesmith.data.mixture import Blend, Drawn, Mixture, Part
from tunesmith.data.rows import Row, first
from tunesmith.data.task import Task, load_task
from tunesmith.data.template import Prompt
from tunesmith.errors import DataError
from tunesmith.models.load import Place, load_encoder
from tunesmith.models.virtual import ids
from tunesmith.recipe import Recipe, Replay

FEW_LABELS = 64


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
    if recipe.mixture is not None:
        return recipe.mixture.load(recipe.limit.train, recipe.seed)
    if recipe.replay is not None:
        return _replayed(recipe, recipe.replay)
    return load_task(str(recipe.task))


def _replayed(recipe: Recipe, replay: Replay) -> Blend:
    """Give a task with rows of others beside it, which are `replay.share` of all."""
    task = str(recipe.task)
    own = len(first(load_task(task).rows("train"), recipe.limit.train, recipe.seed))
    others = Mixture.parse({"tasks": replay.tasks}, where="replay")
    parts = (Part(task=task, rate=1 - replay.share), Part(mixture=others, rate=replay.share))
    return Mixture(tasks=parts, rows=round(own / (1 - replay.share))).load(recipe.limit.train, recipe.seed)


def prepare_rows(work: Task | Blend, recipe: Recipe, encoder: Encoder) -> Prepared:
    """Render, encode and admit the training and validation rows.

    Raises DataError or FitError for rows that cannot be used as they are.
    """
    drawn = _drawn(work, recipe)
    leaks = _leaks(work, {one.name: one for epoch in drawn for one in epoch})
    drawn = [[_fitting(encoder, one, recipe) for one in epoch] for epoch in _clean(drawn, leaks, recipe)]
    admitted = [admit([encoder.encode(one.prompt, one.task.name) for one in epoch], recipe.length) for epoch in drawn]
    epochs = [tuple(kept) for kept, _ in admitted]
    if isinstance(work, Task):  # the same rows each time, asked in the same way
        epochs *= recipe.train.epochs
    ledger = admitted[0][1].model_copy(
        update={
            "trimmed": _union(told.trimmed for _, told in admitted),
            "dropped": _union(told.dropped for _, told in admitted),
            "duplicate": duplicates(one.prompt for one in drawn[0] if not one.turn),
            "leaked": _union([leak.id] for leak in leaks),
            "leaks": tuple(leaks),
            "tasks": _shares(work, epochs) if isinstance(work, Blend) else (),
        }
    )
    validation = [row for task in _tasks(work) for row in _validation(task, recipe, encoder)]
    return Prepared([one.prompt for one in drawn[0]], tuple(epochs), validation, ledger, _sources(work))


def labels(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """Give the answers that the rows choose from, if they are few: the labels of a classification."""
    found = tuple(dict.fromkeys(prompt.answer for prompt in prompts))
    return found if len(found) <= FEW_LABELS else ()


def _tasks(work: Task | Blend, held: bool = False) -> list[Task]:
    if isinstance(work, Task):
        return [work]
    return [*(member.task for member in work.members), *(work.held if held else ())]


def _drawn(work: Task | Blend, recipe: Recipe) -> list[list[Drawn]]:
    """Give what is learned from in each epoch; of a single task one epoch stands for all."""
    if isinstance(work, Blend):
        return [work.epoch(number) for number in range(recipe.train.epochs)]
    rows = {row.id: row for row in first(work.rows("train"), recipe.limit.train, recipe.seed)}
    prompts = work.prompts("train", seed=recipe.seed, template=recipe.template, limit=recipe.limit.train)
    return [[Drawn(work, rows[prompt.id], prompt) for prompt in prompts]]


def _clean(drawn: list[list[Drawn]], leaks: Sequence[Leak], recipe: Recipe) -> list[list[Drawn]]:
    """Leave leaking rows out, or refuse them, if the recipe says so."""
    if leaks and recipe.leaked == "error":
        first_one = leaks[0]
        raise DataError(
            f"{len(leaks)} training rows share text with rows of evaluation: {first_one.id} with {first_one.other} "
            f"({first_one.kind})",
            fix="-s leaked=drop leaves them out",
        )
    if recipe.leaked != "drop":
        return drawn
    out = {leak.id for leak in leaks}
    return [[one for one in epoch if one.name not in out] for epoch in drawn]


def _fitting(encoder: Encoder, one: Drawn, recipe: Recipe) -> Drawn:
    """Show only as many worked examples as there is room for."""
    while one.prompt.shots and encoder.encode(one.prompt).size > recipe.length.max_tokens:
        one = replace(one, prompt=one.prompt.with_shots(one.prompt.shots[:-1]))
    return one


def _validation(task: Task, recipe: Recipe, encoder: Encoder) -> list[Encoded]:
    """Encode the validation rows, the same wording for each; those too long are left out of the mean."""
    if task.source.validation is None:
        return []
    wording = None if recipe.template == "any" else recipe.template
    prompts = task.prompts("validation", seed=recipe.seed, template=wording, limit=recipe.limit.validation)
    rows = [encoder.encode(prompt, task.name) for prompt in prompts]
    return [row for row in rows if row.size <= recipe.length.max_tokens]


def _leaks(work: Task | Blend, trained: dict[str, Drawn]) -> list[Leak]:
    """Find the training rows that share text with validation or test rows, those of tasks held out included."""
    several = isinstance(work, Blend)
    held = [
        (f"{task.name}/{split}/{row.id}" if several else row.id, _text(task, row))
        for task in _tasks(work, held=True)
        for split in task.splits()
        if split != "train"
        for row in task.rows(split)
    ]
    return find_leaks([(name, _text(one.task, one.row)) for name, one in trained.items()], held)


def _text(task: Task, row: Row) -> str:
    """Join the fields that the wordings show, without the wording around them."""
    names = sorted(frozenset().union(*(template.fields() for template in task.templates)))
    return "\n".join(str(row.fields[name]) for name in names if name in row.fields)


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


def _sources(work: Task | Blend) -> dict[str, dict[str, str | int]]:
    """Say of each split where it is, how many rows it has, and their fingerprint."""
    if isinstance(work, Task):
        return work.provenance()
    return {
        f"{task.name}/{split}": told for task in _tasks(work, held=True) for split, told in task.provenance().items()
    }


def _union(told: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in told for name in names))
