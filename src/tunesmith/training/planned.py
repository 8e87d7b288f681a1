"""The verb `plan`: what a training will take, before any of it is spent.

Rows are rendered and encoded as a training would, and laid out into its very batches; the model's config gives
sizes, narrow copies of it the memory of a pass (`trace.py`). No weights are read.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from tunesmith.data.blend import Blend
from tunesmith.data.encode import Encoded
from tunesmith.data.ledger import admit
from tunesmith.data.rows import first
from tunesmith.data.task import Task
from tunesmith.errors import ConfigError, ModelError
from tunesmith.method import Full, Layers, Qlora, SparseMask
from tunesmith.models import device, quantize
from tunesmith.models.load import find, read_config
from tunesmith.planning.cost import added_parameters, bytes_beside, saved_bytes, trained_parameters
from tunesmith.planning.fixes import fixes
from tunesmith.planning.loads import Length as RowLength
from tunesmith.planning.loads import Load, load_of, worst_rows
from tunesmith.planning.machines import MACHINES, Machine
from tunesmith.planning.memory import (
    PACKED_BITS,
    PACKED_TWICE_BITS,
    Parts,
    Place,
    Sizes,
    Traced,
    choosing_parts,
    pass_of,
    step_parts,
)
from tunesmith.planning.plan import Outlook, Plan
from tunesmith.planning.shape import Shape, shape_of
from tunesmith.planning.shards import Whole, whole
from tunesmith.planning.work import step_flops
from tunesmith.recipe import Length, Recipe
from tunesmith.training import batches
from tunesmith.training.here import dtype_on, this_machine
from tunesmith.training.lanes import cut
from tunesmith.training.loop import Plan as Layout
from tunesmith.training.loop import lay_out_rows
from tunesmith.training.prepare import Prepared, load_work, prepare_rows, training_encoder
from tunesmith.training.requests import with_rungs
from tunesmith.training.trace import Engine, rows_lengths, trace

HEAVIEST = 8  # batches that are looked at for the peak, of those that hold the most as a whole
LOOKED_AT = 4  # epochs that are laid out; more are taken to be like them
ASSUMED_ANSWERS = 0.25  # of the tokens of a row, where rows cannot be read
# A tensor of this size finds no room in what others have left: from 32 MiB on glibc never looks (mallopt(3)), and with
# gradients of 24 MiB the peaks of benchmarks/plan.py are as if it found none. Where below that it begins is open.
APART = 16 * 2**20
MAPPED = "on a processor the dense weights stay mapped: they count to the peak, and are dropped where memory is short"
UNPACKED = "on a processor all weights must fit as they are read, before they are packed: they are not used as stored"


@dataclass(frozen=True)
class Rows:
    """The rows of a training: the first epochs laid out, where rows could be read, and how many epochs there are."""

    layout: Layout | None
    epochs: int
    longest: int
    count: int


@dataclass(frozen=True)
class Work:
    """All that a plan is made of, but for the machine."""

    recipe: Recipe
    config: dict[str, Any]
    shape: Shape
    trained: int
    traced: Traced
    engine: Engine
    dtype: torch.dtype
    rows: Rows


def plan(
    recipe: Recipe,
    task: Task | Blend | None = None,
    machines: Sequence[Machine] = (),
    price: float | Mapping[str, float] | None = None,
    requests: bool = True,
) -> Plan:
    """Plan a training on `machines`; without any on this one, and beside it on each of the table.

    `price` is what an hour of the first machine costs, or of each machine by its name, all devices together.
    Fixes are told for the first machine, and what a request takes on it if `requests`. Raises ModelError for a family
    of unknown sizes, ConfigError for the price of an unplanned machine, and what a training would refuse in its rows.
    """
    prices = _prices([one.name for one in machines] or ["here", *MACHINES], price)
    place = find(recipe.model)
    config = read_config(place).to_dict()
    shape_of(config)  # refuses a family it does not know before rows are read
    prepared = _prepared(recipe, task)
    work_of(recipe, config, prepared)  # first: what is loaded for it is then part of what the program takes
    made = plan_rows(recipe, config, prepared, tuple(machines) or (this_machine(recipe), *MACHINES.values()), prices)
    told = requests and not isinstance(prepared, int)
    return with_rungs(made, recipe, task or load_work(recipe), config) if told else made


def plan_rows(
    recipe: Recipe,
    config: dict[str, Any],
    prepared: Prepared | int,
    machines: Sequence[Machine],
    prices: Mapping[str, float] = MappingProxyType({}),
) -> Plan:
    """Plan for rows that have been prepared, or for this many of which nothing is known; `prices` are by machine."""

    def replan(changed: Recipe) -> Plan:
        again = prepared
        if changed.length != recipe.length and isinstance(prepared, Prepared):
            again = shortened(prepared, changed.length)
        return _made(changed, config, again, machines[:1], prices)

    made = _made(recipe, config, prepared, machines, prices)
    if made.fits():
        return made
    found = fixes(recipe, made, replan)
    needs = {"needs": quantize.lacking()}
    told = (one.model_copy(update=needs) if "method.name=qlora" in one.settings else one for one in found)
    return made.model_copy(update={"fixes": tuple(told)})


def foresee(recipe: Recipe, prepared: Prepared) -> Plan | None:
    """Plan a training that is about to start, on this machine; None where sizes or the method cannot be told."""
    try:
        config = read_config(find(recipe.model)).to_dict()
        work_of(recipe, config, prepared)  # first: what is loaded for it is then part of what the program takes
        return _made(recipe, config, prepared, (this_machine(recipe),), {})
    except ModelError:
        return None


def shortened(prepared: Prepared, length: Length) -> Prepared:
    """Give the rows as a training with this policy of their length would take them. Raises what it would."""
    once = {id(epoch): epoch for epoch in prepared.epochs}  # those of a single task are the same rows again
    short = {key: tuple(admit(epoch, length)[0]) for key, epoch in once.items()}
    return replace(prepared, epochs=tuple(short[id(epoch)] for epoch in prepared.epochs))


def _prepared(recipe: Recipe, task: Task | Blend | None) -> Prepared | int:
    """Prepare the rows; count them where the model's folder has no tokenizer to read them with."""
    work = task or load_work(recipe)
    place = find(recipe.model)
    folder = Path(place.source)
    if folder.is_dir() and place.gguf is None and not any(folder.glob("*token*")) and not any(folder.glob("*.model")):
        if isinstance(work, Task):
            return len(first(work.rows("train"), recipe.limit.train, recipe.seed))
        return len(work.epoch(0))
    return prepare_rows(work, recipe, training_encoder(place, recipe))


def _prices(names: Sequence[str], price: float | Mapping[str, float] | None) -> dict[str, float]:
    """Give what an hour costs, by machine; a price alone, or one under "", is that of the first."""
    told = dict(price) if isinstance(price, Mapping) else {} if price is None else {"": price}
    if "" in told:
        told[names[0]] = told.pop("")
    for name in told:
        if name not in names:
            raise ConfigError(f"--price {name}: nothing is planned for it", fix=f"add --machine {name}")
    return told


def _made(
    recipe: Recipe,
    config: dict[str, Any],
    prepared: Prepared | int,
    machines: Sequence[Machine],
    prices: Mapping[str, float],
) -> Plan:
    dtypes = [dtype_on(one, recipe) for one in machines]
    works = {dtype: work_of(recipe, config, prepared, dtype) for dtype in dict.fromkeys(dtypes)}
    outlooks = tuple(
        _outlook(works[dtype], one, prices.get(one.name)) for dtype, one in zip(dtypes, machines, strict=True)
    )
    work = works[dtypes[0]]
    steps, loads = _all(work)
    shape, method = work.shape, recipe.method
    return Plan(
        model=recipe.model,
        method=method.name,
        total_parameters=shape.total + added_parameters(method, shape),
        trained_parameters=work.trained,
        dtype=device.dtype_name(work.dtype),
        steps=steps,
        tokens=round(sum(load.real * times for load, times in loads)),
        batch_tokens=recipe.train.batch_tokens,
        longest=work.rows.longest,
        artifact_bytes=saved_bytes(method, shape, work.dtype.itemsize),
        outlooks=outlooks,
        notes=_notes(work, machines),
    )


def work_of(recipe: Recipe, config: dict[str, Any], prepared: Prepared | int, dtype: torch.dtype | None = None) -> Work:
    """Gather what a plan is made of, in the dtype of this machine unless told otherwise.

    Raises ModelError where sizes or the method cannot be told.
    """
    shape = shape_of(config)
    dtype = dtype or device.choose_dtype(recipe.dtype).torch
    trained = trained_parameters(recipe.method, shape)
    traced, engine = trace(config, recipe.method, recipe.train.gradient_checkpointing, dtype)
    if isinstance(prepared, int):
        most = min(recipe.length.max_tokens, int(config.get("max_position_embeddings") or recipe.length.max_tokens))
        rows = Rows(None, recipe.train.epochs, most, prepared)
    else:
        looked_at = prepared.epochs[:LOOKED_AT]
        layout = lay_out_rows(engine.laying == "packed", looked_at, recipe)
        longest = max(row.size for epoch in looked_at for row in epoch)
        rows = Rows(layout, len(prepared.epochs), longest, len(prepared.rows))
    return Work(recipe, config, shape, trained, traced, engine, dtype, rows)


def _notes(work: Work, machines: Sequence[Machine]) -> tuple[str, ...]:
    found = []
    if work.rows.layout is None:
        found.append(
            f"the model's folder has no tokenizer: rows are taken to have length.max_tokens, {work.rows.longest} "
            f"tokens, {ASSUMED_ANSWERS:.0%} of them learned; tokens and time are then the most it can be"
        )
    if isinstance(work.recipe.method, Qlora):
        if any(one.kind == "cpu" for one in machines):
            found.append(UNPACKED if _copies(work) else MAPPED)
        if quantize.lacking():
            found.append(f"bitsandbytes is installed, which it is not here: {quantize.lacking()}")
    found += [
        f"{one.name} is planned for by arithmetic alone, as tunesmith does not train on several devices yet: a step "
        f"there is of {one.devices} batches, one for each, which makes {together(work, one.devices).steps:,} steps"
        for one in machines
        if one.devices > 1
    ]
    return tuple(found)


def _all(work: Work) -> tuple[int, list[tuple[Load, float]]]:
    """Give the steps of a training, and each load with how often it is taken."""
    layout = work.rows.layout
    if layout is not None:
        times = work.rows.epochs / len(layout.epochs)
        return round(layout.steps * times), [(load_rows(work, batch), times) for batch in _batches(layout)]
    load, rows = _assumed(work)
    times = work.rows.epochs * work.rows.count / len(rows)
    return max(1, round(times / work.recipe.train.accumulate)), [(load, times)]


class Together(NamedTuple):
    """Several devices at once: how many times its share of the arithmetic each takes, and the steps then."""

    idle: float
    steps: int


def together(work: Work, devices: int) -> Together:
    """Give what becomes of a training whose devices take a batch each at a time: the last ones leave some idle."""
    layout = work.rows.layout
    each = [sum(map(len, epoch)) for epoch in layout.epochs] if layout else [work.rows.count / len(_assumed(work)[1])]
    rounds = [math.ceil(batches / devices) for batches in each]
    steps = sum(math.ceil(one / work.recipe.train.accumulate) for one in rounds)
    return Together(sum(rounds) * devices / sum(each), round(steps * work.rows.epochs / len(each)))


def _assumed(work: Work) -> tuple[Load, list[RowLength]]:
    """Give a batch of rows that could not be read: its load, and their lengths."""
    rows = worst_rows(work.recipe.train.batch_tokens, work.rows.longest, ASSUMED_ANSWERS)
    return load_of(rows, work.engine.laying, work.traced.block), rows


def _batches(layout: Layout) -> Sequence[Sequence[Encoded]]:
    return [batch for epoch in layout.epochs for group in epoch for batch in group]


def load_rows(work: Work, rows: Sequence[Encoded]) -> Load:
    """Give the load of a batch."""
    shared = batches.shared(rows) if work.engine.shares else 0
    return load_of(rows_lengths(rows), work.engine.laying, work.traced.block, shared)


def heaviest(work: Work, sizes: Sizes) -> list[Sequence[Encoded]]:
    """Give the batches that hold the most, the first first."""
    every = _batches(work.rows.layout) if work.rows.layout else []
    return sorted(every, key=lambda batch: -pass_of(load_rows(work, batch), work.traced, sizes).total)[:HEAVIEST]


def _outlook(work: Work, machine: Machine, price: float | None) -> Outlook:
    sizes = sizes_of(work, machine.kind)
    _, loads = _all(work)
    flops = sum(flops_of(work, load) * times for load, times in loads)
    rate = machine.rate(device.dtype_name(work.dtype))
    many = machine.devices > 1
    seconds = flops / rate * (together(work, machine.devices).idle if many else 1.0)
    shared = whole(work.shape, work.recipe.method, sizes.itemsize, work.trained) if many else Whole(0, 0)
    place = Place(
        process=machine.process,
        lanes=machine.lanes if work.engine.parts else 1,
        shards=machine.devices,
        gathered=shared.weights,
        unsummed=shared.gradients,
        heap=machine.heap,
    )
    bare = place.model_copy(update={"process": 0, "heap": 1.0})
    return Outlook(
        machine=machine.name,
        told=machine.told,
        parts=_parts(work, machine.kind, sizes, place),
        counted=_parts(work, machine.kind, sizes, bare).peak if machine.kind == "gpu" else None,
        available=machine.memory,
        rate=rate,
        seconds=seconds,
        low=seconds * machine.low,
        high=seconds * machine.high,
        price=None if price is None else price * seconds / 3600,
        loading=machine.process + _copies(work) * sizes.itemsize * work.shape.total if machine.kind == "cpu" else 0,
    )


def _parts(work: Work, kind: str, sizes: Sizes, place: Place) -> Parts:
    """Give memory at the peak: of a step, or while a sparse mask is chosen, where that takes more."""
    steps = _passes(work, sizes, place.lanes, kind)
    parts = step_parts(steps, work.traced, sizes, place)
    method, traced = work.recipe.method, work.traced
    if not isinstance(method, SparseMask) or method.score not in ("gradient", "fisher"):
        return parts
    if work.recipe.train.gradient_checkpointing and not work.engine.parts:  # transformers' own only while training
        traced, _ = trace(work.config, method, False, work.dtype)
    entries = sum(layer.inputs * layer.outputs for layer in work.shape.layers)
    return max(parts, choosing_parts(steps, traced, sizes, place, entries), key=lambda one: one.peak)


def _copies(work: Work) -> int:
    """Count the copies of all weights that are held as they are read: none of a file that has the network's dtype.

    Its pages are the weights. Blocks of a GGUF file are unpacked, and then moved into a plain model.
    """
    if find(work.recipe.model).gguf:
        return 2
    return int(str(work.config.get("dtype")).removeprefix("torch.") != device.dtype_name(work.dtype))


def flops_of(work: Work, load: Load) -> float:
    """Count the arithmetic of one batch, forward and backward."""
    return step_flops(work.shape, load, work.recipe.method, work.trained, work.recipe.train.gradient_checkpointing)


def _passes(work: Work, sizes: Sizes, lanes: int, kind: str) -> list[list[Load]]:
    """Give the passes of the heaviest batches: a whole one, or its two parts where they go side by side."""
    if work.rows.layout is None:
        load, rows = _assumed(work)
        if kind == "cpu" and work.engine.parts:
            loads = [load_of(part, work.engine.laying, work.traced.block) for part in cut(rows, work.shape.width)]
        else:
            loads = [load]
        found = [loads]
    else:
        found = []
        for batch in heaviest(work, sizes):
            parts = cut(batch, work.shape.width) if work.engine.parts and kind == "cpu" else [list(batch)]
            found.append([load_rows(work, part) for part in parts])
    if kind == "gpu" and work.engine.laying == "packed" and work.dtype != torch.float32:  # flash attention keeps none
        return [[load._replace(scores=0, widest=0) for load in loads] for loads in found]
    return found


def sizes_of(work: Work, kind: str) -> Sizes:
    """Give the sizes that decide about memory; on a processor the dense weights under packed ones may stay mapped."""
    shape, method, size = work.shape, work.recipe.method, work.dtype.itemsize
    weights = shape.total * size + bytes_beside(method, shape, size)
    dense = mapped = 0
    if isinstance(method, Qlora):
        bits = PACKED_TWICE_BITS if method.double_quant else PACKED_BITS
        packed = sum(layer.inputs * layer.outputs for layer in shape.layers)
        weights += int(packed * bits / 8) - packed * size
        mapped = packed * size if kind == "cpu" and not _copies(work) else 0
    if isinstance(method, Qlora | SparseMask):
        dense = max(layer.inputs * layer.outputs for layer in shape.layers) * size
    table = shape.vocabulary * shape.width * size if isinstance(method, Full) else 0
    twice = 2 * table if shape.tables == 1 else 0
    depths = tuple(stack.blocks for stack in shape.stacks)
    # Of an encoder the last blocks are reached through the whole decoder; checkpointed blocks all keep their inputs.
    if isinstance(method, Layers) and not work.recipe.train.gradient_checkpointing:
        depths = (min(method.last, depths[0]), *depths[1:])
    return Sizes(
        width=shape.width, depths=depths, vocabulary=shape.vocabulary, itemsize=size, weights=weights,
        trained=work.trained, mapped=mapped, table=table, twice=twice,
        apart=shape.tables * table + twice if kind == "cpu" and table >= APART else 0, dense=dense,
        separable=work.engine.separable,
    )  # fmt: skip
