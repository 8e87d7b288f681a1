"""AdamW on fp32 copies of the trainable weights, and the learning rate over time."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from tunesmith.errors import ConfigError
from tunesmith.recipe import Train


class MasterAdamW:
    """AdamW (Loshchilov and Hutter 2019) whose state and weights are fp32, whatever the network computes in.

    A bf16 weight has 8 bits of mantissa: an update smaller than 1/256 of it
    would be lost. The fp32 master takes every update, and the network gets it
    rounded. Gradients are summed in fp32 too, so that accumulating micro
    batches equals one large batch.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], train: Train) -> None:
        self.weights = [p for p in parameters if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.weights]
        self._sums = [torch.zeros_like(master) for master in self.masters]
        # Decay shrinks matrices; biases and norm scales have no reason to be near zero.
        decayed = [master for master in self.masters if master.ndim > 1]
        others = [master for master in self.masters if master.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": train.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=train.betas, fused=True)

    def collect(self) -> None:
        """Add the network's gradients to the fp32 sums, and free them."""
        for weight, total in zip(self.weights, self._sums, strict=True):
            if weight.grad is not None:
                total.add_(weight.grad)
                weight.grad = None

    def step(self, learning_rate: float, clip: float) -> float:
        """Clip the summed gradient, move the weights, and give the gradient's norm before clipping."""
        for master, total in zip(self.masters, self._sums, strict=True):
            master.grad = total
        norm = float(nn.utils.clip_grad_norm_(self.masters, clip, error_if_nonfinite=False))
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        if math.isfinite(norm):
            self._adamw.step()
        self._publish()
        return norm

    @torch.no_grad()
    def _publish(self) -> None:
        for weight, master, total in zip(self.weights, self.masters, self._sums, strict=True):
            if master is not weight:
                weight.copy_(master)
            master.grad = None
            total.zero_()


def learning_rate_at(step: int, steps: int, train: Train) -> float:
    """Give the learning rate of `step` (from 1) of `steps`: linear warm-up, then the schedule down to 0.

    The first step already moves and so does the last.
    """
    if train.learning_rate == "auto":
        raise ConfigError("the learning rate is still 'auto'", fix="resolve the recipe for its model first")
    peak = train.learning_rate
    warm = math.ceil(train.warmup * steps)
    if step <= warm:
        return peak * step / warm
    if train.schedule == "constant":
        return peak
    done = (step - warm - 1) / max(1, steps - warm)
    return peak * (1 - done if train.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))
