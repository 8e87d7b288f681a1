"""Full fine-tuning: every weight learns."""

from pathlib import Path

from torch import Tensor

from tunesmith.errors import ModelError
from tunesmith.method import Full
from tunesmith.methods.evidence import Evidence
from tunesmith.models.fit import Fit, whole_or_nothing
from tunesmith.models.load import Model


class Whole(Fit):
    """A network that has been trained as a whole."""

    def __init__(self, model: Model, name: str) -> None:
        self.model, self.name = model, name

    def write(self, folder: Path, base: str) -> None:
        """Write a model folder, tokenizer included."""
        self.model.net.save_pretrained(folder)
        self.model.encoder.tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]

    def weights(self) -> dict[str, Tensor]:
        """Give every weight of the network."""
        found: dict[str, Tensor] = self.model.net.state_dict()
        return found

    def _set(self, strength: float) -> None:
        """Refuse to go back to a base that is no longer there."""
        if not whole_or_nothing(self.name, strength):
            self.remove()

    def remove(self) -> None:
        """Refuse to go back to a base that is no longer there."""
        raise ModelError(f"{self.name}: every weight has been trained, there is no base below it", fix="load the base")

    def deltas(self) -> dict[str, Tensor]:
        """Refuse: such a network is the merged one already."""
        raise ModelError(f"{self.name}: every weight has been trained, it is a model already", fix="use it as it is")


def prepare(model: Model, method: Full, name: str, seed: int, evidence: Evidence) -> Whole:
    """Mark every weight as trainable."""
    model.net.requires_grad_(True)
    return Whole(model, name)


def load(model: Model, method: Full, name: str, folder: Path) -> Whole:
    """Refuse: such weights are a model, not an adapter."""
    raise ModelError(f"{folder}: holds a whole model", fix="load it as the model itself")
