"""The device that computes, the number format it uses and why, and the memory it took."""

from typing import NamedTuple

import torch

from tunesmith.errors import ModelError
from tunesmith.runs import machine


class Dtype(NamedTuple):
    """A dtype and the reason for it, for the run's provenance."""

    torch: torch.dtype
    reason: str


def current() -> torch.device:
    """Give the device that runs use: a CUDA GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(asked: str = "auto") -> Dtype:
    """Choose bf16 where the hardware multiplies it natively, else fp32.

    Emulated bf16 is slower than fp32 and no more exact, so it is taken only
    when asked for by name.
    """
    if asked != "auto":
        return Dtype(_named(asked), "asked for in the recipe")
    if current().type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return _by(native, "the GPU reports native bf16", "the GPU reports no native bf16")
    able = [name for name in ("avx512_bf16", "amx_bf16") if torch.cpu.get_capabilities().get(name)]
    return _by(
        bool(able), f"the processor reports {', '.join(able)}", "the processor reports neither avx512_bf16 nor amx_bf16"
    )


def device_name() -> str:
    """Give the name of the device that computes: the GPU's, or the processor's."""
    return torch.cuda.get_device_name() if current().type == "cuda" else machine.processor()


def reset_peak() -> None:
    """Start measuring peak memory anew, on the device that computes."""
    machine.reset_peak()
    if current().type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """Give the most memory in bytes since `reset_peak`: the GPU's where there is one, else the process's."""
    return torch.cuda.max_memory_allocated() if current().type == "cuda" else machine.peak_bytes()


def dtype_name(dtype: torch.dtype) -> str:
    """Give a dtype's name without the library's: `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _by(native: bool, yes: str, no: str) -> Dtype:
    return Dtype(torch.bfloat16, yes) if native else Dtype(torch.float32, no)


def _named(name: str) -> torch.dtype:
    known = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    if name not in known:
        raise ModelError(f"dtype '{name}' is not supported", fix=f"use one of: auto, {', '.join(known)}")
    return known[name]
