"""Small real models, built once per test session, and a toy task that they can learn."""

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the hub's client is imported: no test waits for a network
os.environ["TUNESMITH_RESPONSES"] = "off"  # tests answer anew, but for those of kept answers

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tunesmith.data.rows import Source
from tunesmith.data.task import Generation, Sources, Task
from tunesmith.data.template import Template
from tunesmith.models.load import Model, find, load, load_encoder

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("red", "green", "blue", "black", "white", "brown", "pink", "grey")
SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = max(1, min(2, torch.get_num_threads()) // workers)
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # processes that tests start take no more than their worker


def pytest_collection_finish() -> None:
    """Leave what has been imported out of every later search for garbage: each training makes several of them."""
    gc.freeze()


def needs_shared(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=f"real data {name} is not on this machine")


def _tokenizer(chat: bool, stop: str) -> PreTrainedTokenizerFast:
    lines = Path(__file__).parents[1].joinpath("src/tunesmith/tasks/demo/validation.jsonl").read_text(encoding="utf-8")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", stop, "<|im_start|>"] if chat else ["<pad>", stop]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([*lines.split("\n"), *(f" {word}" for word in WORDS), *WORDS] * 2, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=stop, pad_token="<pad>")
    if chat:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
        tokenizer.chat_template = CHAT
    return tokenizer


def _llama(vocabulary: int, stop: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=stop,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def _t5(vocabulary: int, stop: int) -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=vocabulary,
        d_model=48,
        d_kv=12,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=stop,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    return T5ForConditionalGeneration(config)


def _neox(vocabulary: int, stop: int) -> GPTNeoXForCausalLM:
    """A decoder with biases, layer norms and fused queries, keys and values."""
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        pad_token_id=0,
        eos_token_id=stop,
        bos_token_id=None,
    )
    return GPTNeoXForCausalLM(config)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the folder of a tiny model of random weights: `chat`, `base` (no chat template), `t5` or `neox`."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            torch.manual_seed(["chat", "base", "t5", "neox"].index(kind))
            stop = "<|im_end|>" if kind == "chat" else "</s>"
            tokenizer = _tokenizer(kind == "chat", stop)
            net = {"t5": _t5, "neox": _neox}.get(kind, _llama)(len(tokenizer), tokenizer.eos_token_id)
            made[kind] = tmp_path_factory.mktemp(kind) / f"tiny-{kind}"
            net.save_pretrained(made[kind])
            tokenizer.save_pretrained(made[kind])
        return made[kind]

    return folder


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> Callable[[str], Model]:
    """Load a fresh tiny model in fp32."""

    def fresh(kind: str) -> Model:
        place = find(str(tiny(kind)))
        return load(place, load_encoder(place), "float32")

    return fresh


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def colour_rows(n: int, start: int = 0) -> list[dict[str, object]]:
    """Rows whose answer is the colour in the question."""
    return [
        {"id": f"r{i}", "thing": f"{i % 7} boxes", "colour": WORDS[(i * 5 + i // 8) % len(WORDS)]}
        for i in range(start, start + n)
    ]


def colours_in(folder: Path) -> Task:
    """Write a toy task into a folder: say which colour the question names."""
    sources = Sources(
        train=Source(file=write_rows(folder / "train.jsonl", colour_rows(96))),
        validation=Source(file=write_rows(folder / "validation.jsonl", colour_rows(16, 200))),
        test=Source(file=write_rows(folder / "test.jsonl", colour_rows(24, 300))),
    )
    return Task(
        name="colours",
        source=sources,
        metrics=("exact_match", "rouge1"),
        generation=Generation(max_new_tokens=6),
        templates=(
            Template(name="ask", prompt="{{ thing }}: {{ colour }}. Which colour?", answer="{{ colour }}"),
            Template(name="say", prompt="Say {{ colour }}", answer="{{ colour }}"),
        ),
    )


@pytest.fixture
def colours(tmp_path: Path) -> Task:
    """The toy task."""
    return colours_in(tmp_path)


@pytest.fixture
def colours_file(colours: Task, tmp_path: Path) -> Path:
    """The toy task as a file."""
    path = tmp_path / "colours.yaml"
    path.write_text(colours.to_yaml(), encoding="utf-8")
    return path
