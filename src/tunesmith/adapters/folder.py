"""Trained weights on disk: an adapter in PEFT's format, or a whole model folder, with where they came from.

Beside PEFT's own files lies `tunesmith.json`: the base model and its SHA-256,
the method and the wording. An adapter is never put onto another base.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from tunesmith import methods
from tunesmith.config import Record
from tunesmith.errors import ModelError
from tunesmith.method import Full, Method
from tunesmith.models.embedded import HUB_IDS
from tunesmith.models.fit import Fit
from tunesmith.models.load import Model, find, load, load_encoder
from tunesmith.models.saving import disk_errors
from tunesmith.recipe import Recipe

ORIGIN = "tunesmith.json"


class Adapter(Record):
    """Trained weights and what they belong to; `folder` holds the files."""

    folder: Path
    base: str
    base_sha256: str
    method: Method
    template: str
    prompting: str
    dtype: str


def save(model: Model, recipe: Recipe, checkpoints: Path) -> Adapter:
    """Write what was trained into `checkpoints/adapter` or `checkpoints/model`, in one move.

    An earlier save is replaced only once the new one is whole.
    """
    folder = checkpoints / ("model" if isinstance(recipe.method, Full) else "adapter")
    aside = checkpoints / f".{folder.name}.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with disk_errors():
        model.fits[methods.TRAINED].write(aside, HUB_IDS.get(model.name, model.name))
    adapter = Adapter(
        folder=folder,
        base=model.name,
        base_sha256=model.sha256,
        method=recipe.method,
        template=recipe.template,
        prompting=recipe.prompting,
        dtype=recipe.dtype,
    )
    origin = adapter.model_dump(mode="json", exclude={"folder"})
    (aside / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
    (aside / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return adapter


def read(run: Path) -> Adapter:
    """Find what a training run made. Raises ModelError if it has made nothing yet."""
    for name in ("adapter", "model"):
        folder = run / "checkpoints" / name
        if (folder / ORIGIN).is_file():
            values = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
            return Adapter.parse({**values, "folder": folder}, where=str(folder / ORIGIN))
    raise ModelError(f"{run}: holds no trained weights", fix="train it first, or name the model itself")


def load_trained(adapter: Adapter, dtype: str | None = None) -> Model:
    """Load the base model with the trained weights on it.

    Raises ModelError if the base that is found now is not the one trained on.
    """
    whole = isinstance(adapter.method, Full)
    place = find(str(adapter.folder) if whole else adapter.base)
    encoder = load_encoder(place, adapter.prompting)
    model = load(place, encoder, dtype or adapter.dtype, methods.place_of_base(adapter.method))
    if whole:
        return model
    if model.sha256 != adapter.base_sha256:
        raise ModelError(
            f"{adapter.folder}: was trained on {adapter.base} {adapter.base_sha256[:12]}, "
            f"but {adapter.base} is now {model.sha256[:12]}",
            fix="restore the base model it was trained on, or train again",
        )
    return encoding_for(model, methods.load(model, adapter.method, adapter.folder))


def encoding_for(model: Model, fit: Fit) -> Model:
    """Give the model as one that puts an adapter's virtual tokens, if it has any, before every prompt."""
    return replace(model, encoder=replace(model.encoder, virtual=fit.virtual))


def size_bytes(folder: Path) -> int:
    """Give the bytes of the weight files that would be handed to someone else."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".safetensors")
