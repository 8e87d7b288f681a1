"""Evidence: what a method may look at before it begins, besides the network."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor, nn

Gradients = Callable[[Sequence[nn.Parameter], int], Iterator[tuple[Tensor, ...]]]


class Evidence(NamedTuple):
    """`labels` are the answers that the rows choose from, if they are few.

    `gradients(weights, n)` gives the gradients of these weights at each of the first n steps, without taking them.
    `state` is what `Fit.state` gave for the checkpoint that a run goes on from.
    """

    labels: tuple[str, ...] = ()
    gradients: Gradients | None = None
    state: Mapping[str, Tensor] = MappingProxyType({})
