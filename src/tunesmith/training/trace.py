"""Tracing: what the engine holds in memory, told by narrow copies of the very model that go through it.

A copy has the model's config but two or three blocks, heads of 8 to 32 numbers and all else narrower in
proportion; its weights are random. The method is put onto it and one batch goes forward and backward through the
training's own functions, while every tensor that is made or let go of is counted. A few copies of other widths,
depths and rows give the slopes of `planning.memory.Traced`: a change of the engine changes the plan by itself.
"""

import json
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tunesmith import methods
from tunesmith.data.encode import Encoded, Encoder, Kind
from tunesmith.errors import ModelError
from tunesmith.method import Layers, Lora, Method, PromptTuning, PTuning, Qlora, SparseMask
from tunesmith.models import device, fused, head
from tunesmith.models.attention import BLOCK_BYTES, can_pack
from tunesmith.models.load import Model
from tunesmith.models.virtual import ids
from tunesmith.planning.loads import Laying, Length, load_of
from tunesmith.planning.memory import Traced, features, passing
from tunesmith.training import batches, loop

WORDS = 64  # the vocabulary of a copy: its head weighs nothing beside the blocks
DEPTH = 2
HIDDEN = 8
ENCODER_DECODERS = ("t5", "mt5")
# The width of a head, then the prompt and the answer of each row: enough to tell the features apart.
DECODERS = ((16, [(56, 8)] * 2), (32, [(56, 8)] * 2), (16, [(112, 16)]), (16, [(56, 8)] * 3))
BOTH = (
    (8, [(48, 16)] * 2), (16, [(48, 16)] * 2), (8, [(96, 16)] * 2), (16, [(96, 16)] * 2),
    (8, [(48, 32)] * 2), (16, [(48, 32)] * 2), (8, [(48, 16)] * 4), (8, [(48, 16)]),
)  # fmt: skip


class Held(NamedTuple):
    """Bytes held: `kept` for the backward once the blocks are computed; on top of it forward, and backward."""

    kept: int
    forward: int
    backward: int


class Engine(NamedTuple):
    """How the engine takes this model and method: rows laid in which way, head taken apart, passes side by side."""

    laying: Laying
    separable: bool
    parts: bool
    shares: bool


class Narrow(NamedTuple):
    """Which copy: the width of a head, the blocks of each stack, whether activations are checkpointed, the dtype."""

    head: int
    depths: tuple[int, ...]
    checkpointing: bool
    dtype: torch.dtype


def trace(config: Mapping[str, Any], method: Any, checkpointing: bool, dtype: torch.dtype) -> tuple[Traced, Engine]:
    """Give the slopes of a model's family under a method, and how the engine takes it.

    Raises ModelError if the family cannot be made narrower, or has nothing for the method to train.
    """
    return _traced(json.dumps(config, default=str, sort_keys=True), _alike(method), checkpointing, dtype)


@lru_cache(maxsize=32)
def _traced(config: str, method: str, checkpointing: bool, dtype: torch.dtype) -> tuple[Traced, Engine]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small products on several cores mostly wait for one another
    try:
        return _told(json.loads(config), TypeAdapter(Method).validate_json(method), checkpointing, dtype)
    finally:
        torch.set_num_threads(threads)


def _told(values: Mapping[str, Any], way: Any, checkpointing: bool, dtype: torch.dtype) -> tuple[Traced, Engine]:
    """Give slopes from the narrowest copies that take the method: a rank can be too large for narrow layers."""
    times, narrowest = 1, min(width for width, _ in _points(values))
    while True:
        try:
            return _found(values, way, times, checkpointing, dtype)
        except ModelError:
            times *= 2
            if times * narrowest > _own_head(values):
                raise


def _found(
    values: Mapping[str, Any], way: Any, times: int, checkpointing: bool, dtype: torch.dtype
) -> tuple[Traced, Engine]:
    """Give slopes from copies that are `times` as wide as the narrowest."""
    both = values["model_type"] in ENCODER_DECODERS
    depths = [(DEPTH, DEPTH), (DEPTH + 1, DEPTH), (DEPTH, DEPTH + 1)] if both else [(DEPTH,), (DEPTH + 1,)]
    points, kept, brief, block = [], [], [], _block(dtype)
    for width, lengths in _points(values):
        models = [_copy(values, way, Narrow(times * width, depth, checkpointing, dtype)) for depth in depths]
        rows = _rows(lengths, way.virtual_tokens)
        held = [measure(model, rows) for model in models]
        engine = _engine(models[0], rows)
        load = load_of(rows_lengths(rows), engine.laying, block, batches.shared(rows) if engine.shares else 0)
        points.append((features(load, models[0].width), passing(load, models[0].width)))
        kept.append([*(one.kept - held[0].kept for one in held[1:]), held[0].kept])
        brief.append([held[-1].forward, held[-1].backward])
    *_, rest = slopes = _slopes([one for one, _ in points], kept)
    forward, backward = _slopes([one for _, one in points], brief)
    blocks = slopes[:-1]
    traced = Traced(
        blocks=tuple(map(tuple, blocks.tolist())),
        rest=tuple((rest - DEPTH * blocks.sum(0)).tolist()),
        forward=tuple(forward.tolist()),
        backward=tuple(backward.tolist()),
        block=block,
        piece=head.PIECE,
        room=fused.LOGITS * 4,
    )
    return traced, engine


def _points(values: Mapping[str, Any]) -> Any:
    """Give the widths of heads and the rows that copies are made and asked of."""
    return BOTH if values["model_type"] in ENCODER_DECODERS else DECODERS


def _slopes(points: Sequence[tuple[float, ...]], found: Sequence[Sequence[int]]) -> Any:
    """Give the slopes [of each thing found, of each feature] that come nearest to what was found."""
    scale = np.array(points, dtype=float).max(0)
    scale[scale == 0] = 1.0
    return (np.linalg.lstsq(points / scale, np.array(found, dtype=float), rcond=None)[0] / scale[:, None]).T


def _alike(method: Any) -> str:
    """Give a method whose passes hold the same, and which needs neither rows, words nor a library to begin."""
    match method:
        case Qlora():  # a weight that is packed is made dense for each product: planned beside the slopes
            method = Lora.model_validate(
                {**method.model_dump(include=set(Lora.model_fields) - {"name", "dora", "init"})}
            )
        case SparseMask():
            method = method.model_copy(update={"score": "random"})
        case PromptTuning():
            method = method.model_copy(update={"init": "text"})
        case PTuning():  # what its network holds does not grow with the rows
            method = method.model_copy(update={"hidden": HIDDEN})
        case Layers():
            method = Layers(last=DEPTH + 1)
    return str(method.model_dump_json())


def _block(dtype: torch.dtype) -> int:
    return BLOCK_BYTES // dtype.itemsize


def rows_lengths(rows: Sequence[Encoded]) -> list[Length]:
    """Give the lengths of rows."""
    return [Length(len(row.prompt), len(row.answer)) for row in rows]


def _rows(lengths: Sequence[tuple[int, int]], virtual: int) -> list[Encoded]:
    """Make rows of these lengths that begin alike in nothing but virtual tokens."""
    return [
        Encoded(str(i), (*ids(virtual), *((i + j) % (WORDS - 4) + 2 for j in range(asked))), (3,) * said)
        for i, (asked, said) in enumerate(lengths)
    ]


class _Words:
    """A tokenizer of a copy: any text is the same few tokens."""

    def __call__(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=[2, 3, 4])


def _copy(values: Mapping[str, Any], method: Any, narrow: Narrow) -> Model:
    """Make a narrow model of random weights, with the method on it. Raises ModelError."""
    kind: Kind = "encoder-decoder" if values["model_type"] in ENCODER_DECODERS else "decoder"
    config = AutoConfig.for_model(**{**values, **_narrowed(values, narrow), **SMALL})
    auto = AutoModelForSeq2SeqLM if kind == "encoder-decoder" else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = auto.from_config(config, dtype=narrow.dtype)
    encoder = Encoder(_Words(), kind, False, (1,), ids(method.virtual_tokens))  # type: ignore[arg-type]
    net.eval()  # as a model is loaded
    model = Model("a narrow copy", net, encoder, kind, "", device.Dtype(narrow.dtype, ""))
    if narrow.checkpointing:
        net.activation_checkpointing_enable({"use_reentrant": False})
    methods.prepare(model, method, 0)
    net.train()
    return model


# What a copy's vocabulary needs to be consistent; its tokens mean nothing.
SMALL = {
    "vocab_size": WORDS,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 1,
    "decoder_start_token_id": 0,
}


def _own_head(values: Mapping[str, Any]) -> int:
    """Give the width of one of the model's own heads."""
    return int(values.get("d_kv") or values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"])


def _narrowed(values: Mapping[str, Any], narrow: Narrow) -> dict[str, Any]:
    """Give the fields of a config that make it narrow, all in the proportion of the heads' width."""
    if values["model_type"] in ENCODER_DECODERS:
        ratio = narrow.head / _own_head(values)
        fields = {"d_kv": narrow.head, "num_layers": narrow.depths[0], "num_decoder_layers": narrow.depths[1]}
        return {**fields, **{name: max(2, round(values[name] * ratio)) for name in ("d_model", "d_ff")}}
    heads = values["num_attention_heads"]
    own = _own_head(values)
    ratio = narrow.head / own
    hidden = (
        heads * narrow.head if own * heads == values["hidden_size"] else 2 * round(values["hidden_size"] * ratio / 2)
    )
    fields = {"hidden_size": hidden, "intermediate_size": round(values["intermediate_size"] * ratio)}
    layers = {"layer_types": ["full_attention"] * narrow.depths[0]} if values.get("layer_types") else {}
    given = {"head_dim": narrow.head} if "head_dim" in values else {}
    return {**fields, "num_hidden_layers": narrow.depths[0], **given, **layers}


def _engine(model: Model, rows: Sequence[Encoded]) -> Engine:
    batch = loop.make_batch(model, rows)
    with loop.attention(model):
        separable, parts = head.separable(model.net, batch.inputs), loop.can_part(model, batch)
    packed = can_pack(model.net)
    laying: Laying = "encoder-decoder" if model.kind == "encoder-decoder" else "packed" if packed else "padded"
    return Engine(laying, separable, parts, packed and not loop.drops(model.net))


def measure(model: Model, rows: Sequence[Encoded]) -> Held:
    """Take one batch forward and backward, as a training does, and give what was held.

    Gradients that are done are left out: how many there are is known, and they grow with the weights, not the batch.
    """
    batch = loop.make_batch(model, rows)
    weights = [weight for weight in model.net.parameters() if weight.requires_grad]
    marks: list[tuple[int, int]] = []
    with loop.attention(model), torch.random.fork_rng():
        head.separable(model.net, batch.inputs)  # tried once for each model, and nothing of the step
        with Live(model.net) as live:
            ending = model.net.get_output_embeddings().register_forward_pre_hook(
                lambda *_: marks.append((live.now, live.restart()))
            )
            loss, _ = head.loss_at(model.net, batch.inputs, batch.keep, batch.targets)
            ending.remove()
            live.restart()
            hooks = [weight.register_hook(live.leave_out) for weight in weights]
            torch.autograd.grad(loss, weights, allow_unused=True)
            backward = live.peak
            for hook in hooks:
                hook.remove()
    kept, most = marks[0]
    return Held(kept, most - kept, backward - kept)


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are made while it is on, until they are let go of; weights do not count."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._counted: set[int] = set()
        self._known = {one.untyped_storage()._cdata for one in (*net.parameters(), *net.buffers())}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and count the storages that are new."""
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._take(tensor.untyped_storage())
        return made

    def restart(self) -> int:
        """Give the most bytes held since the last time, and begin anew from those held now."""
        most, self.peak = self.peak, self.now
        return most

    def leave_out(self, tensor: Tensor) -> None:
        """Count the bytes of a tensor no longer."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._counted:
            self._free(storage._cdata, storage.nbytes())
            self._known.add(storage._cdata)  # so that a view of it does not count either

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self._counted.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        if key in self._counted:
            self._counted.discard(key)
            self.now -= size
