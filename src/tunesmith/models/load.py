"""Loading: an alias, a folder, a `.gguf` file or a hub id becomes a `Model`."""

import hashlib
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging
from transformers.utils.quantization_config import GgufConfig

from tunesmith.data.encode import Encoder, Kind
from tunesmith.errors import ModelError
from tunesmith.models import device
from tunesmith.models.embedded import HUB_IDS, embedded_folder, sha256_file
from tunesmith.models.fit import Fit
from tunesmith.models.quantize import weights_in
from tunesmith.names import suggest


@dataclass(frozen=True)
class Place:
    """Where a model's files are: `source` is a folder or hub id, `gguf` a file name inside the folder."""

    name: str
    source: str
    gguf: str | None = None


@dataclass(frozen=True)
class Model:
    """A loaded network with everything needed to talk to it.

    `net` is the transformers model, `fits` the adapters that sit on it, by
    name; `sha256` is that of the base weights' files, or of the hub commit
    where the files are not local.
    """

    name: str
    net: PreTrainedModel
    encoder: Encoder
    kind: Kind
    sha256: str
    dtype: device.Dtype
    fits: dict[str, Fit] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The device the weights are on."""
        found: torch.device = self.net.device
        return found

    @property
    def context(self) -> int | None:
        """The longest sequence the model was made for, in tokens; None if it sets no limit."""
        return getattr(self.net.config, "max_position_embeddings", None)

    @property
    def width(self) -> int:
        """The hidden size."""
        return int(self.net.config.hidden_size)

    def parameters(self, trainable: bool = False) -> int:
        """Count the weights, tied ones once; only those that learn if `trainable`."""
        return sum(weights_in(p) for p in self.net.parameters() if p.requires_grad or not trainable)


def find(name: str) -> Place:
    """Tell where a model is, without reading it.

    Raises ModelError if `name` is no alias, folder, `.gguf` file or hub id.
    """
    if name in HUB_IDS:
        folder = embedded_folder()
        return Place(name, str(folder) if folder else HUB_IDS[name])
    path = Path(name)
    if path.suffix == ".gguf" and path.is_file():
        return Place(name, str(path.parent), path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name}: the folder holds no config.json", fix="name a folder in the Hugging Face format")
        return Place(name, name)
    if path.suffix == ".gguf" or name.startswith((".", "/")) or name.count("/") > 1:
        raise ModelError(f"{name}: no such file or folder", fix="check the path of the model")
    if any((beside / "recipe.yaml").is_file() for beside in path.parent.glob("*")) and path.parent != Path():
        there = ", ".join(sorted(one.name for one in path.parent.iterdir() if one.is_dir()))
        raise ModelError(f"{name}: no such folder", fix=f"{path.parent} holds {there}")
    if "/" not in name:
        hint = suggest(name, HUB_IDS)
        raise ModelError(
            f"there is no model '{name}'", fix=f"{hint}; a folder, .gguf file or hub id 'owner/name' works too"
        )
    return Place(name, name)


def load_encoder(place: Place, prompting: str = "auto") -> Encoder:
    """Load the tokenizer and say how the model wants to be spoken to; reads no weights.

    `prompting` is `chat`, `plain`, or `auto`: chat where the tokenizer has a chat template.
    """
    config = read_config(place)
    tokenizer = _from_pretrained(AutoTokenizer, place)
    kind: Kind = "encoder-decoder" if config.is_encoder_decoder else "decoder"
    has_template = tokenizer.chat_template is not None
    if prompting == "chat" and not has_template:
        raise ModelError(f"{place.name}: has no chat template", fix="-s prompting=plain")
    chat = kind == "decoder" and has_template and prompting != "plain"
    return Encoder(tokenizer, kind, chat, _stops(place, tokenizer))


def load(place: Place, encoder: Encoder, dtype: str = "auto", onto: torch.device | None = None) -> Model:
    """Load the weights, onto the GPU if there is one; `onto` names another place. Raises ModelError."""
    chosen = device.choose_dtype(dtype)
    if place.gguf:
        net, _ = read_gguf(Path(place.source) / place.gguf, chosen.torch)
    else:
        auto = AutoModelForSeq2SeqLM if encoder.kind == "encoder-decoder" else AutoModelForCausalLM
        net = _from_pretrained(auto, place, dtype=chosen.torch)
    net.to(onto or device.current()).eval()
    return Model(place.name, net, encoder, encoder.kind, _sha256(place, net), chosen)


def load_as_stored(place: Place, kind: Kind) -> PreTrainedModel:
    """Read the network alone, in the dtype of its files; a `.gguf` file, whose blocks have none, in bf16."""
    if place.gguf:
        return read_gguf(Path(place.source) / place.gguf, torch.bfloat16)[0].eval()
    auto = AutoModelForSeq2SeqLM if kind == "encoder-decoder" else AutoModelForCausalLM
    net: PreTrainedModel = _from_pretrained(auto, place, dtype="auto")
    return net.eval()


def read_gguf(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Read a GGUF file into a plain dense model, every quantised block unpacked.

    The weights move into a model built from the plain config: the one that
    transformers returns remembers its quantisation and does not save.
    """
    place = Place(str(path), str(path.parent), path.name)
    with redirect_stderr(StringIO()):  # a progress bar that transformers' own switch does not reach
        packed = _from_pretrained(
            AutoModelForCausalLM, place, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
        )
    values = {key: value for key, value in packed.config.to_dict().items() if key != "quantization_config"}
    net = AutoModelForCausalLM.from_config(type(packed.config)(**values), dtype=dtype)
    net.load_state_dict(packed.state_dict())
    net.generation_config = packed.generation_config
    return net, _from_pretrained(AutoTokenizer, place)


def read_config(place: Place) -> Any:
    """Read a model's config, and nothing else of it. Raises ModelError."""
    return _from_pretrained(AutoConfig, place)


def _from_pretrained(auto: Any, place: Place, **options: Any) -> Any:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if place.gguf:
        options["gguf_file"] = place.gguf
    try:
        return auto.from_pretrained(place.source, **options)
    except (OSError, ValueError, KeyError, ImportError) as wrong:
        reason = str(wrong).strip().splitlines()[0] if str(wrong).strip() else type(wrong).__name__
        fix = (
            "check the folder's files"
            if Path(place.source).is_dir()
            else "check the id and the network, or name a local folder"
        )
        raise ModelError(f"model '{place.name}' cannot be loaded: {reason}", fix=fix) from wrong


def _stops(place: Place, tokenizer: Any) -> tuple[int, ...]:
    """Give the tokens that end an answer, the tokenizer's own first."""
    from transformers import GenerationConfig

    try:
        told = GenerationConfig.from_pretrained(place.source).eos_token_id
    except (OSError, ValueError):  # many folders have no generation_config.json; the tokenizer then says it all
        told = None
    more = told if isinstance(told, list) else [told]
    stops = dict.fromkeys(token for token in [tokenizer.eos_token_id, *more] if token is not None)
    if not stops:
        raise ModelError(
            f"{place.name}: names no token that ends an answer", fix="set eos_token in its tokenizer_config.json"
        )
    return tuple(stops)


def _sha256(place: Place, net: PreTrainedModel) -> str:
    folder = Path(place.source)
    if not folder.is_dir():
        return str(getattr(net.config, "_commit_hash", None) or "unknown")
    names = (
        [place.gguf] if place.gguf else sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin"))
    )
    sums = [sha256_file(folder / name) for name in names]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
