"""Quantising: linear layers in 4 bits, packed by bitsandbytes (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

A weight becomes the nearest of 16 values, two to a byte, times the largest
magnitude of its block of 64 weights (section 3). Only the linear layers of the
blocks are packed: embeddings, head and norms stay as they are.
"""

import logging
import math
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.models.fused import Adapted, low_rank


def _library() -> Any:
    """Import bitsandbytes, and give it; None where it is not installed.

    As it is imported, on some processors it fetches a kernel from a hub, or
    warns that it cannot. It is kept from both, if this module comes before peft, which imports it too.
    """
    if find_spec("bitsandbytes") is None:
        return None
    told = logging.getLogger("bitsandbytes.backends.cpu.ops")
    before = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # type: ignore[assignment]
    told.disabled = True
    try:
        return import_module("bitsandbytes")
    finally:
        told.disabled = False
        del sys.modules["kernels"]
        if before is not None:
            sys.modules["kernels"] = before


BITSANDBYTES = _library()
BLOCK = 64  # weights that share a magnitude
# Two weights to a byte. T5 casts what goes into its MLP to the type of the weights there, unless that is this one.
STORAGE = torch.int8


def lacking() -> str:
    """Give the command that installs what packs weights; nothing where it is installed."""
    return "" if BITSANDBYTES is not None else "pip install 'tunesmith[quant]'"


class Packing(NamedTuple):
    """How weights are packed: to the values of `nf4` or `fp4`; `double` packs the blocks' magnitudes too, in 8 bits."""

    quant: str
    double: bool

    def __str__(self) -> str:
        return f"{self.quant}{' with double quantisation' if self.double else ''}"


class PackedLinear(nn.Linear):
    """A frozen linear layer in 4 bits: `weight` is bitsandbytes' `Params4bit`, two weights to an element.

    It stands for bitsandbytes' own layer, which on some processors gives no
    gradients once it has been asked without them (it lays its weight out anew,
    and never back), and takes magnitudes of the wrong block where the rows of a
    weight are not whole blocks. Here a weight is packed as rows of one block, and made
    dense for each product. Raises ModelError without bitsandbytes.
    """

    def __init__(self, dense: nn.Linear, packing: Packing, device: torch.device) -> None:
        if BITSANDBYTES is None:
            raise ModelError("qlora: bitsandbytes is not installed", fix="pip install 'tunesmith[quant]'")
        nn.Module.__init__(self)  # nn.Linear's own would make a dense weight
        self.in_features, self.out_features, self.packing = dense.in_features, dense.out_features, packing
        rows = dense.weight.data.reshape(-1, BLOCK if dense.weight.numel() % BLOCK == 0 else dense.weight.numel())
        how = {"compress_statistics": packing.double, "quant_type": packing.quant, "quant_storage": STORAGE}
        self.weight = BITSANDBYTES.nn.Params4bit(rows, requires_grad=False, **how).to(device)
        self.bias = dense.bias
        self.train(dense.training)

    @property
    def state(self) -> Any:
        """What bitsandbytes keeps beside the weight: the magnitudes, their own packing, the dtype."""
        return self.weight.quant_state  # type: ignore[attr-defined]

    def unpacked(self, weight: Tensor) -> Tensor:
        """Give `weight`, the layer's own, as it takes part in products: [out, in]."""
        found: Tensor = BITSANDBYTES.functional.dequantize_4bit(weight, self.state)
        return found.view(self.out_features, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        """Give the layer's output [..., out]."""
        (output,) = low_rank(input, [Adapted(self.weight, dense=self.unpacked)])
        return output if self.bias is None else output + self.bias


def quantize(net: PreTrainedModel, packing: Packing, device: torch.device) -> None:
    """Pack the linear layers of `net` in place, all but the head, and bring it to `device`.

    Each dense weight is let go of before the next is packed, and only what is
    packed stays on the device. Raises ModelError without bitsandbytes, or if there is no such layer.
    """
    head = net.get_output_embeddings()
    layers = {path: one for path, one in net.named_modules() if type(one) is nn.Linear and one is not head}
    if not layers:
        raise ModelError(f"a {net.config.model_type} model has no linear layers to pack", fix="-s method.name=lora")
    for path in list(layers):
        parent, _, name = path.rpartition(".")
        setattr(net.get_submodule(parent), name, PackedLinear(layers.pop(path), packing, device))
    net.to(device)


def packing_of(net: nn.Module) -> Packing | None:
    """Tell how the layers of `net` are packed; None if none is."""
    return next((layer.packing for layer in net.modules() if isinstance(layer, PackedLinear)), None)


def frozen(layer: Any, dtype: torch.dtype) -> Adapted | None:
    """Give a linear layer, dense or packed, as our own products take it.

    None if there is more to it: a hook, a weight that learns, another dtype, or a layer of another kind.
    """
    if layer._forward_hooks or layer._forward_pre_hooks:
        return None
    if type(layer) is nn.Linear:
        return None if layer.weight.requires_grad or layer.weight.dtype != dtype else Adapted(layer.weight)
    if not isinstance(layer, PackedLinear) or layer.state.dtype != dtype:
        return None
    return Adapted(layer.weight, dense=layer.unpacked)


def weights_in(stored: Tensor) -> int:
    """Count the weights in a tensor; a packed one has two in each of its elements."""
    state = getattr(stored, "quant_state", None)
    return stored.numel() if state is None else math.prod(state.shape)
