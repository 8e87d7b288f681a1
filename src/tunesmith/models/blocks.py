"""The forward pass of Llama-like decoders over packed rows, in few passes over memory.

It reads the weights of transformers' own modules and calls their linear layers,
so adapters, names and files are untouched; only what lies between the products
is computed here. What follows the attention of the last block is computed only
where an answer token is predicted. `head.py` compares it with the
model itself before it is first used.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from tunesmith.data.pack import Layout
from tunesmith.models import route
from tunesmith.models.attention import attend
from tunesmith.models.fused import Adapted, gated, low_rank, rms_norm, rotate
from tunesmith.models.paths import Along
from tunesmith.models.quantize import frozen
from tunesmith.models.virtual import with_prefix

# Families whose block is x + attention(norm(x)), then x + mlp(norm(x)), with RMS norms, RoPE and SwiGLU.
FAMILIES = {"llama", "mistral", "qwen2", "qwen3"}
INPUTS = ({"input_ids", "position_ids", "layout"}, {"input_ids", "position_ids", "along"})


def knows(net: PreTrainedModel, inputs: dict[str, Any]) -> bool:
    """Tell whether `kept_states` can stand for this model's own forward pass on packed `inputs`."""
    config = net.config
    return (
        config.model_type in FAMILIES
        and getattr(config, "hidden_act", None) == "silu"
        and set(inputs) in INPUTS
        and not any(map(_hooked, _passed_over(net)))
    )


def kept_states(net: PreTrainedModel, inputs: dict[str, Any], keep: Tensor) -> Tensor:
    """Give the last hidden states [n, width] at the `n` positions where `keep` [1, tokens] is true."""
    body: Any = net.base_model
    ids, positions = inputs["input_ids"], inputs["position_ids"]
    x = body.embed_tokens(ids)[0]
    cos, sin = (part[0] for part in body.rotary_emb(x, positions))
    again = net.is_activation_checkpointing and torch.is_grad_enabled()
    way = inputs["layout"] if "layout" in inputs else inputs["along"]
    routed = route.current() is not None  # adapters then know their tokens by the places among all of them
    for number, layer in enumerate(body.layers):
        kept = keep[0] if number == len(body.layers) - 1 and not routed else None
        given = (layer, x, cos, sin, way, kept)
        x = checkpoint(_block, *given, use_reentrant=False) if again else _block(*given)
    return _norm(body.norm, x[keep[0]] if routed else x)


def _block(layer: Any, x: Tensor, cos: Tensor, sin: Tensor, way: Layout | Along, kept: Tensor | None) -> Tensor:
    """Give the block's output where `kept` [tokens] is true, everywhere if it is None."""
    attention, mlp = layer.self_attn, layer.mlp
    normal = _norm(layer.input_layernorm, x)
    query, key, value = (
        flat.view(len(flat), -1, attention.head_dim)
        for flat in _together(normal, attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = (rotate(_norm_of_heads(attention, *part), cos, sin) for part in (("q", query), ("k", key)))
    seen = _attention(attention, query, key, value, way).flatten(-2)
    if kept is not None:
        x, seen = x[kept], seen[kept]
    x = x + attention.o_proj(seen)
    normal = _norm(layer.post_attention_layernorm, x)
    output: Tensor = x + mlp.down_proj(gated(*_together(normal, mlp.gate_proj, mlp.up_proj)))
    return output


def _attention(layer: Any, query: Tensor, key: Tensor, value: Tensor, way: Layout | Along) -> Tensor:
    if not isinstance(way, Layout):
        return way.attend(layer, query, key, value, layer.scaling)
    key, value = with_prefix(layer, key, value, way)
    return attend(query, key, value, way, layer.scaling)


def _together(x: Tensor, *layers: Any) -> list[Tensor]:
    """Give the output of each linear layer that takes `x`, as one function where all are frozen but for an update."""
    parts = [None if route.current() else _adapted(layer, x) for layer in layers]
    if not any(part is not None and part.a is not None for part in parts) or None in parts:
        return [layer(x) for layer in layers]
    biases = [getattr(layer, "base_layer", layer).bias for layer in layers]
    outputs = zip(low_rank(x, cast("list[Adapted]", parts)), biases, strict=True)
    return [output if bias is None else output + bias for output, bias in outputs]


def _adapted(layer: Any, x: Tensor) -> Adapted | None:
    if not hasattr(layer, "adapted"):
        return frozen(layer, x.dtype)
    found: Adapted | None = None if _hooked(layer) else layer.adapted(x)
    return found


def _norm_of_heads(attention: Any, which: str, heads: Tensor) -> Tensor:
    """Normalise queries or keys [tokens, heads, width] where the family does so (Qwen 3)."""
    norm = getattr(attention, f"{which}_norm", None)
    return heads if norm is None else _norm(norm, heads)


def _norm(module: Any, x: Tensor) -> Tensor:
    return rms_norm(x, module.weight, module.variance_epsilon)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _passed_over(net: PreTrainedModel) -> Iterable[nn.Module]:
    """List the modules whose own forward, and any hook on it, is not called here."""
    body: Any = net.base_model
    yield from (net, body, body.norm)
    for layer in body.layers:
        yield from (layer, layer.self_attn, layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)
