"""Adapters that `peft` injects into the network's layers: placed, saved, read, switched and taken off."""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.errors import ModelError
from tunesmith.method import GROUPS
from tunesmith.methods import plain
from tunesmith.models.fit import KEEP, Fit, whole_or_nothing
from tunesmith.names import suggest

WEIGHTS = "adapter_model.safetensors"
ELSEWHERE = {"base_model_name_or_path", "revision", "inference_mode", "peft_version"}  # says nothing about the effect
# What changes more than the layers' weights, or only some of the tokens: read without it, the adapter would be another.
ODD = {
    "modules_to_save": "trains whole modules besides",
    "trainable_token_indices": "trains single words of the vocabulary",
    "target_parameters": "adapts parameters that are no layers",
    "layer_replication": "repeats layers of the base",
    "alora_invocation_tokens": "is switched on by words in the prompt",
    "arrow_config": "routes between several adapters",
    "use_bdlora": "has block-diagonal factors",
    "use_qalora": "pools its inputs",
    "velora_config": "compresses its inputs",
    "monteclora_config": "draws its weights at random",
    "kasa_config": "has singular values of its own",
    "megatron_config": "belongs into Megatron",
}


class Injected(Fit):
    """An adapter of peft's in the network's layers; `tuner` is peft's own object around the network."""

    def __init__(self, tuner: PeftModel, name: str) -> None:
        self.tuner, self.name = tuner, name
        layers = self.own().values()
        self.claims = frozenset(f"peft: {path}" for path in self.own())
        # DoRA's magnitudes do not shrink with the update: it is on or off.
        linear = [layer for layer in layers if name not in getattr(layer, "lora_variant", ())]
        self._scaling = {layer: layer.scaling[name] for layer in linear if name in _scaling_of(layer)}
        moving = plain.moves_the_base(tuner.peft_config[name])
        self._start = plain.begun(self.own().items(), name) if moving else {}

    @property
    def net(self) -> PreTrainedModel:
        """The network it sits on."""
        found: Any = self.tuner.base_model.model
        return found

    def write(self, folder: Path, base: str) -> None:
        """Write PEFT's two files; one that has moved the base's weights is written as what it changed of them."""
        config = self.tuner.peft_config[self.name]
        weights = self.weights()
        if self._start:
            config = plain.doubled(config)
            weights = plain.converted(weights, self.own(), self._start, self.name)
        config.base_model_name_or_path = base
        config.inference_mode = True
        config.save_pretrained(str(folder))
        save_file({key: value.contiguous() for key, value in weights.items()}, folder / WEIGHTS, {"format": "pt"})

    def weights(self) -> dict[str, Tensor]:
        """Give what PEFT saves of it."""
        found: dict[str, Tensor] = get_peft_model_state_dict(
            self.tuner, adapter_name=self.name, save_embedding_layers=False
        )
        return found

    def settings(self) -> dict[str, Any]:
        """Give PEFT's configuration, alpha and all, but not where the base was found."""
        told = self.tuner.peft_config[self.name].to_dict()
        return {key: value for key, value in told.items() if key not in ELSEWHERE}

    def _set(self, strength: float) -> None:
        """Scale the update where peft scales it; other methods are on or off."""
        on = strength > 0 if self._scaling else whole_or_nothing(self.name, strength)
        for layer in self.own().values():
            learning = [(p, p.requires_grad) for p in layer.parameters()]
            layer.enable_adapters(on)
            if on:
                layer.set_adapter([self.name])
            for p, was in learning:  # peft lets what it switches on learn
                p.requires_grad_(was)
            if layer in self._scaling:
                layer.scaling[self.name] = self._scaling[layer] * (strength or 1.0)

    def remove(self) -> None:
        """Take the adapter's weights off; layers without any other become what they were."""
        self.switch(0.0)
        on = {layer for layer in self.layers().values() if not layer.disable_adapters}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the one that peft makes active instead, which is not so
            self.tuner.base_model.delete_adapter(self.name)
        for layer in self.layers().values():
            if layer not in on:
                layer.enable_adapters(False)  # peft makes another one active
        for path, layer in list(self.net.named_modules()):
            if isinstance(layer, BaseTunerLayer) and not _names(layer):
                parent, _, last = path.rpartition(".")
                setattr(self.net.get_submodule(parent), last, layer.base_layer)
        if not self.layers() and hasattr(self.net, "peft_config"):
            del self.net.peft_config

    def deltas(self) -> dict[str, Tensor]:
        """Give what peft's own merge does to the weights, layer by layer; each is left as it was."""
        if self._start:
            raise ModelError(f"{self.name}: has moved the base's weights to begin with", fix="save it, and load that")
        shared = _shared(self.net)
        found: dict[str, Tensor] = {}
        for path, layer in self.own().items():
            if layer.get_base_layer().weight in shared:
                raise ModelError(f"{path}: is tied to another layer, which would change with it", fix=KEEP)
            found |= {f"{path}.{key}": delta for key, delta in _merged(layer, self.name).items()}
        return found

    def factors(self) -> dict[str, plain.Factors]:
        """Give the update of each layer by its path, scaling included. Raises ModelError if it is not plain LoRA."""
        found = {}
        for path, layer in self.own().items():
            odd = self.name not in getattr(layer, "lora_A", ()) or self.name in layer.lora_variant
            if odd or layer.lora_bias.get(self.name):
                raise ModelError("only plain LoRA has two factors to take on", fix="--how sum, or --how svd")
            up, down = plain.factors_of(layer, self.name)
            found[path] = plain.Factors(self._scaling[layer] * up, down)
        return found

    def layers(self) -> dict[str, Any]:
        """Give peft's layers on the network by their paths, those of other adapters among them."""
        return {path: layer for path, layer in self.net.named_modules() if isinstance(layer, BaseTunerLayer)}

    def own(self) -> dict[str, Any]:
        """Give those of peft's layers that this adapter has weights in."""
        return {path: layer for path, layer in self.layers().items() if self.name in _names(layer)}


def inject(net: PreTrainedModel, config: PeftConfig, name: str, seed: int = 0) -> Injected:
    """Freeze the network and put an adapter into it, in the dtype of the weights it sits on.

    The optimizer keeps fp32 copies; computing in the base's dtype saves a cast
    of every activation. Random starts depend on `seed` alone.
    """
    net.requires_grad_(False)
    device = net.device
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of several adapters on one network, which is what we want
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about a name that peft uses
        torch.manual_seed(seed)
        try:
            tuner = PeftModel(net, config, adapter_name=name, autocast_adapter_dtype=False)
        except ValueError as wrong:
            raise ModelError(f"peft cannot put {config.peft_type} onto this model: {wrong}", fix=FIX) from wrong
    fit = Injected(tuner, name)
    dtype = net.get_input_embeddings().weight.dtype
    for parameter_name, parameter in net.named_parameters():
        if parameter.requires_grad and name in parameter_name:
            parameter.data = parameter.data.to(device, dtype)
    return fit


FIX = "change method.targets or method.options"


def read(net: PreTrainedModel, folder: Path, name: str, config: PeftConfig | None = None) -> Injected:
    """Put a saved adapter onto the network. Raises ModelError if it was made for other layers."""
    config = config or PeftConfig.from_pretrained(str(folder))
    if plain.moves_the_base(config):
        raise ModelError(
            f"{folder}: belongs on a base that its init '{config.init_lora_weights}' has changed",
            fix="save it as a plain LoRA (peft's path_initial_model_for_weight_conversion), or train again",
        )
    config.inference_mode = True
    if isinstance(getattr(config, "init_lora_weights", None), str):
        config.init_lora_weights = True  # the start is about to be written over
    fit = inject(net, config, name)
    try:
        _fill(fit, folder)
    except ModelError:
        fit.remove()
        raise
    fit.switch(1.0)
    return fit


def _fill(fit: Injected, folder: Path) -> None:
    """Give an adapter its saved weights: all of them, and nothing else. Raises ModelError."""
    saved, name = load_file(folder / WEIGHTS), fit.name
    own = fit.tuner.base_model.prefix.partition("_")[0] + "_"
    odd = next((key for key in saved if f".{own}" not in key), None)
    if odd:
        raise ModelError(f"{folder}: holds {odd}, which is no part of an adapter", fix="take it out of the file")
    try:
        result = set_peft_model_state_dict(fit.tuner, saved, adapter_name=name)
    except RuntimeError as wrong:  # torch, of weights of another shape
        told = str(wrong).strip().splitlines()[-1].strip()
        raise ModelError(f"{folder}: {told}", fix="load it onto the model it was trained on") from wrong
    if result.unexpected_keys:
        odd = result.unexpected_keys[0]
        raise ModelError(f"{folder}: has weights for layers the model lacks: {odd}", fix="train again")
    # VeRA draws its two projections from a seed where they are not saved.
    lacking = [key for key in result.missing_keys if f".{name}." in f"{key}." and ".vera_" not in key]
    if lacking:
        raise ModelError(f"{folder}: has no weights for {lacking[0]}", fix="restore its files, or train again")


def targets(net: PreTrainedModel, asked: str | tuple[str, ...]) -> str | list[str]:
    """Name the layers to adapt: `all-linear` goes to PEFT as it is, groups become the names this model uses."""
    if asked == "all-linear":
        return "all-linear"
    have = {
        name.rpartition(".")[2] for name, module in net.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D))
    }
    names = GROUPS.get(asked, (asked,)) if isinstance(asked, str) else asked
    found = sorted(have & set(names))
    missing = [] if isinstance(asked, str) and asked in GROUPS else sorted(set(names) - have)
    if missing or not found:
        wrong = missing[0] if missing else str(asked)
        raise ModelError(
            f"method.targets: the model has no linear layer '{wrong}'",
            fix=suggest(wrong, {*have, *GROUPS, "all-linear"} - {wrong}),
        )
    return found


def task_type(net: PreTrainedModel) -> str:
    """Give PEFT's name for what the network does."""
    return "SEQ_2_SEQ_LM" if net.config.is_encoder_decoder else "CAUSAL_LM"


def _scaling_of(layer: Any) -> Any:
    return getattr(layer, "scaling", None) or {}


def _names(layer: Any) -> set[str]:
    """Name the adapters that have weights in this layer."""
    return {name for names in layer.adapter_layer_names for name in getattr(layer, names, {})}


def _shared(net: PreTrainedModel) -> set[Tensor]:
    """Give the weights that hang in more than one place."""
    every = [value for module in net.modules() for value in module._parameters.values() if value is not None]
    seen: set[Tensor] = set()
    return {value for value in every if value in seen or seen.add(value)}  # type: ignore[func-returns-value]


@torch.no_grad()
def _merged(layer: Any, name: str) -> dict[str, Tensor]:
    """Merge one layer, give by how much its weights have moved, in fp32, and put them back."""
    base = layer.get_base_layer()
    before = {key: value.data.clone() for key, value in base.named_parameters()}
    layer.merge(safe_merge=True, adapter_names=[name])
    after = {key: value.data for key, value in base.named_parameters()}
    layer.merged_adapters.clear()
    for key, value in base.named_parameters():
        value.data = before[key]
    return {key: after[key].float() - before[key].float() for key in before if not torch.equal(after[key], before[key])}
