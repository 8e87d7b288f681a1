"""LoRA, through `peft`: low-rank updates injected into the network's linear layers."""

import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners import lora
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.errors import ModelError
from tunesmith.method import Lora
from tunesmith.methods.evidence import Evidence
from tunesmith.methods.injected import Injected, inject, read, targets, task_type
from tunesmith.models.fused import Adapted, low_rank
from tunesmith.models.load import Model
from tunesmith.models.quantize import frozen
from tunesmith.models.route import Route, current


def prepare(model: Model, method: Lora, name: str, seed: int, evidence: Evidence) -> Injected:
    """Freeze the network and inject fresh adapters. Raises ModelError if no layer has a targeted name."""
    return _mixing(inject(model.net, _fused(config(model.net, method)), name, seed))


def load(model: Model, method: Lora, name: str, folder: Path) -> Injected:
    """Put a saved adapter onto the network."""
    return _mixing(read(model.net, folder, name, _fused(PeftConfig.from_pretrained(str(folder)))))


def _mixing(fit: Injected) -> Injected:
    """Mark an adapter whose layers all take rows of several adapters in one batch."""
    fit.mixes = all(isinstance(layer, Linear) and layer.mixes(fit.name) for layer in fit.own().values())
    return fit


def _fused(settings: Any) -> Any:
    settings._register_custom_module({torch.nn.Linear: Linear})  # PEFT's own way to bring a layer
    return settings


class Linear(lora.Linear):  # type: ignore[misc]
    """PEFT's LoRA layer, with base and update as one product where nothing but the plain formula is asked."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Give the adapted layer's output [..., out] of `x` [..., in]."""
        route = current()
        if route is not None:
            return self._routed(x, route)
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
        base = self._base(x)
        if base is None or (self._drops() and not with_dropout):
            return None
        (name,) = self.active_adapters
        return base._replace(a=self.lora_A[name].weight, b=self.lora_B[name].weight, scale=self.scaling[name])

    def mixes(self, name: str) -> bool:
        """Tell whether rows asked of this adapter may share a batch with rows asked of others."""
        return name not in self.lora_variant and not self.lora_bias.get(name, False)

    def _routed(self, x: Tensor, route: Route) -> Tensor:
        """Give the output of `x` [rows, tokens, in], each row or token with the update of its own adapter."""
        update = x.new_zeros(*x.shape[:-1], self.out_features)
        for name, places in route.parts:
            if name in self.lora_A:
                inner = self.lora_A[name](x.index_select(route.dim, places)) * self.scaling[name]
                update.index_copy_(route.dim, places, self.lora_B[name](inner))
        base = frozen(self.base_layer, x.dtype)
        if base is None:
            return update.add_(self.base_layer(x))
        # As in `low_rank`: the update is added before the product is rounded.
        weight = base.dense(base.weight)
        output = update.view(-1, self.out_features).addmm_(x.reshape(-1, x.shape[-1]), weight.t()).view_as(update)
        return output if self.base_layer.bias is None else output.add_(self.base_layer.bias)

    def _drops(self) -> bool:
        return bool(self.training and getattr(self.lora_dropout[self.active_adapters[0]], "p", 0.0))

    def _base(self, x: Tensor) -> Adapted | None:
        """Give the frozen linear layer below, if one ordinary, unmerged adapter in the input's dtype sits on it."""
        active = self.active_adapters
        plain = (
            not (self.disable_adapters or self.merged)
            and len(active) == 1
            and active[0] in self.lora_A
            and active[0] not in self.lora_variant
            and not self.lora_bias.get(active[0], False)
            and x.dtype == self.lora_A[active[0]].weight.dtype
        )
        return frozen(self.base_layer, x.dtype) if plain else None


def config(net: PreTrainedModel, method: Lora) -> LoraConfig:
    """Write the method as PEFT's own configuration. Raises ModelError if a pattern of `ranks` meets no layer."""
    linear = [path for path, layer in net.named_modules() if isinstance(layer, (torch.nn.Linear, Conv1D))]
    for pattern in method.ranks:
        if not any(re.match(rf"(.*\.)?({pattern})$", path) for path in linear):
            fix = f"names look like '{linear[len(linear) // 2]}'"
            raise ModelError(f"method.ranks: no linear layer of the model is called '{pattern}'", fix=fix)
    return LoraConfig(
        task_type=task_type(net),
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=targets(net, method.targets),
        use_rslora=method.rslora,
        use_dora=method.dora,
        init_lora_weights=True if method.init == "default" else method.init,
        rank_pattern=dict(method.ranks),
    )
