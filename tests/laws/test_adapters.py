"""Saved == loaded == what PEFT reads; an untrained adapter is the base, bit for bit."""

import json

import peft
import pytest
import torch

from tunesmith import methods
from tunesmith.adapters import folder as adapters
from tunesmith.errors import ModelError
from tunesmith.method import Full, Lora
from tunesmith.models.load import find, load, load_encoder
from tunesmith.recipe import Recipe

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(net):
    with torch.no_grad():
        inputs = {"decoder_input_ids": IDS} if net.config.is_encoder_decoder else {}
        return net(input_ids=IDS, **inputs).logits


def moved(loaded, method):
    """A model whose trainable weights have moved off their start."""
    methods.prepare(loaded, method, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in loaded.net.parameters():
            if p.requires_grad:
                p += 0.05 * torch.randn(p.shape, generator=generator)
    return loaded


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_a_new_adapter_leaves_the_base_bit_for_bit(model, kind):
    loaded = model(kind)
    before = logits(loaded.net)
    methods.prepare(loaded, Lora(), seed=0)
    assert torch.equal(logits(loaded.net), before)


@pytest.mark.parametrize("method", [Lora(rank=4, targets="attention"), Full()], ids=lambda m: m.name)
@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_saved_and_loaded_weights_answer_the_same(model, tmp_path, kind, method):
    loaded = moved(model(kind), method)
    expected = logits(loaded.net)
    recipe = Recipe(model=loaded.name, method=method, dtype="float32")
    saved = adapters.save(loaded, recipe, tmp_path / "checkpoints")
    again = adapters.read(tmp_path)
    assert again == saved
    assert torch.equal(logits(adapters.load_trained(again).net), expected)


@pytest.mark.parametrize("targets", ["all-linear", "mlp", ("q_proj", "v_proj")], ids=str)
def test_peft_reads_our_adapter(model, tiny, tmp_path, targets):
    loaded = moved(model("chat"), Lora(rank=4, targets=targets))
    expected = logits(loaded.net)
    recipe = Recipe(model=loaded.name, method=Lora(rank=4, targets=targets), dtype="float32")
    saved = adapters.save(loaded, recipe, tmp_path / "checkpoints")
    place = find(str(tiny("chat")))
    base = load(place, load_encoder(place), "float32").net
    theirs = peft.PeftModel.from_pretrained(base, str(saved.folder))
    assert torch.equal(logits(theirs.base_model.model), expected)


def test_another_base_is_refused_with_both_names(model, tiny, tmp_path):
    loaded = moved(model("chat"), Lora())
    saved = adapters.save(loaded, Recipe(model=loaded.name, method=Lora()), tmp_path / "checkpoints")
    other = saved.model_copy(update={"base": str(tiny("base"))})
    with pytest.raises(ModelError, match="was trained on .*tiny-base .* is now"):
        adapters.load_trained(other)


def test_a_second_save_replaces_the_first_whole(model, tmp_path):
    loaded = moved(model("chat"), Lora())
    recipe = Recipe(model=loaded.name, method=Lora())
    first = adapters.save(loaded, recipe, tmp_path / "checkpoints")
    (first.folder / "stray").write_text("x")
    second = adapters.save(loaded, recipe, tmp_path / "checkpoints")
    assert first.folder == second.folder
    assert sorted(p.name for p in second.folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "recipe.yaml", "tunesmith.json",
    ]  # fmt: skip
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["adapter"]


def test_the_adapter_says_where_it_came_from(model, tmp_path):
    loaded = moved(model("chat"), Lora(rank=2))
    saved = adapters.save(loaded, Recipe(model=loaded.name, method=Lora(rank=2)), tmp_path / "checkpoints")
    origin = json.loads((saved.folder / "tunesmith.json").read_text())
    assert origin["base_sha256"] == loaded.sha256
    assert origin["method"]["rank"] == 2
    assert json.loads((saved.folder / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no trained weights"):
        adapters.read(tmp_path)


def test_a_layer_the_model_lacks_is_refused_with_the_nearest(model):
    with pytest.raises(ModelError) as wrong:
        methods.prepare(model("chat"), Lora(targets=("q_prj",)), seed=0)
    assert "q_prj" in wrong.value.what
    assert "q_proj" in wrong.value.fix
