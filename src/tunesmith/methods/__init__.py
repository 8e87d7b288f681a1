"""Methods: ways to move the weights. Each takes a network and its record, and leaves the trainable weights marked.

The records, with their defaults, are in `tunesmith.recipe`.
"""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from tunesmith.methods import full, lora
from tunesmith.names import pick

METHODS: dict[str, Callable[[PreTrainedModel, Any, int], None]] = {
    "full": full.prepare,
    "lora": lora.prepare,
}


def prepare(net: PreTrainedModel, method: Any, seed: int) -> None:
    """Make `net` trainable by `method`, in place: `requires_grad` marks what will learn.

    Random starts depend on `seed` alone. Raises ModelError if the model has
    nothing for the method to train.
    """
    pick(METHODS, method.name, "method")(net, method, seed)
