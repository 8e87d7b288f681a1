"""Shards: what each of several devices makes whole for a moment of what they share (FSDP)."""

from typing import Any, NamedTuple

from tunesmith.method import Full, Layers, Qlora
from tunesmith.planning.memory import PACKED_BITS, PACKED_TWICE_BITS
from tunesmith.planning.shape import Shape


class Whole(NamedTuple):
    """Bytes that a device holds whole beside its shard, of weights and of gradients."""

    weights: int
    gradients: int


def whole(shape: Shape, method: Any, itemsize: int, trained: int) -> Whole:
    """Give what a device holds whole at its peak, in bytes.

    The weights are gathered block by block, the next one while one is computed; what lies outside of the blocks,
    embedding, head and last norms, stays whole from its first use to its last (torch's `fully_shard`, whose
    `reshard_after_forward` is off for the root). A gradient is whole until the devices have summed it: that of a
    block, and of the root if it learns. `trained` counts the weights that learn, those of adapters by block alike.
    """
    blocks = sum(stack.blocks for stack in shape.stacks)
    root = (shape.tables * shape.vocabulary * shape.width + len(shape.stacks) * shape.norm(shape.width)) * itemsize
    largest = max(shape.stacks, key=shape.block)
    block = shape.block(largest) * itemsize
    beside = trained * itemsize // blocks
    if isinstance(method, Full):
        return Whole(root + 2 * block, root + block)
    if isinstance(method, Layers):
        return Whole(root + 2 * block, block)
    if isinstance(method, Qlora):
        bits = PACKED_TWICE_BITS if method.double_quant else PACKED_BITS
        packed = sum(layer.inputs * layer.outputs for layer in largest.linear)
        block -= int(packed * (itemsize - bits / 8))
    return Whole(root + 2 * (block + beside), beside)
