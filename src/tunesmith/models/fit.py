"""Fit: an adapter as it sits on a network, switched on or off, or taken off again."""

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor

from tunesmith.errors import ModelError


class Fit(ABC):
    """One adapter on one network, under a name of its own.

    `virtual` are the ids of its virtual tokens, which come before every prompt
    that is asked of it. What it adds is trainable if it has been prepared for training.
    """

    name: str
    virtual: tuple[int, ...] = ()

    @abstractmethod
    def write(self, folder: Path, base: str) -> None:
        """Write its weights into `folder`, in PEFT's format where that has one; `base` names the model it sits on."""

    @abstractmethod
    def switch(self, strength: float) -> None:
        """Scale its effect: 1 is what was trained, 0 leaves the base, bit for bit. Raises ModelError if it cannot."""

    @abstractmethod
    def remove(self) -> None:
        """Take it off; the network is what it was before."""

    def deltas(self) -> dict[str, Tensor]:
        """Give what it adds to the network's weights, in fp32, by the network's own names of them.

        As exact as the network's dtype: put it onto one in fp32. Raises ModelError if its effect is of another kind.
        """
        raise ModelError("its effect is not a change of the base's weights", fix=KEEP)


KEEP = "keep it as an adapter: `tunesmith eval` and, where it is in PEFT's format, peft take it as it is"


def whole_or_nothing(name: str, strength: float) -> bool:
    """Tell whether an adapter that cannot be scaled is switched on. Raises ModelError for a strength in between."""
    if strength not in (0.0, 1.0):
        raise ModelError(f"{name}: this method's effect cannot be scaled", fix="use a strength of 0 or 1")
    return strength == 1.0
