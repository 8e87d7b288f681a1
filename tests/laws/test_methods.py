"""Every method, on a Llama-like decoder, T5 and a decoder with biases: it learns, is saved, switched and taken off."""

from contextlib import nullcontext
from functools import partial

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.test_packing import ROWS, SHARING, gradients, own_loss, plain_batch
from tunesmith import methods
from tunesmith.adapters import folder as adapters
from tunesmith.data.encode import Encoded
from tunesmith.errors import ConfigError, ModelError
from tunesmith.inference.generate import generate
from tunesmith.method import (
    BitFit,
    Bottleneck,
    Full,
    Further,
    Ia3,
    Layers,
    Lora,
    Norms,
    Prefix,
    PromptTuning,
    PTuning,
    Qlora,
    SparseMask,
)
from tunesmith.methods import encoder_prefix
from tunesmith.methods.evidence import Evidence
from tunesmith.methods.prompts import nearest_words
from tunesmith.methods.sparse import Sparse, best, best_of_all
from tunesmith.models.attention import PACKED, attending, can_pack
from tunesmith.models.head import answer_logits
from tunesmith.models.load import find, load, load_encoder
from tunesmith.recipe import Recipe, Train
from tunesmith.training import loop
from tunesmith.training.loop import Past, Plan, make_batch, steps
from tunesmith.training.optimizer import MasterAdamW

H = 48  # the hidden size of all tiny models
WAYS = {
    "full": Full(),
    "bitfit": BitFit(without="add"),
    "norms": Norms(),
    "layers": Layers(last=1),
    "sparse_mask": SparseMask(share=0.02, batches=2),
    "lora": Lora(rank=4),
    "rslora": Lora(rank=4, rslora=True, targets="mlp"),
    "dora": Lora(rank=4, dora=True, targets="attention"),
    "pissa": Lora(rank=4, init="pissa"),
    "olora": Lora(rank=4, init="olora"),
    "lora+": Lora(rank=4, b_rate=8.0),
    "qlora": Qlora(rank=4, alpha=16),
    "qlora-fp4": Qlora(rank=4, quant="fp4", double_quant=False, targets="attention"),
    "loha": Further(name="loha"),
    "lokr": Further(name="lokr"),
    "vera": Further(name="vera", options={"r": 16}, targets="mlp"),
    "oft": Further(name="oft", options={"oft_block_size": 8, "r": 0}),
    "hra": Further(name="hra"),
    "miss": Further(name="miss", options={"r": 8}),
    "ia3": Ia3(),
    "houlsby": Bottleneck(width=8, placement="houlsby"),
    "pfeiffer": Bottleneck(width=8),
    "parallel": Bottleneck(width=8, placement="parallel"),
    "prompt_tuning": PromptTuning(tokens=6),
    "p_tuning": PTuning(tokens=6, hidden=32),
    "prefix": Prefix(tokens=6),
}
SHIFTED = {"full", "pissa", "olora", "qlora", "qlora-fp4"}  # begin by changing the base's weights, or have none
VARIANTS = {
    "rslora",
    "dora",
    "qlora-fp4",
    "pissa",
    "olora",
    "lora+",
    "lokr",
    "oft",
    "hra",
    "miss",
}  # the same places as others
# Of these peft has no format; and what QLoRA has learned on packed weights is not what it says on dense ones.
OURS = {"full", "bitfit", "norms", "layers", "sparse_mask", "houlsby", "pfeiffer", "parallel", "qlora", "qlora-fp4"}
CASES = [(way, kind) for way in WAYS for kind in ("chat", "t5", "neox") if (kind == "chat" or way not in VARIANTS)]
each_case = pytest.mark.parametrize(("way", "kind"), CASES, ids=lambda value: value)


def asked(loaded, fit, rows=ROWS):
    return [Encoded(row.id, (*fit.virtual, *row.prompt), row.answer) for row in rows]


def prepared(loaded, way):
    plan = Plan((tuple((tuple(ROWS),) for _ in range(2)),))
    fit = methods.prepare(loaded, WAYS[way], seed=3, evidence=Evidence((), partial(loop.gradients, loaded, plan)))
    assert any(p.requires_grad for p in loaded.net.parameters())
    return fit


def trained(loaded, way, groups=8, rate=None):
    """Take a few real steps on the toy rows."""
    fit = prepared(loaded, way)
    train = Train(learning_rate=rate or WAYS[way].usual_rate(H), warmup=0.0, schedule="constant", weight_decay=0.1)
    optimizer = MasterAdamW(loaded.net.named_parameters(), train, WAYS[way].rate_factor)
    recipe = Recipe(method=WAYS[way], train=train)
    plan = Plan((tuple((tuple(asked(loaded, fit)),) for _ in range(groups)),))
    log = list(steps(loaded, optimizer, plan, asked(loaded, fit), recipe, Past()))
    return fit, log


def packing(loaded):
    return attending(loaded.net, PACKED) if can_pack(loaded.net) else nullcontext()


def without_chosen(fit, name, weight):
    """Give a weight with the entries that a sparse mask has chosen in it, which lie in the base's memory, set to 0."""
    entries = fit.entries.get(name.partition(".parametrizations")[0]) if isinstance(fit, Sparse) else None
    return weight if entries is None else weight.flatten().index_fill(0, entries.places, 0.0)


def close(one, other):
    """Equal but for the order of sums in fp32."""
    return bool((one - other).norm() <= 1e-4 * other.norm() + 1e-6)


def logits(loaded, virtual=()):
    row = Encoded("x", (*virtual, 5, 6, 7, 8), (9, 10, 1))
    batch = plain_batch(loaded, row) if loaded.kind == "encoder-decoder" else make_batch(loaded, [row])
    loaded.net.eval()
    with torch.no_grad(), packing(loaded):
        return answer_logits(loaded.net, batch.inputs, batch.keep)


def test_no_method_is_left_out_here():
    assert {method.name for method in WAYS.values()} == methods.METHODS.keys()


@each_case
def test_the_loss_falls_and_only_what_is_marked_moves(model, way, kind):
    loaded = model(kind)
    fit = prepared(loaded, way)
    before = {name: p.detach().clone() for name, p in loaded.net.named_parameters()}
    learning = {name for name, p in loaded.net.named_parameters() if p.requires_grad}
    rate = 10 * WAYS[way].usual_rate(H)  # the model has random weights: there is much to move
    train = Train(learning_rate=rate, warmup=0.0, schedule="constant", weight_decay=0.1)
    optimizer = MasterAdamW(loaded.net.named_parameters(), train, WAYS[way].rate_factor)
    rows = asked(loaded, fit)
    plan = Plan((tuple((tuple(rows),) for _ in range(8)),))
    log = list(steps(loaded, optimizer, plan, rows, Recipe(method=WAYS[way], train=train), Past()))
    assert log[-1].loss < log[0].loss
    assert log[-1].validation_loss is not None
    for name, p in loaded.net.named_parameters():
        if name not in learning:
            assert torch.equal(*(without_chosen(fit, name, one) for one in (p, before[name]))), name
        assert torch.isfinite(p).all()
    assert any(not torch.equal(p, before[name]) for name, p in loaded.net.named_parameters() if name in learning)


@each_case
def test_a_batch_equals_its_rows_one_by_one(model, way, kind):
    loaded = model(kind)
    fit, _ = trained(loaded, way, 2)
    loaded.net.eval()
    rows = asked(loaded, fit, SHARING)
    together = gradients(loaded, [make_batch(loaded, rows)])
    if loaded.kind == "encoder-decoder":
        alone = gradients(loaded, [plain_batch(loaded, row) for row in rows], own_loss)
    else:  # a prefix is known to packed attention alone
        alone = gradients(loaded, [make_batch(loaded, [row]) for row in rows], own_loss)
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    for name, grad in alone[1].items():
        assert close(together[1][name], grad), name


@each_case
def test_saved_and_loaded_again_it_answers_the_same(model, tmp_path, way, kind):
    loaded = model(kind)
    fit, _ = trained(loaded, way, 3)
    expected = logits(loaded, fit.virtual)
    adapters.save(loaded, Recipe(model=loaded.name, method=WAYS[way], dtype="float32"), tmp_path / "checkpoints")
    again = adapters.load_trained(adapters.read(tmp_path))
    assert not any(p.requires_grad for p in again.net.parameters()) or way == "full"
    torch.testing.assert_close(logits(again, again.encoder.virtual), expected, rtol=1e-5, atol=1e-5)


@each_case
def test_switched_off_or_taken_off_it_leaves_the_base_bit_for_bit(model, way, kind):
    if way in SHIFTED:
        pytest.skip("changes the base's own weights when it begins")
    loaded = model(kind)
    names = {name for name, _ in loaded.net.named_parameters()}
    before = logits(loaded)
    fit, _ = trained(loaded, way, 3)
    on = logits(loaded, fit.virtual)
    assert not torch.equal(on, before)
    fit.switch(0.0)
    assert torch.equal(logits(loaded), before)
    fit.switch(1.0)
    assert torch.equal(logits(loaded, fit.virtual), on)
    fit.remove()
    assert torch.equal(logits(loaded), before)
    assert {name for name, _ in loaded.net.named_parameters()} == names


@each_case
def test_stopped_and_restored_it_ends_where_it_would_have(model, way, kind):
    def learn(loaded, optimizer, rows, past, n):
        train = Train(learning_rate=0.01, warmup=0.0, schedule="constant")
        plan = Plan((tuple((tuple(rows),) for _ in range(n)),))
        return [*past, *steps(loaded, optimizer, plan, [], Recipe(method=WAYS[way], train=train), Past(past))]

    def begin():
        loaded = model(kind)
        rows = asked(loaded, prepared(loaded, way))
        return loaded, MasterAdamW(loaded.net.named_parameters(), Train(), WAYS[way].rate_factor), rows

    one, whole, rows = begin()
    learn(one, whole, rows, [], 4)
    half, stopped, _ = begin()
    log = learn(half, stopped, rows, [], 2)
    state = {name: tensor.clone() for name, tensor in stopped.state().items()}
    other, restored, _ = begin()
    restored.restore(state)
    learn(other, restored, rows, log, 4)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, restored.state()[name]), name


@each_case
def test_after_an_evaluation_every_weight_that_learns_has_a_finite_gradient(model, way, kind):
    loaded = model(kind)
    fit, _ = trained(loaded, way, 2)
    rows = asked(loaded, fit)
    loop.mean_loss(loaded, rows, Recipe(method=WAYS[way]))
    generate(loaded, [("x", rows[0].prompt)], 3)
    loaded.net.train()
    _, found = gradients(loaded, [make_batch(loaded, rows)])
    assert found.keys() == {name for name, p in loaded.net.named_parameters() if p.requires_grad}
    assert all(torch.isfinite(grad).all() for grad in found.values())


@each_case
def test_micro_batches_add_up_to_one_batch(model, way, kind):
    logs = []
    for cut in (1, 2, len(ROWS)):
        loaded = model(kind)
        rows = asked(loaded, prepared(loaded, way))
        train = Train(learning_rate=1e-3, warmup=0.0, schedule="constant")
        optimizer = MasterAdamW(loaded.net.named_parameters(), train, WAYS[way].rate_factor)
        group = tuple(tuple(rows[i::cut]) for i in range(cut))
        logs += steps(loaded, optimizer, Plan(((group,),)), [], Recipe(method=WAYS[way], train=train), Past())
    for log in logs[1:]:
        assert log.loss == pytest.approx(logs[0].loss, rel=1e-5)
        assert log.gradient_norm == pytest.approx(logs[0].gradient_norm, rel=1e-4)


@each_case
def test_checkpointing_changes_nothing(model, way, kind):
    loaded = model(kind)
    fit, _ = trained(loaded, way, 2)
    rows = asked(loaded, fit, SHARING)
    loaded.net.train()
    plain = gradients(loaded, [make_batch(loaded, rows)])
    loaded.net.gradient_checkpointing_enable({"use_reentrant": False})
    again = gradients(loaded, [make_batch(loaded, rows)])
    assert again[0] == pytest.approx(plain[0], rel=1e-6)
    for name, grad in plain[1].items():
        assert close(again[1][name], grad), name


@pytest.mark.parametrize("way", [way for way in WAYS if way not in OURS])
def test_peft_reads_what_we_save(model, tiny, tmp_path, way):
    loaded = model("chat")
    fit, _ = trained(loaded, way, 3)
    expected = logits(loaded, fit.virtual)
    recipe = Recipe(model=loaded.name, method=WAYS[way], dtype="float32")
    saved = adapters.save(loaded, recipe, tmp_path / "checkpoints")
    place = find(str(tiny("chat")))
    base = load(place, load_encoder(place), "float32").net
    theirs = peft.PeftModel.from_pretrained(base, str(saved.folder)).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        found = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -3:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


MOVING = {
    "pissa": Lora(rank=4, init="pissa"),
    "olora": Lora(rank=4, init="olora"),
    "rslora": Lora(rank=4, init="pissa", rslora=True, ranks={"q_proj": 6}, targets="attention"),
    "dora": Lora(rank=4, init="olora", dora=True, targets="mlp"),
    "high rank": Lora(rank=20, init="pissa", targets=("k_proj", "v_proj")),  # 2 x 20 > 24 outputs
}


@pytest.mark.parametrize("way", MOVING)
def test_what_moved_the_base_is_saved_as_plain_lora_on_the_base_as_it_was(model, tiny, tmp_path, monkeypatch, way):
    monkeypatch.setitem(WAYS, way, MOVING[way])
    loaded = model("chat")
    base = logits(loaded)
    trained(loaded, way, 3)
    expected = logits(loaded)
    recipe = Recipe(model=loaded.name, method=MOVING[way], dtype="float32")
    saved = adapters.save(loaded, recipe, tmp_path / "checkpoints")
    again = adapters.load_trained(saved)
    torch.testing.assert_close(logits(again), expected, rtol=1e-5, atol=1e-5)
    again.fits["default"].remove()
    assert torch.equal(logits(again), base)
    theirs = peft.PeftModel.from_pretrained(model("chat").net, str(saved.folder)).eval()
    assert theirs.peft_config["default"].init_lora_weights is True
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        found = theirs(input_ids=ids).logits[0, -3:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_whose_base_was_moved_by_another_hand_is_refused(model, tmp_path):
    net = model("chat").net
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa", task_type="CAUSAL_LM")
    peft.get_peft_model(net, config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="a base that its init 'pissa' has changed") as wrong:
        methods.load(model("chat"), Lora(), tmp_path)
    assert "path_initial_model_for_weight_conversion" in wrong.value.fix


def test_peft_reads_our_soft_prompt_for_t5(model, tiny, tmp_path):
    loaded = model("t5")
    fit, _ = trained(loaded, "prompt_tuning", 3)
    recipe = Recipe(model=loaded.name, method=WAYS["prompt_tuning"], dtype="float32")
    saved = adapters.save(loaded, recipe, tmp_path / "checkpoints")
    place = find(str(tiny("t5")))
    theirs = peft.PeftModel.from_pretrained(load(place, load_encoder(place), "float32").net, str(saved.folder)).eval()
    ids, answer = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[0, 9, 10]])
    with torch.no_grad():
        found = theirs(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=answer).logits[0]
    torch.testing.assert_close(found, logits(loaded, fit.virtual), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["chat", "neox"])
def test_a_prefix_that_has_not_learned_is_its_text_before_the_prompt(model, kind):
    loaded = model(kind)
    method = Prefix(tokens=5, text="Say the colour of the boxes, and nothing else")
    text = tuple(loaded.encoder.tokenizer(method.text, add_special_tokens=False).input_ids[:5])
    expected = logits(loaded, text)
    for start in (method, PromptTuning(tokens=5, text=method.text)):
        fresh = model(kind)
        fit = methods.prepare(fresh, start, seed=0)
        torch.testing.assert_close(logits(fresh, fit.virtual), expected, rtol=1e-5, atol=1e-5)


def test_the_keys_and_values_of_words_as_a_prefix_of_the_encoder_are_those_words(model):
    loaded = model("t5")
    text = tuple(loaded.encoder.tokenizer("Say the colour of the boxes").input_ids[:4])
    expected = logits(loaded, text)
    row = plain_batch(loaded, Encoded("x", (*text, 5, 6, 7, 8), (9, 10, 1)))
    with torch.no_grad(), encoder_prefix.recorded(loaded.net) as states:
        loaded.net(**row.inputs)
    fit = encoder_prefix.EncoderPrefix(loaded, "words", {path: state[: len(text)] for path, state in states.items()})
    torch.testing.assert_close(logits(loaded, fit.virtual), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["prompt_tuning", "prefix", "p_tuning"])
@pytest.mark.parametrize("kind", ["chat", "neox"])
def test_answers_come_from_the_virtual_tokens_too(model, kind, way):
    loaded = model(kind)
    fit, _ = trained(loaded, way, 8, rate=0.05)
    prompts = [(f"{i}", (*fit.virtual, *row.prompt)) for i, row in enumerate(ROWS)]
    answers = generate(loaded, prompts, 5)
    for (name, prompt), answer in zip(prompts, answers, strict=True):
        said: list[int] = []
        for _ in range(len(answer.ids)):
            row = Encoded(name, (*prompt, *said), (1,))
            batch = make_batch(loaded, [row])
            with torch.no_grad(), packing(loaded):
                said.append(int(answer_logits(loaded.net, batch.inputs, batch.keep)[0].argmax()))
        assert tuple(said) == answer.ids


def test_virtual_tokens_that_have_not_learned_are_nearest_to_the_words_they_began_as(model):
    loaded = model("chat")
    method = PromptTuning(tokens=5, text="Say the colour of the boxes, and nothing else")
    fit = methods.prepare(loaded, method, seed=0)
    ids = loaded.encoder.tokenizer(method.text, add_special_tokens=False).input_ids[:5]
    found = nearest_words(loaded, fit)
    assert [token.words[0] for token in found] == [loaded.encoder.tokenizer.decode([i]) for i in ids]
    assert all(token.cosines[0] == pytest.approx(1) and token.cosines[1] < 0.9 for token in found)
    assert all(len(token.words) == 3 and list(token.cosines) == sorted(token.cosines)[::-1] for token in found)
    assert nearest_words(loaded, methods.prepare(model("chat"), Norms(), seed=0)) == []


def test_soft_prompts_share_a_batch_with_others_and_with_none(model, tmp_path):
    loaded = model("chat")
    saved = []
    for n, text in enumerate(("one colour", "another thing altogether")):
        fresh = model("chat")
        methods.prepare(fresh, PromptTuning(tokens=4 + n, text=text), seed=0)
        with torch.no_grad():
            for p in fresh.net.parameters():
                if p.requires_grad:
                    p += 0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(n))
        recipe = Recipe(model=fresh.name, method=PromptTuning(tokens=4 + n), dtype="float32")
        saved.append(adapters.save(fresh, recipe, tmp_path / str(n)))
    fits = [methods.load(loaded, one.method, one.folder, name) for one, name in zip(saved, "ab", strict=True)]
    rows = [(f"{i}", (*virtual, *ROWS[i].prompt)) for i, virtual in enumerate([fits[0].virtual, (), fits[1].virtual])]
    together = generate(loaded, rows, 6)
    assert together == [generate(loaded, [row], 6)[0] for row in rows]
    fits[0].remove()
    assert generate(loaded, rows[1:], 6) == together[1:]


def test_several_adapters_are_switched_over_one_base(model, tmp_path):
    loaded = model("chat")
    before = logits(loaded)
    expected, fits = {}, {}
    for way in ("lora", "norms", "pfeiffer"):
        fresh = model("chat")
        trained(fresh, way, 3)
        expected[way] = logits(fresh)
        recipe = Recipe(model=fresh.name, method=WAYS[way], dtype="float32")
        saved = adapters.save(fresh, recipe, tmp_path / way)
        fits[way] = methods.load(loaded, saved.method, saved.folder, way)
        fits[way].switch(0.0)
    for way in ("norms", "lora", "pfeiffer", "lora"):
        fits[way].switch(1.0)
        torch.testing.assert_close(logits(loaded), expected[way], rtol=1e-5, atol=1e-6)
        fits[way].switch(0.0)
    assert torch.equal(logits(loaded), before)


def test_adapters_are_attached_and_detached_by_name_and_never_onto_another_base(model, tmp_path):
    loaded = model("chat")
    before = logits(loaded)
    fresh = model("chat")
    trained(fresh, "lora", 3)
    expected = logits(fresh)
    saved = adapters.save(fresh, Recipe(model=fresh.name, method=WAYS["lora"], dtype="float32"), tmp_path)
    assert adapters.attach(loaded, saved, "one") is loaded.fits["one"]
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ModelError, match="has an adapter 'one' already"):
        adapters.attach(loaded, saved, "one")
    with pytest.raises(ModelError, match="no adapter 'oen'") as wrong:
        adapters.detach(loaded, "oen")
    assert "'one'" in wrong.value.fix
    adapters.detach(loaded, "one")
    assert torch.equal(logits(loaded), before)
    other = model("base")
    with pytest.raises(ModelError, match="tiny-chat.* but this model is .*tiny-base"):
        adapters.attach(other, saved, "one")
    assert not other.fits


def test_of_two_adapters_of_peft_switching_one_off_leaves_the_other_on(model, tmp_path):
    loaded = model("chat")
    fresh = model("chat")
    trained(fresh, "lora", 3)
    expected = logits(fresh)
    saved = adapters.save(fresh, Recipe(model=fresh.name, method=WAYS["lora"], dtype="float32"), tmp_path)
    first, second = (methods.load(loaded, saved.method, saved.folder, name) for name in "ab")
    first.switch(0.0)
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-6)
    first.remove()
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-5, atol=1e-6)
    second.switch(0.0)
    assert torch.equal(logits(loaded), logits(model("chat")))


@pytest.mark.parametrize("order", [("lora", "norms", "soft"), ("soft", "norms", "lora"), ("norms", "lora", "soft")])
def test_adapters_of_different_kinds_are_on_together_and_come_off_in_any_order(model, tmp_path, order):
    loaded = model("chat")
    before = logits(loaded)
    ways = {"lora": WAYS["lora"], "norms": WAYS["norms"], "soft": WAYS["prompt_tuning"]}
    fits = {}
    for way, method in ways.items():
        fresh = model("chat")
        trained(fresh, "prompt_tuning" if way == "soft" else way, 3)
        saved = adapters.save(fresh, Recipe(model=fresh.name, method=method, dtype="float32"), tmp_path / way)
        fits[way] = methods.load(loaded, saved.method, saved.folder, way)
    together = logits(loaded, fits["soft"].virtual)
    for way, fit in fits.items():
        if way != "soft":  # virtual tokens are on where a row has them
            fit.switch(0.0)
            assert not torch.equal(logits(loaded, fits["soft"].virtual), together)
            fit.switch(1.0)
    assert torch.equal(logits(loaded, fits["soft"].virtual), together)
    for way in order:
        fits[way].remove()
    assert torch.equal(logits(loaded), before)


@pytest.mark.parametrize("way", ["lora", "norms", "layers", "pfeiffer"])
def test_half_the_strength_lies_between(model, way):
    loaded = model("chat")
    before = logits(loaded)
    fit, _ = trained(loaded, way, 3)
    whole = logits(loaded)
    fit.switch(0.5)
    half = logits(loaded)
    assert 0.2 < (half - before).norm() / (whole - before).norm() < 0.8
    fit.switch(1.0)
    torch.testing.assert_close(logits(loaded), whole, rtol=0, atol=0)


def test_what_cannot_be_done_is_refused_with_a_way_out(model):
    with pytest.raises(ModelError, match="has no biases") as none:
        methods.prepare(model("chat"), BitFit(), seed=0)
    assert "without=norms" in none.value.fix
    windowed = model("chat")
    windowed.net.config.sliding_window = 8
    with pytest.raises(ModelError, match="takes no keys from outside"):
        methods.prepare(windowed, Prefix(), seed=0)
    with pytest.raises(ModelError, match="names no choices"):
        methods.prepare(model("chat"), PromptTuning(init="labels"), seed=0)
    with pytest.raises(ConfigError, match="has no field 'rank'"):
        methods.prepare(model("chat"), Further(name="loha", options={"rank": 3}), seed=0)
    with pytest.raises(ConfigError, match="modules_to_save trains whole modules"):
        methods.prepare(model("chat"), Further(name="loha", options={"modules_to_save": ["norm"]}), seed=0)
    with pytest.raises(ConfigError, match="bias trains the base's biases"):
        methods.prepare(model("neox"), Further(name="oft", options={"bias": "all"}), seed=0)
    with pytest.raises(ModelError, match="no linear layer of the model is called 'qproj'"):
        methods.prepare(model("chat"), Lora(ranks={"qproj": 3}), seed=0)
    with pytest.raises(ModelError, match="no weight of the model has 'nothing'"):
        methods.prepare(model("chat"), Layers(pattern="nothing"), seed=0)
    loaded = model("chat")
    fit = methods.prepare(loaded, PromptTuning(), seed=0)
    with pytest.raises(ModelError, match="cannot be scaled"):
        fit.switch(0.5)
    assert methods.prepare(model("neox"), BitFit(), seed=0).slots.keys() >= {"gpt_neox.layers.0.mlp.dense_h_to_4h.bias"}


@pytest.mark.parametrize("score", ["gradient", "fisher", "magnitude", "random"])
@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_a_sparse_mask_takes_the_best_entries_by_each_score(model, score, scope):
    loaded = model("chat")
    plan = Plan((tuple(((row,),) for row in ROWS),))
    method = SparseMask(share=0.01, score=score, scope=scope, batches=3)
    weights = {n: p for n, p in loaded.net.named_parameters() if n.endswith("proj.weight")}
    for p in loaded.net.parameters():
        p.requires_grad_(True)
    taken = list(loop.gradients(loaded, plan, list(weights.values()), 3))
    sums = [sum(g ** (2 if score == "fisher" else 1) for g in each).abs() for each in zip(*taken, strict=True)]
    sums = [p.detach().abs() for p in weights.values()] if score == "magnitude" else sums
    fit = methods.prepare(loaded, method, seed=1, evidence=Evidence((), partial(loop.gradients, loaded, plan)))
    sizes = {path: len(entries.places) for path, entries in fit.entries.items()}
    assert sum(sizes.values()) == loaded.parameters(trainable=True)
    if scope == "tensor":
        assert all(sizes[path.removesuffix(".weight")] == round(0.01 * p.numel()) for path, p in weights.items())
    else:
        assert sum(sizes.values()) == round(0.01 * sum(p.numel() for p in weights.values()))
    if score == "random":
        again = methods.prepare(model("chat"), method, seed=1)
        other = methods.prepare(model("chat"), method, seed=2)
        assert all(torch.equal(again.entries[path].places, entries.places) for path, entries in fit.entries.items())
        assert not all(torch.equal(other.entries[path].places, entries.places) for path, entries in fit.entries.items())
        return
    marks = torch.cat([one.flatten() for one in sums])
    inside = torch.cat([torch.zeros(p.numel(), dtype=torch.bool) for p in weights.values()])
    ends = torch.tensor([p.numel() for p in weights.values()]).cumsum(0).tolist()
    starts = dict(zip(weights, [0, *ends[:-1]], strict=True))
    for path, entries in fit.entries.items():
        inside[starts[f"{path}.weight"] + entries.places] = True
    for path, p in weights.items() if scope == "tensor" else [("all", marks)]:
        part = slice(0, len(marks)) if path == "all" else slice(starts[path], starts[path] + p.numel())
        assert marks[part][inside[part]].min() >= marks[part][~inside[part]].max()


@given(st.lists(st.lists(st.sampled_from([0.0, 1e-30, 0.5, 1.0, 3.0]), min_size=1, max_size=9), min_size=1, max_size=4))
def test_the_best_of_all_tensors_are_those_of_one_sorted_list(scores):
    named = {str(i): torch.tensor(values) for i, values in enumerate(scores)}
    found = best_of_all(named, 0.4)
    together = torch.cat(list(named.values())).sort(descending=True).values
    n = max(1, round(0.4 * len(together)))
    taken = torch.cat([named[name][places] for name, places in found.items()])
    assert torch.equal(taken.sort(descending=True).values, together[:n])
    assert all(len(places) == max(1, round(0.4 * len(named[name]))) for name, places in best(named, 0.4).items())


def test_a_sparse_mask_goes_on_with_the_entries_it_began_with(model):
    loaded = model("chat")
    method = SparseMask(share=0.01, score="magnitude", scope="global")
    fit = methods.prepare(loaded, SparseMask(share=0.01, score="random", scope="global"), seed=1)
    other = model("chat")
    second = methods.prepare(other, method, seed=2, evidence=Evidence(state=fit.state()))
    for path, entries in fit.entries.items():
        assert torch.equal(entries.places, second.entries[path].places)
        assert torch.equal(entries.values, second.entries[path].values)
    second.remove()
    assert torch.equal(logits(other), logits(model("chat")))


def test_a_sparse_mask_without_rows_to_look_at_says_so(model):
    with pytest.raises(ModelError, match="no training rows"):
        methods.prepare(model("chat"), SparseMask(), seed=0)
