"""From a recipe to rows ready for training: rendered, encoded, admitted and accounted for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tunesmith.data.encode import Encoded, Encoder
from tunesmith.data.leakage import find_leaks
from tunesmith.data.ledger import Ledger, admit, duplicates
from tunesmith.data.rows import Row
from tunesmith.data.task import Task
from tunesmith.data.template import Prompt
from tunesmith.models.load import Place, load_encoder
from tunesmith.models.virtual import ids
from tunesmith.recipe import Recipe

FEW_LABELS = 64


@dataclass(frozen=True)
class Prepared:
    """The rows of one training; `sources` says where each split came from and its fingerprint."""

    prompts: list[Prompt]
    rows: list[Encoded]
    validation: list[Encoded]
    ledger: Ledger
    sources: dict[str, dict[str, str | int]]


def training_encoder(place: Place, recipe: Recipe) -> Encoder:
    """Load the tokenizer, with the virtual tokens that the recipe's method puts before every prompt."""
    return replace(load_encoder(place, recipe.prompting), virtual=ids(recipe.method.virtual_tokens))


def prepare_rows(task: Task, recipe: Recipe, encoder: Encoder) -> Prepared:
    """Render, encode and admit the training and validation rows.

    Raises DataError or FitError for rows that cannot be used as they are.
    """
    prompts = task.prompts("train", seed=recipe.seed, template=recipe.template, limit=recipe.limit.train)
    rows, ledger = admit([encoder.encode(prompt, task.name) for prompt in prompts], recipe.length)
    validation = _validation(task, recipe, encoder)
    ledger = ledger.model_copy(update={"duplicate": duplicates(prompts), "leaked": _leaked(task, prompts, recipe)})
    return Prepared(prompts, rows, validation, ledger, task.provenance())


def labels(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """Give the answers that the rows choose from, if they are few: the labels of a classification."""
    found = tuple(dict.fromkeys(prompt.answer for prompt in prompts))
    return found if len(found) <= FEW_LABELS else ()


def _validation(task: Task, recipe: Recipe, encoder: Encoder) -> list[Encoded]:
    """Encode the validation rows, the same wording for each; those too long are left out of the mean."""
    if task.source.validation is None:
        return []
    wording = None if recipe.template == "any" else recipe.template
    prompts = task.prompts("validation", seed=recipe.seed, template=wording, limit=recipe.limit.validation)
    rows = [encoder.encode(prompt, task.name) for prompt in prompts]
    return [row for row in rows if row.size <= recipe.length.max_tokens]


def _leaked(task: Task, prompts: list[Prompt], recipe: Recipe) -> tuple[str, ...]:
    """Name the training rows that share text with the validation or test split."""
    held = [row for split in task.splits() if split != "train" for row in task.rows(split)]
    rows = {row.id: row for row in task.rows("train")}
    trained = [(prompt.id, _text(task, rows[prompt.id])) for prompt in prompts]
    return tuple(leak.id for leak in find_leaks(trained, [(row.id, _text(task, row)) for row in held]))


def _text(task: Task, row: Row) -> str:
    """Join the fields that the wordings show, without the wording around them."""
    names = sorted(frozenset().union(*(template.fields() for template in task.templates)))
    return "\n".join(str(row.fields[name]) for name in names if name in row.fields)
