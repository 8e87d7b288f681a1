"""Checkpoints: folders that are whole or absent, and known by their hashes.

A checkpoint is written aside, each file synced, its manifest last; then one
rename puts it in place. A reader trusts only what agrees with the manifest:
torch and safetensors load a flipped bit without a word.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import DiskError, RunError

MANIFEST = "manifest.json"
KEEP = 2
_NAME = "step-{:09d}"
_SPACE = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder, the step it was taken after, and what its manifest tells besides."""

    folder: Path
    step: int
    facts: Mapping[str, Any]


def write(parent: Path, step: int, fill: Callable[[Path], None], facts: Mapping[str, Any]) -> Checkpoint:
    """Write the checkpoint of `step` into `parent`: `fill` puts its files into the folder it is given.

    Older checkpoints go once this one is in place; the two newest stay. Raises
    DiskError if the disk is full and RunError if it cannot be written; then all
    earlier checkpoints are as they were.
    """
    folder = parent / _NAME.format(step)
    aside = parent / f".{folder.name}.part-{os.getpid()}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        fill(aside)
        _seal(aside, step, facts)
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier life of this run, not verified
        aside.rename(folder)
        sync(parent)
    except OSError as wrong:
        shutil.rmtree(aside, ignore_errors=True)
        raise _refused(folder, wrong) from wrong
    for old in _folders(parent)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return Checkpoint(folder, step, dict(facts))


def newest(parent: Path, say: Callable[[str], None] = lambda _: None) -> Checkpoint | None:
    """Give the newest checkpoint that agrees with its manifest, None if there is none.

    One that does not is renamed to `*.corrupt`, and `say` is told which file is
    wrong. What a killed writer left aside is removed.
    """
    for left in parent.glob(".step-*.part-*"):
        shutil.rmtree(left, ignore_errors=True)
    for folder in reversed(_folders(parent)):
        problem = check(folder)
        if problem is None:
            told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            return Checkpoint(folder, told["step"], told["facts"])
        bad = _unused(folder)
        folder.rename(bad)
        say(f"{folder.name} is damaged ({problem}): put aside as {bad.name}")
    return None


def remove(parent: Path) -> None:
    """Remove all checkpoints, once the run they would resume has come to its end."""
    for folder in _folders(parent):
        shutil.rmtree(folder, ignore_errors=True)


def check(folder: Path) -> str | None:
    """Say what is wrong with a checkpoint, None if every file has the size and SHA-256 its manifest names."""
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, dict[str, Any]] = told["files"]
        if told["seal"] != _digest(json.dumps([told["step"], told["facts"], files], sort_keys=True).encode()):
            return f"{MANIFEST} was changed"
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        return f"{MANIFEST} {'is missing' if isinstance(wrong, FileNotFoundError) else 'cannot be read'}"
    problems = (_problem(folder / name, expected) for name, expected in files.items())
    return next((problem for problem in problems if problem), None)


def _problem(path: Path, expected: Mapping[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != expected["bytes"]:
        return f"{path.name} has {path.stat().st_size} bytes, not {expected['bytes']}"
    return None if _digest_of(path) == expected["sha256"] else f"{path.name} has other content"


def sync(path: Path) -> None:
    """Ask the system to bring a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seal(folder: Path, step: int, facts: Mapping[str, Any]) -> None:
    """Sync every file, then write the manifest that names them."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync(path)
        name = path.relative_to(folder).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": _digest_of(path)}
    plain = json.loads(json.dumps(dict(facts)))
    seal = _digest(json.dumps([step, plain, files], sort_keys=True).encode())
    manifest = folder / MANIFEST
    told = {"step": step, "facts": plain, "files": files, "seal": seal}
    manifest.write_text(json.dumps(told, indent=1), encoding="utf-8")
    sync(manifest)
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(path)


def _folders(parent: Path) -> list[Path]:
    """Give the checkpoints in place, oldest first, by their step and not by any clock."""
    return sorted(path for path in parent.glob("step-*") if path.name.removeprefix("step-").isdigit())


def _unused(folder: Path) -> Path:
    names: Iterator[Path] = (folder.with_name(f"{folder.name}.corrupt{i or ''}") for i in range(10**6))
    return next(name for name in names if not name.exists())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refused(folder: Path, wrong: OSError) -> DiskError | RunError:
    if wrong.errno in _SPACE:
        return DiskError(
            f"{folder}: the disk is full; earlier checkpoints are as they were",
            fix="free some space, then go on with --resume",
        )
    return RunError(
        f"{folder}: cannot be written ({wrong.strerror or wrong}); earlier checkpoints are as they were",
        fix="make the folder writable, then go on with --resume",
    )
