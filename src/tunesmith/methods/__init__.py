"""Methods: ways to move the weights, one file per family. `METHODS` is the one table of them.

The records, with their defaults, are in `tunesmith.method`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from tunesmith.models.quantize import packing_of  # first: peft, which others import, would import bitsandbytes aloud

# isort: split

from tunesmith.errors import ModelError
from tunesmith.method import Further, Qlora
from tunesmith.methods import bottleneck, full, further, lora, prompts, qlora, selective, sparse
from tunesmith.methods.evidence import Evidence
from tunesmith.models.fit import Fit
from tunesmith.models.load import Model
from tunesmith.names import pick


class Family(NamedTuple):
    """How a method begins on a model, and how what it has saved is put onto one."""

    prepare: Callable[[Model, Any, str, int, Evidence], Fit]
    load: Callable[[Model, Any, str, Path], Fit]


_FURTHER = Family(further.prepare, further.load)
_SELECTIVE = Family(selective.prepare, selective.load)
METHODS: dict[str, Family] = {
    "full": Family(full.prepare, full.load),
    "bitfit": _SELECTIVE,
    "norms": _SELECTIVE,
    "layers": _SELECTIVE,
    "sparse_mask": Family(sparse.prepare, sparse.load),
    "lora": Family(lora.prepare, lora.load),
    "qlora": Family(qlora.prepare, qlora.load),
    **dict.fromkeys(get_args(Further.model_fields["name"].annotation), _FURTHER),
    "ia3": _FURTHER,
    "prompt_tuning": Family(prompts.prepare_words, prompts.load_words),
    "p_tuning": Family(prompts.prepare_network, prompts.load_words),
    "prefix": Family(prompts.prepare_prefix, prompts.load_prefix),
    "bottleneck": Family(bottleneck.prepare, bottleneck.load),
}
TRAINED = "default"  # the name of the adapter that is being trained, PEFT's own


def prepare(model: Model, method: Any, seed: int, evidence: Evidence | None = None) -> Fit:
    """Make `model` trainable by `method`, in place: `requires_grad` marks what will learn.

    Random starts depend on `seed` alone. Raises ModelError if the model has
    nothing for the method to train.
    """
    family = pick(METHODS, method.name, "method")
    if model.fits:
        raise ModelError(f"the model has an adapter, '{next(iter(model.fits))}', already", fix=AGAIN)
    _refuse_packed(model, method)
    fit = family.prepare(model, method, TRAINED, seed, evidence or Evidence())
    fit.strength, fit.learns = 1.0, True
    model.fits[TRAINED] = fit
    return fit


def place_of_base(method: Any) -> torch.device | None:
    """Name the device that the base is loaded onto: where `method` packs it, the processor, which has room for it."""
    return torch.device("cpu") if isinstance(method, Qlora) else None


def load(model: Model, method: Any, folder: Path, name: str = TRAINED) -> Fit:
    """Put what `method` has saved in `folder` onto `model` under `name`, switched on and frozen.

    Others stay on, but for those that stand in the same places. Raises
    ModelError; the model is then as it was.
    """
    _check(model, name)
    _refuse_packed(model, method)
    before = {other: other.strength for other in model.fits.values()}
    for other in before:
        other.switch(0.0)  # what lies below is the base
    try:
        fit = pick(METHODS, method.name, "method").load(model, method, name, folder)
        model.net.requires_grad_(False)
        fit.strength, fit.among = 1.0, model.fits
        model.fits[name] = fit
    finally:
        new = model.fits.get(name)
        for other, strength in before.items():
            if strength and not (new and new.claims & other.claims):
                other.switch(strength)
    return fit


def _check(model: Model, name: str) -> None:
    """Refuse names that torch cannot give to a part of a network, and company for an adapter that learns."""
    if not name or "." in name or hasattr(torch.nn.ModuleDict, name):
        raise ModelError(f"an adapter cannot be called '{name}'", fix="use letters, digits, - and _")
    if any(fit.learns for fit in model.fits.values()):
        raise ModelError("an adapter is learning on this model, and must be alone on it", fix=AGAIN)


AGAIN = "load the model again"


def _refuse_packed(model: Model, method: Any) -> None:
    """Refuse a base in 4 bits to methods that train, or were trained on, dense weights."""
    if packing_of(model.net) and not isinstance(method, Qlora):
        raise ModelError(f"{method.name}: the base is in 4 bits", fix="load the model again, or -s method.name=qlora")
