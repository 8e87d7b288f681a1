"""Selective tuning: some of the network's own weights learn, as copies beside the base's, which stay as they are."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.errors import ConfigError, ModelError
from tunesmith.method import BitFit, Layers, Norms
from tunesmith.methods.evidence import Evidence
from tunesmith.models.fit import Fit
from tunesmith.models.load import Model
from tunesmith.models.virtual import Words

WEIGHTS = "weights.safetensors"


class Slot(NamedTuple):
    """A weight of the network under its name: where it hangs (tied ones in several places), and the base's."""

    places: tuple[tuple[nn.Module, str], ...]
    base: nn.Parameter | None


class Overlay(Fit):
    """Weights that stand in for the base's own, which are kept and put back as they were."""

    def __init__(self, name: str, slots: dict[str, Slot], own: dict[str, Tensor]) -> None:
        self.name, self.slots = name, slots
        self.own = {weight: nn.Parameter(value) for weight, value in own.items()}
        self.claims = frozenset(slots)
        self.switch(1.0)

    def write(self, folder: Path, base: str) -> None:
        """Write the trained weights under the network's own names."""
        write_whole(self.weights(), folder / WEIGHTS)

    def weights(self) -> dict[str, Tensor]:
        """Give the trained weights under the network's own names."""
        return {weight: value.detach() for weight, value in self.own.items()}

    @torch.no_grad()
    def _set(self, strength: float) -> None:
        """Hang up the trained weights, the base's, or what lies between them."""
        for weight, slot in self.slots.items():
            for module, attribute in slot.places:
                module._parameters[attribute] = self._at(weight, slot, strength)

    def remove(self) -> None:
        """Hang the base's weights up again."""
        self.switch(0.0)

    def deltas(self) -> dict[str, Tensor]:
        """Give the trained weights less the base's; a bias that the base does not have counts as zeros."""
        own = {weight: value.detach().float() for weight, value in self.own.items()}
        bases = {weight: slot.base.detach().float() for weight, slot in self.slots.items() if slot.base is not None}
        return {weight: value - bases[weight] if weight in bases else value for weight, value in own.items()}

    def _at(self, weight: str, slot: Slot, strength: float) -> nn.Parameter | None:
        own = self.own[weight]
        if strength in (0.0, 1.0):
            return own if strength else slot.base
        below = torch.zeros_like(own) if slot.base is None else slot.base
        return nn.Parameter(torch.lerp(below.float(), own.float(), strength).to(own.dtype), requires_grad=False)


def prepare(model: Model, method: BitFit | Norms | Layers, name: str, seed: int, evidence: Evidence) -> Overlay:
    """Freeze the network and let copies of the chosen weights learn. Raises ModelError if it has none."""
    model.net.requires_grad_(False)
    return _overlay(model.net, name, CHOOSE[method.name](model.net, method))


def load(model: Model, method: BitFit | Norms | Layers, name: str, folder: Path) -> Overlay:
    """Hang saved weights into the network. Raises ModelError if some are missing, or of another shape."""
    saved = read_whole(folder / WEIGHTS)
    for weight, value in saved.items():
        base = _slot(model.net, weight).base
        if base is not None and base.shape != value.shape:
            raise ModelError(
                f"{folder}: {weight} is {list(value.shape)}, the model's is {list(base.shape)}",
                fix="load it onto the model it was trained on",
            )
    fit = _overlay(model.net, name, saved)
    for weight, value in saved.items():
        fit.own[weight].data.copy_(value)
    return fit


def write_whole(weights: dict[str, Tensor], path: Path) -> None:
    """Write tensors into a safetensors file that says how many there are."""
    save_file({name: value.contiguous() for name, value in weights.items()}, path, {"tensors": str(len(weights))})


def read_whole(path: Path) -> dict[str, Tensor]:
    """Read what `write_whole` wrote. Raises ModelError if some of it is missing."""
    saved = load_file(path)
    with safe_open(path, "pt") as file:
        n = int((file.metadata() or {}).get("tensors", len(saved)))
    if len(saved) != n:
        raise ModelError(f"{path}: holds {len(saved)} of its {n} tensors", fix="restore its files, or train again")
    return saved


def _overlay(net: PreTrainedModel, name: str, weights: Iterable[str]) -> Overlay:
    slots = {weight: _slot(net, weight) for weight in weights}
    return Overlay(name, slots, {weight: _start(slot) for weight, slot in slots.items()})


def _slot(net: PreTrainedModel, weight: str) -> Slot:
    path, _, attribute = weight.rpartition(".")
    module = innermost(net, path)
    base = module._parameters.get(attribute)
    if base is None:
        return Slot(((module, attribute),), None)
    places = [(each, key) for each in net.modules() for key, value in each._parameters.items() if value is base]
    return Slot(tuple(places), base)


def innermost(net: nn.Module, path: str) -> Any:
    """Give the network's own module at `path`, below what adapters have put around it."""
    module: Any = net.get_submodule(path)
    while isinstance(module, (BaseTunerLayer, Words)):
        module = module.base if isinstance(module, Words) else module.base_layer
    return module


def _start(slot: Slot) -> Tensor:
    """Give a copy of the base's weight; zeros, one for each output, for a bias that it does not have."""
    if slot.base is not None:
        return slot.base.detach().clone()
    weight: Any = slot.places[0][0].weight
    found: Tensor = weight.new_zeros(len(weight))
    return found


def _biases(net: PreTrainedModel, method: BitFit) -> list[str]:
    found = [name for name, _ in net.named_parameters() if name.endswith(".bias")]
    if found or method.without == "refuse":
        if not found:
            raise ModelError(
                f"bitfit: a {net.config.model_type} model has no biases to train",
                fix="-s method.without=norms to train its norms, or -s method.without=add to add biases",
            )
        return found
    if method.without == "norms":
        return _norms(net, Norms())
    return [f"{name}.bias" for name in linear_layers(net)]


def _norms(net: PreTrainedModel, method: Norms) -> list[str]:
    return [
        f"{path}.{name}"
        for path, module in net.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
    ]


def _layers(net: PreTrainedModel, method: Layers) -> list[str]:
    names = [name for name, _ in net.named_parameters()]
    if method.pattern is None:
        starts = tuple(f"{path}.{i}." for path, n in stacks(net) for i in range(max(0, n - method.last), n))
        return [name for name in names if name.startswith(starts)]
    try:
        found = [name for name in names if re.search(method.pattern, name)]
    except re.error as wrong:
        raise ConfigError(f"method.pattern: is no regular expression: {wrong}", fix="mend it") from None
    if not found:
        raise ModelError(
            f"method.pattern: no weight of the model has '{method.pattern}' in its name",
            fix=f"names look like '{names[len(names) // 2]}'",
        )
    return found


def stacks(net: PreTrainedModel) -> list[tuple[str, int]]:
    """Name the lists of blocks, with their lengths: one for a decoder, two for an encoder-decoder."""
    lists = [(path, len(module)) for path, module in net.named_modules() if isinstance(module, nn.ModuleList)]
    return [(path, n) for path, n in lists if not any(path.startswith(f"{other}.") for other, _ in lists)]


def linear_layers(net: PreTrainedModel) -> list[str]:
    """Name the linear layers of the blocks."""
    starts = tuple(f"{path}." for path, _ in stacks(net))
    return [name for name, one in net.named_modules() if isinstance(one, nn.Linear) and name.startswith(starts)]


CHOOSE: dict[str, Any] = {"bitfit": _biases, "norms": _norms, "layers": _layers}
