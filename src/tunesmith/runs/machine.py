"""The machine a run ran on, and the most memory it took."""

import contextlib
import ctypes
import gc
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "datasets", "sacrebleu", "numpy")


def describe(argv: Sequence[str] = ()) -> dict[str, Any]:
    """Give versions and hardware, as `provenance.json` holds them; knows nothing of torch."""
    return {
        "tunesmith": _version("tunesmith"),
        "command": shlex.join(argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "hardware": {"processor": processor(), "cores": cores(), "memory_bytes": memory_bytes()},
    }


def processor() -> str:
    """Give the processor's name as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Give the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Give the machine's memory in bytes, 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def available_bytes() -> int:
    """Give the memory that a new program could take, in bytes; less where a control group allows less. 0: not told."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return memory_bytes()
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), memory_bytes())
    return min([free, *_allowed()])


def _allowed() -> list[int]:
    """Give what control groups leave of their limits, version 2 and version 1."""
    folders = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    found = []
    for limit, used in folders:
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            values = [int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii")) for name in (limit, used)]
            found.append(max(0, values[0] - values[1]))
    return found


def reset_peak() -> None:
    """Start measuring peak memory anew; where the system cannot, the peak is that of the whole process."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc keeps freed memory, which is no need of what follows
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def resident_bytes() -> int:
    """Give the resident memory in bytes now; the peak where the system does not tell."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Give the most resident memory in bytes since `reset_peak`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
