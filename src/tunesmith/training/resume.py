"""Going on: what a checkpoint holds, and whether a run is still the one that was begun."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.config import Record
from tunesmith.errors import RunError
from tunesmith.models.fit import Fit
from tunesmith.models.saving import disk_errors
from tunesmith.runs import checkpoint
from tunesmith.runs.run import Run, differences
from tunesmith.training.loop import Past
from tunesmith.training.optimizer import MasterAdamW

OPTIMIZER = "optimizer.safetensors"
FIT = "method.safetensors"


class Begun(Record):
    """What is known once per run: the validation loss before it learned, and how often it has been resumed."""

    first_validation_loss: float | None = None
    resumes: int = 0


class Learning(NamedTuple):
    """What changes while a run learns: the method's weights on the network, and the optimizer with their masters."""

    fit: Fit
    optimizer: MasterAdamW


def save(run: Run, learning: Learning, step: int, begun: Begun) -> None:
    """Write the checkpoint of `step`: trainable weights in fp32, the optimizer's state and the logs.

    The frozen base is no part of it. Neither are random states: order, wordings
    and dropout are functions of the seed and the step. Raises FitError or RunError.
    """

    def fill(folder: Path) -> None:
        with disk_errors():
            save_file(learning.optimizer.state(), folder / OPTIMIZER)
            save_file({name: tensor.contiguous() for name, tensor in learning.fit.state().items()}, folder / FIT)
        run.copy_logs(folder)

    checkpoint.write(run.folder / "checkpoints", step, fill, begun.model_dump())


def method_state(found: checkpoint.Checkpoint | None) -> dict[str, Tensor]:
    """Give what the method needs to begin as it did; nothing if there is no checkpoint."""
    return load_file(found.folder / FIT) if found else {}


def restore(run: Run, optimizer: MasterAdamW, found: checkpoint.Checkpoint | None) -> Past:
    """Put weights, optimizer and logs back to where `found` has them; to the start if there is none."""
    if found is None:
        run.restore_logs(None)
        return Past()
    optimizer.restore(load_file(found.folder / OPTIMIZER))
    run.restore_logs(found.folder)
    return Past(run.steps(), run.troubles())


def refuse_changes(run: Run, asked: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    """Refuse to go on with another recipe, base, tokenizer, data or dtype, naming what differs. Raises RunError."""
    changed = differences(_learning(run.asked()), _learning(asked))
    if (run.folder / "provenance.json").is_file():
        changed += differences(_identity(run.provenance()), _identity(provenance))
    if changed:
        raise RunError(
            f"{run.folder}: was begun with another {changed[0]}"
            + (f" (and {len(changed) - 1} more)" if changed[1:] else ""),
            fix="go on with what it was begun with, or train into a new folder",
        )


def _learning(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what a training is asked that changes nothing in what it learns."""
    return {name: value for name, value in asked.items() if name != "track"}


def _identity(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Give what must not change between the start of a run and its resumption; where files lie may."""
    model = provenance.get("model", {})
    data = provenance.get("data", {})
    return {
        "dtype": provenance.get("dtype"),
        "model": {key: model.get(key) for key in ("sha256", "tokenizer_sha256", "prompting")},
        "data": {split: told.get("sha256") for split, told in data.items()},
    }
