"""What narrow copies tell holds for wider and deeper ones; every training writes what was planned for it."""

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig, T5Config

from tests.training.test_train import recipe_for
from tunesmith.data.encode import Encoded
from tunesmith.method import Full, Ia3, Lora, Prefix
from tunesmith.planning.loads import load_of
from tunesmith.planning.memory import features
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


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", [Lora(), Full(), Ia3(), Prefix()], ids=lambda method: method.name)
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
    at = features(load_of(trace.rows_lengths(rows), engine.laying, traced.block, shared), wide.width)
    slopes = [*zip(depths, traced.blocks, strict=True), (1, traced.rest)]
    planned = sum(times * sum(a * b for a, b in zip(one, at, strict=True)) for times, one in slopes)
    assert planned == pytest.approx(held.kept, rel=0.05)


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


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_a_training_writes_its_plan_and_says_both(kind, tiny, colours, tmp_path):
    run = train(recipe_for(tiny(kind), "limit.train=16"), tmp_path / "run", colours)
    made = run.plan()
    assert made.trained_parameters == run.summary().trainable_parameters
    assert made.total_parameters == run.summary().total_parameters
    assert (made.steps, made.tokens) == (run.summary().planned_steps, run.summary().tokens)
    (line,) = [one for one in train_lines(run) if one.startswith("planned: peak memory")]
    assert "of what was measured" in line


def test_a_model_whose_sizes_are_not_known_is_trained_without_a_plan(tiny, colours, tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.planning.shape.FAMILIES", {})
    run = train(recipe_for(tiny("chat"), "limit.train=16"), tmp_path / "run", colours)
    assert run.plan() is None
    assert not any(one.startswith("planned") for one in train_lines(run))
