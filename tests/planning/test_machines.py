"""Machines: each has a number format, a speed in each, a price of its own, and a memory that is counted alike."""

import json

import pytest
import torch
from transformers import LlamaConfig

from tests.test_cli import call
from tunesmith import plan
from tunesmith.errors import ConfigError
from tunesmith.method import Full, Layers, Lora, Qlora
from tunesmith.models import device
from tunesmith.planning.machines import MACHINES, WARM, Machine, cpu_share
from tunesmith.planning.shape import Linear, Shape, Stack
from tunesmith.planning.shards import whole
from tunesmith.reporting.planned import plan_lines
from tunesmith.training import here
from tunesmith.training.here import this_machine
from tunesmith.training.probe import Taken, calibrated


def test_auto_is_the_dtype_of_the_machine_that_is_planned_for(recipe, monkeypatch):
    """A processor without bf16 says nothing of a GPU."""
    own = MACHINES["cpu"].model_copy(update={"dtype": "float32"})
    chosen = device.choose_dtype
    plain = device.Dtype(torch.float32, "no bf16 here")
    monkeypatch.setattr(device, "choose_dtype", lambda asked="auto": plain if asked == "auto" else chosen(asked))
    assert this_machine().dtype == "float32"
    auto, narrow, wide = (
        plan(recipe(dtype=dtype), machines=[own, MACHINES["1x80"]]) for dtype in ("auto", "bfloat16", "float32")
    )
    assert (auto.dtype, narrow.dtype, wide.dtype) == ("float32", "bfloat16", "float32")
    assert [auto.outlooks[0], auto.outlooks[1]] == [wide.outlooks[0], narrow.outlooks[1]]


@pytest.mark.parametrize(("name", "times"), [("cpu", 4), ("1x24", 2), ("1x80", 16), ("8x80", 16)])
def test_fp32_products_take_their_own_time(recipe, name, times):
    narrow, wide = (plan(recipe(dtype=dtype), machines=[MACHINES[name]]) for dtype in ("bfloat16", "float32"))
    assert wide.seconds == pytest.approx(times * narrow.seconds)


def test_one_speed_is_that_of_all_number_formats():
    machine = Machine(name="m", told="m", memory=1, flops=1e12, share=0.5, process=0)
    assert machine.rate("float32") == machine.rate("bfloat16") == 0.5e12


def test_a_price_is_that_of_one_machine(recipe, tmp_path, monkeypatch, capsys):
    machines = [MACHINES["cpu"], MACHINES["1x24"], MACHINES["1x80"]]
    hours = [one.seconds / 3600 for one in plan(recipe(), machines=machines).outlooks]
    one = plan(recipe(), machines=machines, price=2.5)
    assert [out.price for out in one.outlooks] == [pytest.approx(2.5 * hours[0]), None, None]
    two = plan(recipe(), machines=machines, price={"": 2.5, "1x80": 1.5})
    assert [out.price for out in two.outlooks] == [pytest.approx(2.5 * hours[0]), None, pytest.approx(1.5 * hours[2])]
    third = plan(recipe(), machines=machines, price={"1x80": 1.5})
    assert third.outlooks[0].price is None and {rung.price for rung in third.rungs} == {None}
    with pytest.raises(ConfigError, match="nothing is planned for it"):
        plan(recipe(), machines=machines, price={"8x80": 1.5})

    path = tmp_path / "recipe.yaml"
    path.write_text(recipe("limit.train=24").to_yaml())
    words = ("plan", path, "--machine", "cpu", "--machine", "1x80", "--json", "--price")
    _, out, _ = call(monkeypatch, capsys, *words, "2.5", "--price", "1x80=1.5")
    assert all(one["price"] for one in json.loads(out)["outlooks"])
    for wrong in ("dear", "-1", "1x80=", "nan", "1x24=2"):
        code, _, errors = call(monkeypatch, capsys, *words, wrong)
        assert code == 2 and f"--price {wrong.split('=')[0]}" in errors


def test_what_is_compared_with_a_gpu_s_counter_is_what_that_counts(recipe):
    """Tensors alone: neither the context, nor the pieces that the allocator keeps."""
    bare, real = (
        Machine(name="gpu", told="a GPU", memory=2**40, flops=1e12, share=0.5, process=process, heap=heap)
        for process, heap in ((0, 1.0), (2**30, 1.1))
    )
    expected, made = (plan(recipe(), machines=[machine]) for machine in (bare, real))
    assert made.counted_bytes == expected.peak_bytes < made.peak_bytes - 2**30
    told = calibrated(made, Taken(2 * made.counted_bytes, 1.0, 100), 1e9)
    assert "(planned -50%)" in " ".join(plan_lines(told))
    processor = plan(recipe(), machines=[MACHINES["cpu"]])
    assert processor.counted_bytes == processor.peak_bytes


def test_what_is_taken_is_not_taken_once_more(monkeypatch):
    """Of a GPU's free memory its context is gone already; a processor's free memory has all that is resident beside it.

    The numbers of both are made up here.
    """
    monkeypatch.setattr(here.system, "resident_bytes", lambda: 1000)
    monkeypatch.setattr(here.system, "available_bytes", lambda: 5000)
    if not torch.cuda.is_available():
        assert (this_machine().memory, this_machine().process) == (6000, 1000 + WARM)
    monkeypatch.setattr(here, "_speed", lambda *_: 1e12)
    monkeypatch.setattr(device, "choose_dtype", lambda asked="auto": device.Dtype(torch.bfloat16, ""))
    monkeypatch.setattr(device, "device_name", lambda: "a GPU")
    monkeypatch.setattr(device, "current", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (8000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 500)
    assert (this_machine().memory, this_machine().process) == (8500, 0)


def test_the_speed_is_that_of_the_products_of_the_recipes_own_model(recipe, tmp_path, monkeypatch):
    """A narrow product may be several times slower than a square one, and a wide one is measured small."""
    asked = recipe("train.batch_tokens=96")
    measured = []
    monkeypatch.setattr(here, "_speed", lambda *given: measured.append(given) or 1e12)
    assert this_machine(asked).flops == 1e12
    attention = [(48, 48), (48, 24), (48, 24), (48, 48)]
    assert measured == [(torch.float32, (*attention, (48, 96), (48, 96), (96, 48)), 96)]
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert here._shape(recipe(model=str(tmp_path))) is here._shape(None) is None
    assert here._products(None) == here.SQUARE
    wide = LlamaConfig(hidden_size=8192, intermediate_size=28672, num_attention_heads=64, num_key_value_heads=8)
    (tmp_path / "config.json").write_text(json.dumps(wide.to_dict()))
    assert set(here._products(here._shape(recipe(model=str(tmp_path))))) == {(2048, 2048), (2048, 1024)}


def test_the_faster_the_products_the_less_of_their_speed_a_step_reaches():
    """As measured on the embedded model in bf16, two cores each; fp32 goes over twice the bytes."""
    assert cpu_share(385e9, 576, 2, 2) == pytest.approx(0.53, abs=0.05)  # AVX512-BF16
    assert cpu_share(1304e9, 576, 2, 2) == pytest.approx(0.22, abs=0.05)  # AMX
    assert cpu_share(385e9, 576, 2, 4) < cpu_share(385e9, 576, 2, 2)
    assert cpu_share(1304e9, 4096, 2, 2) > 2 * cpu_share(1304e9, 576, 2, 2)


def test_a_speed_is_counted_in_the_operations_of_its_products():
    narrow, wide = (here._speed(torch.float32, ((n, n),), 64, seconds=0.05) for n in (8, 512))
    assert 0 < narrow < wide


def test_several_devices_take_a_batch_each_at_a_time(recipe):
    """Nine batches are two rounds for eight devices, not an eighth more than one."""
    asked = recipe("train.batch_tokens=128", "train.epochs=2")
    one, eight = (plan(asked, machines=[MACHINES[name]]) for name in ("1x80", "8x80"))
    batches = one.steps // 2
    rounds = -(-batches // 8)
    assert batches % 8
    assert eight.seconds == pytest.approx(one.seconds / one.steps * 2 * rounds)
    assert f"a step there is of 8 batches, one for each, which makes {2 * rounds} steps" in eight.notes[-1]
    assert "does not train on several devices yet" in eight.notes[-1] and not one.notes
    asked = recipe("train.batch_tokens=128", "train.epochs=2", "train.accumulate=2")
    assert f"makes {2 * -(-rounds // 2)} steps" in plan(asked, machines=[MACHINES["8x80"]]).notes[-1]


def test_a_processor_s_note_is_told_where_there_is_one(recipe):
    notes = [plan(recipe("method.name=qlora"), machines=[MACHINES[name]]).notes for name in ("cpu", "1x80")]
    assert ["on a processor" in " ".join(one) for one in notes] == [True, False]


def test_each_device_makes_whole_what_it_computes_with():
    """By hand: two blocks of 10 x 10 weights and two norms of 10, embedding and head of 1 000 words, one norm more."""
    stack = Stack(blocks=2, linear=(Linear("q_proj", 10, 10),), norms=(10, 10))
    shape = Shape(width=10, keys=10, vocabulary=1000, tables=2, shifted=False, stacks=(stack,))
    block, root = 2 * 120, 2 * 20010
    assert whole(shape, Full(), 2, shape.total) == (root + 2 * block, root + block)
    assert whole(shape, Layers(), 2, 240) == (root + 2 * block, block)
    assert whole(shape, Lora(), 2, 80) == (root + 2 * (block + 80), 80)
    assert whole(shape, Qlora(double_quant=False), 2, 80) == (root + 2 * (int(100 * 4.5 / 8) + 1 + 40 + 80), 80)
