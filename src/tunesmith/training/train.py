"""The verb `train`: a recipe becomes a run folder with trained weights."""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tunesmith import methods
from tunesmith.adapters import folder as adapters
from tunesmith.data.blend import Blend
from tunesmith.data.task import Task
from tunesmith.errors import DivergedError, FitError, ModelError
from tunesmith.method import Full
from tunesmith.methods.evidence import Evidence
from tunesmith.methods.prompts import nearest_words
from tunesmith.models import device, head
from tunesmith.models.load import Model, find, load
from tunesmith.models.provenance import provenance
from tunesmith.planning.cost import trained_parameters
from tunesmith.planning.shape import shape_of
from tunesmith.recipe import Recipe
from tunesmith.runs.checkpoint import Checkpoint, newest, remove
from tunesmith.runs.lock import only_writer
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Step, Summary, Trouble
from tunesmith.runs.run import Run, vacant
from tunesmith.training.gauging import Gauge, Gauging, begin, clear, kept, too_much
from tunesmith.training.interrupt import stop_on_interrupt
from tunesmith.training.loop import Past, Plan, gradients, lay_out, mean_loss, steps
from tunesmith.training.optimizer import MasterAdamW
from tunesmith.training.planned import foresee
from tunesmith.training.prepare import Prepared, labels, load_work, prepare_rows, training_encoder
from tunesmith.training.resume import Begun, Learning, method_state, refuse_changes, restore, save
from tunesmith.training.trackers import check, export

OWN_FORWARD = (
    "the fast forward pass does not give this model's own logits on a few tokens: "
    "training goes on through the model's own"
)


def train(
    recipe: Recipe,
    folder: Path,
    task: Task | Blend | None = None,
    command: Sequence[str] = (),
    resume: bool = False,
    gauge: Gauge | None = None,
) -> Run:
    """Train as the recipe says, into the run folder `folder`.

    Everything that can be refused is refused before the weights are loaded.
    The first Ctrl-C or SIGTERM ends after the current step, with a checkpoint.
    `resume` goes on where the run in `folder` stopped, from the start if it had
    no checkpoint yet, and gives a finished run back as it is. With a `gauge` what the
    model forgets is measured, and judged where the recipe says so. Raises TunesmithError.
    """
    if resume and Run(folder).done:
        return Run.open(folder)
    begun_before = resume and (folder / "recipe.yaml").is_file()
    if not begun_before:
        vacant(folder)
    check(recipe.track)
    work = task or load_work(recipe)
    place = find(recipe.model)
    encoder = training_encoder(place, recipe)
    prepared = prepare_rows(work, recipe, encoder)
    foreseen = None if (folder / "plan.json").is_file() else foresee(recipe, prepared)
    model = load(place, encoder, recipe.dtype, methods.place_of_base(recipe.method))
    check_context(model.name, model.context, recipe)
    recipe = recipe.resolved(model.width)
    gauging = begin(gauge, model, recipe, bool(prepared.validation))
    asked = {"verb": "train", **recipe.model_dump(mode="json")}
    origin = provenance(model, prepared.sources, recipe.seed, command)
    with only_writer(folder):
        if begun_before:
            run = Run.open(folder)
            refuse_changes(run, asked, origin)
        else:
            run = Run.create(folder, asked, _disk_bytes(model, recipe))
        if foreseen:
            run.write_json("plan.json", foreseen.model_dump(mode="json"))
        run.write_json("ledger.json", prepared.ledger.model_dump())
        if not (folder / "provenance.json").is_file():
            run.write_json("provenance.json", origin)
        plan = lay_out(model, prepared.epochs, recipe)
        found = newest(folder / "checkpoints", _say)
        if recipe.train.gradient_checkpointing:
            model.net.activation_checkpointing_enable({"use_reentrant": False})
        evidence = Evidence(labels(prepared.prompts), partial(gradients, model, plan), method_state(found))
        device.reset_peak()
        fit = methods.prepare(model, recipe.method, recipe.seed, evidence)
        most = device.peak_bytes()
        optimizer = MasterAdamW(model.net.named_parameters(), recipe.train, recipe.method.rate_factor)
        past, learning = restore(run, optimizer, found), Learning(fit, optimizer)
        with export(recipe.track, run, _say):
            run.finish(_learn(model, prepared, learning, recipe, Start(run, plan, found, past, gauging, most)))
        if run.done:
            remove(folder / "checkpoints")
            clear(run)
    return run


def check_context(name: str, context: int | None, recipe: Recipe) -> None:
    """Refuse rows longer than the model of that name was made for. Raises FitError."""
    if context is not None and recipe.length.max_tokens > context:
        raise FitError(
            f"length.max_tokens is {recipe.length.max_tokens}, but {name} was made for {context} tokens",
            fix=f"-s length.max_tokens={context}",
        )


class Start(NamedTuple):
    """Where a training starts: its run, its steps laid out, the checkpoint it goes on from, the logs up to there.

    `most` are the bytes that were held while the method was put on: some choose what learns by gradients.
    """

    run: Run
    plan: Plan
    found: Checkpoint | None
    past: Past
    gauging: Gauging | None
    most: int


def _say(told: str) -> None:
    print(told, file=sys.stderr)


def _learn(model: Model, prepared: Prepared, learning: Learning, recipe: Recipe, start: Start) -> Summary:
    """Go through the loop, log each step, save on the way and at the end; give the summary."""
    run, plan, found, past, gauging, most = start
    device.reset_peak()
    begun = _begin(model, prepared, recipe, found)
    every = recipe.train.checkpoint_every
    started = time.perf_counter()
    log = list(past.steps)
    told = False
    with stop_on_interrupt() as wish, Watch("train", plan.steps) as watch:
        watch.advance(len(log))
        over = gauging is not None and gauging.spent(run)
        for event in () if over else steps(model, learning.optimizer, plan, prepared.validation, recipe, past):
            run.append(event)
            if isinstance(event, Trouble):
                watch.say(f"step {event.step}: {event.told}; rows {', '.join(event.rows[:3])}")
                continue
            if not told and head.refused(model.net):
                watch.say(OWN_FORWARD)
            told = True
            log.append(event)
            watch.advance(1, **_shown(event))
            if gauging and gauging.due(event.step, plan):
                looked = time.perf_counter()
                gauging.look(run, learning, event, prepared.validation)
                started += time.perf_counter() - looked  # measuring is no training
                over = gauging.spent(run)
            if over:
                break
            if wish.by or (every and event.step % every == 0 and event.step < plan.steps):
                save(run, learning, event.step, begun)
            if wish.by:
                break
    before = past.steps[-1].seconds if past.steps else 0.0
    seconds = before + time.perf_counter() - started
    if not log:
        raise DivergedError("no step could be taken", fix="look at the rows named in troubles.jsonl")
    facts = _summary(model, log, begun, most)
    finished = over or wish.by is None or log[-1].step == plan.steps
    checkpoints = run.folder / "checkpoints"
    adapter = adapters.save(model, recipe, checkpoints)
    lost = None
    if gauging and finished:
        again = partial(adapters.save, model, recipe, checkpoints)
        lost = gauging.conclude(run, learning, log[-1], prepared.validation, again)
        facts = facts.model_copy(update=_of_kept(run, log))
    if near := nearest_words(model, learning.fit):
        run.write_lines("virtual_tokens.jsonl", near)
    if lost and lost.passed is False:
        raise too_much(run, lost)
    return facts.model_copy(
        update={
            "seconds": seconds,
            "artifact_bytes": adapters.size_bytes(adapter.folder),
            "planned_steps": plan.steps,
            "stopped_early": not finished,
            "stopped_by": wish.by.name if wish.by and not finished else None,
            "skipped_steps": Past(log, run.troubles()).skipped,
        }
    )


def _begin(model: Model, prepared: Prepared, recipe: Recipe, found: Checkpoint | None) -> Begun:
    """Take the validation loss before anything is learned; a resumed run has taken it."""
    if found is not None:
        begun = Begun.parse(dict(found.facts), where=str(found.folder))
        return begun.model_copy(update={"resumes": begun.resumes + 1})
    before = mean_loss(model, prepared.validation, recipe) if prepared.validation else None
    return Begun(first_validation_loss=before)


def _summary(model: Model, log: Sequence[Step], begun: Begun, most: int) -> Summary:
    last = log[-1]
    return Summary(
        tokens=last.tokens,
        answer_tokens=last.answer_tokens,
        seconds=last.seconds,
        tokens_per_second=last.tokens / last.seconds,
        peak_memory_bytes=max(most, device.peak_bytes()),
        total_parameters=model.parameters(),
        trainable_parameters=model.parameters(trainable=True),
        steps=last.step,
        first_loss=log[0].loss,
        final_loss=last.loss,
        first_validation_loss=begun.first_validation_loss,
        validation_loss=next((s.validation_loss for s in reversed(log) if s.validation_loss is not None), None),
        resumes=begun.resumes,
        own_forward=head.refused(model.net),
    )


def _of_kept(run: Run, log: Sequence[Step]) -> dict[str, float | None]:
    """Give the losses of the weights that are kept, where those are not the last."""
    check = next((one for one in run.checks() if one.step == kept(run)), None)
    if check is None or check.step == log[-1].step:
        return {}
    loss = next(one.loss for one in log if one.step == check.step)
    return {"final_loss": loss, "validation_loss": check.validation_loss}


def _shown(step: Step) -> dict[str, str]:
    told = {"loss": f"{step.loss:.3f}", "tok/s": f"{step.tokens / step.seconds:.0f}"}
    return told if step.validation_loss is None else {**told, "validation": f"{step.validation_loss:.3f}"}


def _disk_bytes(model: Model, recipe: Recipe) -> int:
    """Give the room that the result and two checkpoints take: a master and two moments in fp32 for each weight."""
    try:
        weights = trained_parameters(recipe.method, shape_of(model.net.config.to_dict()))
    except ModelError:  # sizes that cannot be told from the config
        weights = model.parameters() // (1 if isinstance(recipe.method, Full) else 20)
    chooses = recipe.train.patience or recipe.forgetting.max_forgetting is not None
    checkpoints = 4 if chooses else 2  # the best weights are kept besides
    return weights * (model.dtype.torch.itemsize + checkpoints * 12)
