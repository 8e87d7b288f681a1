"""One writer per run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tunesmith.errors import RunError

NAME = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock inside the block; a process that dies lets go of it.

    Raises RunError if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{folder}: another process is writing this run", fix="wait for it to end, or stop it, or name a new folder"
        ) from None
    try:
        yield
    finally:
        lock.release()  # the file stays: removing it would let a third process lock another file of the same name
