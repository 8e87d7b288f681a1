"""What a method costs, from a model's sizes alone: the weights that learn."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from tunesmith.errors import ModelError, SizesError
from tunesmith.method import (
    GROUPS,
    BitFit,
    Bottleneck,
    Full,
    Further,
    Ia3,
    Layers,
    Lora,
    Norms,
    Prefix,
    PromptTuning,
    PTuning,
    Qlora,
    SparseMask,
)
from tunesmith.planning.shape import Linear, Shape

# Layers that end a block's attention, the MLP, and that are scaled by IA3: its outputs, or its inputs.
AFTER_ATTENTION = {"o_proj", "o", "dense"}
AFTER_MLP = {"down_proj", "wo", "dense_4h_to_h"}
KEYS_AND_VALUES = {"k_proj", "v_proj", "k", "v", "query_key_value"}
VERA_RANK = 256  # peft's default
PLACE, SAVED_PLACE = 8, 4  # bytes of the place of an entry of a sparse mask, in memory and in its file


def trained_parameters(method: Any, shape: Shape) -> int:
    """Count the weights that `method` trains on a model of this shape.

    Raises SizesError if its targets, or what they are named by, cannot be told from the sizes.
    """
    return COUNTS[type(method)](method, shape)


def added_parameters(method: Any, shape: Shape) -> int:
    """Count those of the weights that learn by which the network then has more than the model."""
    own = isinstance(method, Full | Norms | Layers) or (
        isinstance(method, BitFit) and (method.without != "add" or _biases(shape) > 0)
    )
    return 0 if own else trained_parameters(method, shape)


def bytes_beside(method: Any, shape: Shape, itemsize: int) -> int:
    """Count the bytes of weights that a training holds beside the model's; some learn as copies of its own."""
    if isinstance(method, Full):
        return 0
    trained = trained_parameters(method, shape)
    if isinstance(method, SparseMask):
        return trained * (PLACE + 2 * itemsize)  # where they are, and what the base has there
    began = 4 * _factors_of(method, shape) if _moves(method) else 0  # fp32: what it began with is taken off at the end
    return trained * itemsize + began + _drawn(method, shape, itemsize)


def saved_bytes(method: Any, shape: Shape, itemsize: int) -> int:
    """Count the bytes of what is saved, without names: more than what has learned, or less."""
    trained = trained_parameters(method, shape)
    if isinstance(method, SparseMask):
        return trained * (SAVED_PLACE + itemsize)
    if isinstance(method, PTuning):  # its network is left out
        return method.tokens * shape.width * itemsize
    if _moves(method):  # what it has changed has twice the rank
        trained += _factors_of(method, shape)
    return trained * itemsize + _drawn(method, shape, itemsize)


def _moves(method: Any) -> bool:
    """Tell whether a method changes the base's weights when it begins."""
    return isinstance(method, Lora) and method.init != "default"


def _factors_of(method: Lora, shape: Shape) -> int:
    return _lora(method.model_copy(update={"dora": False}), shape)


def _drawn(method: Any, shape: Shape, itemsize: int) -> int:
    """Count the bytes of VeRA's two random projections, which all layers share and which do not learn."""
    if not isinstance(method, Further) or method.name != "vera":
        return 0
    found = _targeted(shape, method.targets or ())
    widest = max(layer.inputs for layer in found) + max(layer.outputs for layer in found)
    return itemsize * int(method.options.get("r", VERA_RANK)) * widest


def _full(method: Full, shape: Shape) -> int:
    return shape.total


def _bitfit(method: BitFit, shape: Shape) -> int:
    biases = _biases(shape)
    if biases or method.without == "refuse":
        return biases
    return _norms(Norms(), shape) if method.without == "norms" else sum(layer.outputs for layer in shape.layers)


def _biases(shape: Shape) -> int:
    shifts = sum(shape.norms) if shape.shifted else 0
    return sum(layer.outputs for layer in shape.layers if layer.bias) + shifts


def _norms(method: Norms, shape: Shape) -> int:
    return sum(map(shape.norm, shape.norms))


def _layers(method: Layers, shape: Shape) -> int:
    if method.pattern is not None:
        raise SizesError("which weights method.pattern names cannot be told from sizes", fix="use method.last")
    whole = sum(min(method.last, stack.blocks) * shape.block(stack) for stack in shape.stacks)
    return whole + sum(stack.extra for stack in shape.stacks if method.last >= stack.blocks)


def _sparse(method: SparseMask, shape: Shape) -> int:
    sizes = [layer.inputs * layer.outputs for layer in shape.layers]
    sizes = sizes if method.scope == "tensor" else [sum(sizes)]
    return sum(max(1, round(method.share * size)) for size in sizes)


def _lora(method: Lora, shape: Shape) -> int:
    if any("." in pattern for pattern in method.ranks):
        raise SizesError("which layers a path in method.ranks names cannot be told from sizes", fix="name layers alone")

    def rank(name: str) -> int:
        return next((r for pattern, r in method.ranks.items() if re.fullmatch(pattern, name)), method.rank)

    found = _targeted(shape, method.targets)
    magnitudes = sum(layer.outputs for layer in found) if method.dora else 0
    return sum(rank(layer.name) * (layer.inputs + layer.outputs) for layer in found) + magnitudes


def _further(method: Further, shape: Shape) -> int:
    if method.targets is None:
        raise SizesError("which layers peft chooses cannot be told from sizes", fix="name method.targets")
    for option in method.options:
        if option not in READ:
            raise SizesError(f"what method.options.{option} changes cannot be told from sizes", fix="leave it out")
    found = _targeted(shape, method.targets)
    return sum(PER_LAYER[method.name](layer, method.options) for layer in found)


def _ia3(method: Ia3, shape: Shape) -> int:
    keys = sum(layer.outputs for layer in shape.layers if layer.name in KEYS_AND_VALUES)
    return keys + sum(layer.inputs for layer in shape.layers if layer.name in AFTER_MLP)


def _bottleneck(method: Bottleneck, shape: Shape) -> int:
    ends = {*AFTER_MLP, *(AFTER_ATTENTION if method.placement == "houlsby" else ())}
    places = sum(layer.name in ends for layer in shape.layers)
    return places * (2 * method.width * shape.width + method.width + shape.width)


def _prompt(method: PromptTuning, shape: Shape) -> int:
    return method.tokens * shape.width


def _p_tuning(method: PTuning, shape: Shape) -> int:
    """Count peft's network: an embedding, then linear layers to `hidden`, within it, and back, with biases."""
    width, hidden = shape.width, method.hidden
    return method.tokens * width + hidden * (width + 1) + hidden * (hidden + 1) + width * (hidden + 1)


def _prefix(method: Prefix, shape: Shape) -> int:
    return 2 * method.tokens * shape.keys * sum(stack.blocks for stack in shape.stacks)


def _targeted(shape: Shape, asked: str | tuple[str, ...]) -> Sequence[Linear]:
    if asked == "all-linear":
        return shape.layers
    names = set(GROUPS.get(asked, (asked,)) if isinstance(asked, str) else asked)
    found = [layer for layer in shape.layers if layer.name in names]
    if not found:
        raise ModelError(f"method.targets: the model has no linear layer '{asked}'", fix="name one that it has")
    return found


def _loha(layer: Linear, options: dict[str, Any]) -> int:
    return 2 * int(options.get("r", 8)) * (layer.inputs + layer.outputs)


def _lokr(layer: Linear, options: dict[str, Any]) -> int:
    rank, factor = int(options.get("r", 8)), int(options.get("decompose_factor", -1))
    (a, b), (c, d) = _factors(layer.outputs, factor), _factors(layer.inputs, factor)
    split = options.get("decompose_both") and rank < max(a, c) / 2
    first = rank * (a + c) if split else a * c
    return first + (rank * (b + d) if rank < max(b, d) / 2 else b * d)


def _factors(size: int, factor: int) -> tuple[int, int]:
    """Cut `size` into two factors as LoKr does: the nearest to each other, the first at most `factor`."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    most = size if factor == -1 else factor
    small = max(n for n in range(1, int(size**0.5) + 1) if size % n == 0 and n <= max(1, most))
    return small, size // small


def _vera(layer: Linear, options: dict[str, Any]) -> int:
    return int(options.get("r", VERA_RANK)) + layer.outputs


def _oft(layer: Linear, options: dict[str, Any]) -> int:
    size = int(options.get("oft_block_size", 32))
    blocks = int(options.get("r", 0)) or layer.inputs // size
    size = layer.inputs // blocks
    return blocks * size * (size - 1) // 2


def _hra(layer: Linear, options: dict[str, Any]) -> int:
    return int(options.get("r", 8)) * layer.inputs


def _miss(layer: Linear, options: dict[str, Any]) -> int:
    return int(options.get("r", 64)) * layer.outputs


# The options that the formulas read, and those that change no count.
READ = {"r", "decompose_factor", "decompose_both", "oft_block_size", "alpha", "init_weights", "d_initial"}
PER_LAYER: dict[str, Callable[[Linear, dict[str, Any]], int]] = {
    "hra": _hra,
    "loha": _loha,
    "lokr": _lokr,
    "miss": _miss,
    "oft": _oft,
    "vera": _vera,
}
COUNTS: dict[type, Callable[[Any, Shape], int]] = {
    Full: _full,
    BitFit: _bitfit,
    Norms: _norms,
    Layers: _layers,
    SparseMask: _sparse,
    Lora: _lora,
    Qlora: _lora,
    Further: _further,
    Ia3: _ia3,
    Bottleneck: _bottleneck,
    PromptTuning: _prompt,
    PTuning: _p_tuning,
    Prefix: _prefix,
}
