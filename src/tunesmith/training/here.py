"""The machine this runs on, as one that a training is planned for: what is free, how fast it is, what is taken."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch

from tunesmith.errors import TunesmithError
from tunesmith.models import device
from tunesmith.models.load import find, read_config
from tunesmith.names import pick
from tunesmith.planning.machines import CPU_SHARE, GPU_HEAP, GPU_SHARE, HEAP, MACHINES, WARM, Machine, cpu_share
from tunesmith.planning.shape import Shape, shape_of
from tunesmith.recipe import Recipe
from tunesmith.runs import machine as system
from tunesmith.training.lanes import LANES

Product = tuple[int, int]  # the inputs and outputs of a linear layer
SQUARE: tuple[Product, ...] = ((1024, 1024),)
ROWS = 1024  # tokens of a product, at most
WIDEST = 2048  # a wider product is hardly faster, and a large model's would take seconds


def machines_named(names: Sequence[str], recipe: Recipe) -> tuple[Machine, ...]:
    """Give machines by name, "here" being this one. Raises ConfigError for a name that is not known."""
    known = {"here": None, **MACHINES}
    return tuple(pick(known, name, "machine") or this_machine(recipe) for name in names)


def this_machine(recipe: Recipe | None = None) -> Machine:
    """Describe the machine this runs on: what is free now, how fast its products are, what the program takes.

    The products are those of the recipe's model, of as many tokens as a batch has: narrow ones may be several times
    slower than square ones, most of all where the processor multiplies by tiles. Without a recipe they are square.
    """
    auto = device.choose_dtype().torch
    dtype = device.choose_dtype(recipe.dtype).torch if recipe else auto
    shape = _shape(recipe)
    speed = _speed(dtype, _products(shape), recipe.train.batch_tokens if recipe else ROWS)
    name = device.device_name()
    if device.current().type == "cuda":
        free, _ = torch.cuda.mem_get_info()  # what the context and the kernels of the products above take is gone
        return Machine(
            name="here", told=name, memory=free + torch.cuda.memory_reserved(), flops=speed, share=GPU_SHARE,
            process=0, heap=GPU_HEAP, dtype=_name(auto),
        )  # fmt: skip
    cores = torch.get_num_threads()
    system.reset_peak()
    taken = system.resident_bytes()
    share = cpu_share(speed, shape.width, cores, dtype.itemsize) if shape else CPU_SHARE
    return Machine(
        name="here", told=f"this machine: {name}, {cores} cores", memory=system.available_bytes() + taken,
        flops=speed, share=share, process=taken + WARM, kind="cpu", lanes=min(LANES, cores), heap=HEAP,
        dtype=_name(auto),
    )  # fmt: skip


def dtype_on(machine: Machine, recipe: Recipe) -> torch.dtype:
    """Give the dtype that a recipe is trained in on a machine: what it asks for, or what suits the machine."""
    return device.choose_dtype(machine.dtype if recipe.dtype == "auto" else recipe.dtype).torch


def _name(dtype: torch.dtype) -> Literal["bfloat16", "float32"]:
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def _shape(recipe: Recipe | None) -> Shape | None:
    """Give the sizes of the recipe's model; None where they are not known."""
    try:
        return shape_of(read_config(find(recipe.model)).to_dict()) if recipe else None
    except TunesmithError:
        return None


def _products(shape: Shape | None) -> tuple[Product, ...]:
    """Give the products of a model's blocks; square ones where its sizes are not known."""
    if shape is None:
        return SQUARE
    layers = [layer for stack in shape.stacks for layer in stack.linear]
    return tuple((min(WIDEST, one.inputs), min(WIDEST, one.outputs)) for one in layers)


@lru_cache(maxsize=8)
def _speed(dtype: torch.dtype, products: tuple[Product, ...] = SQUARE, rows: int = ROWS, seconds: float = 0.3) -> float:
    """Measure floating point operations per second of `products` of `rows` tokens, one after the other.

    Each is taken as a layer and its backward pass take it, by the weight and by its transpose. The best of some rounds.
    """
    on = device.current()
    rows = min(rows, ROWS)
    made = {
        (n, m): tuple(torch.randn(size, device=on).to(dtype) for size in ((rows, n), (m, n), (rows, m)))
        for n, m in set(products)
    }
    best, until = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < until:
        took = 0.0
        for product, times in Counter(products).items():
            x, weight, gradient = made[product]
            started = time.perf_counter()
            x @ weight.t()
            (gradient @ weight)[0, 0].item()
            took += times * (time.perf_counter() - started)
        best = min(best, took)
    return sum(2 * 2 * rows * n * m for n, m in products) / best
