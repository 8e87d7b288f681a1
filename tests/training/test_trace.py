"""What narrow copies tell holds for wider and deeper ones; every training writes what was planned for it."""

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig, MT5Config, T5Config

from tests.training.test_train import recipe_for
from tunesmith.data.encode import Encoded
from tunesmith.errors import ModelError
from tunesmith.method import BitFit, Full, Further, Ia3, Layers, Lora, Prefix, PTuning, SparseMask
from tunesmith.planning.loads import load_of
from tunesmith.planning.memory import features, passing
from tunesmith.reporting.lines import train_lines
from tunesmith.training import batches, trace
from tunesmith.training.train import train

CONFIGS = {
    "llama": LlamaConfig(
        hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2,
    ),
    "t5": T5Config(d_model=256, d_kv=32, d_ff=512, num_layers=4, num_decoder_layers=5, num_heads=8),
    "neox": GPTNeoXConfig(hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4),
}  # fmt: skip
WIDE = {"llama": (64, (6,)), "t5": (32, (4, 5)), "neox": (64, (4,))}


METHODS = [
    Lora(),
    Full(),
    Ia3(),
    Prefix(),
    PTuning(),
    Layers(last=2),
    SparseMask(score="random"),
    BitFit(without="add"),
]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("kind", CONFIGS)
def test_slopes_of_narrow_copies_give_the_bytes_of_a_wide_one(kind, method, checkpointing):
    values = CONFIGS[kind].to_dict()
    traced, engine = trace.trace(values, method, checkpointing, torch.float32)
    head, depths = WIDE[kind]
    wide = trace._copy(values, method, trace.Narrow(head, depths, checkpointing, torch.float32))
    virtual = tuple(-1 - i for i in range(method.virtual_tokens))
    rows = [
        Encoded(str(i), (*virtual, *((i + j) % 60 + 2 for j in range(n))), (3,) * 30) for i, n in enumerate((180, 90))
    ]
    held = trace.measure(wide, rows)
    shared = batches.shared(rows) if engine.shares else 0
    load = load_of(trace.rows_lengths(rows), engine.laying, traced.block, shared)
    if isinstance(method, Layers) and not checkpointing:  # as the plan has it: the blocks below keep nothing
        depths = (method.last, *depths[1:])
    at, briefly = features(load, wide.width), passing(load, wide.width)
    slopes = [*zip(depths, traced.blocks, strict=True), (1, traced.rest)]
    kept = sum(times * along(one, at) for times, one in slopes)
    partly = kind == "t5" and isinstance(method, Layers)  # a gradient goes through blocks that do not learn
    assert kept == pytest.approx(held.kept, rel=0.08 if partly else 0.05)
    backward, forward = along(traced.backward, briefly), along(traced.forward, briefly)
    peak = held.kept + max(held.forward, held.backward)
    assert kept + backward == pytest.approx(held.kept + held.backward, rel=0.08)
    assert kept + max(forward, backward) == pytest.approx(peak, rel=0.08)


def along(slopes, at):
    return sum(slope * x for slope, x in zip(slopes, at, strict=True))


def test_gradients_that_are_done_do_not_count_to_what_a_pass_holds():
    """They grow with the weights, which narrow copies have few of: they are planned from the sizes alone."""
    values = CONFIGS["llama"].to_dict()
    held = []
    for method in (Full(), SparseMask(score="random")):
        copy = trace._copy(values, method, trace.Narrow(64, (6,), True, torch.float32))
        held.append(trace.measure(copy, trace._rows([(90, 30)], 0)).backward)
    assert held[0] == pytest.approx(held[1], rel=0.05)


@pytest.mark.parametrize("rank", [64, 300])
def test_a_rank_that_narrow_copies_have_no_room_for_is_traced_on_wider_ones(rank):
    values = MT5Config(d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6).to_dict()
    traced, _ = trace.trace(values, Further(name="miss", options={"r": rank}), False, torch.float32)
    assert traced.blocks[0][0] > 0


def test_a_rank_that_the_model_itself_has_no_room_for_is_refused():
    values = MT5Config(d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6).to_dict()
    with pytest.raises(ModelError, match="less than or equal"):
        trace.trace(values, Further(name="miss", options={"r": 400}), False, torch.float32)


def test_a_method_is_traced_once_for_each_model(monkeypatch):
    values = CONFIGS["llama"].to_dict()
    first = trace.trace(values, Lora(rank=4), False, torch.float32)
    monkeypatch.setattr(trace, "measure", None)
    assert trace.trace(values, Lora(rank=4), False, torch.float32) == first


def test_tracing_draws_nothing_from_the_global_generator_and_keeps_the_threads():
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    trace.trace(CONFIGS["llama"].to_dict(), Lora(rank=3), False, torch.float32)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


WAYS = {
    "lora": (), "full": ("method.name=full",), "layers": ("method.name=layers", "method.last=1"),
    "norms": ("method.name=norms",), "bitfit": ("method.name=bitfit", "method.without=add"),
    "sparse_mask": ("method.name=sparse_mask",), "p_tuning": ("method.name=p_tuning", "method.hidden=32"),
    "prompt_tuning": ("method.name=prompt_tuning",), "qlora": ("method.name=qlora",),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["chat", "t5"])
@pytest.mark.parametrize("way", WAYS)
def test_a_training_writes_its_plan_and_says_both(way, kind, tiny, colours, tmp_path):
    run = train(recipe_for(tiny(kind), "limit.train=16", *WAYS[way]), tmp_path / "run", colours)
    made, facts = run.plan(), run.summary()
    assert made.trained_parameters == facts.trainable_parameters
    assert made.total_parameters == facts.total_parameters
    assert (made.steps, made.tokens) == (facts.planned_steps, facts.tokens)
    assert made.artifact_bytes == pytest.approx(facts.artifact_bytes, abs=10_000)  # the names of the weights
    (line,) = [one for one in train_lines(run) if one.startswith("planned: peak memory")]
    assert "of what was measured" in line


def test_a_model_whose_sizes_are_not_known_is_trained_without_a_plan(tiny, colours, tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.planning.shape.FAMILIES", {})
    run = train(recipe_for(tiny("chat"), "limit.train=16"), tmp_path / "run", colours)
    assert run.plan() is None
    assert not any(one.startswith("planned") for one in train_lines(run))
