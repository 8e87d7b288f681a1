"""The proof of a merge: on rows that nobody has trained on, the new weights say what the adapter says."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import NamedTuple

import torch
from torch import Tensor

from tunesmith.adapters.folder import Adapter
from tunesmith.config import Record
from tunesmith.data.blend import load
from tunesmith.data.encode import Encoded, Encoder
from tunesmith.data.task import Split, Task, load_task
from tunesmith.errors import ModelError, TunesmithError
from tunesmith.models.attention import PACKED, attending, can_pack
from tunesmith.models.head import answer_logits
from tunesmith.models.load import Model
from tunesmith.recipe import Recipe, read_recipe
from tunesmith.training.loop import fill, make_batch

ROWS = 32
ANSWER_TOKENS = 512  # their logits are kept in fp32: 100 MB for 49 152 words


class Held(NamedTuple):
    """Held-out rows and the words for where they are from."""

    told: str
    rows: list[Encoded]


class Fidelity(Record):
    """How near `what` comes to `reference` at the `answer_tokens` of held-out rows, teacher forced.

    `kl` is the mean of KL(reference || what) in nats, `agreement` the share of
    positions where both find the same word the likeliest. Above `limit` nats a
    merge is refused; without one the figures are for information.
    """

    what: str
    reference: str
    rows: str
    answer_tokens: int
    kl: float
    agreement: float
    limit: float | None = None

    def line(self) -> str:
        """Say it in one line."""
        return (
            f"{self.what} against {self.reference}: KL {self.kl:.2g} nats, the same first word at "
            f"{100 * self.agreement:.1f} % of {self.answer_tokens} answer tokens of {self.rows}"
        )


def held_out(adapter: Adapter, encoder: Encoder, context: int | None) -> Held:
    """Give rows of the training's own task, test before validation; of `demo` where that is gone or has none.

    Raises ModelError if not one row fits into the model's context.
    """
    path = adapter.folder / "recipe.yaml"
    if path.is_file():
        recipe = read_recipe(path)
        with suppress(TunesmithError, OSError):  # its files may be long gone; other text serves as well
            return _rows(_first_task(recipe), recipe, encoder, context)
    return _rows(load_task("demo"), Recipe(), encoder, context)


def _first_task(recipe: Recipe) -> Task:
    return load(recipe.mixture).members[0].task if recipe.mixture else load_task(str(recipe.task))


def _rows(task: Task, recipe: Recipe, encoder: Encoder, context: int | None) -> Held:
    split: Split = "test" if task.source.test is not None else "validation"
    wording = None if recipe.template == "any" else recipe.template
    prompts = task.prompts(split, seed=recipe.seed, template=wording, limit=ROWS)
    rows, answers = [], 0
    for row in (encoder.encode(prompt, task.name) for prompt in prompts):
        if row.size <= (context or row.size) and answers + len(row.answer) <= ANSWER_TOKENS:
            rows.append(row)
            answers += len(row.answer)
    if not rows:
        raise ModelError(f"no row of {task.name}'s {split} split fits into the model's context", fix="keep the adapter")
    return Held(f"{task.name}'s {split} split", rows)


@torch.no_grad()
def answers(model: Model, rows: Sequence[Encoded]) -> Tensor:
    """Give log-probabilities [answer tokens, vocabulary] in fp32 of what comes next at each answer token.

    The order is that of the batches that such a model takes: the same for another one of its kind.
    """
    model.net.eval()
    with attending(model.net, PACKED) if can_pack(model.net) else nullcontext():
        batches = [make_batch(model, group) for group in fill(model, rows, Recipe())]
        found = [answer_logits(model.net, batch.inputs, batch.keep).float().log_softmax(-1).cpu() for batch in batches]
    return torch.cat(found)


def fidelity(what: tuple[str, Tensor], reference: tuple[str, Tensor], told: str) -> Fidelity:
    """Compare log-probabilities [answer tokens, vocabulary], each under its name.

    KL(p || q) = sum over words of p (log p - log q), and its mean over the answer tokens.
    """
    (name, q), (against, p) = what, reference
    kl = float((p.exp() * (p - q)).sum(-1).double().mean())
    return Fidelity(
        what=name,
        reference=against,
        rows=told,
        answer_tokens=len(p),
        kl=0.0 if kl < 0.0 else kl,  # rounding can leave it below zero; what is no number stays so
        agreement=float((p.argmax(-1) == q.argmax(-1)).double().mean()),
    )
