"""Quantising: linear layers in 4 bits, packed by bitsandbytes (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

A weight becomes the nearest of 16 values, two to a byte, times the largest
magnitude of its block of 64 weights (section 3). Only the linear layers of the
blocks are packed: embeddings, head and norms stay as they are.
"""

import logging
import math
import sys
from collections.abc import Iterator
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.models.fused import Adapted

# Two weights to a byte. T5 casts what goes into its MLP to the type of the weights there, unless that is this one.
STORAGE = torch.int8


class Packing(NamedTuple):
    """How weights are packed: to the values of `nf4` or `fp4`; `double` packs the blocks' magnitudes too, in 8 bits."""

    quant: str
    double: bool

    def __str__(self) -> str:
        return f"{self.quant}{' with double quantisation' if self.double else ''}"


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
        setattr(net.get_submodule(parent), name, _packed(layers.pop(path), packing, device))
    net.to(device)


def packing_of(net: nn.Module) -> Packing | None:
    """Tell how the layers of `net` are packed; None if none is."""
    found = next(_states(net), None)
    return None if found is None else Packing(found.quant_type, bool(found.nested))


def frozen(layer: Any, dtype: torch.dtype) -> Adapted | None:
    """Give a linear layer, dense or packed, as our own products take it.

    None if there is more to it: a hook, a weight that learns, another dtype, or a layer of another kind.
    """
    if layer._forward_hooks or layer._forward_pre_hooks:
        return None
    if type(layer) is nn.Linear:
        return None if layer.weight.requires_grad or layer.weight.dtype != dtype else Adapted(layer.weight)
    state = _state(layer)
    if state is None or state.dtype != dtype:
        return None
    return Adapted(layer.weight, dense=partial(_unpacked, state))


def weights_in(stored: Tensor) -> int:
    """Count the weights in a tensor; a packed one has two in each of its elements."""
    state = getattr(stored, "quant_state", None)
    return stored.numel() if state is None else math.prod(state.shape)


@cache
def library() -> Any:
    """Import bitsandbytes, and give it; None where it is not installed.

    As it is imported, on some processors it fetches a kernel from a hub, or
    warns that it cannot; peft imports it for adapters of every kind. Both are kept from it here, which is
    why it is to be imported through this function, and before peft does so.
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


def _packed(dense: nn.Linear, packing: Packing, device: torch.device) -> nn.Linear:
    """Give the layer in 4 bits. Raises ModelError without bitsandbytes."""
    bitsandbytes = library()
    if bitsandbytes is None:
        raise ModelError("qlora: bitsandbytes is not installed", fix="pip install 'tunesmith[quant]'")
    how = {"compress_statistics": packing.double, "quant_type": packing.quant, "quant_storage": STORAGE}
    size = (dense.in_features, dense.out_features, dense.bias is not None)
    layer: Any = bitsandbytes.nn.Linear4bit(*size, compute_dtype=dense.weight.dtype, device="meta", **how)
    layer.weight = bitsandbytes.nn.Params4bit(dense.weight.data, requires_grad=False, **how).to(device)
    layer.bias = dense.bias
    # Without gradients, some processors would get a layout of the weight that is not undone, and gives no gradients.
    layer.support_avx512bf16_for_cpu = False
    found: nn.Linear = layer.train(dense.training)
    return found


def _unpacked(state: Any, weight: Tensor) -> Tensor:
    """Give the weight [out, in] as the products take it."""
    found: Tensor = library().functional.dequantize_4bit(weight, state)
    return found


def _state(layer: nn.Module) -> Any:
    """Give what bitsandbytes keeps beside a layer's packed weight; None if it has none of its own."""
    return getattr(layer._parameters.get("weight"), "quant_state", None)


def _states(net: nn.Module) -> Iterator[Any]:
    return (state for layer in net.modules() if (state := _state(layer)) is not None)
