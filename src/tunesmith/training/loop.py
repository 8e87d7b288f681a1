"""THE loop: the one place where weights learn.

`steps` is a generator: it yields a record after every optimizer step, and its
caller logs, saves, shows progress or stops. The loop knows no files and no
method names.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from tunesmith.data.encode import Encoded
from tunesmith.data.pack import epoch_order, groups, pack, pack_padded
from tunesmith.data.rows import draw
from tunesmith.errors import RunError
from tunesmith.models.attention import PACKED, attending, can_pack
from tunesmith.models.head import answer_logits, answer_loss
from tunesmith.models.load import Model
from tunesmith.recipe import Recipe
from tunesmith.runs.records import Step
from tunesmith.training import batches
from tunesmith.training.batches import Batch
from tunesmith.training.optimizer import MasterAdamW, learning_rate_at


@dataclass(frozen=True)
class Plan:
    """The whole training laid out before it starts: groups of rows per step, epoch by epoch."""

    epochs: tuple[tuple[tuple[tuple[Encoded, ...], ...], ...], ...]

    @property
    def steps(self) -> int:
        """Count the optimizer steps."""
        return sum(len(epoch) for epoch in self.epochs)


def lay_out(model: Model, rows: Sequence[Encoded], recipe: Recipe) -> Plan:
    """Fix which rows meet in which step; depends on the recipe and the rows' ids alone."""
    epochs = []
    for epoch in range(recipe.train.epochs):
        order = epoch_order(rows, recipe.seed, epoch)
        filled = _fill(model, order, recipe)
        epochs.append(tuple(tuple(tuple(b) for b in group) for group in groups(filled, recipe.train.accumulate)))
    return Plan(tuple(epochs))


def steps(model: Model, plan: Plan, validation: Sequence[Encoded], recipe: Recipe) -> Iterator[Step]:
    """Train, yielding a record after every optimizer step.

    The loss of a step is the mean over its answer tokens, however they are
    spread over micro batches. The validation loss is taken after each epoch.
    Raises RunError if the loss stops being a number.
    """
    recipe = recipe.resolved(model.width)
    optimizer = MasterAdamW(model.net.parameters(), recipe.train)
    done = tokens = answer_tokens = 0
    seconds = 0.0
    for epoch, planned in enumerate(plan.epochs):
        for number, group in enumerate(planned, 1):
            started = time.perf_counter()
            made = [make_batch(model, rows) for rows in group]
            rate = learning_rate_at(done + 1, plan.steps, recipe.train)
            done += 1
            with _dropout_of(recipe.seed, done):
                loss = _accumulate(model, made, optimizer)
            norm = optimizer.step(rate, recipe.train.clip)
            seconds += time.perf_counter() - started
            tokens += sum(batch.tokens for batch in made)
            answer_tokens += sum(batch.answer_tokens for batch in made)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise RunError(
                    f"step {done}: the loss is {loss}, its gradient's norm {norm}", fix="lower train.learning_rate"
                )
            last = number == len(planned)
            yield Step(
                step=done,
                epoch=epoch + 1,
                loss=loss,
                learning_rate=rate,
                gradient_norm=norm,
                tokens=tokens,
                answer_tokens=answer_tokens,
                seconds=seconds,
                validation_loss=mean_loss(model, validation, recipe) if last and validation else None,
            )


def mean_loss(model: Model, rows: Sequence[Encoded], recipe: Recipe) -> float:
    """Give the mean loss per answer token over `rows`, in nats, without learning from them."""
    total = count = 0.0
    with torch.no_grad(), _attention(model):
        model.net.eval()
        for group in _fill(model, rows, recipe):
            batch = make_batch(model, group)
            total += float(answer_loss(answer_logits(model.net, batch.inputs, batch.keep), batch.targets))
            count += batch.answer_tokens
    return total / count


def make_batch(model: Model, rows: Sequence[Encoded]) -> Batch:
    """Turn rows into tensors of the shape this model takes."""
    config = model.net.config
    pad = config.pad_token_id if config.pad_token_id is not None else model.encoder.stops[0]
    if model.kind == "encoder-decoder":
        return batches.encoder_decoder(rows, pad, config.decoder_start_token_id, model.device)
    if can_pack(model.net):
        return batches.packed(rows, model.device)
    return batches.padded(rows, pad, model.device)


def _fill(model: Model, rows: Sequence[Encoded], recipe: Recipe) -> list[list[Encoded]]:
    if can_pack(model.net):
        return pack(rows, recipe.train.batch_tokens)
    return pack_padded(rows, recipe.train.batch_tokens, recipe.seed)


def _accumulate(model: Model, made: Sequence[Batch], optimizer: MasterAdamW) -> float:
    """Sum the gradients of micro batches, each answer token weighing the same; give their mean loss."""
    answers = sum(batch.answer_tokens for batch in made)
    total = 0.0
    model.net.train()
    with _attention(model):
        for batch in made:
            loss = answer_loss(answer_logits(model.net, batch.inputs, batch.keep), batch.targets) / answers
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.collect()
            total += loss.item()
    return total


@contextmanager
def _dropout_of(seed: int, step: int) -> Iterator[None]:
    """Let dropout depend on (seed, step) alone, and leave the global generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(int(draw(seed, f"dropout/{step}")[:15], 16))
        yield


def _attention(model: Model) -> AbstractContextManager[None]:
    return attending(model.net, PACKED) if can_pack(model.net) else nullcontext()
