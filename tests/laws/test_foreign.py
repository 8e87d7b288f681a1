"""Adapter folders that peft wrote, and we did not: read to the same logits, or refused."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.laws.test_merge import reloaded
from tests.laws.test_methods import logits
from tunesmith.adapters import folder as adapters
from tunesmith.adapters.fold import Merging, merge
from tunesmith.errors import ModelError
from tunesmith.models.embedded import HUB_IDS

TASK = {"task_type": "CAUSAL_LM"}
CONFIGS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_rslora=True, **TASK),
    "gaussian": lambda: peft.LoraConfig(r=4, init_lora_weights="gaussian", rank_pattern={"k_proj": 2}, **TASK,
                                        target_modules="all-linear"),
    "ia3": lambda: peft.IA3Config(**TASK),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=["v_proj"], **TASK),
    "vera": lambda: peft.VeraConfig(r=8, target_modules=["q_proj"], **TASK),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=["v_proj"], use_dora=True, **TASK),
    "lokr": lambda: peft.LoKrConfig(r=4, target_modules=["v_proj"], **TASK),
    "oft": lambda: peft.OFTConfig(oft_block_size=8, r=0, target_modules=["q_proj", "down_proj"], **TASK),
    "hra": lambda: peft.HRAConfig(r=4, target_modules=["q_proj"], **TASK),
    "miss": lambda: peft.MissConfig(r=8, target_modules=["q_proj", "o_proj"], **TASK),
    "prompt_tuning": lambda: peft.PromptTuningConfig(num_virtual_tokens=5, **TASK),
    "p_tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=5, encoder_hidden_size=16, **TASK),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=5, **TASK),
}  # fmt: skip
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def written(model, tiny, place, config, base=None):
    """A folder as peft writes it, its weights moved off their start; give what peft says with it."""
    net = model("chat").net
    net.name_or_path = base or str(tiny("chat"))
    theirs = peft.get_peft_model(net, config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if weight.requires_grad and "vera_lambda" not in name:
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
            elif weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=generator))
        found = theirs(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[0, -3:]
    theirs.save_pretrained(place)
    return found


@pytest.mark.parametrize("way", CONFIGS)
def test_what_peft_wrote_says_the_same_here(model, tiny, tmp_path, capsys, way):
    expected = written(model, tiny, tmp_path, CONFIGS[way]())
    adapter = adapters.trained(tmp_path)
    assert "was not written by tunesmith" in capsys.readouterr().err
    assert adapter.method.name == {"gaussian": "lora", "dora": "lora"}.get(way, way)
    assert adapter.base_sha256 is None
    loaded = adapters.load_trained(adapter, "float32")
    found = logits(loaded, loaded.encoder.virtual)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (expected - logits(model("chat"))).norm() > 1e-3 * expected.norm()


def test_it_is_merged_like_our_own(model, tiny, tmp_path):
    expected = written(model, tiny, tmp_path / "theirs", CONFIGS["lora"]())
    merge([tmp_path / "theirs"], tmp_path / "out", Merging(max_kl=1e-6))
    torch.testing.assert_close(logits(reloaded(tmp_path / "out")), expected, rtol=1e-4, atol=1e-5)


def test_the_record_says_what_the_configuration_says(model, tiny, tmp_path):
    written(model, tiny, tmp_path, CONFIGS["gaussian"](), base=HUB_IDS["smollm2"])
    adapter = adapters.trained(tmp_path)
    assert adapter.base == "smollm2"
    assert (adapter.method.rank, adapter.method.alpha, adapter.method.ranks) == (4, 8, {"k_proj": 2})


def lora(**more):
    return peft.LoraConfig(**{"r": 4, "target_modules": ["q_proj"], **TASK, **more})


@pytest.mark.parametrize(("config", "message"), [
    (lora(modules_to_save=["lm_head"]), "trains whole modules besides"),
    (lora(trainable_token_indices=[1, 2]), "single words of the vocabulary"),
    (lora(bias="all"), "trains the base's biases"),
    (lora(init_lora_weights="pissa"), "a base that its init 'pissa' has changed"),
    (peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, **TASK), "is not among the methods here"),
])  # fmt: skip
def test_what_could_only_be_half_read_is_refused(model, tiny, tmp_path, config, message):
    written(model, tiny, tmp_path, config)
    with pytest.raises(ModelError, match=message):
        adapters.load_trained(adapters.trained(tmp_path), "float32")


def rename(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def without_one(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    weights.popitem()
    save_file(weights, folder / "adapter_model.safetensors")


def with_embedding(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.model.embed_tokens.weight"] = torch.zeros(4, 4)
    save_file(weights, folder / "adapter_model.safetensors")


def says(**values):
    """Give a change of the folder's configuration."""

    def change(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


@pytest.mark.parametrize(("change", "message"), [
    (rename, "only a pickle, adapter_model.bin"), (without_one, "has no weights for"),
    (with_embedding, "holds .*embed_tokens.* no part of an adapter"),
    (says(base_model_name_or_path=None), "names no base model"),
    (says(peft_type="TOMORROW"), "knows no 'TOMORROW'"),
    (says(target_parameters=["x"]), "parameters that are no layers"),
    (says(layer_replication=[[0, 1]]), "repeats layers"),
])  # fmt: skip
def test_a_folder_that_is_not_whole_is_refused(model, tiny, tmp_path, change, message):
    written(model, tiny, tmp_path, lora())
    change(tmp_path)
    with pytest.raises(ModelError, match=message):
        adapters.load_trained(adapters.trained(tmp_path), "float32")
