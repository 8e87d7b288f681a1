"""The arithmetic of merging: several changes of one weight become one. Pure functions on tensors in fp32.

`deltas` are what adapters add to the same weight, all of one shape, and
`weights` how much of each is taken. As in peft's `merge_utils`, TIES and DARE trim and drop weight by weight.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith.data.rows import draw
from tunesmith.methods.plain import Factors


def weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Give the sum of the deltas, each times its weight."""
    total = weights[0] * deltas[0]
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        total = total + weight * delta
    return total


def ties(deltas: Sequence[Tensor], weights: Sequence[float], density: float) -> Tensor:
    """Trim, elect signs, and take the mean of those that agree (TIES, Yadav et al. 2023, arXiv:2306.01708, section 4).

    The sign of each number is that of the trimmed deltas' sum. The mean is over
    the adapters whose trimmed number has that sign; `weights` multiply what goes into it.
    """
    trimmed = torch.stack([trim(delta, density) for delta in deltas])
    sign = torch.where(trimmed.sum(0) >= 0, 1.0, -1.0)
    agrees = trimmed.sign() == sign
    weighted = trimmed * torch.tensor(weights, device=trimmed.device).view(-1, *[1] * (trimmed.dim() - 1))
    return (weighted * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def trim(delta: Tensor, density: float) -> Tensor:
    """Keep the share `density` of the numbers, those of the largest magnitude, and at least one; zero the others."""
    keep = max(1, int(density * delta.numel()))
    found = torch.zeros_like(delta).flatten()
    places = delta.abs().flatten().topk(keep).indices
    found[places] = delta.flatten()[places]
    return found.view_as(delta)


def dare(deltas: Sequence[Tensor], weights: Sequence[float], density: float, seed: int, name: str) -> Tensor:
    """Keep each number with probability `density`, divided by it, and sum (DARE, Yu et al. 2023, arXiv:2311.03099).

    The expected value is the weighted sum. What is dropped depends on (seed,
    name of the weight) alone, and for each adapter on its place in the order.
    """
    generator = torch.Generator().manual_seed(int(draw(seed, f"dare/{name}")[:15], 16))
    kept = [(torch.rand(delta.shape, generator=generator) < density).to(delta.device) for delta in deltas]
    return weighted_sum([delta * mask / density for delta, mask in zip(deltas, kept, strict=True)], weights)


def low_rank(delta: Tensor, rank: int) -> Factors:
    """Give the product of `rank` columns that is nearest to `delta` [out, in]: its truncated SVD (Eckart and Young).

    Each factor takes the root of the singular values. A small matrix gives as many as it has.
    """
    u, sizes, vt = torch.linalg.svd(delta, full_matrices=False)
    roots = sizes[:rank].sqrt()
    return Factors(u[:, :rank] * roots, roots[:, None] * vt[:rank])


def concatenated(factors: Sequence[Factors], weights: Sequence[float]) -> Factors:
    """Give factors whose product is the weighted sum of the products: side by side, their ranks added."""
    ups = [weight * one.up for one, weight in zip(factors, weights, strict=True)]
    return Factors(torch.cat(ups, 1), torch.cat([one.down for one in factors], 0))
