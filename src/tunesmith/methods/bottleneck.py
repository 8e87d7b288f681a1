"""Bottleneck adapters: small networks inside the blocks, hung onto the layers that the base already has."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.method import Bottleneck
from tunesmith.methods.evidence import Evidence
from tunesmith.methods.selective import innermost
from tunesmith.models.fit import Fit
from tunesmith.models.load import Model

WEIGHTS = "weights.safetensors"
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}
# The layers whose output goes back into the residual stream, and the MLPs, by the names that families give them.
AFTER_ATTENTION = (
    *("self_attn.o_proj", "SelfAttention.o", "EncDecAttention.o"),
    *("attention.dense", "attn.c_proj", "self_attn.out_proj", "self_attn.dense", "encoder_attn.out_proj"),
)
AFTER_MLP = ("mlp.down_proj", "DenseReluDense.wo", "mlp.dense_4h_to_h", "mlp.c_proj", ".fc2")
MLP = (".mlp", ".DenseReluDense")
PLACES = {"houlsby": (*AFTER_ATTENTION, *AFTER_MLP), "pfeiffer": AFTER_MLP, "parallel": MLP}


class Waist(nn.Module):
    """Down [width, hidden], a non-linearity, up [hidden, width]; up starts at zero."""

    def __init__(self, hidden: int, method: Bottleneck) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(hidden, method.width), nn.Linear(method.width, hidden)
        self.activation = ACTIVATIONS[method.activation]()
        nn.init.normal_(self.down.weight, std=hidden**-0.5)
        for zeros in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zeros)

    def forward(self, x: Tensor) -> Tensor:
        """Give what is added for `x` [..., hidden]."""
        found: Tensor = self.up(self.activation(self.down(x)))
        return found


class Waists(Fit):
    """The small networks of one adapter, each a hook on the layer whose output it adds to."""

    def __init__(self, net: PreTrainedModel, name: str, method: Bottleneck) -> None:
        self.net, self.name, self.method = net, name, method
        self.strength = 1.0
        self.parts = {path: Waist(int(net.config.hidden_size), method) for path in places(net, method)}
        self._layers = [innermost(net, path) for path in self.parts]
        pairs = zip(self._layers, self.parts.values(), strict=True)
        self._hooks = [self._hang(layer, part) for layer, part in pairs]

    def write(self, folder: Path, base: str) -> None:
        """Write the small networks under the paths of their layers."""
        save_file(self.weights(), folder / WEIGHTS)

    def settings(self) -> dict[str, Any]:
        """Give the shape of the small networks, their activation and their scale."""
        return self.method.model_dump(mode="json")

    def _set(self, strength: float) -> None:
        """Do nothing: the hooks look at the strength."""

    def remove(self) -> None:
        """Take the hooks and the small networks off."""
        for module, hook in zip(self._layers, self._hooks, strict=True):
            hook.remove()
            del module.bottleneck[self.name]
            if not len(module.bottleneck):
                del module.bottleneck

    def fill(self, saved: dict[str, Tensor]) -> None:
        """Take saved weights. Raises ModelError if they are of other layers."""
        own = self.weights()
        odd = sorted(own.keys() ^ saved.keys())
        if odd:
            raise ModelError(f"{self.name}: the adapter and the model differ at {odd[0]}", fix="train again")
        for weight, value in own.items():
            if value.shape != saved[weight].shape:
                raise ModelError(
                    f"{self.name}: {weight} is {list(saved[weight].shape)}, the model's is {list(value.shape)}",
                    fix="load it onto the model it was trained on",
                )
            value.copy_(saved[weight])

    def weights(self) -> dict[str, Tensor]:
        """Give those of the small networks, by the paths of their layers."""
        return {f"{path}.{key}": value for path, part in self.parts.items() for key, value in part.state_dict().items()}

    def _hang(self, layer: Any, part: Waist) -> Any:
        if not hasattr(layer, "bottleneck"):
            layer.bottleneck = nn.ModuleDict()
        layer.bottleneck[self.name] = part
        beside = self.method.placement == "parallel"

        def add(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self.strength:
                return output
            added: Tensor = part(given[0] if beside else output)
            return output + self.strength * self.method.scale * added

        return layer.register_forward_hook(add)


def prepare(model: Model, method: Bottleneck, name: str, seed: int, evidence: Evidence) -> Waists:
    """Freeze the network and hang fresh adapters into it."""
    model.net.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fit = Waists(model.net, name, method)
    for part in fit.parts.values():
        part.to(model.device, model.dtype.torch)
    return fit


def load(model: Model, method: Bottleneck, name: str, folder: Path) -> Waists:
    """Hang saved adapters into the network."""
    fit = prepare(model, method, name, 0, Evidence())
    try:
        fit.fill(load_file(folder / WEIGHTS))
    except ModelError:
        fit.remove()
        raise
    return fit


def places(net: PreTrainedModel, method: Bottleneck) -> Iterable[str]:
    """Name the layers that adapters are hung onto. Raises ModelError if the model has none that we know."""
    found = [name for name, _ in net.named_modules() if name.endswith(PLACES[method.placement])]
    lacking = method.placement == "houlsby" and not any(name.endswith(AFTER_ATTENTION) for name in found)
    if not found or lacking:
        part = "attention" if lacking else "block"
        raise ModelError(
            f"bottleneck: does not know where the {part} of a {net.config.model_type} model ends",
            fix="-s method.name=lora",
        )
    return found
