import json

import pytest
import torch

from tunesmith.errors import ModelError
from tunesmith.models import device, embedded
from tunesmith.models.load import find, load_encoder


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
def test_a_folder_is_loaded_with_its_kind_and_hash(tiny, model, kind):
    loaded = model(kind)
    assert loaded.kind == ("encoder-decoder" if kind == "t5" else "decoder")
    assert loaded.encoder.chat == (kind == "chat")
    assert loaded.sha256 == embedded.sha256_file(tiny(kind) / "model.safetensors")
    assert loaded.width == 48
    assert loaded.dtype.torch == torch.float32


@pytest.mark.parametrize(("name", "said", "fix"), [
    ("smolm2", "there is no model 'smolm2'", "did you mean 'smollm2'?"),
    ("./nowhere", "no such file or folder", "check the path"),
    ("models/none.gguf", "no such file or folder", "check the path"),
])  # fmt: skip
def test_what_is_no_model_is_refused(name, said, fix):
    with pytest.raises(ModelError) as error:
        find(name)
    assert said in error.value.what
    assert fix in error.value.fix


def test_a_hub_id_is_taken_as_it_is_and_refused_when_it_cannot_be_reached():
    place = find("nobody/no-such-model")
    assert place.source == "nobody/no-such-model"
    with pytest.raises(ModelError, match="model 'nobody/no-such-model' cannot be loaded"):
        load_encoder(place)


def test_a_broken_folder_says_so(tiny, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    place = find(str(tmp_path))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_encoder(place)


def test_chat_is_refused_where_there_is_no_template_and_plain_is_always_possible(tiny):
    with pytest.raises(ModelError, match="has no chat template"):
        load_encoder(find(str(tiny("base"))), "chat")
    assert not load_encoder(find(str(tiny("chat"))), "plain").chat


def test_bf16_is_taken_only_where_the_hardware_multiplies_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for able, expected in (
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        chosen = device.choose_dtype()
        assert chosen.torch == expected
        assert "processor reports" in chosen.reason
    assert device.choose_dtype("float32").reason == "asked for in the recipe"
    with pytest.raises(ModelError, match="int3"):
        device.choose_dtype("int3")
    assert device.dtype_name(torch.bfloat16) == "bfloat16"
    assert device.device_name()
