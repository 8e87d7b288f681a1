"""A base in 4 bits: its values are the paper's, its products bitsandbytes' own, and an evaluation stops no gradient."""

import copy
import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import peft
import pytest
import torch
from torch import nn

from tests.laws.test_methods import asked, logits, packing, prepared, trained
from tests.laws.test_packing import ROWS, SHARING, gradients
from tunesmith import methods
from tunesmith.adapters import folder as adapters
from tunesmith.errors import ConfigError, ModelError
from tunesmith.inference.generate import generate
from tunesmith.method import Lora, PromptTuning, Qlora
from tunesmith.methods.lora import Linear as FusedLora
from tunesmith.models import blocks, device, quantize
from tunesmith.models.fused import low_rank
from tunesmith.models.head import loss_at
from tunesmith.models.load import find, load, load_encoder
from tunesmith.models.quantize import Packing, frozen, packing_of
from tunesmith.recipe import Recipe, Train, make_recipe
from tunesmith.training.loop import Past, Plan, make_batch, mean_loss, steps
from tunesmith.training.optimizer import MasterAdamW
from tunesmith.training.train import train

bitsandbytes = quantize.BITSANDBYTES
pytestmark = pytest.mark.skipif(bitsandbytes is None, reason="bitsandbytes is not installed")
NF4 = (  # QLoRA, appendix E
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
CPU = torch.device("cpu")
NESTED = Packing("nf4", True)


def oracle(dense):
    """Section 3 of the paper: the nearest of the 16 values, times the largest magnitude of each 64 weights."""
    flat = dense.double().flatten()
    whole = torch.cat([flat, flat.new_zeros(-len(flat) % 64)]).view(-1, 64)
    largest = whole.abs().amax(1, keepdim=True)
    values = torch.tensor(NF4, dtype=torch.float64)
    nearest = (whole[..., None] / largest[..., None] - values).abs().argmin(-1)
    return (values[nearest] * largest).flatten()[: len(flat)].view_as(dense)


def layer(shape=(96, 128), dtype=torch.float32, packing=NESTED, bias=False):
    torch.manual_seed(1)
    dense = nn.Linear(shape[1], shape[0], bias=bias).to(dtype)
    return dense, quantize.PackedLinear(copy.deepcopy(dense), packing, CPU)


def own_layer(dense):
    """The layer as bitsandbytes itself has it."""
    found = bitsandbytes.nn.Linear4bit(dense.in_features, dense.out_features, dense.bias is not None, quant_type="nf4")
    found.load_state_dict(dense.state_dict())
    return found.to(CPU)


def unpacked(packed):
    return packed.unpacked(packed.weight)


def as_packed(loaded, method):
    """Give the model on its packed base, without an adapter."""
    quantize.quantize(loaded.net, Packing(method.quant, method.double_quant), CPU)
    return loaded


def close(one, other, allowed):
    return bool((one - other).norm() <= allowed * other.norm())


@pytest.mark.parametrize("shape", [(96, 128), (24, 48), (80, 96), (7, 10), (3, 5)], ids=str)
def test_nf4_is_the_papers_table(shape):
    dense, packed = layer(shape, packing=Packing("nf4", False))
    expected = oracle(dense.weight.detach())
    torch.testing.assert_close(unpacked(packed).double(), expected, rtol=1e-6, atol=1e-8)
    assert 0.05 < (expected - dense.weight).norm() / dense.weight.norm() < 0.12


def test_double_quantisation_moves_magnitudes_by_less_than_a_percent_of_their_spread():
    dense, packed = layer((512, 512))
    expected = oracle(dense.weight.detach())
    assert close(unpacked(packed).double(), expected, 0.01)
    assert not torch.equal(unpacked(packed).double(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("packing_", [Packing("nf4", True), Packing("fp4", False)], ids=str)
def test_our_product_is_bitsandbytes_own_bit_for_bit(dtype, packing_):
    dense, packed = layer(dtype=dtype, packing=packing_)
    how = {"quant_type": packing_.quant, "compress_statistics": packing_.double}
    weight, state = bitsandbytes.functional.quantize_4bit(dense.weight.data, **how)
    x = torch.randn(5, 128, dtype=dtype, requires_grad=True)
    ours, theirs = packed(x), bitsandbytes.matmul_4bit(x, weight, state)
    assert torch.equal(packed.weight.view(torch.uint8), weight)
    outer = torch.randn_like(ours)
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(one, x, outer)[0] for one in (ours, theirs)))


@pytest.mark.parametrize("bias", [False, True])
def test_the_adapted_layer_equals_pefts_own_for_4_bits(bias):
    from peft.tuners.lora.bnb import Linear4bit

    dense, packed = layer(bias=bias)
    other = own_layer(dense)
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False)
    torch.manual_seed(0)
    kinds = ((FusedLora, packed), (Linear4bit, other))
    ours, theirs = (kind(base, "default", config=config, r=4, lora_alpha=8) for kind, base in kinds)
    theirs.lora_A.load_state_dict(ours.lora_A.state_dict())
    theirs.lora_B.load_state_dict(ours.lora_B.state_dict())
    x = torch.randn(3, 5, 128, requires_grad=True)
    outer = torch.randn(3, 5, 96)
    learning = [[one.lora_A["default"].weight, one.lora_B["default"].weight] for one in (ours, theirs)]
    assert ours.adapted(x) is not None
    results = []
    for one, weights in zip((ours, theirs), learning, strict=True):
        output = one(x)
        results.append([output, *torch.autograd.grad(output, [x, *weights], outer)])
    for mine, other in zip(*results, strict=True):
        assert close(mine, other, 1e-6)


def test_only_the_packed_weight_is_kept_for_the_backward_pass():
    _, packed = layer((512, 512))
    x = torch.randn(4, 512, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        low_rank(x, [frozen(packed, torch.float32)])
    assert sum(kept) <= x.nbytes + 512 * 512 // 2


@pytest.mark.parametrize("double", [True, False])
def test_a_weight_takes_four_bits_and_an_eighth(double):
    dense, packed = layer((1024, 1024), torch.bfloat16, Packing("nf4", double))
    state = packed.weight.quant_state
    parts = [packed.weight, state.absmax, *([state.state2.absmax, state.offset] if double else [])]
    bits = 8 * sum(part.nbytes for part in parts) / dense.weight.numel()
    assert bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256) if double else 4 + 32 / 64, abs=1e-4)


def test_all_linear_layers_but_the_head_are_packed_and_the_weights_still_count_as_before(model):
    for kind in ("chat", "t5", "neox"):
        loaded = model(kind)
        before = {path for path, one in loaded.net.named_modules() if isinstance(one, nn.Linear)}
        held, count = {name: p.clone() for name, p in loaded.net.named_parameters()}, loaded.parameters()
        as_packed(loaded, Qlora())
        packed = {path for path, one in loaded.net.named_modules() if isinstance(one, quantize.PackedLinear)}
        head = {path for path, one in loaded.net.named_modules() if one is loaded.net.get_output_embeddings()}
        assert packed == before - head
        assert loaded.parameters() == count
        for name, p in loaded.net.named_parameters():
            if name.removesuffix(".weight") not in packed:
                assert torch.equal(p, held[name]), name


def test_the_weights_that_learn_are_loras(model):
    counts = []
    for method in (Lora(rank=4), Qlora(rank=4)):
        loaded = model("chat")
        methods.prepare(loaded, method, seed=0)
        counts.append((loaded.parameters(trainable=True), loaded.parameters()))
    assert counts[0] == counts[1]


def test_a_llama_on_a_packed_base_goes_through_the_fast_blocks(model):
    loaded = model("chat")
    prepared(loaded, "qlora")
    batch = make_batch(loaded, SHARING)
    assert blocks.knows(loaded.net, batch.inputs)
    attention = loaded.net.model.layers[0].self_attn
    x = torch.randn(3, 48)
    assert all(blocks._adapted(one, x).a is not None for one in (attention.q_proj, attention.k_proj))
    plain = blocks._adapted(attention.q_proj.base_layer, x)
    assert plain.a is None
    attention.q_proj.base_layer.register_forward_hook(lambda *_: None)
    assert blocks._adapted(attention.q_proj, x) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["chat", "t5", "neox"])
def test_an_evaluation_between_two_steps_changes_no_number_and_stops_no_gradient(model, tiny, kind, dtype):
    place = find(str(tiny(kind)))
    loaded = load(place, load_encoder(place), dtype)
    fit = prepared(loaded, "qlora")
    recipe = Recipe(method=Qlora(rank=4), train=Train(learning_rate=0.01))
    optimizer = MasterAdamW(loaded.net.named_parameters(), recipe.train)
    rows = asked(loaded, fit)
    batch = make_batch(loaded, rows)

    def forward(training, learning):
        loaded.net.train(training)
        with packing(loaded), torch.set_grad_enabled(learning):
            return loss_at(loaded.net, batch.inputs, batch.keep, batch.targets)[1].detach()

    plan = Plan((((tuple(rows),), (tuple(rows),)),))
    log = []
    for step in steps(loaded, optimizer, plan, rows, recipe, Past()):
        log.append(step)
        told = forward(True, True)
        assert torch.equal(forward(False, False), told)
        assert math.isfinite(mean_loss(loaded, rows, recipe))
        generate(loaded, [(row.id, row.prompt) for row in rows[:2]], 4)
        assert torch.equal(forward(True, True), told)
        loaded.net.train()
        _, found = gradients(loaded, [batch])
        learning = {name for name, p in loaded.net.named_parameters() if p.requires_grad}
        assert found.keys() == learning
        for name, gradient in found.items():
            assert torch.isfinite(gradient).all(), name
        assert any(bool(gradient.any()) for gradient in found.values())
    assert len(log) == 2


def test_bitsandbytes_own_layer_would_give_no_gradients_after_an_evaluation():
    """Why ours stands for it; once this fails, it need not."""
    if not bitsandbytes.functional.has_avx512bf16():
        pytest.skip("on processors with AVX512-BF16 alone")
    dense, packed = layer((64, 128))
    x = torch.randn(3, 128)
    for one, learns in ((own_layer(dense), False), (packed, True)):
        with torch.no_grad():
            one.eval()(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reached = torch.autograd.grad(
                one.train()(given := x.clone().requires_grad_()).sum(), given, allow_unused=True
            )
        assert (reached[0] is not None) is learns


def test_bitsandbytes_own_unpacking_would_take_the_wrong_magnitudes_of_rows_that_are_not_whole_blocks():
    """Why ours packs flat; once this fails, it need not."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("on processors with AVX512 alone")
    dense, packed = layer((24, 48), packing=Packing("nf4", False))
    weight, state = bitsandbytes.functional.quantize_4bit(dense.weight.data, quant_type="nf4")
    expected = oracle(dense.weight.detach())
    assert close(unpacked(packed).double(), expected, 1e-6)
    assert not close(bitsandbytes.functional.dequantize_4bit(weight, state).double(), expected, 1e-3)


@pytest.mark.parametrize("kind", ["chat", "t5", "neox"])
def test_switched_off_or_taken_off_it_leaves_the_packed_base_bit_for_bit(model, kind):
    base = logits(as_packed(model(kind), Qlora()))
    loaded = model(kind)
    dense = logits(loaded)
    fit, _ = trained(loaded, "qlora", 3)
    on = logits(loaded)
    fit.switch(0.0)
    assert torch.equal(logits(loaded), base)
    assert not torch.equal(base, dense)
    fit.switch(0.5)
    assert not torch.equal(logits(loaded), base)
    fit.switch(1.0)
    assert torch.equal(logits(loaded), on)
    fit.remove()
    assert torch.equal(logits(loaded), base)


def test_two_adapters_share_a_packed_base(model, tmp_path):
    fresh = model("chat")
    trained(fresh, "qlora", 3)
    expected = logits(fresh)
    saved = adapters.save(fresh, Recipe(model=fresh.name, method=Qlora(rank=4), dtype="float32"), tmp_path)
    loaded = model("chat")
    first, second = (methods.load(loaded, saved.method, saved.folder, name) for name in "ab")
    first.switch(0.0)
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-6)
    second.switch(0.0)
    assert torch.equal(logits(loaded), logits(as_packed(model("chat"), Qlora())))


def test_peft_puts_the_saved_adapter_onto_the_dense_base(model, tiny, tmp_path):
    loaded = model("chat")
    trained(loaded, "qlora", 3)
    recipe = Recipe(model=loaded.name, method=Qlora(rank=4), dtype="float32")
    saved = adapters.save(loaded, recipe, tmp_path / "checkpoints")
    place = find(str(tiny("chat")))
    base = load(place, load_encoder(place), "float32")
    theirs = peft.PeftModel.from_pretrained(base.net, str(saved.folder)).eval()
    again = methods.load(model("chat"), Lora(rank=4), saved.folder)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        found, ours = (net(input_ids=ids).logits for net in (theirs, again.net.eval()))
    torch.testing.assert_close(found, ours, rtol=1e-4, atol=1e-5)


def test_a_run_is_trained_saved_and_put_onto_its_own_base_alone(tiny, colours, tmp_path):
    recipe = make_recipe(
        {"model": str(tiny("chat")), "method": {"name": "qlora", "rank": 4}, "dtype": "float32"},
        ("length.max_tokens=512", "train.epochs=3"),
    )
    run = train(recipe, tmp_path / "run", colours)
    facts = run.summary()
    assert facts.validation_loss < facts.first_validation_loss
    assert facts.total_parameters == run.provenance()["model"]["parameters"] + facts.trainable_parameters
    loaded = adapters.load_trained(adapters.read(tmp_path / "run"))
    assert packing_of(loaded.net) == Packing("nf4", True)
    assert not any(p.requires_grad for p in loaded.net.parameters())
    origin = tmp_path / "run/checkpoints/adapter/tunesmith.json"
    told = json.loads(origin.read_text())
    origin.write_text(json.dumps({**told, "base_sha256": "0" * 64}))
    with pytest.raises(ModelError, match="was trained on"):
        adapters.load_trained(adapters.read(tmp_path / "run"))


def test_what_cannot_be_done_is_refused_with_a_way_out(model, tmp_path, monkeypatch):
    for field, value in (("init", "pissa"), ("dora", True)):
        with pytest.raises(ConfigError, match=field):
            make_recipe({"method": {"name": "qlora", field: value}})
    methods.prepare(model("chat"), Qlora(rank=4), seed=0).write(tmp_path / "packed", "base")
    methods.prepare(model("chat"), Lora(rank=4), seed=0).write(tmp_path / "dense", "base")
    loaded = model("chat")
    methods.load(loaded, Qlora(rank=4), tmp_path / "packed", "one")
    with pytest.raises(ModelError, match="packed as nf4 with double quantisation, the adapter asks for fp4"):
        methods.load(loaded, Qlora(rank=4, quant="fp4", double_quant=False), tmp_path / "packed", "other")
    with pytest.raises(ModelError, match="the base is in 4 bits"):
        methods.load(loaded, Lora(rank=4), tmp_path / "dense", "other")
    with pytest.raises(ModelError, match="has an adapter, 'one', already"):
        methods.prepare(loaded, PromptTuning(), seed=0)
    dense = model("chat")
    methods.load(dense, Lora(rank=4), tmp_path / "dense", "one")
    with pytest.raises(ModelError, match="the adapter 'one' sits on the dense base"):
        methods.load(dense, Qlora(rank=4), tmp_path / "packed", "other")
    monkeypatch.setattr(quantize, "BITSANDBYTES", None)
    with pytest.raises(ModelError, match="bitsandbytes is not installed") as missing:
        methods.prepare(model("chat"), Qlora(), seed=0)
    assert "tunesmith[quant]" in missing.value.fix


def test_bitsandbytes_is_imported_in_silence_and_asks_no_hub(tmp_path):
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    (kernels / "__init__.py").write_text("def get_kernel(*_, **__):\n    raise SystemExit('asked a hub')\n")
    code = (
        "import sys; from tunesmith import methods; import kernels; "
        "print(*(name for name in ('peft', 'bitsandbytes') if name in sys.modules), kernels.__file__)"
    )
    source = Path(quantize.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{source}:{tmp_path}", "PATH": ""},
    )
    assert done.stdout.split() == ["peft", "bitsandbytes", str(kernels / "__init__.py")]
    assert done.stderr == ""


def test_the_adapter_of_a_packed_base_is_the_same_whatever_is_asked_of_the_processor_first(model):
    loaded = model("chat")
    prepared(loaded, "qlora")
    before = gradients(loaded, [make_batch(loaded, list(ROWS))])
    logits(loaded)
    loaded.net.state_dict()
    after = gradients(loaded, [make_batch(loaded, list(ROWS))])
    assert before[0] == after[0]
    assert all(torch.equal(gradient, after[1][name]) for name, gradient in before[1].items())
    assert loaded.device == device.current() == CPU
