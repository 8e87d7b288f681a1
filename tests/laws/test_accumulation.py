"""Accumulating micro batches == one large batch, whatever their sizes."""

from dataclasses import replace

import pytest
import torch

from tests.laws.test_packing import ROWS
from tunesmith import methods
from tunesmith.method import Full
from tunesmith.recipe import Recipe, Train
from tunesmith.training.loop import Past, Plan, steps
from tunesmith.training.optimizer import MasterAdamW


def trained(model, kind, groups):
    loaded = model(kind)
    methods.prepare(loaded, Full(), seed=0)
    recipe = Recipe(method=Full(), train=Train(learning_rate=1e-2, warmup=0.0, schedule="constant"))
    optimizer = MasterAdamW(loaded.net.named_parameters(), recipe.train)
    log = list(steps(loaded, optimizer, Plan((groups,)), [], recipe, Past()))
    return log, loaded.net.state_dict()


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_four_micro_batches_equal_one_batch(model, kind):
    one = trained(model, kind, ((tuple(ROWS),),))
    four = trained(model, kind, (tuple((row,) for row in ROWS),))
    assert one[0][0].loss == pytest.approx(four[0][0].loss, rel=1e-6)
    assert one[0][0].gradient_norm == pytest.approx(four[0][0].gradient_norm, rel=1e-5)
    for name, weight in one[1].items():
        # AdamW's first step is the gradient's sign times the rate, and the sign of a near zero may differ.
        close = torch.isclose(four[1][name], weight, rtol=1e-4, atol=1e-5)
        assert close.float().mean() > 0.999, name


def test_the_loss_of_a_step_is_the_mean_over_its_answer_tokens(model):
    each = [trained(model, "chat", (((row,),),))[0][0].loss for row in ROWS]
    weights = [len(row.answer) for row in ROWS]
    expected = sum(loss * n for loss, n in zip(each, weights, strict=True)) / sum(weights)
    assert trained(model, "chat", ((tuple(ROWS),),))[0][0].loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_each_task_has_the_loss_it_has_alone(model, kind):
    rows = [replace(row, task="odd" if i % 2 else "even") for i, row in enumerate(ROWS)]
    together = trained(model, kind, (tuple((row,) for row in rows),))[0][0]
    assert set(together.task_losses) == {"even", "odd"}
    for task, loss in together.task_losses.items():
        alone = trained(model, kind, ((tuple(row for row in rows if row.task == task),),))[0][0]
        assert loss == pytest.approx(alone.loss, rel=1e-6)
        assert alone.task_losses == {}
