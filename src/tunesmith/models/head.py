"""The vocabulary projection and the loss, at answer tokens only, and in pieces where they are many.

A prompt's tokens are never scored, and with 49 152 words to score the
projection of all tokens would cost more than a fifth of the training step. The
logits of 2 048 answer tokens and their gradient would still take a gigabyte;
in pieces, each projected again in the backward pass, they take a quarter.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tunesmith.data.pack import Layout
from tunesmith.models import blocks
from tunesmith.models.attention import PACKED, attending, can_pack
from tunesmith.models.fused import cross_entropy
from tunesmith.models.virtual import prefix_of

PIECE = 512
VOCABULARY_PART = 16_384  # words projected at a time in fp32: 38 MB of weights at width 576
TRIED = 32  # tokens on which a model is compared with ours
_PROVEN: "WeakKeyDictionary[PreTrainedModel, bool]" = WeakKeyDictionary()


def loss_at(
    net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor, targets: Tensor, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Give the summed loss in nats of `targets` [n], and that of each [n], without gradient.

    The positions where `keep` [rows, tokens] is true predict them, in order.
    Above 512 targets the projection goes in pieces. Both that and the fast
    forward pass are used only where they have been proven to give this model's
    own logits.
    """
    if not separable(net, inputs):
        return cross_entropy(answer_logits(net, inputs, keep), targets, smoothing)
    hidden = _hidden(net, inputs, keep)
    if len(targets) <= PIECE:
        return _piece_loss(net, hidden, targets, smoothing)
    pieces = zip(torch.split(hidden, PIECE), torch.split(targets, PIECE), strict=True)
    losses = [checkpoint(_piece_loss, net, *piece, smoothing, use_reentrant=False) for piece in pieces]
    totals, each = zip(*losses, strict=True)
    return torch.stack(totals).sum(), torch.cat(each)


def has_fast_pass(net: PreTrainedModel, inputs: dict[str, Any]) -> bool:
    """Tell whether such inputs go through our own forward pass, once it has been proven."""
    return separable(net, inputs) and blocks.knows(net, inputs)


def refused(net: PreTrainedModel) -> bool:
    """Tell whether our forward pass has been tried on this model and does not give its logits."""
    return not _PROVEN.get(net, True)


def answer_logits(net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> Tensor:
    """Give logits [n, vocabulary] at the `n` positions where `keep` [rows, tokens] is true.

    The model itself projects them, so logit scaling and soft caps are its own.
    """
    if "logits_to_keep" in inspect.signature(net.forward).parameters:
        kept: Tensor = net(**inputs, use_cache=False, logits_to_keep=keep).logits
        return kept.reshape(-1, kept.shape[-1])
    every: Tensor = net(**inputs, use_cache=False).logits
    return every[keep]


class Predicted(NamedTuple):
    """What was asked of some positions: log-probabilities in nats [n] of given tokens, and the likeliest tokens [k]."""

    log_probabilities: Tensor
    likeliest: Tensor


def hidden_at(net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> Tensor:
    """Give the last hidden states [k, width] at the `k` positions where `keep` [1, tokens] is true.

    Only for a model and inputs of which `separable` is true.
    """
    return _hidden(net, inputs, keep)


def reads_along(net: PreTrainedModel, ids: Sequence[int]) -> bool:
    """Tell whether a model can be read along paths (`paths.py`): its attention packed, its head taken apart.

    `ids` are some tokens to try that on.
    """
    if not can_pack(net):
        return False
    tokens = torch.tensor([list(ids)], device=net.device)
    places = torch.arange(tokens.shape[1], device=net.device)[None]
    with attending(net, PACKED):
        inputs = {"input_ids": tokens, "position_ids": places, "layout": Layout(0, (tokens.shape[1],))}
        return separable(net, inputs)


def next_logits(net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> Tensor:
    """Give logits [k, vocabulary] at the `k` positions where `keep` [1, tokens] is true, in the network's dtype.

    Only for a model that `reads_along`.
    """
    return _project(net, _hidden(net, inputs, keep))


def predict(net: PreTrainedModel, hidden: Tensor, rows: Tensor, tokens: Tensor) -> Predicted:
    """Give the log-probability of `tokens` [n] after the hidden states at `rows` [n] of `hidden` [k, width].

    The vocabulary is projected in fp32, a part at a time: a logit of 20 in bf16
    is one of 15.9, 16, 16.1, and the choices of a question would tie by rounding alone.
    """
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    asked = torch.empty(len(tokens), dtype=torch.float32, device=hidden.device)
    first = 0
    for logits in _logit_parts(net, hidden):
        inside = ((tokens >= first) & (tokens < first + logits.shape[1])).nonzero()[:, 0]
        asked[inside] = logits[rows[inside], tokens[inside] - first]
        best = logits.max(-1)
        found.append((logits.logsumexp(-1), best.values, best.indices + first, inside))
        first += logits.shape[1]
    total = torch.stack([part[0] for part in found]).logsumexp(0)
    which = torch.stack([part[1] for part in found]).argmax(0)
    likeliest = torch.stack([part[2] for part in found])[which, torch.arange(len(hidden), device=hidden.device)]
    return Predicted(asked - total[rows], likeliest)


def predict_at(
    net: PreTrainedModel, inputs: dict[str, Any], places: tuple[Tensor, Tensor], tokens: Tensor
) -> Predicted:
    """Give the log-probability of `tokens` [n] at `places` (row [n], column [n]) of a padded batch.

    The likeliest tokens are those of these places [n].
    """
    if separable(net, inputs):
        hidden = net.base_model(**inputs, use_cache=False).last_hidden_state[places]
        return predict(net, hidden, torch.arange(len(tokens), device=hidden.device), tokens)
    each = torch.log_softmax(net(**inputs, use_cache=False).logits[places].float(), -1)
    return Predicted(each.gather(1, tokens[:, None])[:, 0], each.argmax(-1))


def _logit_parts(net: PreTrainedModel, hidden: Tensor) -> Iterator[Tensor]:
    """Give logits [k, part of the vocabulary] in fp32, part by part."""
    layer: Any = net.get_output_embeddings()
    if type(layer) is not torch.nn.Linear or not layer.weight.is_floating_point():
        yield _scaled(net, layer(hidden).float())
        return
    exact = hidden.float()
    for low in range(0, len(layer.weight), VOCABULARY_PART):
        part = slice(low, low + VOCABULARY_PART)
        bias = None if layer.bias is None else layer.bias[part].float()
        yield _scaled(net, torch.nn.functional.linear(exact, layer.weight[part].float(), bias))


def _piece_loss(net: PreTrainedModel, hidden: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    return cross_entropy(_project(net, hidden), targets, smoothing)


def _hidden(net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> Tensor:
    """Give the last hidden states [n, width] at the kept positions."""
    if blocks.knows(net, inputs):
        return blocks.kept_states(net, inputs, keep)
    found: Tensor = net.base_model(**inputs, use_cache=False).last_hidden_state
    return found[keep]


def _project(net: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Give logits [n, vocabulary] of hidden states [n, width], with the scales and caps that families put on them."""
    return _scaled(net, net.get_output_embeddings()(hidden))


def _scaled(net: PreTrainedModel, logits: Tensor) -> Tensor:
    config = net.config
    if divisor := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / divisor
    if factor := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * factor
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        logits = torch.tanh(logits / cap) * cap
    return logits


def separable(net: PreTrainedModel, inputs: dict[str, Any]) -> bool:
    """Tell whether hidden states and projection, taken apart, give this model's own logits.

    Tried once per model, on the first few tokens of these `inputs`.
    """
    if net.config.is_encoder_decoder:
        return False
    if net not in _PROVEN:
        training = net.training
        net.eval()  # dropout would make two passes differ
        few = _first_tokens(inputs)
        keep = torch.ones_like(few["input_ids"], dtype=torch.bool)
        with torch.no_grad():
            ours, own = _project(net, _hidden(net, few, keep)), _own_logits(net, few, keep)
        net.train(training)
        _PROVEN[net] = _agree(ours.float(), own.float(), own.dtype)
    return _PROVEN[net]


def _own_logits(net: PreTrainedModel, few: dict[str, Any], keep: Tensor) -> Tensor:
    """Give the logits of one document through the model's own forward pass, its attention included."""
    # The model's other attentions know no trained keys: there ours, proven against them, stands for them.
    if "layout" not in few or any(map(prefix_of, net.modules())):
        return answer_logits(net, few, keep)
    with attending(net, "eager"):
        return answer_logits(net, {name: value for name, value in few.items() if name != "layout"}, keep)


def _agree(ours: Tensor, own: Tensor, dtype: torch.dtype) -> bool:
    """Compare logits: to a hundred thousandth in fp32, in half precision to what rounding in another order can do."""
    allowed = 1e-5 if dtype == torch.float32 else 0.05
    return bool((ours - own).norm() <= allowed * own.norm())


def _first_tokens(inputs: dict[str, Any]) -> dict[str, Any]:
    """Cut a batch down to the first few words of its first row, of one document if rows are packed.

    Virtual tokens are passed over: random vectors can lead a model where its own rounding in half precision exceeds
    what is allowed here, and both passes look them up alike.
    """
    layout: Layout | None = inputs.get("layout")
    ids = inputs["input_ids"]
    words = (ids[0] >= 0).nonzero()
    start = int(words[0]) if len(words) else 0
    end = layout.shared + layout.lengths[0] if layout else ids.shape[1]
    n = min(TRIED, end - start)
    cut = {name: tensor[:1, start : start + n] for name, tensor in inputs.items() if name != "layout"}
    # Half of them as a beginning that others could share, so that this is tried too.
    return {**cut, "layout": Layout(n // 2, (n - n // 2,))} if layout else cut
