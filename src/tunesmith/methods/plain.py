"""PiSSA and OLoRA as plain LoRA: what such an adapter has changed, on the base as it was before it began.

Both begin by taking the product of their first factors out of the base's
weights, W' = W - s B0 A0, and train B and A on W'. What they have done to W is
s (B A - B0 A0): a plain LoRA of twice the rank, [B, -B0] and [A; A0] (peft's
conversion, and appendix C of the PiSSA paper, arXiv:2404.02948). B0 A0 is as large
as W itself, and two such products in bf16 would leave their rounding errors
behind; so the difference is taken in fp32 and factored anew.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

MOVING = ("pissa", "olora", "corda", "loftq", "lora_ga")  # peft's inits that change the base's weights


class Factors(NamedTuple):
    """A low-rank update: `up` [out, rank] times `down` [rank, in]."""

    up: Tensor
    down: Tensor


def moves_the_base(config: Any) -> bool:
    """Tell whether an adapter with this configuration changes the base's weights when it begins."""
    init = getattr(config, "init_lora_weights", None)
    return isinstance(init, str) and init.lower().startswith(MOVING)


def begun(layers: Iterable[tuple[str, Any]], name: str) -> dict[str, Factors]:
    """Keep the factors, in fp32, that the adapter begins with in the layers given by path."""
    return {path: factors_of(layer, name) for path, layer in layers if name in getattr(layer, "lora_A", ())}


def factors_of(layer: Any, name: str) -> Factors:
    """Give a copy of the factors of one of peft's LoRA layers, in fp32 and without its scaling."""
    up, down = layer.lora_B[name].weight, layer.lora_A[name].weight
    return Factors(up.detach().float().clone(), down.detach().float().clone())


def difference(now: Factors, before: Factors, rank: int) -> Factors:
    """Factor `now` minus `before` (up times down) into `rank` columns, those to spare zeros; exact up to rounding.

    By the QR of either side and the SVD of the small matrix between them.
    """
    left, inner_left = torch.linalg.qr(torch.cat([now.up, -before.up], 1))
    right, inner_right = torch.linalg.qr(torch.cat([now.down, before.down], 0).T)
    u, sizes, vt = torch.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    up, down = (left @ u) * sizes.sqrt(), sizes.sqrt()[:, None] * (vt @ right.T)
    spare = rank - len(sizes)
    return Factors(torch.nn.functional.pad(up, (0, spare)), torch.nn.functional.pad(down, (0, 0, 0, spare)))


def doubled(config: Any) -> Any:
    """Give the configuration of a plain LoRA of twice the rank, and twice alpha."""
    found = copy.copy(config)
    found.init_lora_weights = True
    found.r, found.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    found.rank_pattern = {key: 2 * rank for key, rank in config.rank_pattern.items()}
    found.alpha_pattern = {key: 2 * alpha for key, alpha in config.alpha_pattern.items()}
    return found


def converted(
    weights: Mapping[str, Tensor], layers: Mapping[str, Any], start: Mapping[str, Factors], name: str
) -> dict[str, Tensor]:
    """Give peft's weights of a plain LoRA of twice the rank; `layers` and `start` are by path.

    rsLoRA scales by alpha / sqrt(rank): with both doubled the factors take back its sqrt(2).
    """
    found = dict(weights)
    for path, before in start.items():
        layer = layers[path]
        key = f"base_model.model.{path}.lora_{{}}.weight"
        dtype = weights[key.format("A")].dtype
        up, down = difference(factors_of(layer, name), before, 2 * layer.r[name])
        over = layer.scaling[name] / _doubled_scaling(layer, name)
        found[key.format("A")], found[key.format("B")] = down.to(dtype), (over * up).to(dtype)
    return found


def _doubled_scaling(layer: Any, name: str) -> float:
    rank, alpha = 2 * layer.r[name], 2 * layer.lora_alpha[name]
    return float(alpha / math.sqrt(rank) if layer.use_rslora.get(name) else alpha / rank)
