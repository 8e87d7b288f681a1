"""The vocabulary projection and the loss, at answer tokens only.

A prompt's tokens are never scored, and with 49 152 words to score the
projection of all tokens would cost more than a fifth of the training step.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def answer_logits(net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> Tensor:
    """Give logits [n, vocabulary] at the `n` positions where `keep` [rows, tokens] is true.

    The model itself projects them, so logit scaling and soft caps are its own.
    """
    if "logits_to_keep" in inspect.signature(net.forward).parameters:
        kept: Tensor = net(**inputs, use_cache=False, logits_to_keep=keep).logits
        return kept.reshape(-1, kept.shape[-1])
    every: Tensor = net(**inputs, use_cache=False).logits
    return every[keep]


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Give the summed cross-entropy in nats of `targets` [n], computed in fp32."""
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
