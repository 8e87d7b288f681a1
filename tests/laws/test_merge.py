"""Merged forward == adapter forward; the sum of adapters == the sum of their deltas; nothing else is written."""

import json

import peft
import pytest
import torch
from peft.utils import merge_utils as theirs
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from tests.laws.test_methods import CASES, WAYS, close, logits, trained
from tunesmith.adapters import apply, proof
from tunesmith.adapters import folder as adapters
from tunesmith.adapters.fold import MAX_KL, Merging, deltas, live, merge
from tunesmith.adapters.merge import concatenated, dare, low_rank, ties, trim, weighted_sum
from tunesmith.errors import ConfigError, ModelError, RunError
from tunesmith.method import Lora
from tunesmith.methods.plain import Factors
from tunesmith.models.load import find, load, load_encoder
from tunesmith.recipe import Recipe

UNFOLDED = ("full", "houlsby", "pfeiffer", "parallel", "prompt_tuning", "p_tuning", "prefix")
FOLDED = [(way, kind) for way, kind in CASES if way not in UNFOLDED]
SUMS = [("chat", "lora", "dora"), ("chat", "norms", "ia3"), ("neox", "lora", "bitfit"), ("t5", "lora", "layers")]
EXACT = Merging(max_kl=1e-6)  # in fp32 nothing is lost


def saved(model, kind, way, place, rate=None):
    """An adapter that has taken a few steps, on disk, and what it says."""
    loaded = model(kind)
    fit, _ = trained(loaded, way, 3, rate=rate)
    adapters.save(loaded, Recipe(model=loaded.name, method=WAYS[way], dtype="float32"), place / "checkpoints")
    return logits(loaded, fit.virtual)


def reloaded(folder, dtype="float32"):
    place = find(str(folder))
    return load(place, load_encoder(place), dtype)


@pytest.mark.parametrize(("way", "kind"), FOLDED, ids=lambda value: value)
def test_merged_it_says_what_the_adapter_says(model, tmp_path, way, kind):
    expected = saved(model, kind, way, tmp_path)
    adapter = adapters.read(tmp_path)
    loaded = model(kind)
    base = logits(loaded)
    if way.startswith("qlora"):  # onto the dense base, as LoRA
        expected = logits(live(adapter, "float32"))
    if (way, kind) == ("bitfit", "t5"):
        with pytest.raises(ModelError, match="a t5 model has no place for .*bias"):
            apply.add(loaded.net, deltas(adapter))
        return
    net = apply.add(loaded.net, deltas(adapter))
    found = logits(type(loaded)(**{**loaded.__dict__, "net": net}))
    assert (found - expected).norm() <= 1e-3 * (expected - base).norm()
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("way", "kind"), [(w, k) for w, k in FOLDED if w in ("lora", "pissa", "vera", "ia3", "layers")]
)
def test_telling_its_deltas_leaves_the_network_as_it_was(model, tmp_path, way, kind):
    saved(model, kind, way, tmp_path)
    live = adapters.load_trained(adapters.read(tmp_path))
    before = logits(live)
    live.fits["default"].deltas()
    assert torch.equal(logits(live), before)
    live.fits["default"].switch(0.0)
    assert torch.equal(logits(live), logits(model(kind)))


@pytest.mark.parametrize("kind", ["chat", "t5", "neox"])
def test_the_folder_is_a_plain_model_of_transformers(model, tiny, tmp_path, kind):
    expected = saved(model, kind, "lora", tmp_path / "run")
    before = {path.name: path.read_bytes() for path in tiny(kind).iterdir()}
    made = merge([tmp_path / "run"], tmp_path / "out", EXACT)
    assert {path.name: path.read_bytes() for path in tiny(kind).iterdir()} == before
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "merge.json"}
    assert not any(name.startswith("adapter") for name in names)
    torch.testing.assert_close(logits(reloaded(tmp_path / "out")), expected, rtol=1e-5, atol=1e-5)
    auto = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    net = auto.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    inputs = {"input_ids": ids, "decoder_input_ids": torch.tensor([[0, 9, 10]])} if kind == "t5" else {}
    inputs = inputs or {"input_ids": torch.tensor([[5, 6, 7, 8, 9, 10]])}
    with torch.no_grad():
        torch.testing.assert_close(net(**inputs).logits[0, -3:], expected, rtol=1e-4, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == model(kind).encoder.tokenizer.chat_template
    told = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert told["base_sha256"] == model(kind).sha256
    assert told["parts"][0]["method"] == "lora"
    assert told["proof"][0]["kl"] == made.proof[0].kl < 1e-6
    assert told["proof"][0]["agreement"] == 1.0


def test_biases_that_the_configuration_can_ask_for_are_saved_and_read_again(model, tmp_path):
    expected = saved(model, "chat", "bitfit", tmp_path / "run")
    merge([tmp_path / "run"], tmp_path / "out", EXACT)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["attention_bias"] and config["mlp_bias"]
    torch.testing.assert_close(logits(reloaded(tmp_path / "out")), expected, rtol=1e-5, atol=1e-5)


def test_a_tied_embedding_stays_tied(model, tmp_path):
    saved(model, "t5", "lora", tmp_path / "run")
    merge([tmp_path / "run"], tmp_path / "out", EXACT)
    net = reloaded(tmp_path / "out").net
    assert net.get_input_embeddings().weight is net.get_output_embeddings().weight
    loaded = model("t5")
    config = peft.LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False, task_type="SEQ_2_SEQ_LM")
    peft.get_peft_model(loaded.net, config).save_pretrained(tmp_path / "head", save_embedding_layers=False)
    with pytest.raises(ModelError, match="is tied to another layer"):
        merge([tmp_path / "head"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("kind", "one", "other"), SUMS)
def test_the_sum_of_adapters_is_the_sum_of_their_deltas(model, tmp_path, kind, one, other):
    for way in (one, other):
        saved(model, kind, way, tmp_path / way)
    merge([tmp_path / one, tmp_path / other], tmp_path / "out", Merging(weights=(0.5, 2.0), max_kl=1e-6))
    first, second = (deltas(adapters.read(tmp_path / way)) for way in (one, other))
    base = dict(model(kind).net.named_parameters())
    for name, weight in reloaded(tmp_path / "out").net.named_parameters():
        expected = base[name] + 0.5 * first.get(name, 0) + 2.0 * second.get(name, 0)
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_cat_is_the_sum_as_an_adapter(model, tmp_path, kind):
    for way, steps in (("lora", 0.05), ("pissa", 0.01)):
        saved(model, kind, way, tmp_path / way, rate=steps)
    runs = [tmp_path / "lora", tmp_path / "pissa"]
    merge(runs, tmp_path / "sum", Merging(weights=(0.5, -1.5), max_kl=1e-6))
    merge(runs, tmp_path / "cat", Merging(how="cat", weights=(0.5, -1.5), max_kl=1e-6))
    assert (tmp_path / "cat" / "adapter_model.safetensors").is_file()
    expected = logits(reloaded(tmp_path / "sum"))
    found = adapters.load_trained(adapters.trained(tmp_path / "cat"))
    torch.testing.assert_close(logits(found), expected, rtol=1e-4, atol=1e-5)
    found.fits["default"].remove()
    assert torch.equal(logits(found), logits(model(kind)))


def test_layers_that_only_one_adapter_has_keep_its_rank(model, tmp_path, monkeypatch):
    for way, method in (("all", Lora(rank=4)), ("some", Lora(rank=3, targets=("q_proj",), rslora=True))):
        monkeypatch.setitem(WAYS, way, method)
        saved(model, "chat", way, tmp_path / way)
    merge([tmp_path / "all", tmp_path / "some"], tmp_path / "cat", Merging(how="cat", max_kl=1e-6))
    weights = peft.PeftModel.from_pretrained(model("chat").net, str(tmp_path / "cat")).state_dict()
    ranks = {name.split(".")[-4]: len(value) for name, value in weights.items() if "lora_A" in name}
    assert ranks["q_proj"] == 7
    assert ranks["up_proj"] == 4


def test_svd_of_full_rank_is_the_sum_and_of_less_the_nearest(model, tmp_path):
    saved(model, "chat", "lora", tmp_path / "lora", rate=0.05)
    saved(model, "chat", "loha", tmp_path / "loha", rate=0.05)
    runs = [tmp_path / "lora", tmp_path / "loha"]
    merge(runs, tmp_path / "sum", EXACT)
    whole = merge(runs, tmp_path / "whole", Merging(how="svd", rank=48))
    assert "keeps 100.0 %" in whole.notes[0]
    found = adapters.load_trained(adapters.trained(tmp_path / "whole"))
    torch.testing.assert_close(logits(found), logits(reloaded(tmp_path / "sum")), rtol=1e-4, atol=1e-5)
    small = merge(runs[:1], tmp_path / "small", Merging(how="svd", rank=2))
    change = deltas(adapters.read(runs[0]))
    sizes = [torch.linalg.svdvals(delta).square() for delta in change.values()]
    share = sum(float(one[:2].sum()) for one in sizes) / sum(float(one.sum()) for one in sizes)
    assert f"keeps {100 * share:.1f} %" in small.notes[0]


@pytest.mark.parametrize("how", ["ties", "dare"])
def test_ties_and_dare_make_models_and_tell_how_far_they_are_from_each(model, tmp_path, how):
    for way in ("lora", "ia3"):
        saved(model, "chat", way, tmp_path / way, rate=0.05)
    runs = [tmp_path / "lora", tmp_path / "ia3"]
    made = merge(runs, tmp_path / "out", Merging(how=how, density=0.4))
    assert [one.limit for one in made.proof] == [None, None]
    assert all(one.kl > 0 for one in made.proof)
    again = merge(runs, tmp_path / "again", Merging(how=how, density=0.4))
    assert torch.equal(logits(reloaded(tmp_path / "out")), logits(reloaded(tmp_path / "again")))
    assert made.proof == again.proof
    if how == "dare":
        merge(runs, tmp_path / "other", Merging(how=how, density=0.4, seed=1))
        assert not torch.equal(logits(reloaded(tmp_path / "out")), logits(reloaded(tmp_path / "other")))


def test_ties_by_hand():
    one, other = torch.tensor([4.0, -1.0, 2.0, 0.1]), torch.tensor([-1.0, -3.0, 5.0, 0.2])
    assert trim(one, 0.5).tolist() == [4.0, 0.0, 2.0, 0.0]
    assert trim(other, 0.5).tolist() == [0.0, -3.0, 5.0, 0.0]
    # signs + - + +; only the first has the first number, only the second the second, both the third, none the last
    assert ties([one, other], [1.0, 1.0], 0.5).tolist() == [4.0, -3.0, 3.5, 0.0]
    assert ties([one, other], [2.0, 1.0], 0.5).tolist() == [8.0, -3.0, 4.5, 0.0]


def test_the_pieces_are_pefts():
    generator = torch.Generator().manual_seed(0)
    every = [torch.randn(12, 10, generator=generator) for _ in range(3)]
    weights = [0.5, 1.0, -0.25]
    given = torch.tensor(weights)
    torch.testing.assert_close(trim(every[0], 0.3), theirs.prune(every[0], 0.3, "magnitude"), rtol=0, atol=0)
    torch.testing.assert_close(ties(every, weights, 0.3), theirs.ties(every, given, 0.3))
    torch.testing.assert_close(weighted_sum(every, weights), theirs.task_arithmetic(every, given))
    torch.testing.assert_close(dare(every, weights, 1.0, 0, "w"), theirs.task_arithmetic(every, given))


def test_dare_keeps_the_mean_and_depends_on_seed_and_name_alone():
    ones = [torch.ones(400, 250), torch.ones(400, 250)]
    found = dare(ones, [1.0, 1.0], 0.2, 0, "a.weight")
    assert set(found.unique().tolist()) == {0.0, 5.0, 10.0}  # each adapter drops its own
    assert float(found.mean()) == pytest.approx(2.0, abs=0.03)
    assert torch.equal(found, dare(ones, [1.0, 1.0], 0.2, 0, "a.weight"))
    assert not torch.equal(found, dare(ones, [1.0, 1.0], 0.2, 0, "b.weight"))
    assert not torch.equal(found, dare(ones, [1.0, 1.0], 0.2, 1, "a.weight"))


def test_factors_side_by_side_and_the_nearest_of_a_rank():
    generator = torch.Generator().manual_seed(0)
    pairs = [Factors(torch.randn(9, r, generator=generator), torch.randn(r, 7, generator=generator)) for r in (2, 3)]
    whole = concatenated(pairs, [2.0, -0.5])
    expected = 2 * pairs[0].up @ pairs[0].down - 0.5 * pairs[1].up @ pairs[1].down
    torch.testing.assert_close(whole.up @ whole.down, expected)
    up, down = low_rank(expected, 5)
    assert close(up @ down, expected)
    up, down = low_rank(expected, 2)
    lost = torch.linalg.svdvals(expected)[2:].norm()
    torch.testing.assert_close((up @ down - expected).norm(), lost)


@pytest.mark.parametrize(("way", "message"), [
    ("prompt_tuning", "not a change of the base's weights"), ("prefix", "not a change of the base's weights"),
    ("pfeiffer", "not a change of the base's weights"), ("full", "is a model already"),
])  # fmt: skip
def test_what_is_no_change_of_weights_is_refused_with_a_way_out(model, tmp_path, way, message):
    saved(model, "chat", way, tmp_path / "run")
    with pytest.raises(ModelError, match=message) as wrong:
        merge([tmp_path / "run"], tmp_path / "out")
    assert "as it is" in wrong.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_full_fine_tuning_is_combined_by_its_difference_to_the_base(model, tmp_path):
    for way in ("full", "lora"):
        saved(model, "chat", way, tmp_path / way)
    merge([tmp_path / "full", tmp_path / "lora"], tmp_path / "out", EXACT)
    change = deltas(adapters.read(tmp_path / "lora"))
    trained_net = dict(reloaded(tmp_path / "full" / "checkpoints" / "model").net.named_parameters())
    for name, weight in reloaded(tmp_path / "out").net.named_parameters():
        torch.testing.assert_close(weight, trained_net[name] + change.get(name, 0), rtol=1e-5, atol=1e-6)


def test_adapters_of_two_bases_are_refused_with_both_names(model, tmp_path):
    for kind in ("chat", "neox"):
        saved(model, kind, "lora", tmp_path / kind)
    with pytest.raises(ModelError, match="neox.* was trained on .*tiny-neox.*on .*tiny-chat"):
        merge([tmp_path / "chat", tmp_path / "neox"], tmp_path / "out")


def test_mistakes_are_refused_and_nothing_is_left(model, tmp_path):
    for way in ("dora", "ia3"):
        saved(model, "chat", way, tmp_path / way)
    (tmp_path / "there").mkdir()
    runs = [tmp_path / "dora", tmp_path / "ia3"]
    with pytest.raises(RunError, match="exists already"):
        merge(runs, tmp_path / "there")
    with pytest.raises(ConfigError, match="3 of them for 2 runs"):
        merge(runs, tmp_path / "out", Merging(weights=(1.0, 1.0, 1.0)))
    for run in runs:
        with pytest.raises(ModelError, match="only plain LoRA has two factors"):
            merge([run], tmp_path / "out", Merging(how="cat"))
    with pytest.raises(ModelError, match="is no training run"):
        merge([tmp_path / "there"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dora", "ia3", "there"]


def bf16(tiny, tmp_path, model):
    """A base in bf16, and an adapter trained on it."""
    net, encoder = model("chat").net, model("chat").encoder
    net.to(torch.bfloat16).save_pretrained(tmp_path / "base")
    encoder.tokenizer.save_pretrained(tmp_path / "base")
    loaded = reloaded(tmp_path / "base", "bfloat16")
    trained(loaded, "lora", 8, rate=0.02)
    recipe = Recipe(model=str(tmp_path / "base"), method=WAYS["lora"], dtype="bfloat16")
    adapters.save(loaded, recipe, tmp_path / "run" / "checkpoints")


def test_in_bf16_the_base_keeps_its_dtype_and_the_proof_names_the_rounding(model, tiny, tmp_path):
    bf16(tiny, tmp_path, model)
    made = merge([tmp_path / "run"], tmp_path / "out")
    merged, noise = made.proof
    assert made.dtype == "bfloat16"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert 0 < merged.kl < MAX_KL
    assert 0 < noise.kl < MAX_KL
    assert (merged.limit, noise.limit) == (MAX_KL, None)
    change = deltas(adapters.read(tmp_path / "run"))
    base = dict(reloaded(tmp_path / "base", "float32").net.named_parameters())
    for name, weight in reloaded(tmp_path / "out", "bfloat16").net.named_parameters():
        assert torch.equal(weight, (base[name] + change.get(name, 0)).bfloat16()), name


def test_weights_that_do_not_say_the_same_are_refused(model, tiny, tmp_path):
    bf16(tiny, tmp_path, model)
    with pytest.raises(ModelError, match="do not say what was to be merged: .* KL .* above 0 nats") as wrong:
        merge([tmp_path / "run"], tmp_path / "out", Merging(max_kl=0.0))
    assert "--max-kl" in wrong.value.fix
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "run"]


def test_a_spoiled_weight_shows(model, tmp_path):
    saved(model, "chat", "lora", tmp_path, rate=0.05)
    good, bad = (adapters.load_trained(adapters.read(tmp_path)) for _ in range(2))
    rows = proof.held_out(adapters.read(tmp_path), good.encoder, good.context).rows
    with torch.no_grad():
        bad.net.get_parameter("model.layers.1.mlp.down_proj.base_layer.weight").neg_()
    wanted = ("adapter", proof.answers(good, rows))
    assert proof.fidelity(("itself", wanted[1]), wanted, "rows").kl == 0.0
    assert proof.fidelity(("spoiled", proof.answers(bad, rows)), wanted, "rows").kl > 10 * EXACT.max_kl


def test_the_proof_is_by_the_definition():
    p, q = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]), torch.tensor([[0.25, 0.5, 0.25], [0.1, 0.8, 0.1]])
    found = proof.fidelity(("q", q.log()), ("p", p.log()), "rows")
    assert found.kl == pytest.approx((0.5 * torch.log(torch.tensor(2.0)) + 0.25 * torch.log(torch.tensor(0.5))) / 2)
    assert found.agreement == 0.5
    assert found.answer_tokens == 2


def test_a_result_that_is_no_number_is_no_proof():
    good = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    bad = good.clone()
    bad[3] = float("nan")
    told = proof.fidelity(("merged", bad), ("adapter", good), "rows")
    assert not told.kl <= MAX_KL
    assert proof.fidelity(("same", good), ("adapter", good), "rows").kl == 0.0
