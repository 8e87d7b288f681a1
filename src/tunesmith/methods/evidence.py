"""Evidence: what a method may look at before it begins, besides the network."""

from typing import NamedTuple


class Evidence(NamedTuple):
    """`labels` are the answers that the rows choose from, if they are few."""

    labels: tuple[str, ...] = ()
