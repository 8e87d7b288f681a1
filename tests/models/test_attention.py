"""Attention over packed rows: what the kernels are told equals what is asked."""

import pytest
import torch

from tunesmith.data.pack import Layout
from tunesmith.models.attention import _flash, attend, spans

GENERATOR = torch.Generator().manual_seed(0)
LAYOUTS = [Layout(0, (5,)), Layout(0, (3, 1, 300)), Layout(4, (2, 7, 1)), Layout(200, (90, 1, 140))]


def drawn(tokens):
    """Queries of four heads; keys and values of two."""
    return [torch.randn(tokens, heads, 8, generator=GENERATOR) for heads in (4, 2, 2)]


def by_spans(query, key, value, layout, scale):
    """Softmax attention over each span, the last query seeing the last key."""
    to = spans(layout, query.device)
    key, value = (tensor[to.keys].repeat_interleave(2, dim=1) for tensor in (key, value))
    parts = []
    for i in range(len(to.of_queries) - 1):
        q = query[to.of_queries[i] : to.of_queries[i + 1]].transpose(0, 1)
        k, v = (tensor[to.of_keys[i] : to.of_keys[i + 1]].transpose(0, 1) for tensor in (key, value))
        future = torch.ones(q.shape[1], k.shape[1]).triu(k.shape[1] - q.shape[1] + 1).bool()
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(future, float("-inf"))
        parts.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_spans_of_unequal_length_are_the_same_attention(layout):
    given = drawn(layout.tokens)
    torch.testing.assert_close(by_spans(*given, layout, 0.3), attend(*given, layout, 0.3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_spans_say_how_long_the_longest_are(layout):
    to = spans(layout, torch.device("cpu"))
    assert to.most_queries == to.of_queries.diff().max()
    assert to.most_keys == to.of_keys.diff().max()
    assert to.of_queries[-1] == layout.tokens
    assert to.of_keys[-1] == len(to.keys)


def test_the_kernel_for_gpus_takes_what_it_is_given():
    """Shapes and types alone: the arithmetic needs a GPU."""
    layout = LAYOUTS[2]
    shapes = [(layout.tokens, heads, 64) for heads in (4, 2, 2)]
    query, key, value = (torch.empty(shape, dtype=torch.bfloat16, device="meta") for shape in shapes)
    output = _flash(query, key, value, layout, 0.3)
    assert (output.shape, output.dtype) == (query.shape, torch.bfloat16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_kernel_for_gpus_equals_the_blocks(layout):
    from tunesmith.models.attention import _Attend

    given = [tensor.cuda().bfloat16().requires_grad_() for tensor in drawn(layout.tokens)]
    for function in (_flash, _Attend.apply):
        output = function(*given, layout, 0.3)
        gradients = torch.autograd.grad(output.float().square().sum(), given)
        found = [output, *gradients]
        if function is _flash:
            expected = found
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)
