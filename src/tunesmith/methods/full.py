"""Full fine-tuning: every weight learns."""

from transformers import PreTrainedModel

from tunesmith.recipe import Full


def prepare(net: PreTrainedModel, method: Full, seed: int) -> None:
    """Mark every weight as trainable."""
    net.requires_grad_(True)
