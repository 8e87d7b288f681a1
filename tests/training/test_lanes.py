"""Side by side == one after the other: results in order, settings as before, parts that weigh the same."""

import threading
import time
import weakref
from types import SimpleNamespace

import pytest
import torch

from tests.laws.test_packing import ROWS, SHARING, gradients, own_loss, plain_batch
from tests.training.test_resume import SETTINGS, outcome
from tests.training.test_train import recipe_for
from tunesmith import methods
from tunesmith.data.encode import Encoded
from tunesmith.method import Full, Lora
from tunesmith.models.attention import PACKED, attending
from tunesmith.models.head import loss_at
from tunesmith.recipe import Train
from tunesmith.training import loop
from tunesmith.training.lanes import LANES, alone, cut, side_by_side
from tunesmith.training.optimizer import MasterAdamW
from tunesmith.training.train import train


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts_from_threads_with_a_share_of_the_cores(two_threads):
    def slow_first(part):
        time.sleep(0.1 if part == 0 else 0.0)
        return part, threading.current_thread() is threading.main_thread(), torch.get_num_threads()

    with side_by_side() as run:
        assert list(run(slow_first, range(5))) == [(i, False, 1) for i in range(5)]
        assert torch.get_num_threads() == 2
        assert list(run(slow_first, [7])) == [(7, True, 2)]  # a single part has all of them


def test_a_part_that_fails_is_raised_and_leaves_the_threads_as_they_were(two_threads):
    def fails(part):
        raise ValueError(part)

    with side_by_side() as run, pytest.raises(ValueError, match="1"):
        list(run(fails, [1, 2]))
    assert torch.get_num_threads() == 2


def test_no_more_parts_are_begun_than_go_side_by_side_and_may_wait(two_threads):
    """What is begun and not yet given holds its result: for full tuning, gradients as large as the model."""
    for ahead in (0, 3):
        begun = []
        with side_by_side() as run:
            for given, _ in enumerate(run(begun.append, range(9), ahead)):
                time.sleep(0.01)
                assert len(begun) - given <= LANES + ahead


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_a_pass_are_let_go_of_before_another_takes_its_place(model, monkeypatch, threads):
    loaded, held, most = model("chat"), [], []
    methods.prepare(loaded, Full(), seed=1)
    optimizer = MasterAdamW(loaded.net.named_parameters(), Train())
    made = [part for _ in range(3) for part in loop._parts(loaded, ROWS)]

    def looking(loss, weights, **how):
        found = torch.autograd.grad(loss, weights, **how)
        held.append(weakref.ref(found[0]))
        most.append(sum(one() is not None for one in held))
        return found

    monkeypatch.setattr(loop, "torch", SimpleNamespace(**{**vars(torch), "autograd": SimpleNamespace(grad=looking)}))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with side_by_side() as run:
            loop._accumulate(loaded, made, optimizer, 0.0, run)
    finally:
        torch.set_num_threads(before)
    assert len(most) == 6
    assert max(most) <= threads


def test_a_single_core_takes_one_after_the_other():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with side_by_side() as run:
            assert run is alone
    finally:
        torch.set_num_threads(before)


def sized(*sizes):
    return [Encoded(str(i), tuple(range(size - 1)), (1,)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("sizes", [(8, 7, 6, 5, 4), (100, 1, 1), (3, 3), (50, 20, 20, 10), (9,)], ids=str)
def test_no_other_cut_into_whole_rows_is_more_even(sizes):
    rows, width = sized(*sizes), 10**9  # so wide that length alone counts
    parts = cut(rows, width)
    assert sorted(row.id for part in parts for row in part) == sorted(row.id for row in rows)
    assert all(part == sorted(part, key=rows.index) for part in parts)
    every = (sum(size for i, size in enumerate(sizes) if picked >> i & 1) for picked in range(2 ** len(sizes)))
    assert max(sum(row.size for row in part) for part in parts) == min(max(one, sum(sizes) - one) for one in every)


def test_attention_makes_long_rows_weigh_more_than_their_length():
    (one, other) = cut(sized(400, *[100] * 6), width=50)
    assert {len(one), len(other)} == {1, 6}


@pytest.mark.parametrize("method", [Full(), Lora(rank=4, alpha=8)], ids=lambda m: m.name)
@pytest.mark.parametrize("rows", [ROWS, SHARING], ids=["unlike", "sharing"])
def test_parts_side_by_side_give_the_gradients_of_rows_one_by_one(model, two_threads, rows, method):
    loaded = model("chat")
    methods.prepare(loaded, method, seed=1)
    weights = [p for p in loaded.net.parameters() if p.requires_grad]
    parts = loop._parts(loaded, rows)
    assert len(parts) == 2

    def learn(batch):
        loss = loss_at(loaded.net, batch.inputs, batch.keep, batch.targets)[0]
        return loss.item(), torch.autograd.grad(loss, weights)

    with attending(loaded.net, PACKED), side_by_side() as run:
        losses, made = zip(*run(learn, parts), strict=True)
    loss, alone_made = gradients(loaded, [plain_batch(loaded, row) for row in rows], own_loss)
    assert sum(losses) == pytest.approx(loss, rel=1e-6)
    for *each, expected in zip(*made, alone_made.values(), strict=True):
        torch.testing.assert_close(sum(each), expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_not_drawn_by_two_at_a_time(model):
    loaded = model("chat")
    methods.prepare(loaded, Lora(dropout=0.1), seed=1)
    loaded.net.train()
    assert len(loop._parts(loaded, ROWS)) == 1


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_on_two_cores_is_that_on_one_bit_for_bit(tiny, colours, tmp_path, method):
    """So what is shown of resumed runs on one core holds on two."""
    recipe = recipe_for(tiny("chat"), f"method.name={method}", *SETTINGS)
    before, outcomes = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            outcomes.append(outcome(train(recipe, tmp_path / str(threads), colours).folder))
    finally:
        torch.set_num_threads(before)
    assert outcomes[0] == outcomes[1]
