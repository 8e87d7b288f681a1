"""Machines: the ones a training can be planned for by name, and what each has. Every number says where it is from."""

from typing import Literal

from tunesmith.config import Record

GIB = 2**30
# What the C library's allocator takes for what a step holds: 1.16 to 1.31 times, by method and length of rows
# (benchmarks/plan.py). Fixed, because it is of the library and the engine's order of allocations, not of a model.
HEAP = 1.23
# What the libraries take beside it from the first steps on: compiled kernels, threads and their heaps. Measured as
# what is left of a process after three steps and was not there before, 35 to 74 MiB.
WARM = 48 * 2**20
GPU_HEAP = 1.1  # assumed: torch's caching allocator keeps pieces; not measured by us
GPU_PROCESS = 3 * GIB // 4  # assumed: a CUDA context and the libraries' workspaces; of this machine it is gone already
# The share of its products' speed that a step reaches: 0.53 of them on a processor (docs/decisions/0008). On GPUs
# assumed 0.35, between the 0.21 of GPT-3 and the 0.46 of PaLM (arXiv:2204.02311, table 3).
CPU_SHARE, GPU_SHARE = 0.53, 0.35
# What a step does beside its products goes over activations, and takes as long as if it were arithmetic at this speed,
# for each core and number of the model's width, in bf16. Measured on the embedded model, two cores: of a step at 0.53
# of 385 GFLOP/s it is what 434 GFLOP/s would take (AVX512-BF16); of one at 0.22 of 1 304, what 370 would (AMX).
REST = 400e9 / 2 / 576


def cpu_share(flops: float, width: int, cores: int, itemsize: int) -> float:
    """Give the share of its products' speed `flops` that a step reaches on a processor: the faster, the less.

    Products take `width` times `width` steps for a token, what is done beside them `width`, on `itemsize` bytes each.
    """
    return 1 / (1 + flops / (REST * cores * width * 2 / itemsize))


class Machine(Record):
    """A machine: bytes of memory of each of its `devices`, and floating point operations per second.

    `flops` are of each device: dense products, as published or measured; a training reaches `share` of them.
    `flops32` are those of fp32, where they are others. `dtype` is what `dtype: auto` means there.
    `process` bytes are taken before there is a model, `lanes` passes go side by side, `heap` is the allocator's share.
    `low` and `high` are how far off the time may be.
    """

    name: str
    told: str
    memory: int
    flops: float
    share: float
    flops32: float | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    process: int
    kind: str = "gpu"
    devices: int = 1
    lanes: int = 1
    heap: float = GPU_HEAP
    low: float = 0.6
    high: float = 1.8

    def rate(self, dtype: str) -> float:
        """Give the floating point operations per second that a training may reach, all devices together."""
        flops = self.flops32 if dtype == "float32" and self.flops32 else self.flops
        return flops * self.share * self.devices


# Memory and dense bf16 rates: NVIDIA, "Ada GPU architecture" whitepaper, appendix A (GeForce RTX 4090: 24 GB,
# 165.2 TFLOPS with fp32 sums); NVIDIA A100 datasheet (80 GB, 312 TFLOPS). Their fp32 rates, 82.6 and 19.5 TFLOPS, are
# those without TF32, which torch takes for no product unless it is told to. The processor's is the 385 GFLOP/s that
# 2 cores with AVX512-BF16 reached (docs/decisions/0008), times 8; fp32 products took 4 times as long there.
MACHINES = {
    one.name: one
    for one in (
        Machine(
            name="cpu", told="16 cores with AVX512-BF16, 64 GiB", memory=64 * GIB, flops=8 * 385e9, flops32=2 * 385e9,
            share=CPU_SHARE, process=GIB // 2, kind="cpu", lanes=2, heap=HEAP,
        ),
        Machine(
            name="1x24", told="one 24 GB GPU (RTX 4090)", memory=24 * GIB, flops=165.2e12, flops32=82.6e12,
            share=GPU_SHARE, process=GPU_PROCESS,
        ),
        Machine(
            name="1x80", told="one 80 GB GPU (A100)", memory=80 * GIB, flops=312e12, flops32=19.5e12,
            share=GPU_SHARE, process=GPU_PROCESS,
        ),
        Machine(
            name="8x80", told="eight 80 GB GPUs (A100), FSDP", memory=80 * GIB, flops=312e12, flops32=19.5e12,
            share=GPU_SHARE, process=GPU_PROCESS, devices=8,
        ),
    )
}  # fmt: skip
