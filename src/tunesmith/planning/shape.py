"""A model's sizes, from its config alone: the linear layers and norms of its blocks, its vocabulary, its head."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from tunesmith.config import Record
from tunesmith.errors import SizesError


class Linear(NamedTuple):
    """A linear layer of a block: `name` as the family calls it, weight [outputs, inputs]."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Count its weights, biases included."""
        return self.outputs * (self.inputs + self.bias)


class Stack(Record):
    """A stack of equal blocks; `norms` are the widths of the norms in one block.

    `extra` are the weights of its first block that the others lack: T5's relative positions.
    """

    blocks: int
    linear: tuple[Linear, ...]
    norms: tuple[int, ...]
    extra: int = 0


class Shape(Record):
    """A model's sizes: `width` the hidden size, `keys` the width of one layer's keys, all heads together.

    `tables` counts the embeddings of the vocabulary and the head if that is not
    tied to it; `shifted` says that norms have a shift beside the scale; each stack ends with one norm more.
    """

    width: int
    keys: int
    vocabulary: int
    tables: int
    shifted: bool
    stacks: tuple[Stack, ...]

    def norm(self, width: int) -> int:
        """Count the weights of a norm over `width` numbers."""
        return width * (2 if self.shifted else 1)

    def block(self, stack: Stack) -> int:
        """Count the weights of one block."""
        return sum(layer.weights for layer in stack.linear) + sum(map(self.norm, stack.norms))

    @property
    def layers(self) -> list[Linear]:
        """List the linear layers of all blocks."""
        return [layer for stack in self.stacks for _ in range(stack.blocks) for layer in stack.linear]

    @property
    def norms(self) -> list[int]:
        """List the widths of all norms."""
        return [w for stack in self.stacks for w in (*stack.norms * stack.blocks, self.width)]

    @property
    def total(self) -> int:
        """Count all weights, tied ones once."""
        extra = sum(stack.extra for stack in self.stacks)
        blocks = sum(layer.weights for layer in self.layers) + sum(map(self.norm, self.norms))
        return blocks + extra + self.tables * self.vocabulary * self.width


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Read the sizes out of a model's `config.json`. Raises SizesError for a family it does not know."""
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise SizesError(
            f"the sizes of a {kind} model are not known", fix=f"families that are: {', '.join(sorted(FAMILIES))}"
        )
    found: Shape = FAMILIES[kind](config)
    return found


def _llama(config: Mapping[str, Any]) -> Shape:
    width, inside, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    keys = head * (config.get("num_key_value_heads") or heads)
    kind = config["model_type"]
    biased = kind == "qwen2" or bool(config.get("attention_bias"))
    out = bool(config.get("attention_bias")) and kind != "qwen2"
    mlp = bool(config.get("mlp_bias"))
    linear = (
        Linear("q_proj", width, head * heads, biased),
        Linear("k_proj", width, keys, biased),
        Linear("v_proj", width, keys, biased),
        Linear("o_proj", head * heads, width, out),
        Linear("gate_proj", width, inside, mlp),
        Linear("up_proj", width, inside, mlp),
        Linear("down_proj", inside, width, mlp),
    )
    norms = (width, width, *((head, head) if kind == "qwen3" else ()))
    stack = Stack(blocks=config["num_hidden_layers"], linear=linear, norms=norms)
    tables = 1 if config.get("tie_word_embeddings") else 2
    vocabulary = config["vocab_size"]
    return Shape(width=width, keys=keys, vocabulary=vocabulary, tables=tables, shifted=False, stacks=(stack,))


def _neox(config: Mapping[str, Any]) -> Shape:
    width, inside = config["hidden_size"], config["intermediate_size"]
    biased = bool(config.get("attention_bias", True))
    linear = (
        Linear("query_key_value", width, 3 * width, biased),
        Linear("dense", width, width, biased),
        Linear("dense_h_to_4h", width, inside, True),
        Linear("dense_4h_to_h", inside, width, True),
    )
    stack = Stack(blocks=config["num_hidden_layers"], linear=linear, norms=(width, width))
    tables = 1 if config.get("tie_word_embeddings") else 2
    vocabulary = config["vocab_size"]
    return Shape(width=width, keys=width, vocabulary=vocabulary, tables=tables, shifted=True, stacks=(stack,))


def _t5(config: Mapping[str, Any]) -> Shape:
    width, inside, heads = config["d_model"], config["d_ff"], config["num_heads"]
    keys = heads * config["d_kv"]
    attention = (*(Linear(name, width, keys) for name in "qkv"), Linear("o", keys, width))
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    ways_in = tuple(Linear(name, width, inside) for name in (("wi_0", "wi_1") if gated else ("wi",)))
    mlp = (*ways_in, Linear("wo", inside, width))
    positions = config.get("relative_attention_num_buckets", 32) * heads
    encoder = Stack(blocks=config["num_layers"], linear=(*attention, *mlp), norms=(width, width), extra=positions)
    decoder = Stack(
        blocks=config.get("num_decoder_layers") or config["num_layers"],
        linear=(*attention, *attention, *mlp),
        norms=(width, width, width),
        extra=positions,
    )
    tables = 1 if config.get("tie_word_embeddings", True) else 2
    stacks = (encoder, decoder)
    vocabulary = config["vocab_size"]
    return Shape(width=width, keys=keys, vocabulary=vocabulary, tables=tables, shifted=False, stacks=stacks)


FAMILIES = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "gpt_neox": _neox,
    "t5": _t5,
    "mt5": _t5,
}
