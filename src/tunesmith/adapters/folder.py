"""Trained weights on disk: an adapter in PEFT's format, or a whole model folder, with where they came from.

Beside PEFT's own files lies `tunesmith.json`: the base model and its SHA-256,
the method and the wording. An adapter is never put onto another base. Folders
that peft or TRL have written have no such file, and are read by what their configuration says.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from tunesmith import methods
from tunesmith.adapters import foreign
from tunesmith.config import Record
from tunesmith.errors import ModelError
from tunesmith.method import Full, Method
from tunesmith.models.embedded import HUB_IDS
from tunesmith.models.fit import Fit
from tunesmith.models.load import Model, find, load, load_encoder
from tunesmith.models.saving import disk_errors
from tunesmith.names import suggest
from tunesmith.recipe import Recipe

ORIGIN = "tunesmith.json"


class Adapter(Record):
    """Trained weights and what they belong to; `folder` holds the files.

    `base_sha256` is None where nobody has written down which weights the base had.
    """

    folder: Path
    base: str
    base_sha256: str | None
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
    write_origin(adapter, aside)
    (aside / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return adapter


def write_origin(adapter: Adapter, folder: Path) -> None:
    """Write down in `folder` what the weights there belong to."""
    origin = adapter.model_dump(mode="json", exclude={"folder"})
    (folder / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")


def trained(target: Path) -> Adapter | None:
    """Find the trained weights in a training run, in an adapter's own folder, ours or peft's; None if it is neither.

    Raises ModelError for a run that has made nothing yet, and for what peft can have written but we cannot read.
    """
    if (target / ORIGIN).is_file():
        return _read_origin(target)
    if (target / foreign.CONFIG).is_file():
        print(f"{target}: was not written by tunesmith; nothing tells which weights its base had", file=sys.stderr)
        base, method = foreign.understand(target)
        settings = {"template": "any", "prompting": "auto", "dtype": "auto"}
        return Adapter(folder=target, base=base, base_sha256=None, method=method, **settings)
    return read(target) if (target / "recipe.yaml").is_file() or (target / "checkpoints").is_dir() else None


def read(run: Path) -> Adapter:
    """Find what a training run made. Raises ModelError if it has made nothing yet."""
    for name in ("adapter", "model"):
        folder = run / "checkpoints" / name
        if (folder / ORIGIN).is_file():
            return _read_origin(folder)
    raise ModelError(f"{run}: holds no trained weights", fix="train it first, or name the model itself")


def _read_origin(folder: Path) -> Adapter:
    values = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    return Adapter.parse({**values, "folder": folder}, where=str(folder / ORIGIN))


def load_trained(adapter: Adapter, dtype: str | None = None, strength: float = 1.0) -> Model:
    """Load the base model with the trained weights on it, `strength` of their effect.

    Raises ModelError if the base that is found now is not the one trained on,
    or if the effect cannot be scaled.
    """
    if isinstance(adapter.method, Full):
        if strength != 1.0:
            raise ModelError(f"{adapter.folder}: is a model, not an adapter, and has no strength", fix="leave it out")
        place = find(str(adapter.folder))
        return load(place, load_encoder(place, adapter.prompting), dtype or adapter.dtype)
    model = load_base(adapter, dtype)
    fit = methods.load(model, adapter.method, adapter.folder)
    if strength != 1.0:
        fit.switch(strength)
    return encoding_for(model, fit) if strength else model


def load_base(adapter: Adapter, dtype: str | None = None) -> Model:
    """Load the model that an adapter belongs to. Raises ModelError if it has changed since."""
    place = find(adapter.base)
    encoder = load_encoder(place, adapter.prompting)
    model = load(place, encoder, dtype or adapter.dtype, methods.place_of_base(adapter.method))
    if adapter.base_sha256 not in (None, model.sha256):
        raise ModelError(
            f"{adapter.folder}: was trained on {adapter.base} {str(adapter.base_sha256)[:12]}, "
            f"but {adapter.base} is now {model.sha256[:12]}",
            fix="restore the base model it was trained on, or train again",
        )
    return model


def attach(model: Model, adapter: Adapter, name: str) -> Fit:
    """Put an adapter onto a loaded model, switched on, beside those that are there; `model.fits[name]` is it.

    Raises ModelError if the name is taken, or if the adapter was trained on another base.
    """
    if name in model.fits:
        raise ModelError(f"the model has an adapter '{name}' already", fix="detach it first, or choose another name")
    known = adapter.base_sha256 is not None
    if adapter.base_sha256 != model.sha256 if known else adapter.base != model.name:
        raise ModelError(
            f"{adapter.folder}: was trained on {adapter.base} {str(adapter.base_sha256 or '')[:12]}, "
            f"but this model is {model.name} {model.sha256[:12]}",
            fix="load the model it was trained on",
        )
    return methods.load(model, adapter.method, adapter.folder, name)


def detach(model: Model, name: str) -> None:
    """Take an adapter off a loaded model; the others stay. Raises ModelError if there is none of that name."""
    if name not in model.fits:
        raise ModelError(f"there is no adapter '{name}' on this model", fix=suggest(name, model.fits))
    model.fits.pop(name).remove()


def encoding_for(model: Model, fit: Fit) -> Model:
    """Give the model as one that puts an adapter's virtual tokens, if it has any, before every prompt."""
    return replace(model, encoder=replace(model.encoder, virtual=fit.virtual))


def size_bytes(folder: Path) -> int:
    """Give the bytes of the weight files that would be handed to someone else."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".safetensors")
