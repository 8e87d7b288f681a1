"""Identity: everything besides a request that its answer depends on, as one hash.

Where something may have changed that no file tells of, there is none: weights
of unknown origin, and networks that learn or drop out. Configuration, numbers
taken from the weights in memory, libraries and hardware are part of it as
well: an answer never passes for that of another machine's arithmetic.
"""

import functools
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import torch

from tunesmith.models import device
from tunesmith.models.fit import canonical, raw
from tunesmith.models.load import Model
from tunesmith.models.provenance import tokenizer_sha256
from tunesmith.models.route import Names

LIBRARIES = ("torch", "transformers", "tokenizers", "peft")
SOURCES = ("inference", "models", "methods")  # what computes; a change of any of it may change an answer
SAMPLES = 64  # numbers taken from each weight
UNTOLD = {"_name_or_path", "transformers_version", "_commit_hash"}  # of a configuration: where and when, not what


def identities(model: Model, ids: Sequence[tuple[int, ...]], adapters: Names = None) -> list[bytes] | None:
    """Give for each prompt a hash of the model as it acts on it; None if its answers may not be kept.

    `adapters` names the one that each prompt is asked of, if they differ, as in `generate`.
    """
    if model.sha256 == "unknown" or model.net.training or any(fit.learns for fit in model.fits.values()):
        return None
    base = _base(model)
    virtual = {token: name for name, fit in model.fits.items() for token in fit.virtual}
    hashes: dict[Any, bytes] = {}
    found = []
    for i, tokens in enumerate(ids):
        asked = adapters[i] if adapters is not None else None
        used = frozenset(virtual[token] for token in tokens if token in virtual) if virtual else frozenset()
        key = (adapters is not None, asked, used)
        if key not in hashes:
            acting = _acting(model, asked, used)
            hashes[key] = hashlib.sha256(base + canonical([adapters is not None, acting])).digest()
        found.append(hashes[key])
    return found


def _acting(model: Model, asked: str | None, used: frozenset[str]) -> list[list[Any]]:
    """Describe the adapters that have a say in a prompt, in the order they sit in, by what they are and not by name."""
    return [
        [fit.sha256(), fit.strength, name == asked, fit.virtual[:1] if name in used else ()]
        for name, fit in model.fits.items()
        if fit.strength or name == asked or name in used
    ]


def _base(model: Model) -> bytes:
    told = [
        model.sha256,
        _plain(model.net.config),
        _plain(model.net.generation_config),
        tokenizer_sha256(model),
        device.dtype_name(model.dtype.torch),
        [model.device.type, device.device_name()],
        _arithmetic(),
    ]
    return hashlib.sha256(canonical(told) + _sampled(model)).digest()


def _plain(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in UNTOLD} if config is not None else {}


@torch.no_grad()
def _sampled(model: Model) -> bytes:
    """Hash some numbers of each of the base's weights as they are now: files do not tell what was done to them since.

    Not every change is seen, but no training passes unseen, as it moves all numbers of a weight.
    """
    names = set(model.fits) | {f"prefix_{name}" for name in model.fits}
    found = hashlib.sha256()
    tensors = [*model.net.named_parameters(), *model.net.named_buffers()]
    for path, value in tensors:
        if names.isdisjoint(path.split(".")) and value.device.type != "meta":
            flat = value.detach().reshape(-1)
            found.update(canonical([str(value.dtype), list(value.shape)]))
            found.update(raw(flat[:: max(1, len(flat) // SAMPLES)]))
    return found.digest()


@functools.cache
def _arithmetic() -> str:
    """Hash the source of what computes, and the versions of the libraries below it."""
    found = hashlib.sha256(canonical([[name, version(name)] for name in LIBRARIES]))
    for folder in SOURCES:
        for path in sorted(_modules(files("tunesmith") / folder), key=lambda path: path.name):
            found.update(canonical([folder, path.name, path.read_text(encoding="utf-8")]))
    return found.hexdigest()


def _modules(folder: Traversable) -> list[Traversable]:
    return [path for path in folder.iterdir() if path.name.endswith(".py")]
