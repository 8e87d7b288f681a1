"""Chains of small operations in few passes over memory, each with its backward written out.

On a processor an element-wise pass over a batch costs as much as a few
hundred thousand multiplications, and autograd keeps the result of each. These
functions give the same numbers as the chains they replace (`tests/models/
test_fused.py`), round once at the end, and keep what the backward needs.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

LOGITS = 1 << 20  # logits turned into probabilities at a time: 4 MB in fp32, which stay in the cache


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Give x / sqrt(mean(x^2) + eps) * weight over the last dimension (Zhang and Sennrich 2019, section 4)."""
    result: Tensor = _RmsNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return result


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn `x` [tokens, heads, width] by the angles of its positions, halves paired (RoPE as transformers lays it out).

    `cos` and `sin` are [tokens, width].
    """
    result: Tensor = _Rotate.apply(x, cos[:, None], sin[:, None])  # type: ignore[no-untyped-call]
    return result


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """Give silu(gate) * up (SwiGLU, Shazeer 2020)."""
    result: Tensor = _Gated.apply(gate, up)  # type: ignore[no-untyped-call]
    return result


def _as_it_is(weight: Tensor) -> Tensor:
    return weight


class Adapted(NamedTuple):
    """A frozen linear layer, `weight` [out, in], with its low-rank update, if any: `a` [rank, in], `b` [out, rank].

    `dense` makes [out, in] of a weight that is kept in another form; what it
    makes is not kept, but made again for the backward pass.
    """

    weight: Tensor
    a: Tensor | None = None
    b: Tensor | None = None
    scale: float = 1.0
    dense: Callable[[Tensor], Tensor] = _as_it_is


def low_rank(x: Tensor, layers: Sequence[Adapted], noise: Tensor | None = None) -> tuple[Tensor, ...]:
    """Give x W^T + scale (x * noise) A^T B^T for each of the layers that take `x`.

    The update is added before the product is rounded. Rounded first, a bf16
    result would swallow every update below 1/512 of it, and an adapter that
    has just begun would learn from a network that does not see it. Layers that
    share an input read it together, and add their gradients to one.
    """
    tensors = [tensor for layer in layers for tensor in layer[:3]]
    result: tuple[Tensor, ...] = _LowRank.apply(x, noise, [layer[3:] for layer in layers], *tensors)  # type: ignore[no-untyped-call]
    return result


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Give the summed cross-entropy in nats of `targets` [n] under `logits` [n, vocabulary], and that of each [n].

    Both are computed in fp32; only the sum passes gradients.

    `smoothing` spreads that share of each target over the whole vocabulary
    (Szegedy et al. 2016, section 7). The gradient is made with the loss, a few
    rows at a time, so that no fp32 copy of all logits is ever held.
    """
    total, each = _CrossEntropy.apply(logits, targets, smoothing)  # type: ignore[no-untyped-call]
    return total, each


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normal, inverse = _normalise(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return normal

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, inverse = ctx.saved_tensors
        of_x = _normalise_back(gradient, x, weight, inverse) if ctx.needs_input_grad[0] else None
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradient.float() * (x.float() * inverse)).flatten(0, -2).sum(0).to(weight.dtype)
        return of_x, of_weight, None


def _normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide = x.to(torch.float32, copy=True)
    inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square().div(x.shape[-1]).add(eps).rsqrt()
    return wide.mul_(inverse).mul_(weight).to(x.dtype), inverse


def _normalise_back(gradient: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """Give inverse * (g w - n mean(g w n)), where n = x * inverse."""
    normal = x.to(torch.float32, copy=True).mul_(inverse)
    scaled = gradient.to(torch.float32, copy=True).mul_(weight)
    along = torch.linalg.vecdot(scaled, normal)[..., None].div(-x.shape[-1])
    return scaled.addcmul_(normal, along).mul_(inverse).to(x.dtype)


class _Rotate(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn_back(gradient, cos, sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned


def _turn_back(gradient: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = gradient.shape[-1] // 2
    back = gradient * cos
    back[..., :half].addcmul_(gradient[..., half:], sin[..., half:])
    back[..., half:].addcmul_(gradient[..., :half], sin[..., :half], value=-1)
    return back


class _Gated(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _gate(gate, up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return _gate_back(gradient, *ctx.saved_tensors)


def _gate(gate: Tensor, up: Tensor) -> Tensor:
    return functional.silu(gate).mul_(up)


def _gate_back(gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Give the gradients of gate and up; silu is computed again, as keeping it would cost a fifth of the memory."""
    of_up = functional.silu(gate).mul_(gradient)
    return torch.ops.aten.silu_backward(gradient * up, gate), of_up


class _LowRank(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, noise: Tensor | None, settings: list[tuple[Any, ...]], *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        layers = _by_layer(tensors, settings)
        flat = x.reshape(-1, x.shape[-1])
        seen = flat if noise is None else flat * noise.view_as(flat)
        every = [layer.a for layer in layers if layer.a is not None]
        inner = iter(torch.split(torch.mm(seen, _stacked(every).t()), [len(a) for a in every], 1) if every else ())
        inners = [None if layer.a is None else next(inner) * layer.scale for layer in layers]
        ctx.save_for_backward(flat, noise, *tensors, *inners)
        ctx.settings = settings
        outputs = (_product(flat, layer, inner) for layer, inner in zip(layers, inners, strict=True))
        return tuple(output.view(*x.shape[:-1], output.shape[-1]) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, noise, *tensors = ctx.saved_tensors
        tensors, inners = tensors[: 3 * len(gradients)], tensors[3 * len(gradients) :]
        layers = _by_layer(tensors, ctx.settings)
        outer = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        updates = [
            (i, layer.a, layer.b) for i, layer in enumerate(layers) if layer.a is not None and layer.b is not None
        ]
        of_tensors: list[Tensor | None] = [None] * len(tensors)
        of_x: Tensor | None = None
        if updates:
            every = [a for _, a, _ in updates]
            of_inner = torch.cat([torch.mm(outer[i], b).mul_(layers[i].scale) for i, _, b in updates], 1)
            of_every = torch.mm(of_inner.t(), x if noise is None else x * noise.view_as(x))
            for (i, _, _), of_a in zip(updates, torch.split(of_every, [len(a) for a in every]), strict=True):
                of_tensors[3 * i + 1], of_tensors[3 * i + 2] = of_a, torch.mm(outer[i].t(), inners[i])
            if ctx.needs_input_grad[0]:
                of_x = torch.mm(of_inner, _stacked(every))
                of_x = of_x if noise is None else of_x.mul_(noise.view_as(of_x))
        if ctx.needs_input_grad[0]:
            for gradient, layer in zip(outer, layers, strict=True):
                weight = layer.dense(layer.weight)
                of_x = torch.mm(gradient, weight) if of_x is None else of_x.addmm_(gradient, weight)
        return of_x if of_x is None else of_x.view(*gradients[0].shape[:-1], -1), None, None, *of_tensors


def _by_layer(tensors: Sequence[Any], settings: Sequence[tuple[Any, ...]]) -> list[Adapted]:
    parts = zip(tensors[::3], tensors[1::3], tensors[2::3], settings, strict=True)
    return [Adapted(weight, a, b, *more) for weight, a, b, more in parts]


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _product(x: Tensor, layer: Adapted, inner: Tensor | None) -> Tensor:
    weight = layer.dense(layer.weight)
    if inner is None or layer.b is None:
        return torch.mm(x, weight.t())
    return torch.mm(inner, layer.b.t()).addmm_(x, weight.t())


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        n, words = logits.shape
        learns = ctx.needs_input_grad[0]
        gradient = torch.empty_like(logits) if learns else None
        each = torch.empty(n, dtype=torch.float32, device=logits.device)
        rows = min(n, max(1, LOGITS // words))
        # One piece of memory for all: a fresh one for each few rows costs more than the arithmetic in it.
        room = torch.empty(rows, words, dtype=torch.float32, device=logits.device)
        for start in range(0, n, rows):
            aim = targets[start : start + rows, None]
            part = room[: len(aim)].copy_(logits[start : start + rows])
            part -= part.amax(-1, keepdim=True)
            told = part.gather(1, aim)[:, 0]
            told = told.lerp(part.mean(-1), smoothing) if smoothing else told
            total = part.exp_().sum(-1, keepdim=True)
            each[start : start + rows] = total[:, 0].log() - told
            if gradient is not None:
                part.div_(total).scatter_add_(1, aim, part.new_full(aim.shape, smoothing - 1))
                gradient[start : start + rows] = part.sub_(smoothing / words) if smoothing else part
        ctx.save_for_backward(gradient)
        ctx.spent = False
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor, of_each: Tensor) -> tuple[Tensor, None, None]:
        if ctx.spent:
            raise RuntimeError("cross_entropy: the backward pass can run only once; it reuses its gradient's memory")
        ctx.spent = True
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(of_loss), None, None
