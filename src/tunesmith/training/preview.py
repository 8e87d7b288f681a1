"""The verb `preview`: what the model will see, before anything is spent."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.text import Text

from tunesmith.data.encode import Encoded, Encoder
from tunesmith.data.ledger import Ledger
from tunesmith.data.task import Task
from tunesmith.models.load import find
from tunesmith.recipe import Recipe
from tunesmith.training.prepare import load_work, prepare_rows, training_encoder


@dataclass(frozen=True)
class Shown:
    """One row as the model sees it: the text of tokens without and with loss, special tokens included."""

    id: str
    template: str
    prompt: str
    answer: str
    prompt_tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Preview:
    """The first rows, the lengths of all of them, and the ledger."""

    rows: tuple[Shown, ...]
    lengths: tuple[int, ...]
    ledger: Ledger

    def length_line(self) -> str:
        """Say how long the rows are."""
        ordered = sorted(self.lengths)
        late = ordered[int(0.95 * (len(ordered) - 1))]
        middle = f"median {median(ordered):.0f}, 95 % up to {late}"
        return f"tokens per row: shortest {ordered[0]}, {middle}, longest {ordered[-1]}"


def preview(recipe: Recipe, n: int = 3, task: Task | None = None) -> Preview:
    """Prepare the training rows exactly as `train` would, and give the first `n` as text.

    Reads the tokenizer but no weights. Raises TunesmithError as `train` would.
    """
    place = find(recipe.model)
    encoder = training_encoder(place, recipe)
    prepared = prepare_rows(task or load_work(recipe), recipe, encoder)
    wordings = {prompt.id: prompt.template for prompt in prepared.prompts}
    shown = tuple(_show(encoder, row, wordings[row.id]) for row in prepared.rows[:n])
    return Preview(shown, tuple(row.size for row in prepared.rows), prepared.ledger)


def _show(encoder: Encoder, row: Encoded, template: str) -> Shown:
    def text(ids: Sequence[int]) -> str:
        real = [token for token in ids if token >= 0]
        return str(encoder.tokenizer.decode(real, skip_special_tokens=False))

    return Shown(row.id, template, text(row.prompt), text(row.answer), len(row.prompt), len(row.answer))


def print_preview(shown: Preview) -> None:
    """Print rows with the text that carries loss marked, then lengths and the ledger."""
    console = Console(highlight=False, soft_wrap=True)
    colour = console.is_terminal and not console.no_color
    for row in shown.rows:
        head = f"row {row.id}  wording '{row.template}'  {row.prompt_tokens} tokens read, {row.answer_tokens} learned"
        console.print(Text(head, style="bold"))
        console.print(Text(row.prompt, style="dim"), end="")
        console.print(Text(row.answer if colour else f"«{row.answer}»", style="bold green"))
        console.print()
    console.print("Marked text carries loss; all other text is only read.")
    for line in (shown.length_line(), *shown.ledger.lines()):
        console.print(Text(line))
