"""The weights that learn are as many as the sizes of the model say, before any is made."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig, Qwen2Config, Qwen3Config, T5Config

from tests.laws.test_methods import WAYS, prepared
from tunesmith import methods
from tunesmith.errors import ModelError
from tunesmith.method import BitFit, Further, Layers, Lora, Prefix, SparseMask
from tunesmith.models.load import find, load, load_encoder
from tunesmith.planning.cost import added_parameters, bytes_beside, saved_bytes, trained_parameters
from tunesmith.planning.shape import shape_of

SIZES = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "llama, biases, untied": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "qwen2, tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3, wide heads": Qwen3Config(**SIZES, head_dim=16),
    "t5, gated, untied": T5Config(
        vocab_size=256, d_model=32, d_ff=56, d_kv=12, num_heads=4, num_layers=2, num_decoder_layers=3,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    ),
}  # fmt: skip
MORE = {
    "lora of two ranks": Lora(rank=4, ranks={"q_proj|q|query_key_value": 6}, targets="attention"),
    "sparse, global": SparseMask(share=0.013, scope="global", score="random"),
    "lokr, both cut": Further(name="lokr", options={"decompose_both": True, "r": 2}),
    "lokr by four": Further(name="lokr", options={"decompose_factor": 4, "r": 3}),
    "every block": Layers(last=9),
}


@pytest.mark.parametrize("kind", ["chat", "t5", "neox"])
@pytest.mark.parametrize("way", WAYS)
def test_every_method_trains_as_many_weights_as_its_formula_says(model, way, kind):
    loaded = model(kind)
    expected = trained_parameters(WAYS[way], shape_of(loaded.net.config.to_dict()))
    prepared(loaded, way)
    assert loaded.parameters(trainable=True) == expected


@pytest.mark.parametrize("kind", ["chat", "t5", "neox"])
@pytest.mark.parametrize("name", MORE)
def test_so_do_their_options(model, name, kind, monkeypatch):
    loaded = model(kind)
    monkeypatch.setitem(WAYS, name, MORE[name])
    expected = trained_parameters(MORE[name], shape_of(loaded.net.config.to_dict()))
    prepared(loaded, name)
    assert loaded.parameters(trainable=True) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["chat", "t5", "neox"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_is_as_large_as_its_formula_says_and_the_network_grows_as_told(tiny, way, kind, dtype, tmp_path):
    place = find(str(tiny(kind)))
    loaded = load(place, load_encoder(place), dtype)
    shape, size = shape_of(loaded.net.config.to_dict()), loaded.dtype.torch.itemsize
    prepared(loaded, way)
    loaded.fits[methods.TRAINED].write(tmp_path, "the base")
    assert sum(map(without_header, tmp_path.glob("*.safetensors"))) == saved_bytes(WAYS[way], shape, size)
    zeros = WAYS[way].virtual_tokens * shape.width if way == "prefix" else 0  # hold the places of its virtual tokens
    assert loaded.parameters() == shape.total + added_parameters(WAYS[way], shape) + zeros


def without_header(path):
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


@pytest.mark.parametrize("kind", ["chat", "t5", "neox"])
@pytest.mark.parametrize("way", [way for way in WAYS if "qlora" not in way])
def test_so_many_bytes_are_held_beside_the_model(model, way, kind):
    loaded = model(kind)
    shape = shape_of(loaded.net.config.to_dict())
    before = held_by(loaded.net)
    fit = prepared(loaded, way)
    kept = [slot.base for slot in getattr(fit, "slots", {}).values() if slot.base is not None]
    kept += [one for factors in getattr(fit, "_start", {}).values() for one in factors]
    constant = 20_000 if way in ("prefix", "p_tuning", "oft") else 0  # zeros and places, which do not grow
    assert 0 <= held_by(loaded.net, kept) - before - bytes_beside(WAYS[way], shape, 4) <= constant


def held_by(net, beside=()):
    tensors = [*net.parameters(), *net.buffers(), *beside]
    tensors += [one for part in net.modules() for one in vars(part).values() if isinstance(one, torch.Tensor)]
    storages = [one.untyped_storage() for one in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_sizes_of_a_family_add_up_to_its_weights(name):
    config = CONFIGS[name]
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    net = auto.from_config(config)
    shape = shape_of(config.to_dict())
    assert shape.total == sum(p.numel() for p in net.parameters())
    biases = {name: p.numel() for name, p in net.named_parameters() if name.endswith(".bias")}
    assert trained_parameters(BitFit(), shape) == sum(biases.values())


def test_lora_of_rank_8_on_a_weight_of_512_by_64_trains_4608_instead_of_32768(model):
    shape = shape_of(model("chat").net.config.to_dict())
    stack = shape.stacks[0].model_copy(update={"blocks": 1, "linear": (("q_proj", 64, 512, False),)})
    one = type(shape).model_validate({**shape.model_dump(), "stacks": [stack.model_dump()]})
    assert [layer.weights for layer in one.layers] == [32_768]
    assert trained_parameters(Lora(rank=8, targets=("q_proj",)), one) == 4_608
    assert round(1 - 4_608 / 32_768, 2) == 0.86


def test_what_sizes_cannot_tell_is_refused(model):
    shape = shape_of(model("chat").net.config.to_dict())
    for method in (
        Layers(pattern="mlp"),
        Further(name="loha", targets=None),
        Lora(ranks={"layers.1.q_proj": 2}),
        Further(name="loha", options={"rank_pattern": {"q_proj": 2}}),
    ):
        with pytest.raises(ModelError, match="cannot be told"):
            trained_parameters(method, shape)
    with pytest.raises(ModelError, match="no linear layer"):
        trained_parameters(Lora(targets=("nothing",)), shape)
    with pytest.raises(ModelError, match="sizes of a mamba model are not known"):
        shape_of({"model_type": "mamba"})
    assert trained_parameters(Prefix(tokens=3), shape) == 2 * 3 * 24 * 2
