"""Which adapter each row of a batch is asked of, while the batch goes through the network.

Layers that can add each row's own update look here (`methods/lora.py`). Rows
of different adapters, and of none, are then one batch, and the base's weights are read once for all.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

Names = Sequence[str | None] | None  # the adapter of each row; None in place of them all: what is switched on


class Route(NamedTuple):
    """Names of adapters with the places of what is asked of each, along dimension `dim` of [rows, tokens, width]."""

    parts: tuple[tuple[str, Tensor], ...]
    dim: int


_ROUTE: ContextVar[Route | None] = ContextVar("route", default=None)


def current() -> Route | None:
    """Give the route of the batch that is on its way; None if every row is asked of what is switched on."""
    return _ROUTE.get()


@contextmanager
def by_row(names: Names, device: torch.device) -> Iterator[None]:
    """Ask row i of [rows, tokens] of the adapter `names[i]`, of the base alone if that is None."""
    with _asked(names, 0, device):
        yield


@contextmanager
def by_token(names: Names, lengths: Sequence[int], device: torch.device) -> Iterator[None]:
    """Ask document i of a packed row, `lengths[i]` tokens long, of the adapter `names[i]`.

    Tokens are the last dimension but one, of [1, tokens, width] as of [tokens, width].
    """
    each = names and [name for name, n in zip(names, lengths, strict=True) for _ in range(n)]
    with _asked(each, -2, device):
        yield


@contextmanager
def _asked(names: Names, dim: int, device: torch.device) -> Iterator[None]:
    route = None
    if names is not None:
        known = dict.fromkeys(name for name in names if name is not None)
        places = {name: [i for i, one in enumerate(names) if one == name] for name in known}
        route = Route(tuple((name, torch.tensor(found, device=device)) for name, found in places.items()), dim)
    token = _ROUTE.set(route)
    try:
        yield
    finally:
        _ROUTE.reset(token)
