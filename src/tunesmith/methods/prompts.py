"""Prompts that are trained: virtual tokens, as vectors before the text or as keys and values inside the attention."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PrefixTuningConfig, PromptEncoder, PromptEncoderConfig, PromptTuningConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.errors import ModelError
from tunesmith.method import Prefix as PrefixTuning
from tunesmith.method import PromptTuning, PTuning
from tunesmith.methods import encoder_prefix
from tunesmith.methods.evidence import Evidence
from tunesmith.methods.injected import WEIGHTS, task_type
from tunesmith.models import virtual
from tunesmith.models.attention import can_pack
from tunesmith.models.fit import Fit, whole_or_nothing
from tunesmith.models.load import Model
from tunesmith.models.virtual import Prefix, Table
from tunesmith.runs.records import VirtualToken

SAVED = "prompt_embeddings"  # PEFT's name for all of them
COMMON = 5000  # vocabularies list frequent words first; the start is drawn from these (Lester et al. 2021, section 3.2)


class SoftPrompt(Fit):
    """Virtual tokens with vectors of their own; rows that begin with their ids are asked of them, others are not."""

    mixes = True

    def __init__(self, model: Model, name: str, table: nn.Module, config: PeftConfig) -> None:
        self.net, self.name, self.table, self.config = model.net, name, table.to(model.device), config
        tokens = config.num_virtual_tokens
        self.virtual = virtual.ids(tokens, virtual.add_words(self.net, name, self.table, tokens))

    def write(self, folder: Path, base: str) -> None:
        """Write PEFT's two files."""
        _write(folder, base, self.config, self.weights()[SAVED])

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Give the vectors [tokens, width]."""
        return {SAVED: self.table()}

    def _set(self, strength: float) -> None:
        """Do nothing: a row's own ids say whether it is asked of this prompt."""
        whole_or_nothing(self.name, strength)

    def remove(self) -> None:
        """Take the virtual words off."""
        virtual.remove_words(self.net, self.name)


class KeysAndValues(Fit):
    """Virtual tokens whose keys and values are trained, layer by layer; their vectors are zeros and do not matter."""

    def __init__(self, model: Model, name: str, prefixes: list[Prefix], config: PeftConfig) -> None:
        self.net, self.name, self.prefixes, self.config = model.net, name, prefixes, config
        self.claims = frozenset({"prefix"})
        tokens = config.num_virtual_tokens
        zeros = Table(torch.zeros(tokens, model.width, dtype=model.dtype.torch, device=model.device))
        zeros.requires_grad_(False)
        self.virtual = virtual.ids(tokens, virtual.add_words(self.net, name, zeros, tokens))
        self.switch(1.0)

    def write(self, folder: Path, base: str) -> None:
        """Write PEFT's two files."""
        _write(folder, base, self.config, self.weights()[SAVED])

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Give keys and values of all layers, [tokens, layers * 2 * groups * width], as PEFT saves them."""
        layers = [torch.stack([one.key, one.value], 1) for one in self.prefixes]
        return {SAVED: torch.stack(layers, 1).flatten(1)}

    def _set(self, strength: float) -> None:
        """Hang the keys and values into the attention layers, or take them out."""
        on = whole_or_nothing(self.name, strength)
        for layer, prefix in zip(virtual.attention_layers(self.net), self.prefixes, strict=True):
            setattr(layer, "prefix", prefix if on else None)  # noqa: B010 - a module's attribute, new to its type

    def remove(self) -> None:
        """Take keys, values and virtual words off."""
        self.switch(0.0)
        virtual.remove_words(self.net, self.name)


def prepare_words(model: Model, method: PromptTuning, name: str, seed: int, evidence: Evidence) -> SoftPrompt:
    """Freeze the network and put trainable virtual tokens before its prompts."""
    model.net.requires_grad_(False)
    embedding: Any = model.net.get_input_embeddings()
    vectors = embedding.weight[_start(model, method, seed, evidence.labels)].detach().clone()
    return SoftPrompt(model, name, Table(vectors), _config(PromptTuningConfig, model.net, method.tokens))


def prepare_network(model: Model, method: PTuning, name: str, seed: int, evidence: Evidence) -> SoftPrompt:
    """Freeze the network and put virtual tokens before its prompts that a small network of peft's makes."""
    model.net.requires_grad_(False)
    config = _config(PromptEncoderConfig, model.net, method.tokens, encoder_hidden_size=method.hidden)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        table = _Made(config)
    embedding: Any = model.net.get_input_embeddings()
    table.scale = float(embedding.weight.float().std())
    return SoftPrompt(model, name, table.to(model.dtype.torch), config)


def prepare_prefix(model: Model, method: PrefixTuning, name: str, seed: int, evidence: Evidence) -> Fit:
    """Freeze the network and put trainable keys and values before those of every layer.

    Raises ModelError where attention is not ours to add to, as with sliding windows.
    """
    if model.kind == "encoder-decoder":
        return encoder_prefix.prepare(model, method, name, _ids_of(model, method.text, method.tokens))
    _check_prefix(model)
    model.net.requires_grad_(False)
    ids = torch.tensor([_ids_of(model, method.text, method.tokens)], device=model.device)
    with torch.no_grad():
        cache = model.net(input_ids=ids, use_cache=True).past_key_values
    states = [(one.keys[0], one.values[0]) for one in cache.layers]  # [groups, tokens, width]
    prefixes = [Prefix(*(part.transpose(0, 1).contiguous() for part in both)) for both in states]
    return KeysAndValues(model, name, prefixes, _prefix_config(model.net, method.tokens, prefixes[0]))


def load_words(model: Model, method: PromptTuning | PTuning, name: str, folder: Path) -> SoftPrompt:
    """Put saved virtual tokens before the network's prompts."""
    vectors, config = _read(folder)
    if vectors.shape[1] != model.width:
        raise ModelError(f"{folder}: its vectors have {vectors.shape[1]} numbers, the model's {model.width}", fix=OTHER)
    table = Table(vectors.to(model.dtype.torch))
    return SoftPrompt(model, name, table, config)


def load_prefix(model: Model, method: PrefixTuning, name: str, folder: Path) -> Fit:
    """Put saved keys and values before the network's own."""
    if model.kind == "encoder-decoder":
        return encoder_prefix.load(model, name, folder)
    _check_prefix(model)
    saved, config = _read(folder)
    layers = len(virtual.attention_layers(model.net))
    heads = config.num_attention_heads
    if config.num_layers != layers:
        raise ModelError(f"{folder}: is for {config.num_layers} layers, the model has {layers}", fix=OTHER)
    parts = saved.to(model.device, model.dtype.torch).view(len(saved), layers, 2, heads, -1).unbind(1)
    prefixes = [Prefix(*(part.contiguous() for part in both.unbind(1))) for both in parts]
    return KeysAndValues(model, name, prefixes, config)


OTHER = "load it onto the model it was trained on"


class _Made(nn.Module):
    """Virtual tokens as peft's P-tuning network makes them, at the size of the vocabulary's own vectors.

    A fresh network's outputs are far smaller or larger than words, which throws the model off.
    """

    scale = 1.0

    def __init__(self, config: PromptEncoderConfig) -> None:
        super().__init__()
        self.network = PromptEncoder(config)
        self.register_buffer("places", torch.arange(config.num_virtual_tokens)[None], persistent=False)
        with torch.no_grad():
            self.usual = float(self.network(self.places)[0].std())

    def forward(self) -> Tensor:
        """Give the vectors [tokens, width]."""
        found: Tensor = self.network(self.places)[0]
        return found * (self.scale / self.usual)


@torch.no_grad()
def nearest_words(model: Model, fit: Fit, n: int = 3) -> list[VirtualToken]:
    """Give the `n` words whose vectors each virtual token of a soft prompt is nearest to, by cosine.

    Only a hint: what a token does in its place need not be what the word means
    (Khashabi et al. 2022, arXiv:2112.08348). Empty for fits that have no such vectors.
    """
    if not isinstance(fit, SoftPrompt):
        return []
    words: Any = model.net.get_input_embeddings()
    learned = nn.functional.normalize(fit.table().float(), dim=1)
    pieces = words.weight.split(8192)  # the whole vocabulary in fp32 can be gigabytes
    cosines = torch.cat([learned @ nn.functional.normalize(piece.float(), dim=1).t() for piece in pieces], 1)
    best = cosines.topk(min(n, cosines.shape[1]))
    decode: Any = model.encoder.tokenizer.decode
    said = [[str(decode([token])) for token in row] for row in best.indices.tolist()]
    return [
        VirtualToken(words=tuple(row), cosines=tuple(round(one, 4) for one in found))
        for row, found in zip(said, best.values.tolist(), strict=True)
    ]


def _start(model: Model, method: PromptTuning, seed: int, labels: tuple[str, ...]) -> list[int]:
    """Choose the words that the virtual tokens start from."""
    if method.init == "vocabulary":
        generator = torch.Generator().manual_seed(seed)
        words = model.net.config.vocab_size
        return [int(i) for i in torch.randperm(min(COMMON, words), generator=generator)[: method.tokens]]
    if method.init == "labels" and not labels:
        raise ModelError("method.init=labels: the task names no choices", fix="-s method.init=text")
    return _ids_of(model, " ".join(labels) if method.init == "labels" else method.text, method.tokens)


def _ids_of(model: Model, text: str, tokens: int) -> list[int]:
    """Give the token ids of `text`, repeated or cut to `tokens` of them."""
    found = list(model.encoder.tokenizer(text, add_special_tokens=False).input_ids)
    if not found:
        raise ModelError("method.text: has no tokens to start from", fix="write a sentence")
    return (found * -(-tokens // len(found)))[:tokens]


def _check_prefix(model: Model) -> None:
    if not can_pack(model.net):
        raise ModelError(
            f"prefix: the attention of a {model.net.config.model_type} model like this one takes no keys from outside",
            fix="-s method.name=prompt_tuning",
        )


def _config(kind: Any, net: PreTrainedModel, tokens: int, **more: Any) -> Any:
    return kind(
        task_type=task_type(net),
        num_virtual_tokens=tokens,
        num_transformer_submodules=1,
        token_dim=net.config.hidden_size,
        num_layers=net.config.num_hidden_layers,
        num_attention_heads=net.config.num_attention_heads,
        **more,
    )


def _prefix_config(net: PreTrainedModel, tokens: int, prefix: Prefix) -> Any:
    _, groups, width = prefix.key.shape
    config = _config(PrefixTuningConfig, net, tokens)
    config.token_dim, config.num_attention_heads = groups * width, groups
    return config


def _write(folder: Path, base: str, config: PeftConfig, vectors: Tensor) -> None:
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file({SAVED: vectors.detach().contiguous()}, folder / WEIGHTS, {"format": "pt"})


def _read(folder: Path) -> tuple[Tensor, Any]:
    saved = load_file(folder / WEIGHTS)
    if SAVED not in saved:
        raise ModelError(f"{folder}: holds no '{SAVED}'", fix="restore its files, or train again")
    return saved[SAVED], PeftConfig.from_pretrained(str(folder))
