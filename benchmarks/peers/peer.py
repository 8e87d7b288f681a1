"""What the peers' scripts share: their options, the rows, freed memory, peak memory and the one JSON line.

Nothing of tunesmith is imported here. The options leave the arithmetic of an
optimizer step as it is; each tool's script says what it adds.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
IGNORED = -100
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h; a threshold of -1 never trims


def options(description: str) -> argparse.ArgumentParser:
    """The options that every tool gets."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True, help="folder with weights and tokenizer")
    parser.add_argument("--rows", required=True, type=Path, help='JSONL of {"prompt", "completion"}, rendered text')
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--targets", default="q_proj,v_proj", help="names of the adapted layers, with commas")
    parser.add_argument("--batch", type=int, default=8, help="rows per step")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="of the weights and the arithmetic")
    parser.add_argument("--max-length", type=int, default=2048, help="a longer row is refused, not cut")
    parser.add_argument("--memory", choices=["kept", "returned"], default="kept", help="what is done with freed memory")
    return parser


def report(measure: Callable[[argparse.Namespace, str], dict[str, object]], asked: argparse.Namespace) -> None:
    """Train once as asked and print the measurements; everything else that is written goes to stderr."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # a trainer may report its use to the hub otherwise; read at import
    if asked.memory == "kept":
        keep_memory()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        result = measure(asked, folder)
    print(json.dumps({**result, "memory": asked.memory, "peak_rss_bytes": peak_rss_bytes()}))


def keep_memory() -> None:
    """Have freed memory used again; must come before torch is imported, which reads its variable once."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"
    libc = ctypes.CDLL(None)
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
        if libc.mallopt(option, value) != 1:
            refuse("this libc's mallopt refuses to keep freed memory", "run with --memory returned")


def read_rows(file: Path) -> list[dict[str, str]]:
    """The prompt and completion of every line; further keys are left behind, since TRL gives some a meaning."""
    with file.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return [{"prompt": row["prompt"], "completion": row["completion"]} for row in rows]


def peak_rss_bytes() -> int:
    """The process's own high-water mark; getrusage would pass on that of a larger parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def refuse(what: str, fix: str) -> NoReturn:
    print(f"error: {what}\n  fix: {fix}", file=sys.stderr)
    raise SystemExit(2)
