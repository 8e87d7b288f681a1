"""Each fused chain == the plain operations it replaces: values and gradients; and what rounding once is for."""

import pytest
import torch
from torch.nn import functional

from tunesmith.models import fused

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=GENERATOR).to(dtype).requires_grad_()


def check(ours, plain, *inputs):
    """Both functions agree on `inputs`, and on the gradient of each that has one."""
    outer = torch.randn_like(plain(*inputs))
    learned = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    torch.testing.assert_close(ours(*inputs), plain(*inputs), rtol=1e-5, atol=1e-5)
    for got, expected in zip(
        torch.autograd.grad(ours(*inputs), learned, outer),
        torch.autograd.grad(plain(*inputs), learned, outer),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 24), (5, 3, 8)], ids=["states", "heads"])
def test_rms_norm(shape):
    def plain(x, weight):
        return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-2)

    check(lambda x, weight: fused.rms_norm(x, weight, 1e-2), plain, normal(*shape), normal(shape[-1]))


def test_rotation():
    angles = torch.rand(7, 4) * 6
    cos, sin = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))

    def plain(x):
        half = torch.cat([-x[..., 4:], x[..., :4]], -1)
        return x * cos[:, None] + half * sin[:, None]

    check(lambda x: fused.rotate(x, cos, sin), plain, normal(7, 3, 8))


def test_rotation_by_angles_that_differ_between_the_halves():
    cos, sin = torch.rand(7, 8), torch.rand(7, 8)

    def plain(x):
        return x * cos[:, None] + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin[:, None]

    check(lambda x: fused.rotate(x, cos, sin), plain, normal(7, 3, 8))


def test_gated():
    check(fused.gated, lambda gate, up: functional.silu(gate) * up, normal(7, 24), normal(7, 24))


@pytest.mark.parametrize("noisy", [False, True])
def test_low_rank(noisy):
    weight = normal(9, 12).detach()
    noise = torch.bernoulli(torch.full((2, 7, 12), 0.5)) * 2 if noisy else None

    def plain(x, a, b):
        seen = x if noise is None else x * noise
        return x @ weight.T + 0.5 * (seen @ a.T) @ b.T

    def ours(x, a, b):
        return fused.low_rank(x, [fused.Adapted(weight, a, b, 0.5)], noise)[0]

    check(ours, plain, normal(2, 7, 12), normal(4, 12), normal(9, 4))


def test_low_rank_layers_that_share_their_input():
    """The second has no update; ranks, widths and scales differ."""
    first, second, third = (normal(n, 12).detach() for n in (9, 5, 7))

    def plain(x, a, b, c, d):
        return torch.cat([x @ first.T + 0.5 * x @ a.T @ b.T, x @ second.T, x @ third.T + 2 * x @ c.T @ d.T], -1)

    def ours(x, a, b, c, d):
        layers = fused.Adapted(first, a, b, 0.5), fused.Adapted(second), fused.Adapted(third, c, d, 2.0)
        return torch.cat(fused.low_rank(x, layers), -1)

    check(ours, plain, normal(2, 7, 12), normal(4, 12), normal(9, 4), normal(3, 12), normal(7, 3))


def test_low_rank_needs_no_gradient_of_its_input():
    x, weight, a, b = normal(6, 12).detach(), normal(9, 12).detach(), normal(4, 12), normal(9, 4)
    (ours,) = fused.low_rank(x, [fused.Adapted(weight, a, b)])
    plain = x @ weight.T + x @ a.T @ b.T
    for got, expected in zip(*(torch.autograd.grad(y.square().sum(), (a, b)) for y in (ours, plain)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_a_small_update_is_not_lost_in_half_precision():
    """Added to a result that is already rounded, most of an update of a thousandth of it is lost."""
    x, weight = (normal(n, 64, dtype=torch.bfloat16).detach() for n in (512, 32))
    a, b = normal(8, 64, dtype=torch.bfloat16).detach(), (normal(32, 8) * 2e-4).to(torch.bfloat16).detach()
    base = functional.linear(x, weight)
    update = (x.double() @ a.double().T @ b.double().T).flatten()
    got = (fused.low_rank(x, [fused.Adapted(weight, a, b)])[0] - base).double().flatten()
    lost = (base + functional.linear(functional.linear(x, a), b) - base).double().flatten()

    def share(seen):  # of the update, by least squares
        return (seen @ update / (update @ update)).item()

    assert share(got) == pytest.approx(1.0, abs=0.2)
    assert share(lost) < 0.5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 4, 1000], ids=lambda n: f"{n} rows at a time")
def test_cross_entropy(monkeypatch, rows, smoothing):
    monkeypatch.setattr(fused, "LOGITS", rows * 50)
    targets = torch.randint(0, 50, (9,), generator=GENERATOR)

    def plain(logits):
        return functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)

    check(lambda logits: fused.cross_entropy(logits, targets, smoothing)[0], plain, normal(9, 50))


def test_cross_entropy_without_gradients_is_the_same():
    logits, targets = normal(9, 50).detach(), torch.arange(9)
    expected = functional.cross_entropy(logits, targets, reduction="none")
    total, each = fused.cross_entropy(logits, targets)
    torch.testing.assert_close(total, expected.sum())
    torch.testing.assert_close(each, expected)


def test_a_second_backward_pass_is_refused_not_wrong():
    loss, _ = fused.cross_entropy(normal(3, 5), torch.tensor([0, 1, 2]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()
