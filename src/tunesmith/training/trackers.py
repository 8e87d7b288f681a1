"""Exporters: a training's numbers as they come, shown in TensorBoard, MLflow, W&B or trackio.

They are mirrors of `steps.jsonl`, which is the truth. Each is a process of its
own that follows the file, so that nothing in somebody else's client can stop,
slow or change a run: no shared threads, signals, random state or terminal. It
ends when the trainer's end of its input closes, however the trainer ended.
"""

import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from filelock import FileLock

from tunesmith.errors import ConfigError
from tunesmith.runs.run import Run

PATIENCE_SECONDS = 10.0  # to bring the last numbers out when the run has ended
LOOK_SECONDS = 1.0  # between two looks at the log
PROJECT = "tunesmith"
# What tells a process that it is one of several: a mirror is none of them.
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Client(NamedTuple):
    """A tracker of `accelerate`: the module and package it needs, its class, and how it is told where a run belongs."""

    module: str
    package: str
    tracker: str
    options: Callable[[Run], dict[str, Any]]


TRACKERS: dict[str, Client] = {
    "tensorboard": Client(
        "tensorboard",
        "tensorboard",
        "TensorBoardTracker",
        lambda run: {"run_name": "tensorboard", "logging_dir": str(run.folder / "exports")},
    ),
    "mlflow": Client(
        "mlflow",
        "mlflow",
        "MLflowTracker",
        lambda run: {"experiment_name": PROJECT, "run_name": run.name},
    ),
    "wandb": Client("wandb", "wandb", "WandBTracker", lambda run: {"run_name": PROJECT, "name": run.name}),
    "trackio": Client("trackio", "trackio", "TrackioTracker", lambda run: {"run_name": PROJECT, "name": run.name}),
}


def check(names: Sequence[str]) -> None:
    """Refuse an exporter whose client is not installed. Raises ConfigError with the command that installs it."""
    for name in names:
        client = TRACKERS[name]
        if importlib.util.find_spec(client.module) is None:
            raise ConfigError(
                f"track: {name} needs the package '{client.package}', which is not installed",
                fix=f"pip install {client.package}",
            )


@contextmanager
def export(names: Sequence[str], run: Run, say: Callable[[str], None]) -> Iterator[None]:
    """Have the log of `run` mirrored by the exporters `names` inside the block.

    Each shows the run from its first step, also when it is resumed. At the end
    they get ten seconds to bring out what is left, none if it ends in an error.
    `say` is told which of them failed, and where its words are.
    """
    mirrors = [mirror for name in names if (mirror := _start(name, run, say))]
    try:
        yield
    except BaseException:
        _end(mirrors, 0.0, say)
        raise
    _end(mirrors, PATIENCE_SECONDS, say)


@dataclass(frozen=True)
class _Mirror:
    """A mirror's process, its input, whose end means that the training has ended, and the file its words go to."""

    name: str
    process: "subprocess.Popen[bytes]"
    input: IO[bytes]
    log: Path


def _start(name: str, run: Run, say: Callable[[str], None]) -> _Mirror | None:
    """Start a mirror; one that cannot be started is told, and the training goes without it."""
    log = run.folder / "exports" / f"{name}.log"
    settings = {key: value for key, value in os.environ.items() if key not in RANKS}
    command = [sys.executable, "-m", __name__, name, str(run.folder), str(os.getpid())]
    try:
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as words:
            # A session of its own: Ctrl-C in the terminal is the trainer's affair.
            process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                command, stdin=subprocess.PIPE, stdout=words, stderr=words, env=settings, start_new_session=True
            )
    except OSError as wrong:
        say(f"{name} cannot be started ({wrong}); steps.jsonl holds every step")
        return None
    return _Mirror(name, process, cast("IO[bytes]", process.stdin), log)


def _end(mirrors: Sequence[_Mirror], patience: float, say: Callable[[str], None]) -> None:
    """Close the mirrors' input, wait for them, and end those that do not end."""
    for mirror in mirrors:
        with suppress(OSError):  # it has died
            mirror.input.close()
    ends = time.monotonic() + patience
    for mirror in mirrors:
        try:
            code = mirror.process.wait(max(0.0, ends - time.monotonic()))
        except BaseException as wrong:  # impatience, or the user's
            mirror.process.kill()
            mirror.process.wait()
            if not isinstance(wrong, subprocess.TimeoutExpired):
                raise
            say(f"{mirror.name} did not take the last steps within {patience:g} s; steps.jsonl holds them all")
        else:
            if code:
                say(f"{mirror.name} failed, see {mirror.log}; steps.jsonl holds every step")


def numbers(step: Mapping[str, Any]) -> dict[str, float]:
    """Give what is exported of a line of the log, by its own names; losses of tasks as `task_losses/NAME`."""
    plain = {key: value for key, value in step.items() if isinstance(value, int | float) and key != "step"}
    speed = {"tokens_per_second": step["tokens"] / step["seconds"]} if step["seconds"] else {}
    return {**plain, **speed, **{f"task_losses/{task}": loss for task, loss in step.get("task_losses", {}).items()}}


def follow(log: Path, ended: Callable[[float], bool]) -> Iterator[Mapping[str, Any]]:
    """Give every whole line of `log` as it comes, until `ended(seconds)`, which may wait so long, says that none will.

    The file may not be there yet; once there, it only grows.
    """
    position = 0
    last = False
    while True:
        if log.is_file():
            with log.open("rb") as file:
                file.seek(position)
                more = file.read()
            whole = more[: more.rfind(b"\n") + 1]
            position += len(whole)
            yield from map(json.loads, whole.splitlines())
        if last:
            return
        last = ended(LOOK_SECONDS)


def mirror(name: str, run: Run, trainer: int, ended: Callable[[float], bool]) -> None:
    """Bring the settings and every step of `run` to one exporter, until the training has ended.

    `trainer` is the process that asked for it. A killed one may leave a mirror
    behind that has yet to begin, while a resumed run starts its own: they take
    turns, and one whose trainer is gone shows nothing.
    """
    from accelerate import PartialState, tracking

    PartialState(cpu=True)  # accelerate's trackers ask it which process they are in
    client = TRACKERS[name]
    own = run.folder / "exports" / name
    with FileLock(own.with_suffix(".lock")):
        if os.getppid() != trainer:
            return
        shutil.rmtree(own, ignore_errors=True)  # of an earlier start of this run: all is shown anew
        tracker = getattr(tracking, client.tracker)(**client.options(run))
        tracker.start()
        tracker.store_init_configuration(_flat(run.asked()))
        for step in follow(run.folder / "steps.jsonl", ended):
            tracker.log(numbers(step), step=step["step"])
        tracker.finish()


def _flat(values: Mapping[str, Any], name: str = "") -> dict[str, str | int | float | bool]:
    """Give nested settings as `train.epochs`: 1, the form that all clients take."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in values.items():
        full = f"{name}.{key}".strip(".")
        if isinstance(value, Mapping):
            found.update(_flat(value, full))
        else:
            found[full] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def _input_closed(seconds: float) -> bool:
    """Wait up to `seconds` for the trainer to close our input."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable)


if __name__ == "__main__":
    mirror(sys.argv[1], Run.open(Path(sys.argv[2])), int(sys.argv[3]), _input_closed)
