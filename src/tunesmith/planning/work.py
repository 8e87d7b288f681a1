"""Work: the arithmetic of a training step or of an answer, in floating point operations."""

from typing import Any

from tunesmith.method import Full, Layers, Lora, SparseMask
from tunesmith.planning.cost import AFTER_ATTENTION, KEYS_AND_VALUES
from tunesmith.planning.loads import Load
from tunesmith.planning.shape import Shape, Stack


def forward_flops(shape: Shape, load: Load) -> float:
    """Count a forward pass: 2 for each weight and token, 4 for each score and number of a head, 2 for each logit's."""
    return _blocks(shape, load) + _scores(shape, load) + _head(shape, load)


def step_flops(shape: Shape, load: Load, method: Any, trained: int, checkpointing: bool) -> float:
    """Count a forward and a backward pass of one batch.

    The backward pass takes a product for the input's gradient of each layer, and one more for the gradient of
    a weight that learns (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). Adapters are counted beside the base.
    Checkpointing computes the blocks once more.
    """
    blocks, scores, head = _blocks(shape, load), _scores(shape, load), _head(shape, load)
    again = blocks + scores if checkpointing else 0.0
    whole = isinstance(method, Full | SparseMask)
    through, learned = 1.0, float(whole)
    if isinstance(method, Layers):
        through = learned = min(1.0, method.last / max(stack.blocks for stack in shape.stacks))
    beside = 6.0 * trained * (load.tokens + load.read) / len(shape.stacks) if isinstance(method, Lora) else 0.0
    backward = blocks * (through + learned) + 2 * scores * through + head * (1 + isinstance(method, Full))
    return blocks + scores + head + again + backward + beside


def _blocks(shape: Shape, load: Load) -> float:
    if len(shape.stacks) == 1:
        return 2.0 * load.tokens * _weights(shape.stacks[0])
    encoder, decoder = shape.stacks
    crossing = sum(layer.weights for layer in decoder.linear if layer.name in KEYS_AND_VALUES) / 2 * decoder.blocks
    read = load.read * (_weights(encoder) + crossing)
    return 2.0 * (read + load.tokens * (_weights(decoder) - crossing))


def _weights(stack: Stack) -> int:
    return stack.blocks * sum(layer.weights for layer in stack.linear)


def _scores(shape: Shape, load: Load) -> float:
    read = 4.0 * load.read_scores * _across(shape.stacks[0]) if len(shape.stacks) > 1 else 0.0
    return read + 4.0 * load.scores * _across(shape.stacks[-1])


def _across(stack: Stack) -> int:
    """Count the numbers of all heads of a stack's blocks."""
    wide = next((layer.inputs for layer in stack.linear if layer.name in AFTER_ATTENTION), 0)
    return stack.blocks * wide


def _head(shape: Shape, load: Load) -> float:
    return 2.0 * load.projected * shape.vocabulary * shape.width
