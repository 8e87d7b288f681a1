"""Evidence: what a method may look at before it begins, besides the network."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from tunesmith.errors import ModelError

Gradients = Callable[[Sequence[nn.Parameter], int], Iterator[Sequence[Tensor | None]]]


def _no_rows(weights: Sequence[nn.Parameter], batches: int) -> Iterator[Sequence[Tensor | None]]:
    raise ModelError("this method chooses by gradients and has no rows to take them from", fix="train it on a task")


class Evidence(NamedTuple):
    """`gradients(weights, n)` gives the loss's gradients on each of the first `n` batches; `labels` are the choices."""

    gradients: Gradients = _no_rows
    labels: tuple[str, ...] = ()
