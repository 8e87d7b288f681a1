"""The vocabulary projection and the loss, at answer tokens only, and in pieces where they are many.

A prompt's tokens are never scored, and with 49 152 words to score the
projection of all tokens would cost more than a fifth of the training step. The
logits of 2 048 answer tokens and their gradient would still take a gigabyte;
in pieces, each projected again in the backward pass, they take a quarter.
"""

import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

PIECE = 512
_PROVEN: "WeakKeyDictionary[PreTrainedModel, bool]" = WeakKeyDictionary()


def loss_at(
    net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor, targets: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Give the summed loss in nats of `targets` [n], which the positions where `keep` [rows, tokens] is true predict.

    Above 512 targets the projection goes in pieces, where that has been proven
    to give this model's own logits.
    """
    if len(targets) <= PIECE or not _separable(net, inputs, keep):
        return answer_loss(answer_logits(net, inputs, keep), targets, smoothing)
    hidden = _hidden(net, inputs)[keep]
    pieces = zip(torch.split(hidden, PIECE), torch.split(targets, PIECE), strict=True)
    losses = [checkpoint(_piece_loss, net, *piece, smoothing, use_reentrant=False) for piece in pieces]
    return torch.stack(losses).sum()


def answer_logits(net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> Tensor:
    """Give logits [n, vocabulary] at the `n` positions where `keep` [rows, tokens] is true.

    The model itself projects them, so logit scaling and soft caps are its own.
    """
    if "logits_to_keep" in inspect.signature(net.forward).parameters:
        kept: Tensor = net(**inputs, use_cache=False, logits_to_keep=keep).logits
        return kept.reshape(-1, kept.shape[-1])
    every: Tensor = net(**inputs, use_cache=False).logits
    return every[keep]


def answer_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Give the summed cross-entropy in nats of `targets` [n], computed in fp32.

    `smoothing` spreads that share of each target over the whole vocabulary (Szegedy et al. 2016, section 7).
    """
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=smoothing)


def _piece_loss(net: PreTrainedModel, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return answer_loss(_project(net, hidden), targets, smoothing)


def _hidden(net: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """Give the last hidden states [rows, tokens, width]."""
    found: Tensor = net.base_model(**inputs, use_cache=False).last_hidden_state
    return found


def _project(net: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Give logits [n, vocabulary] of hidden states [n, width], with the scales and caps that families put on them."""
    config = net.config
    logits: Tensor = net.get_output_embeddings()(hidden)
    logits = logits / (getattr(config, "logits_scaling", None) or 1.0)  # Granite
    logits = logits * (getattr(config, "logit_scale", None) or 1.0)  # Cohere
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    return logits if cap is None else torch.tanh(logits / cap) * cap


def _separable(net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> bool:
    """Tell whether `_project` gives this model's own logits; tried once per model, on a batch of its own."""
    if net.config.is_encoder_decoder:
        return False
    if net not in _PROVEN:
        training = net.training
        net.eval()  # dropout would make two passes differ
        with torch.no_grad():
            few = keep & (keep.flatten().cumsum(0).view_as(keep) <= 8)
            ours, own = _project(net, _hidden(net, inputs)[few]), answer_logits(net, inputs, few)
        net.train(training)
        _PROVEN[net] = bool(torch.allclose(ours.float(), own.float(), rtol=1e-5, atol=1e-5))
    return _PROVEN[net]
