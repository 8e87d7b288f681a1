"""A probe takes the steps of the training: with its passes, its method's beginning, and only where it fits."""

import pytest

from tests.planning.test_plan import machine_with
from tunesmith import plan
from tunesmith.errors import FitError
from tunesmith.planning.plan import Fix
from tunesmith.reporting.planned import plan_lines
from tunesmith.training import probe as module
from tunesmith.training.here import this_machine
from tunesmith.training.probe import Taken, calibrated, probe


def test_a_method_that_looks_at_gradients_first_is_probed(recipe):
    asked = recipe("method.name=sparse_mask", "limit.train=24")
    assert asked.method.score == "gradient"
    assert probe(asked, plan(asked, machines=[this_machine(asked)])).probed.peak_bytes > 0


def test_what_does_not_fit_is_not_probed(recipe, monkeypatch):
    asked = recipe("limit.train=24")
    fix = Fix(settings=("train.batch_tokens=128",), peak_bytes=1, slower=1.0)
    made = plan(asked, machines=[machine_with(1)]).model_copy(update={"fixes": (fix,)})
    monkeypatch.setattr(module, "load", None)  # no weights are read
    with pytest.raises(FitError, match="of memory by its plan") as wrong:
        probe(asked, made)
    assert wrong.value.fix == "-s train.batch_tokens=128"


@pytest.mark.parametrize(("accumulate", "passes"), [(1, 1), (2, 2), (8, 2)])
def test_a_probe_takes_the_passes_of_a_step_two_at_most(recipe, accumulate, passes, monkeypatch):
    seen = []
    real = module.steps

    def watched(model, optimizer, layout, *rest):
        seen.extend(layout.epochs)
        return real(model, optimizer, layout, *rest)

    monkeypatch.setattr(module, "steps", watched)
    asked = recipe("train.batch_tokens=256", f"train.accumulate={accumulate}")
    made = probe(asked, plan(asked, machines=[this_machine(asked)]))
    assert [len(group) for group in seen[0]] == [passes] * 3
    assert [len(group) for group in seen[1]] == [1] * 6
    assert made.probed.passes == passes
    assert ("taken 2 times in each" in " ".join(plan_lines(made))) == (passes > 1)


def test_the_optimizer_is_charged_once_a_step(recipe):
    """By hand: a pass of 3 seconds and an optimizer of 1, whatever the passes of the step that was measured."""
    made = plan(recipe("train.batch_tokens=256", "train.accumulate=4"), machines=[machine_with(2**40)], price=2.0)
    first = made.outlooks[0]
    flops = first.seconds * first.rate / 10  # ten passes in all
    for passes in (1, 2):
        told = calibrated(made, Taken(1, 3.0 * passes + 1.0, 100, passes, 1.0), flops).outlooks[0]
        assert told.seconds == pytest.approx(10 * 3.0 + made.steps * 1.0)
        assert told.price == pytest.approx(2.0 * told.seconds / 3600)


def test_time_is_told_from_batches_of_all_weights_and_the_beginning_is_paid_once(recipe):
    """By hand: the heaviest batch goes at twice the speed of the others, of which there are ten times 3 seconds."""
    made = plan(recipe("train.batch_tokens=256"), machines=[machine_with(2**40)])
    first = made.outlooks[0]
    flops = first.seconds * first.rate / 10
    taken = Taken(1, 1.5 + 0.5, 100, 1, 0.5, 7.0, (2.5, 4.5))
    told = calibrated(made, taken, flops, [0.5 * flops, 1.5 * flops]).outlooks[0]
    assert told.seconds == pytest.approx(10 * 3.0 + made.steps * 0.5 + 7.0)
