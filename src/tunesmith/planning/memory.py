"""Memory of one training step, part by part, from sizes, lengths and constants that are traced from the engine."""

from collections.abc import Sequence
from typing import NamedTuple

from tunesmith.config import Record
from tunesmith.planning.loads import Load

MASTER, SUM, MOMENTS = 4, 4, 8  # bytes per trained weight, all fp32: `training/optimizer.py`
# bits of a weight in nf4 with a magnitude for 64: 4 + 32/64; or, with the magnitudes packed by 256, 4 + 8/64 +
# 32/(64*256), derived from section 3 of arXiv:2305.14314, which gives 0.127 beside the 4
PACKED_BITS, PACKED_TWICE_BITS = 4.5, 4.127


class Traced(Record):
    """How many bytes a forward and a backward pass hold, as slopes over `features` and over what is `passing`.

    `blocks` of each stack are what one block keeps until its backward; `rest` is kept outside of them, and by the
    last block, which computes less. `forward` is what comes on top while the blocks are
    computed, `backward` while they are gone through again. `block` is how many queries attend together, `piece` how
    many answers are projected together, `room` how many bytes the loss works in.
    """

    blocks: tuple[tuple[float, ...], ...]
    rest: tuple[float, ...]
    forward: tuple[float, ...]
    backward: tuple[float, ...]
    block: int
    piece: int
    room: int


class Sizes(Record):
    """What of a model and a method decides about memory; bytes unless said otherwise.

    `depths` are the blocks of each stack, `itemsize` that of the network's dtype. `weights` are held while
    training, `mapped` is what was read of a file and is not used again; `trained` counts weights that learn.
    `table` is the head's weight if it learns, `twice` what the gradients of one that is also the embedding take
    before they are summed; `apart` are those of such gradients that the allocator gives memory of their own.
    `dense` is the largest weight that is made dense for a product, or gets a dense gradient, for a moment.
    """

    width: int
    depths: tuple[int, ...]
    vocabulary: int
    itemsize: int
    weights: int
    trained: int
    mapped: int = 0
    table: int = 0
    twice: int = 0
    apart: int = 0
    dense: int = 0
    separable: bool = True


class Parts(Record):
    """Memory at the peak, in bytes, by what it is for; the parts sum to the peak.

    `process` is what the program and its libraries take before there is a model. `workspace` is what is held for
    a moment only, and what the allocator loses between its pieces. `mapped` are pages of a file that count as the
    process's memory, but which the system drops when it needs them: the dense weights under packed ones.
    """

    process: int = 0
    weights: int = 0
    mapped: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    head: int = 0
    workspace: int = 0

    @property
    def peak(self) -> int:
        """Give the sum."""
        return sum(self.model_dump().values())

    @property
    def needed(self) -> int:
        """Give what of the peak must fit into memory."""
        return self.peak - self.mapped


class Pass(NamedTuple):
    """Bytes that one pass holds at its peak."""

    activations: float
    head: float
    workspace: float
    gradients: float

    @property
    def total(self) -> float:
        """Give the sum."""
        return sum(self)


def features(load: Load, width: int) -> tuple[float, ...]:
    """Give what the bytes that are kept are linear in: tokens times width, tokens, scores; the encoder's; and 1."""
    read = (load.read * width, load.read, load.read_scores)
    return (load.tokens * width, load.tokens, load.scores, *read, 1.0)


def passing(load: Load, width: int) -> tuple[float, ...]:
    """Give what bytes that are held for a moment are linear in: the same, but only the scores computed together."""
    return features(load._replace(scores=load.widest), width)


def pass_of(load: Load, traced: Traced, sizes: Sizes) -> Pass:
    """Give what one pass, forward and backward, holds at its peak: the largest of four moments.

    They are: the blocks have been computed; the loss is; the backward pass begins; it has all gradients. Halfway
    less is held than at the worse end, as activations go and gradients come by blocks. An allocator that gives very
    large gradients memory of their own keeps besides what the activations had.
    """
    at, briefly = features(load, sizes.width), passing(load, sizes.width)
    kept = _along(traced.rest, at)
    kept += sum(depth * _along(one, at) for depth, one in zip(sizes.depths, traced.blocks, strict=True))
    logits, learned = _head(load, traced, sizes)
    forward = max(0.0, _along(traced.forward, briefly)) + sizes.dense
    backward = max(0.0, _along(traced.backward, briefly)) + sizes.dense
    gradients = sizes.trained * sizes.itemsize
    moments = (
        Pass(kept, 0, forward, 0),
        Pass(kept, logits, 0, 0),
        Pass(kept, learned, backward, max(sizes.table, sizes.apart)),
        Pass(0, 0, max(0.0, backward - sizes.twice), gradients + sizes.twice),
    )
    return max(moments, key=lambda moment: moment.total)


def _head(load: Load, traced: Traced, sizes: Sizes) -> tuple[float, float]:
    """Give the bytes of the head: as the loss is taken, and as the backward begins.

    The loss holds the logits and their gradient, and fp32 room for a few rows; many answers go in pieces, each
    projected again. A model whose head cannot be taken apart projects all positions, and picks the answers' after.
    """
    word = sizes.vocabulary * sizes.itemsize
    together = min(load.answers, traced.piece) if sizes.separable else load.answers
    gradient = together * word
    room = min(together * sizes.vocabulary * 4, max(traced.room, sizes.vocabulary * 4))
    every = 0 if sizes.separable else load.projected * word
    logits = gradient + together * word + room + every
    begins = gradient + every if load.answers == together else 2 * gradient + room
    return logits, begins


def _along(slopes: Sequence[float], at: Sequence[float]) -> float:
    return sum(slope * x for slope, x in zip(slopes, at, strict=True))


class Place(Record):
    """How a machine holds a training.

    `process` bytes are taken before there is a model. `lanes` passes go side by side. `shards` devices
    share weights, gradients and the optimizer's state (FSDP, Zhao et al. 2023, arXiv:2304.11277), of which each
    makes `gathered` bytes of weights and `unsummed` of gradients whole at a time. `heap` is how much of what is held
    for a step the allocator takes for it.
    """

    process: int
    lanes: int = 1
    shards: int = 1
    gathered: int = 0
    unsummed: int = 0
    heap: float = 1.0


def step_parts(steps: Sequence[Sequence[Load]], traced: Traced, sizes: Sizes, place: Place) -> Parts:
    """Give the parts of the peak over `steps`, each the loads of its passes in the order they are taken.

    The passes that go side by side may reach their peaks together. Raises ValueError without a step.
    """
    told = {load: pass_of(load, traced, sizes) for loads in steps for load in loads}
    windows = (loads[i : i + place.lanes] for loads in steps for i in range(max(1, len(loads) - place.lanes + 1)))
    worst = max(windows, key=lambda loads: sum(told[load].total for load in loads))
    passes = [told[load] for load in worst]
    held = [sum(part) for part in zip(*passes, strict=True)]
    activations, head, workspace, gradients = held
    shards = place.shards
    masters = sizes.trained * MASTER if sizes.itemsize != MASTER else 0
    return Parts(
        process=place.process,
        weights=-(-sizes.weights // shards) + place.gathered,
        mapped=sizes.mapped,
        gradients=int(gradients / shards) + sizes.trained * SUM // shards + place.unsummed,
        optimizer=(masters + sizes.trained * MOMENTS) // shards,
        activations=int(activations),
        head=int(head),
        workspace=int(workspace + (place.heap - 1) * (sum(held) - gradients + gradients / shards)),
    )


def choosing_parts(steps: Sequence[Sequence[Load]], traced: Traced, sizes: Sizes, place: Place, entries: int) -> Parts:
    """Give the parts of the peak while those that will learn are chosen among `entries` by their gradients.

    All entries get one in passes that go one after the other; its sum over a step and that over the steps
    are fp32. There is no optimizer yet.
    """
    every = sizes.model_copy(update={"trained": entries})
    parts = step_parts(steps, traced, every, place.model_copy(update={"lanes": 1}))
    gradients = parts.gradients + entries * SUM // place.shards
    return parts.model_copy(update={"gradients": gradients, "optimizer": 0})
