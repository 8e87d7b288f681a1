"""Machines: each has a number format, a speed in each, a price of its own, and a memory that is counted alike."""

import json

import pytest
import torch

from tests.test_cli import call
from tunesmith import plan
from tunesmith.errors import ConfigError
from tunesmith.models import device
from tunesmith.planning.machines import MACHINES, Machine
from tunesmith.training.here import this_machine


def test_auto_is_the_dtype_of_the_machine_that_is_planned_for(recipe, monkeypatch):
    """A processor without bf16 says nothing of a GPU."""
    here = MACHINES["cpu"].model_copy(update={"dtype": "float32"})
    chosen = device.choose_dtype
    plain = device.Dtype(torch.float32, "no bf16 here")
    monkeypatch.setattr(device, "choose_dtype", lambda asked="auto": plain if asked == "auto" else chosen(asked))
    assert this_machine().dtype == "float32"
    auto, narrow, wide = (
        plan(recipe(dtype=dtype), machines=[here, MACHINES["1x80"]]) for dtype in ("auto", "bfloat16", "float32")
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
