"""The verb `train`: a recipe becomes a run folder with trained weights."""

import time
from collections.abc import Sequence
from pathlib import Path

from tunesmith import methods
from tunesmith.adapters import folder as adapters
from tunesmith.data.task import Task, load_task
from tunesmith.errors import FitError
from tunesmith.models import device
from tunesmith.models.load import Model, find, load, load_encoder
from tunesmith.models.provenance import provenance
from tunesmith.recipe import Full, Recipe
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Step, Summary
from tunesmith.runs.run import Run, vacant
from tunesmith.training.interrupt import stop_on_interrupt
from tunesmith.training.loop import lay_out, mean_loss, steps
from tunesmith.training.prepare import Prepared, prepare_rows


def train(recipe: Recipe, folder: Path, task: Task | None = None, command: Sequence[str] = ()) -> Run:
    """Train as the recipe says, into the new run folder `folder`.

    Everything that can be refused is refused before the weights are loaded.
    Ctrl-C ends after the current step and keeps what was learned. Raises
    TunesmithError.
    """
    vacant(folder)
    task = task or load_task(recipe.task)
    place = find(recipe.model)
    encoder = load_encoder(place, recipe.prompting)
    prepared = prepare_rows(task, recipe, encoder)
    model = load(place, encoder, recipe.dtype)
    check_context(model, recipe)
    recipe = recipe.resolved(model.width)
    run = Run.create(folder, {"verb": "train", **recipe.model_dump(mode="json")}, _disk_bytes(model, recipe))
    run.write_json("ledger.json", prepared.ledger.model_dump())
    run.write_json("provenance.json", provenance(model, prepared.sources, recipe.seed, command))
    methods.prepare(model.net, recipe.method, recipe.seed)
    run.finish(_learn(model, prepared, recipe, run))
    return run


def check_context(model: Model, recipe: Recipe) -> None:
    """Refuse rows longer than the model was made for. Raises FitError."""
    if model.context is not None and recipe.length.max_tokens > model.context:
        raise FitError(
            f"length.max_tokens is {recipe.length.max_tokens}, but {model.name} was made for {model.context} tokens",
            fix=f"-s length.max_tokens={model.context}",
        )


def _learn(model: Model, prepared: Prepared, recipe: Recipe, run: Run) -> Summary:
    """Go through the loop, log each step, save on the way and at the end; give the summary."""
    plan = lay_out(model, prepared.rows, recipe)
    device.reset_peak()
    before = mean_loss(model, prepared.validation, recipe) if prepared.validation else None
    every = recipe.train.checkpoint_every
    started = time.perf_counter()
    log: list[Step] = []
    with stop_on_interrupt() as wish, Watch("train", plan.steps) as watch:
        for step in steps(model, plan, prepared.validation, recipe):
            run.append(step)
            log.append(step)
            watch.advance(1, **_shown(step))
            if wish.asked:
                break
            if every and step.step % every == 0 and step.step < plan.steps:
                adapters.save(model, recipe, run.folder / "checkpoints")
    seconds = time.perf_counter() - started
    adapter = adapters.save(model, recipe, run.folder / "checkpoints")
    last = log[-1]
    return Summary(
        tokens=last.tokens,
        answer_tokens=last.answer_tokens,
        seconds=seconds,
        tokens_per_second=last.tokens / last.seconds,
        peak_memory_bytes=device.peak_bytes(),
        total_parameters=model.parameters(),
        trainable_parameters=model.parameters(trainable=True),
        artifact_bytes=adapters.size_bytes(adapter.folder),
        steps=last.step,
        planned_steps=plan.steps,
        first_loss=log[0].loss,
        final_loss=last.loss,
        first_validation_loss=before,
        validation_loss=next((s.validation_loss for s in reversed(log) if s.validation_loss is not None), None),
        stopped_early=last.step < plan.steps,
    )


def _shown(step: Step) -> dict[str, str]:
    told = {"loss": f"{step.loss:.3f}", "tok/s": f"{step.tokens / step.seconds:.0f}"}
    return told if step.validation_loss is None else {**told, "validation": f"{step.validation_loss:.3f}"}


def _disk_bytes(model: Model, recipe: Recipe) -> int:
    """Give the room that two saves take, since the old one goes only after the new one is whole."""
    weights = model.parameters() * model.dtype.torch.itemsize
    return 2 * weights if isinstance(recipe.method, Full) else weights // 4
