"""LoRA, through `peft`: low-rank updates injected into the network's linear layers."""

from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from torch import Tensor
from transformers import PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.models.fused import Adapted, low_rank
from tunesmith.names import suggest
from tunesmith.recipe import Lora

# The names that decoder and T5 families give to the same two groups of layers.
GROUPS = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "c_attn", "query_key_value", "q", "k", "v", "o"),
    "mlp": ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "c_fc", "wi", "wi_0", "wi_1", "wo"),
}


def prepare(net: PreTrainedModel, method: Lora, seed: int) -> None:
    """Freeze `net` and inject adapters, in the dtype of the weights they sit on.

    The optimizer keeps fp32 copies; computing in the base's dtype saves a cast
    of every activation. Raises ModelError if no layer has a targeted name.
    """
    net.requires_grad_(False)
    settings = config(net, method)
    settings._register_custom_module({torch.nn.Linear: Linear})  # PEFT's own way to bring a layer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, net)


class Linear(lora.Linear):  # type: ignore[misc]
    """PEFT's LoRA layer, with base and update as one product where nothing but the plain formula is asked."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Give the adapted layer's output [..., out] of `x` [..., in]."""
        parts = None if kwargs else self.adapted(x, with_dropout=True)
        if parts is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        dropout = self.lora_dropout[self.active_adapters[0]]
        noise = dropout(torch.ones_like(x)) if self._drops() else None
        (output,) = low_rank(x, [parts], noise)
        return output if self.base_layer.bias is None else output + self.base_layer.bias

    def adapted(self, x: Tensor, with_dropout: bool = False) -> Adapted | None:
        """Give base and update where nothing but the plain formula is asked of this layer for `x`."""
        if not self._plain(x) or (self._drops() and not with_dropout):
            return None
        (name,) = self.active_adapters
        return Adapted(self.base_layer.weight, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name])

    def _drops(self) -> bool:
        return bool(self.training and getattr(self.lora_dropout[self.active_adapters[0]], "p", 0.0))

    def _plain(self, x: Tensor) -> bool:
        """Tell whether one ordinary, unmerged adapter in the input's dtype sits on a frozen linear layer."""
        active = self.active_adapters
        return (
            not (self.disable_adapters or self.merged)
            and len(active) == 1
            and active[0] in self.lora_A
            and active[0] not in self.lora_variant
            and not self.lora_bias.get(active[0], False)
            and type(self.base_layer) is torch.nn.Linear
            and not (self.base_layer._forward_hooks or self.base_layer._forward_pre_hooks)
            and not self.base_layer.weight.requires_grad
            and x.dtype == self.lora_A[active[0]].weight.dtype == self.base_layer.weight.dtype
        )


def config(net: PreTrainedModel, method: Lora) -> LoraConfig:
    """Write the method as PEFT's own configuration."""
    return LoraConfig(
        task_type="SEQ_2_SEQ_LM" if net.config.is_encoder_decoder else "CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=targets(net, method.targets),
    )


def targets(net: PreTrainedModel, asked: str | tuple[str, ...]) -> str | list[str]:
    """Name the layers to adapt: `all-linear` goes to PEFT as it is, groups become the names this model uses."""
    if asked == "all-linear":
        return "all-linear"
    have = {name.rpartition(".")[2] for name, module in net.named_modules() if isinstance(module, torch.nn.Linear)}
    names = GROUPS.get(asked, (asked,)) if isinstance(asked, str) else asked
    found = sorted(have & set(names))
    missing = [] if isinstance(asked, str) and asked in GROUPS else sorted(set(names) - have)
    if missing or not found:
        wrong = missing[0] if missing else str(asked)
        raise ModelError(
            f"method.targets: the model has no linear layer '{wrong}'",
            fix=suggest(wrong, {*have, *GROUPS, "all-linear"}),
        )
    return found
