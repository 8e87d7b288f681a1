"""Progress: one line that moves on a terminal, and a plain line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

QUIET_SECONDS = 20.0  # between plain lines in a log file


class Watch:
    """Shows how far a verb has come, on the error stream, unless it is `quiet`; use it as a context."""

    def __init__(self, title: str, total: int, quiet: bool = False) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._spoke = time.monotonic()
        console = Console(stderr=True)
        self._quiet = quiet
        self._bar = _bar(console) if console.is_terminal and not quiet else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, facts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, told: str) -> None:
        """Print a line of its own."""
        if self._bar:
            self._bar.console.print(told, highlight=False, soft_wrap=True)
        else:
            print(told, file=sys.stderr, flush=True)

    def advance(self, by: int, /, **facts: str) -> None:
        """Count `by` more units done and show `facts` beside them."""
        self._done += by
        told = "  ".join(f"{name} {value}" for name, value in facts.items())
        if self._bar:
            self._bar.update(self._task, completed=self._done, facts=told)
        elif not self._quiet and (self._done >= self._total or time.monotonic() - self._spoke > QUIET_SECONDS):
            self._spoke = time.monotonic()
            print(f"{self._title} {self._done}/{self._total}  {told}".rstrip(), file=sys.stderr, flush=True)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
