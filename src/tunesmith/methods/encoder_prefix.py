"""A prefix for T5's encoder: trained keys and values where every layer looks at the prompt's virtual tokens.

They stand in the encoder's own attention and in the decoder's attention to it,
as in Li and Liang 2021 (arXiv:2101.00190, section 4.2). What a virtual token's
place computes besides is seen by nobody. PEFT's prefix for such models
does not reach the encoder, and its format has no place for one: the file is ours.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.method import Prefix
from tunesmith.methods.selective import innermost
from tunesmith.models import virtual
from tunesmith.models.fit import Fit, whole_or_nothing
from tunesmith.models.load import Model
from tunesmith.models.virtual import Table

WEIGHTS = "prefix.safetensors"


class EncoderPrefix(Fit):
    """Virtual tokens whose keys and values, `states` [tokens, width] by the layer that makes them, are trained."""

    def __init__(self, model: Model, name: str, states: dict[str, Tensor]) -> None:
        self.net, self.name = model.net, name
        self.claims = frozenset({"prefix"})
        tokens = len(next(iter(states.values())))
        zeros = Table(torch.zeros(tokens, model.width, dtype=model.dtype.torch, device=model.device))
        zeros.requires_grad_(False)
        self.virtual = virtual.ids(tokens, virtual.add_words(self.net, name, zeros, tokens))
        self.states = {path: nn.Parameter(state.to(model.device, model.dtype.torch)) for path, state in states.items()}
        self._layers = {path: innermost(self.net, path) for path in states}
        self._handles: list[RemovableHandle] = []
        self.switch(1.0)

    def write(self, folder: Path, base: str) -> None:
        """Write the keys and values under the names of the layers whose outputs they stand for."""
        save_file(self.weights(), folder / WEIGHTS)

    def weights(self) -> dict[str, Tensor]:
        """Give keys and values by the names of the layers whose outputs they stand for."""
        return {path: state.detach().contiguous() for path, state in self.states.items()}

    def _set(self, strength: float) -> None:
        """Put the trained states into the layers' outputs, or leave these alone."""
        on = whole_or_nothing(self.name, strength)
        while self._handles:
            self._handles.pop().remove()
        for path, state in self.states.items():
            layer = self._layers[path]
            # A module's own parameter, so that the optimizer and a count of parameters find it.
            layer.register_parameter(f"prefix_{self.name}", state if on else None)
            if on:
                self._handles.append(layer.register_forward_hook(_standing_in(state)))

    def remove(self) -> None:
        """Take states and virtual words off."""
        self.switch(0.0)
        for layer in self._layers.values():
            layer._parameters.pop(f"prefix_{self.name}", None)
        virtual.remove_words(self.net, self.name)


def prepare(model: Model, method: Prefix, name: str, ids: list[int]) -> EncoderPrefix:
    """Freeze the network; let keys and values learn, beginning as those of the words `ids`. Raises ModelError."""
    model.net.requires_grad_(False)
    words = torch.tensor([ids], device=model.device)
    start = torch.tensor([[model.net.config.decoder_start_token_id]], device=model.device)
    with torch.no_grad(), recorded(model.net) as states:
        model.net(input_ids=words, decoder_input_ids=start)
    return EncoderPrefix(model, name, states)


def load(model: Model, name: str, folder: Path) -> EncoderPrefix:
    """Put saved keys and values before those of the network. Raises ModelError if they are another network's."""
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{folder}: holds no {WEIGHTS}; peft's prefix for such models, of the decoder alone, is not read",
            fix="train a prefix here, or use it through peft",
        )
    saved = load_file(folder / WEIGHTS)
    if set(saved) != set(_layers(model.net)):
        raise ModelError(f"{folder}: its layers are not this model's", fix="load it onto the model it was trained on")
    return EncoderPrefix(model, name, saved)


def _layers(net: PreTrainedModel) -> list[str]:
    """Name the layers that make the keys and values of what the encoder has read. Raises ModelError if not T5's."""
    pattern = re.compile(r"(encoder\..*\.SelfAttention|decoder\..*\.EncDecAttention)\.[kv]")
    found = [path for path, _ in net.named_modules() if pattern.fullmatch(path)]  # peft's own end otherwise
    if not found:
        raise ModelError(
            f"prefix: the encoder of a {net.config.model_type} model takes no keys from outside",
            fix="-s method.name=prompt_tuning",
        )
    return found


@contextmanager
def recorded(net: PreTrainedModel) -> Iterator[dict[str, Tensor]]:
    """Collect what these layers give for the one row that is read meanwhile."""
    states: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        return lambda module, args, output: states.update({path: output[0].clone()})

    handles = [net.get_submodule(path).register_forward_hook(keep(path)) for path in _layers(net)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _standing_in(state: Tensor) -> Callable[..., Tensor]:
    """Make a hook that puts `state` [tokens, width] in the place of a layer's first outputs [rows, tokens, width]."""

    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.cat([state.expand(len(output), -1, -1), output[:, len(state) :]], 1)

    return hook
