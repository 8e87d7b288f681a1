"""The machine this runs on, as one that a training is planned for: what is free, how fast it is, what is taken."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch

from tunesmith.models import device
from tunesmith.names import pick
from tunesmith.planning.machines import CPU_SHARE, GPU_HEAP, GPU_SHARE, HEAP, MACHINES, WARM, Machine
from tunesmith.recipe import Recipe
from tunesmith.runs import machine as system
from tunesmith.training.lanes import LANES


def machines_named(names: Sequence[str], recipe: Recipe) -> tuple[Machine, ...]:
    """Give machines by name, "here" being this one. Raises ConfigError for a name that is not known."""
    known = {"here": None, **MACHINES}
    return tuple(pick(known, name, "machine") or this_machine(recipe) for name in names)


def this_machine(recipe: Recipe | None = None) -> Machine:
    """Describe the machine this runs on: what is free now, how fast its products are, what the program takes."""
    auto = device.choose_dtype().torch
    speed = _speed(device.choose_dtype(recipe.dtype).torch if recipe else auto)
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
    return Machine(
        name="here", told=f"this machine: {name}, {cores} cores", memory=system.available_bytes() + taken,
        flops=speed, share=CPU_SHARE, process=taken + WARM, kind="cpu", lanes=min(LANES, cores), heap=HEAP,
        dtype=_name(auto),
    )  # fmt: skip


def dtype_on(machine: Machine, recipe: Recipe) -> torch.dtype:
    """Give the dtype that a recipe is trained in on a machine: what it asks for, or what suits the machine."""
    return device.choose_dtype(machine.dtype if recipe.dtype == "auto" else recipe.dtype).torch


def _name(dtype: torch.dtype) -> Literal["bfloat16", "float32"]:
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


@lru_cache(maxsize=4)
def _speed(dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Measure floating point operations per second: products of 1 024 rows of 1 024, the best of a few."""
    on = device.current()
    a, b = (torch.randn(1024, 1024, device=on).to(dtype) for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while not best or time.perf_counter() < until:
        started = time.perf_counter()
        for _ in range(4):
            c = a @ b
        c[0, 0].item()
        best = max(best, 4 * 2 * 1024**3 / (time.perf_counter() - started))
    return best
