"""AdamW on fp32 copies of the trainable weights, and the learning rate over time."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from tunesmith.errors import ConfigError, RunError
from tunesmith.recipe import Train

_STATE = {"mean": "exp_avg", "square": "exp_avg_sq", "step": "step"}


class MasterAdamW:
    """AdamW (Loshchilov and Hutter 2019) whose state and weights are fp32, whatever the network computes in.

    A bf16 weight has 8 bits of mantissa: an update smaller than 1/256 of it
    would be lost. The fp32 master takes every update, and the network gets it
    rounded. Gradients are summed in fp32 too, so that accumulating micro
    batches equals one large batch. `factor` gives what a weight's learning
    rate is multiplied by.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        train: Train,
        factor: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        trained = {name: p for name, p in parameters if p.requires_grad}
        self.names = list(trained)
        self.weights = list(trained.values())
        # torch's fused kernel takes weights and moments as laid out alike; a checkpoint gives the latter back in order.
        self.masters = [p if p.dtype == torch.float32 else p.detach().float().contiguous() for p in self.weights]
        self._sums = [torch.zeros_like(master) for master in self.masters]
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, master in zip(self.names, self.masters, strict=True):
            # Decay shrinks matrices; biases and norm scales have no reason to be near zero.
            decay = train.weight_decay if master.ndim > 1 else 0.0
            groups.setdefault((decay, factor(name)), []).append(master)
        settings = [{"params": ours, "weight_decay": key[0], "factor": key[1]} for key, ours in groups.items()]
        self._adamw = torch.optim.AdamW(settings, lr=0.0, betas=train.betas, fused=True)

    def collect(self, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients, one for each of `weights`, to the fp32 sums.

        Raises RunError if no trainable weight has one: something between the
        weights and the loss has stopped passing gradients.
        """
        reached = [pair for pair in zip(self._sums, gradients, strict=True) if pair[1] is not None]
        if not reached:
            raise RunError(
                "no trainable weight received a gradient", fix="report this: the method and this model do not fit"
            )
        for total, gradient in reached:
            total.add_(gradient)  # type: ignore[arg-type]

    def norm(self) -> float:
        """Give the norm of the summed gradient."""
        return float(nn.utils.get_total_norm(self._sums))

    @torch.no_grad()
    def forget(self) -> None:
        """Drop the summed gradient; the weights stay as they are."""
        for total in self._sums:
            total.zero_()

    def step(self, learning_rate: float, clip: float, norm: float) -> None:
        """Clip the summed gradient, whose norm is `norm`, and move the weights by it."""
        for master, total in zip(self.masters, self._sums, strict=True):
            master.grad = total
        nn.utils.clip_grads_with_norm_(self.masters, clip, torch.tensor(norm))
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._adamw.step()
        self._publish()
        for master in self.masters:
            master.grad = None
        self.forget()

    def state(self) -> dict[str, Tensor]:
        """Give everything that the next step depends on: masters, moments and step counts, by weight name."""
        tensors = {f"master/{name}": master.detach() for name, master in zip(self.names, self.masters, strict=True)}
        for name, master in zip(self.names, self.masters, strict=True):
            for ours, theirs in _STATE.items():
                if master in self._adamw.state:
                    tensors[f"{ours}/{name}"] = self._adamw.state[master][theirs]
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` gave, and put the weights where it left them.

        Raises RunError if it is of other weights.
        """
        wanted = {f"master/{name}" for name in self.names}
        odd = sorted(wanted ^ {name for name in tensors if name.startswith("master/")})
        if odd:
            raise RunError(
                f"the checkpoint and the model differ in the weight {odd[0].removeprefix('master/')}",
                fix="go on with the versions of peft and transformers that began the run",
            )
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(tensors[f"master/{name}"])
            held = {theirs: tensors[f"{ours}/{name}"] for ours, theirs in _STATE.items() if f"{ours}/{name}" in tensors}
            if held:
                self._adamw.state[master] = {key: value.to(master.device).clone() for key, value in held.items()}
        self._publish()

    @torch.no_grad()
    def _publish(self) -> None:
        """Give the network its weights, rounded to its dtype."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            if master is not weight:
                weight.copy_(master)


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
