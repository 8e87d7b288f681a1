"""Changes of weights put into a network, or written as a LoRA adapter."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.adapters.merge import low_rank
from tunesmith.errors import ModelError
from tunesmith.method import Lora
from tunesmith.methods.injected import WEIGHTS, task_type
from tunesmith.methods.plain import Factors
from tunesmith.models.fit import KEEP

BIASES = ("attention_bias", "mlp_bias")  # what configurations call the biases that their layers can have


@torch.no_grad()
def add(net: PreTrainedModel, deltas: Mapping[str, Tensor]) -> PreTrainedModel:
    """Add changes to the weights they name, in fp32, each then cast to the dtype it had; the others stay as they are.

    The network is changed in place, but for biases that it does not have and
    its architecture can: then one with biases is given. Raises ModelError for those that it cannot have.
    """
    lacking = [name for name in deltas if name not in dict(net.named_parameters(remove_duplicate=False))]
    net = _with_biases(net, lacking) if lacking else net
    for name, delta in deltas.items():
        weight = net.get_parameter(name)
        weight.data = (weight.data.float() + delta.to(weight.device)).to(weight.dtype)
    return net


def _with_biases(net: PreTrainedModel, lacking: list[str]) -> PreTrainedModel:
    """Give the same network with biases of zeros where its configuration can ask for them."""
    config = copy.deepcopy(net.config)
    for flag in BIASES:
        if getattr(config, flag, None) is False:
            setattr(config, flag, True)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    found: PreTrainedModel = auto.from_config(config, dtype=net.dtype)
    have = dict(found.named_parameters())
    odd = next((name for name in lacking if name not in have), None)
    if odd:
        raise ModelError(f"a {config.model_type} model has no place for {odd}", fix=KEEP)
    new = have.keys() - dict(net.named_parameters()).keys()
    found.load_state_dict({**net.state_dict(), **{name: torch.zeros_like(have[name]) for name in new}})
    found.generation_config = net.generation_config
    return found.to(net.device).eval()


def truncated(net: PreTrainedModel, deltas: Mapping[str, Tensor], rank: int) -> dict[str, Factors]:
    """Give the best factors of `rank` for each change, by layer. Raises ModelError for what is no linear layer's."""
    linear = _linear(net)
    found = {}
    for name, delta in deltas.items():
        path, _, kind = name.rpartition(".")
        if path not in linear or kind != "weight":
            raise ModelError(f"a LoRA adapter cannot hold a change of {name}", fix="--how sum makes a model of it")
        across = isinstance(linear[path], Conv1D)  # which keeps its weight as [in, out]
        found[path] = low_rank(delta.T if across else delta, rank)
    return found


def write_lora(folder: Path, net: PreTrainedModel, factors: Mapping[str, Factors], base: str) -> Lora:
    """Write factors, by layer, as an adapter in PEFT's format that adds their product as it is; give its record."""
    ranks = {path: one.down.shape[0] for path, one in factors.items()}
    highest = max(ranks.values())
    other = {path: rank for path, rank in ranks.items() if rank != highest}
    names = _names(net, factors)
    config = LoraConfig(
        task_type=task_type(net),
        r=highest,
        lora_alpha=highest,  # a scaling of 1: the factors hold it all
        target_modules=list(names),
        rank_pattern=other,
        alpha_pattern=other,
        fan_in_fan_out=any(isinstance(_linear(net)[path], Conv1D) for path in factors),
        base_model_name_or_path=base,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    weights = {f"base_model.model.{path}.lora_A.weight": one.down.contiguous() for path, one in factors.items()}
    weights |= {f"base_model.model.{path}.lora_B.weight": one.up.contiguous() for path, one in factors.items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    return Lora(rank=highest, alpha=highest, targets=names, ranks=other)


def _names(net: PreTrainedModel, factors: Mapping[str, Factors]) -> tuple[str, ...]:
    """Name the layers by their last names where those mean no others, and else by their paths."""
    last = {path.rpartition(".")[2] for path in factors}
    meant = {path for path in _linear(net) if path.rpartition(".")[2] in last}
    return tuple(sorted(last if meant == factors.keys() else factors))


def _linear(net: PreTrainedModel) -> dict[str, Any]:
    return {path: one for path, one in net.named_modules() if isinstance(one, (nn.Linear, Conv1D))}
