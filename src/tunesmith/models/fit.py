"""Fit: an adapter as it sits on a network, switched on or off, or taken off again."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import ModelError


class Fit(ABC):
    """One adapter on one network, under a name of its own.

    `virtual` are the ids of its virtual tokens, which come before every prompt
    that is asked of it. `strength` is what it is switched to; `mixes` says that rows asked of it may share a batch
    with rows asked of others (`models/route.py`); `learns`, that it has been prepared for training.
    `claims` names the places that it stands in alone. Of the adapters `among`
    which it is, on the same network, those that claim one of them are switched off when it is switched on.
    """

    name: str
    virtual: tuple[int, ...] = ()
    strength: float = 0.0
    mixes: bool = False
    learns: bool = False
    claims: frozenset[str] = frozenset()
    among: Mapping[str, "Fit"] = MappingProxyType({})

    @abstractmethod
    def write(self, folder: Path, base: str) -> None:
        """Write its weights into `folder`, in PEFT's format where that has one; `base` names the model it sits on."""

    @abstractmethod
    def weights(self) -> Mapping[str, Tensor]:
        """Give its weights, under names that its own name is no part of."""

    def settings(self) -> Mapping[str, Any]:
        """Give what its effect depends on besides its weights and its strength: mostly nothing."""
        return {}

    def sha256(self) -> str:
        """Give a SHA-256 over weights and settings; what it is called and switched to makes no difference."""
        whole = hashlib.sha256(canonical([type(self).__name__, self.settings()]))
        for key, value in sorted(self.weights().items()):
            whole.update(canonical([key, str(value.dtype), list(value.shape)]))
            whole.update(raw(value))
        return whole.hexdigest()

    def switch(self, strength: float) -> None:
        """Scale its effect: 1 is what was trained, 0 leaves the base, bit for bit. Raises ModelError if it cannot."""
        if not 0.0 <= strength <= 1.0:
            raise ModelError(f"{self.name}: there is no strength of {strength:g}", fix="use one from 0 to 1")
        if not strength and not self.strength:
            return  # another one may be on in its places
        for other in self.among.values():
            if strength and other is not self and other.claims & self.claims:
                other.switch(0.0)
        self._set(strength)
        self.strength = strength

    @abstractmethod
    def _set(self, strength: float) -> None:
        """Do what `switch` promises."""

    @abstractmethod
    def remove(self) -> None:
        """Take it off; the network is what it was before."""

    def state(self) -> dict[str, Tensor]:
        """Give what a checkpoint must hold of it besides its weights and the optimizer's state: mostly nothing.

        A run that goes on gives it back as `Evidence.state`.
        """
        return {}

    def deltas(self) -> dict[str, Tensor]:
        """Give what it adds to the network's weights, in fp32, by the network's own names of them.

        As exact as the network's dtype: put it onto one in fp32. Raises ModelError if its effect is of another kind.
        """
        raise ModelError("its effect is not a change of the base's weights", fix=KEEP)


def canonical(values: Any) -> bytes:
    """Write plain values so that equal ones give equal bytes in every process; the order of a set does not."""
    return json.dumps(values, sort_keys=True, default=_plain).encode()


def _plain(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)


def raw(tensor: Tensor) -> memoryview:
    """Give the bytes that a tensor's numbers are stored in."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


KEEP = "keep it as an adapter: `tunesmith eval` and, where it is in PEFT's format, peft take it as it is"


def whole_or_nothing(name: str, strength: float) -> bool:
    """Tell whether an adapter that cannot be scaled is switched on. Raises ModelError for a strength in between."""
    if strength not in (0.0, 1.0):
        raise ModelError(f"{name}: this method's effect cannot be scaled", fix="use a strength of 0 or 1")
    return strength == 1.0
