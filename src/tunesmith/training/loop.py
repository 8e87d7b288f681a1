"""THE loop: the one place where weights learn.

`steps` is a generator: it yields a record after every optimizer step, and its
caller logs, saves, shows progress or stops. The loop knows no files and no
method names. Everything that a step depends on is a function of the recipe,
the rows' ids and the step's number, or in the optimizer's state: a run that
goes on from a checkpoint therefore takes the very steps it would have taken.
"""

import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tunesmith.data.encode import Encoded
from tunesmith.data.pack import epoch_order, groups, pack, pack_padded
from tunesmith.data.rows import draw
from tunesmith.errors import DivergedError, FitError
from tunesmith.models.attention import PACKED, attending, can_pack
from tunesmith.models.head import has_fast_pass, loss_at
from tunesmith.models.load import Model
from tunesmith.recipe import Recipe
from tunesmith.runs.records import Step, Trouble
from tunesmith.training import batches
from tunesmith.training.batches import Batch
from tunesmith.training.lanes import Run, alone, cut, side_by_side
from tunesmith.training.optimizer import MasterAdamW, learning_rate_at

SPIKE = 3.0  # times the median of the recent losses
RECENT = 50
FEW = 10  # losses before a median means anything

Group = tuple[tuple[Encoded, ...], ...]


@dataclass(frozen=True)
class Plan:
    """The whole training laid out before it starts: groups of rows per step, epoch by epoch."""

    epochs: tuple[tuple[Group, ...], ...]

    @property
    def steps(self) -> int:
        """Count the optimizer steps."""
        return sum(len(epoch) for epoch in self.epochs)

    @property
    def tasks(self) -> frozenset[str]:
        """Name the tasks that the rows belong to."""
        return frozenset(row.task for epoch in self.epochs for group in epoch for batch in group for row in batch)

    def after(self, step: int) -> Iterator["Place"]:
        """Give what follows step number `step`: the rows of each step and where in its epoch it stands."""
        number = 0
        for epoch, planned in enumerate(self.epochs, 1):
            rows = 0
            for group in planned:
                number += 1
                rows += sum(map(len, group))
                if number > step:
                    yield Place(number, epoch, group, rows, last=group is planned[-1])


@dataclass(frozen=True)
class Place:
    """One step of a plan; `rows` counts those of its epoch up to and with it, `last` ends the epoch."""

    step: int
    epoch: int
    group: Group
    rows: int
    last: bool

    @property
    def ids(self) -> tuple[str, ...]:
        """Name the rows of the step."""
        return tuple(row.id for batch in self.group for row in batch)


@dataclass(frozen=True)
class Past:
    """What a run has behind it when it starts or goes on: its logs."""

    steps: Sequence[Step] = ()
    troubles: Sequence[Trouble] = ()

    @property
    def skipped(self) -> int:
        """Count the steps that were passed over."""
        return sum(trouble.kind == "not a number" for trouble in self.troubles)


def lay_out(model: Model, learned: Sequence[Sequence[Encoded]], recipe: Recipe) -> Plan:
    """Fix which of the rows of each epoch meet in which step; depends on the recipe and the rows' ids alone."""
    return lay_out_rows(can_pack(model.net), learned, recipe)


def lay_out_rows(packs: bool, learned: Sequence[Sequence[Encoded]], recipe: Recipe) -> Plan:
    """Lay out rows for a model, of which only whether its rows are packed matters."""
    epochs = []
    for epoch, rows in enumerate(learned):
        filled = _filled(packs, epoch_order(rows, recipe.seed, epoch), recipe)
        epochs.append(tuple(tuple(tuple(b) for b in group) for group in groups(filled, recipe.train.accumulate)))
    return Plan(tuple(epochs))


def steps(
    model: Model, optimizer: MasterAdamW, plan: Plan, validation: Sequence[Encoded], recipe: Recipe, past: Past
) -> Iterator[Step | Trouble]:
    """Train, yielding a record after every optimizer step, and one for each step that was skipped or looks wrong.

    The loss of a step is the mean over its answer tokens, however they are
    spread over micro batches. The validation loss is taken after each epoch.
    A step without a finite loss and gradient is not taken. Raises DivergedError
    after `train.bad_steps` such steps, FitError if memory does not suffice.
    """
    recent = deque((step.loss for step in past.steps[-RECENT:]), maxlen=RECENT)
    skipped = past.skipped
    last = past.steps[-1] if past.steps else None
    several = len(plan.tasks) > 1
    tokens, answer_tokens, seconds = (last.tokens, last.answer_tokens, last.seconds) if last else (0, 0, 0.0)
    with side_by_side() as together:
        for place in plan.after(last.step if last else 0):
            started = time.perf_counter()
            model.net.train()
            made = [part for rows in place.group for part in _parts(model, rows)]
            with _dropout_of(recipe.seed, place.step):
                loss, by_task = _accumulate(model, made, optimizer, recipe.train.label_smoothing, together)
            norm = optimizer.norm()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                optimizer.forget()
                skipped += 1
                yield _not_a_number(place, loss, norm)
                if skipped > recipe.train.bad_steps:
                    raise _too_many(place, loss, norm, skipped)
                continue
            rate = learning_rate_at(place.step, plan.steps, recipe.train)
            optimizer.step(rate, recipe.train.clip, norm)
            seconds += time.perf_counter() - started
            tokens += sum(batch.tokens for batch in made)
            answer_tokens += sum(batch.answer_tokens for batch in made)
            if len(recent) >= FEW and loss > SPIKE * statistics.median(recent):
                yield _spike(place, loss, statistics.median(recent))
            recent.append(loss)
            yield Step(
                step=place.step,
                epoch=place.epoch,
                loss=loss,
                learning_rate=rate,
                gradient_norm=norm,
                tokens=tokens,
                answer_tokens=answer_tokens,
                seconds=seconds,
                rows=place.rows,
                task_losses=by_task if several else {},
                validation_loss=mean_loss(model, validation, recipe) if place.last and validation else None,
            )


def gradients(model: Model, plan: Plan, weights: Sequence[nn.Parameter], n: int) -> Iterator[tuple[Tensor, ...]]:
    """Give the gradients of `weights` at each of the first `n` steps of a plan, none of which is taken."""
    model.net.eval()
    for place in itertools.islice(plan.after(0), n):
        yield _summed(model, [part for rows in place.group for part in _parts(model, rows)], weights)


def _summed(model: Model, made: Sequence[Batch], weights: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    """Sum the gradients of micro batches in fp32; those of one are let go of before the next makes its own."""
    answers = sum(batch.answer_tokens for batch in made)
    total = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]

    def learn(batch: Batch) -> tuple[Tensor, ...]:
        try:
            loss = loss_at(model.net, batch.inputs, batch.keep, batch.targets)[0] / answers
            return torch.autograd.grad(loss, weights)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as wrong:
            raise _out_of_memory(batch, wrong) from wrong

    with attention(model):
        for batch in made:
            for one, gradient in zip(total, learn(batch), strict=True):
                one.add_(gradient)
    return tuple(total)


def mean_loss(model: Model, rows: Sequence[Encoded], recipe: Recipe) -> float:
    """Give the mean loss per answer token over `rows`, in nats, without learning from them."""

    def told(batch: Batch) -> float:
        with torch.no_grad():
            return float(loss_at(model.net, batch.inputs, batch.keep, batch.targets)[0])

    model.net.eval()
    made = [make_batch(model, group) for group in fill(model, rows, recipe)]
    with attention(model), side_by_side() as together:
        run = together if can_part(model, made[0]) else alone
        return sum(run(told, made, len(made))) / sum(batch.answer_tokens for batch in made)


def make_batch(model: Model, rows: Sequence[Encoded]) -> Batch:
    """Turn rows into tensors of the shape this model takes."""
    config = model.net.config
    pad = config.pad_token_id if config.pad_token_id is not None else model.encoder.stops[0]
    if model.kind == "encoder-decoder":
        return batches.encoder_decoder(rows, pad, config.decoder_start_token_id, model.device)
    if can_pack(model.net):
        return batches.packed(rows, model.device, share=not drops(model.net))
    return batches.padded(rows, pad, model.device)


def drops(net: torch.nn.Module) -> bool:
    """Tell whether dropout is at work."""
    return any(isinstance(module, torch.nn.Dropout) and module.p and module.training for module in net.modules())


def fill(model: Model, rows: Sequence[Encoded], recipe: Recipe) -> list[list[Encoded]]:
    """Put rows together into batches within `train.batch_tokens`; the order depends on them and the seed alone."""
    return _filled(can_pack(model.net), rows, recipe)


def _filled(packs: bool, rows: Sequence[Encoded], recipe: Recipe) -> list[list[Encoded]]:
    if packs:
        return pack(rows, recipe.train.batch_tokens)
    return pack_padded(rows, recipe.train.batch_tokens, recipe.seed)


def _parts(model: Model, rows: Sequence[Encoded]) -> list[Batch]:
    """Make a micro batch; in parts where those can be taken side by side, on any number of cores."""
    whole = make_batch(model, rows)
    with attention(model):
        apart = can_part(model, whole)
    return [make_batch(model, part) for part in cut(rows, model.width)] if apart else [whole]


def can_part(model: Model, batch: Batch) -> bool:
    """Tell whether batches like this one may be taken side by side: dropout would draw in no order."""
    return model.device.type == "cpu" and not drops(model.net) and has_fast_pass(model.net, batch.inputs)


class _Learned(NamedTuple):
    """What one batch gives: its share of the step's loss, the loss of each answer token, gradients by weight."""

    batch: Batch
    loss: float
    each: Tensor
    gradients: tuple[Tensor | None, ...]


def _accumulate(
    model: Model, made: Sequence[Batch], optimizer: MasterAdamW, smoothing: float, together: Run
) -> tuple[float, dict[str, float]]:
    """Sum the gradients of micro batches, each answer token weighing the same; give their mean loss, and by task."""
    answers = sum(batch.answer_tokens for batch in made)
    total = 0.0
    by_task: dict[str, list[Tensor]] = {}

    def learn(batch: Batch) -> _Learned:
        try:
            loss, each = loss_at(model.net, batch.inputs, batch.keep, batch.targets, smoothing)
            loss = loss / answers
            return _Learned(batch, loss.item(), each, torch.autograd.grad(loss, optimizer.weights, allow_unused=True))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as wrong:
            raise _out_of_memory(batch, wrong) from wrong

    with attention(model):
        run = together if can_part(model, made[0]) else alone
        for learned in run(learn, made):
            optimizer.collect(learned.gradients)
            total += learned.loss
            rows = torch.split(learned.each, [count for _, count in learned.batch.answers])
            for (task, _), losses in zip(learned.batch.answers, rows, strict=True):
                by_task.setdefault(task, []).append(losses)
            del learned  # or its gradients would be held while the next batch makes its own
    return total, {task: torch.cat(losses).mean().item() for task, losses in sorted(by_task.items())}


def _out_of_memory(batch: Batch, wrong: BaseException) -> BaseException:
    """Say what did not fit; an error of another kind is given back as it is."""
    if type(wrong) is RuntimeError and "allocate memory" not in str(wrong):
        return wrong
    ids = batch.inputs["input_ids"]
    return FitError(
        f"out of memory at a batch of {ids.shape[0]} x {ids.shape[1]} tokens, {batch.answer_tokens} of them answer",
        fix="-s train.gradient_checkpointing=true, or a smaller train.batch_tokens (with train.accumulate) "
        "or length.max_tokens; what was saved goes on with --resume",
    )


def _not_a_number(place: Place, loss: float, norm: float) -> Trouble:
    told = f"loss {loss}, gradient norm {norm}: the step was not taken"
    return Trouble(step=place.step, kind="not a number", told=told, rows=place.ids)


def _spike(place: Place, loss: float, usual: float) -> Trouble:
    told = f"loss {loss:.3f}, {loss / usual:.1f} times the median of the last {RECENT} steps"
    return Trouble(step=place.step, kind="spike", told=told, rows=place.ids)


def _too_many(place: Place, loss: float, norm: float, skipped: int) -> DivergedError:
    return DivergedError(
        f"step {place.step}: the loss is {loss}, its gradient's norm {norm}; {skipped} steps could not be taken",
        fix="look at the rows named in troubles.jsonl, or lower train.learning_rate",
    )


@contextmanager
def _dropout_of(seed: int, step: int) -> Iterator[None]:
    """Let dropout depend on (seed, step) alone, and leave the global generator as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(int(draw(seed, f"dropout/{step}")[:15], 16))
        yield


def attention(model: Model) -> AbstractContextManager[None]:
    """Give the context in which a model attends to packed rows, where it can."""
    return attending(model.net, PACKED) if can_pack(model.net) else nullcontext()
