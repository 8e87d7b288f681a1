"""Sparse tuning: a chosen share of the entries of the blocks' matrices learns; all others cannot move.

Which entries: to second order, moving entry i alone by d changes the loss by g_i d + h_i d^2 / 2, so the most that can
be gained is g_i^2 / (2 h_i). With the same curvature everywhere the best ones are those with the largest |g_i|, the
gradient summed over some batches (Fu et al. 2023, arXiv:2211.15583, section 4).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils import parametrize

from tunesmith.data.rows import draw
from tunesmith.errors import ModelError
from tunesmith.method import SparseMask
from tunesmith.methods.evidence import Evidence
from tunesmith.methods.selective import innermost, linear_layers, read_whole, write_whole
from tunesmith.models.fit import Fit
from tunesmith.models.load import Model

WEIGHTS = "sparse.safetensors"


class Entries(nn.Module):
    """Chosen entries of one weight: where they are (flat, [n]), what they are trained to, what the base has there."""

    def __init__(self, layer: nn.Linear, places: Tensor, values: Tensor | None = None) -> None:
        super().__init__()
        self.places = places.to(layer.weight.device, torch.long)
        weight = layer.weight.detach()
        self.base = weight.flatten()[self.places].clone()
        self.values = nn.Parameter(self.base.clone() if values is None else values.to(self.base))

    def forward(self, weight: Tensor) -> Tensor:
        """Give the weight [out, in] with the trained entries in it, in the base's own memory; only they get a gradient.

        A copy of every weight would be needed otherwise, once per pass.
        """
        found: Tensor = _Written.apply(self.values, weight, self.places)  # type: ignore[no-untyped-call]
        return found

    @torch.no_grad()
    def write(self, weight: Tensor, strength: float) -> None:
        """Put into the weight what lies `strength` of the way from the base's entries to the trained ones."""
        own, base = self.values.detach(), self.base
        between = own if strength == 1.0 else base
        if strength not in (0.0, 1.0):
            between = torch.lerp(base.float(), own.float(), strength).to(base.dtype)
        weight.data.view(-1).index_copy_(0, self.places, between)


class Sparse(Fit):
    """Entries of the base's own weights, written into them; what the base had there is kept and put back."""

    def __init__(self, model: Model, name: str, entries: Mapping[str, Entries], learns: bool) -> None:
        self.name, self.entries, self.learns = name, dict(entries), learns
        self.parts: dict[str, Any] = {path: innermost(model.net, path) for path in entries}
        self.claims = frozenset(f"{path}.weight" for path in entries)
        self.on = False
        self.switch(1.0)

    def write(self, folder: Path, base: str) -> None:
        """Write places and trained values; they are put onto the base they were trained on, so that this is exact."""
        write_whole(self.weights(), folder / WEIGHTS)

    def weights(self) -> dict[str, Tensor]:
        """Give places and trained values."""
        return self._tensors(torch.int32)

    def _set(self, strength: float) -> None:
        """Write the trained entries into the base's weights, the base's, or what lies between them."""
        for path, entries in self.entries.items():
            layer = self.parts[path]
            if self.on:
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
            entries.write(layer.weight, strength)
            if self.learns and strength == 1.0:
                parametrize.register_parametrization(layer, "weight", entries)
        self.on = self.learns and strength == 1.0

    def remove(self) -> None:
        """Put the base's entries back."""
        self.switch(0.0)

    def deltas(self) -> dict[str, Tensor]:
        """Give what is added to the weights, zeros where nothing was trained."""
        found = {}
        for path, entries in self.entries.items():
            delta = torch.zeros(self.parts[path].weight.numel(), device=entries.base.device)
            delta[entries.places] = entries.values.detach().float() - entries.base.float()
            found[f"{path}.weight"] = delta.view(self.parts[path].weight.shape)
        return found

    def state(self) -> dict[str, Tensor]:
        """Give the places."""
        return {key: value for key, value in self._tensors(torch.long).items() if key.endswith(".places")}

    def _tensors(self, kind: torch.dtype) -> dict[str, Tensor]:
        return {
            **{f"{path}.places": entries.places.to(kind) for path, entries in self.entries.items()},
            **{f"{path}.values": entries.values.detach() for path, entries in self.entries.items()},
        }


def prepare(model: Model, method: SparseMask, name: str, seed: int, evidence: Evidence) -> Sparse:
    """Freeze the network and let the best `share` of the entries of its blocks' matrices learn.

    Raises ModelError if there is no training to look at, where the score needs one.
    """
    model.net.requires_grad_(False)
    layers: dict[str, Any] = {path: model.net.get_submodule(path) for path in linear_layers(model.net)}
    if not layers:
        raise ModelError("sparse_mask: the blocks of this model have no linear layers", fix="-s method.name=layers")
    chosen = _places(evidence) or _chosen(layers, method, seed, evidence)
    return Sparse(model, name, {path: Entries(layers[path], places) for path, places in chosen.items()}, learns=True)


def load(model: Model, method: SparseMask, name: str, folder: Path) -> Sparse:
    """Write saved entries into the network's weights. Raises ModelError if they are of other layers."""
    saved = read_whole(folder / WEIGHTS)
    entries = {}
    for path in (key.removesuffix(".places") for key in saved if key.endswith(".places")):
        layer, places, values = innermost(model.net, path), saved[f"{path}.places"], saved.get(f"{path}.values")
        if values is None or len(values) != len(places) or (len(places) and int(places.max()) >= layer.weight.numel()):
            raise ModelError(f"{folder}: the entries of {path} are not this model's", fix=RESTORE)
        entries[path] = Entries(layer, places, values)
    return Sparse(model, name, entries, learns=False)


RESTORE = "restore its files, or train again"


def _places(evidence: Evidence) -> dict[str, Tensor]:
    """Give the places with which a run began that now goes on: another machine might choose otherwise."""
    return {key.removesuffix(".places"): places for key, places in evidence.state.items()}


def _chosen(layers: Mapping[str, Any], method: SparseMask, seed: int, evidence: Evidence) -> dict[str, Tensor]:
    scores = _scores(layers, method, seed, evidence)
    return best(scores, method.share) if method.scope == "tensor" else best_of_all(scores, method.share)


class _Written(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        whole = weight.detach()
        whole.data.view(-1).index_copy_(0, places, values.detach())  # of `data`: an earlier pass may hold the weight
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return gradient.flatten()[places], None, None


def best(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Give the places [n] of the best `share` of each tensor, at least one, in order."""
    return {
        name: score.flatten().topk(max(1, round(share * score.numel()))).indices.sort().values
        for name, score in scores.items()
    }


def best_of_all(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Give the places of the best `share` of all tensors together, by name; some may get none.

    All scores in one sorted list would take several times the model's memory:
    the bar that `share` of them pass is searched by halving. As integers, the
    bits of floats that are not negative are in the same order, so the search ends exactly.
    """
    wanted = max(1, round(share * sum(score.numel() for score in scores.values())))
    bits = {name: score.flatten().float().view(torch.int32) for name, score in scores.items()}
    low, high = 0, 2**31 - 1
    while low < high:  # the highest bar that at least `wanted` reach
        bar = (low + high + 1) // 2
        low, high = (bar, high) if sum(int((one >= bar).sum()) for one in bits.values()) >= wanted else (low, bar - 1)
    left = wanted - sum(int((one > low).sum()) for one in bits.values())
    found = {}
    for name, one in bits.items():
        ties = (one == low).nonzero().flatten()[:left]  # of equal ones the first
        left -= len(ties)
        found[name] = torch.cat([(one > low).nonzero().flatten(), ties]).sort().values
    return found


def _scores(layers: Mapping[str, Any], method: SparseMask, seed: int, evidence: Evidence) -> dict[str, Tensor]:
    """Score every entry by what the method asks; higher is better, none is negative."""
    weights = {path: layer.weight for path, layer in layers.items()}
    if method.score == "magnitude":
        return {path: weight.detach().abs() for path, weight in weights.items()}
    if method.score == "random":
        return {path: _random(weight, seed, path) for path, weight in weights.items()}
    if evidence.gradients is None:
        raise ModelError(f"sparse_mask: no training rows to take the {method.score} from", fix="-s method.score=random")
    power = 1 if method.score == "gradient" else 2
    sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights.values()]
    for gradients in _gradients(list(weights.values()), method.batches, evidence):
        for total, gradient in zip(sums, gradients, strict=True):
            total.add_(gradient.float() ** power)
        del gradients  # or they would be held while the next are made
    return {path: total.abs_() for path, total in zip(weights, sums, strict=True)}


def _gradients(weights: list[nn.Parameter], batches: int, evidence: Evidence) -> Iterator[tuple[Tensor, ...]]:
    for weight in weights:
        weight.requires_grad_(True)
    assert evidence.gradients is not None  # noqa: S101 - the caller has refused that
    yield from evidence.gradients(weights, batches)
    for weight in weights:
        weight.requires_grad_(False)


def _random(weight: Tensor, seed: int, path: str) -> Tensor:
    generator = torch.Generator().manual_seed(int(draw(seed, path)[:15], 16))
    return torch.rand(weight.shape, generator=generator).to(weight.device)
