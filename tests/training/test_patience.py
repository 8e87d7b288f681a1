"""Early stopping: a training that learns its few rows by heart ends, and keeps the weights of its best epoch."""

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tunesmith.errors import ConfigError
from tunesmith.recipe import make_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import train

# A task of which nothing can be learned beyond the few training rows: the validation loss falls, then rises.
FEW = (
    "method=full",
    "train.epochs=40",
    "limit.train=6",
    "train.batch_tokens=128",
    "train.schedule=constant",
    "train.warmup=0",
)
RATE = "train.learning_rate=3e-3"


def recipe_for(folder, *settings):
    base = {"model": str(folder), "dtype": "float32", "length": {"max_tokens": 256}, "template": "say"}
    return make_recipe(base, (*FEW, RATE, *settings))


def weights(run):
    (file,) = (run.folder / "checkpoints" / "model").glob("*.safetensors")
    return load_file(file)


@pytest.fixture
def patient(tiny, colours, tmp_path):
    return train(recipe_for(tiny("chat"), "train.patience=2"), tmp_path / "patient", colours)


def test_a_training_ends_when_its_validation_loss_falls_no_more(patient):
    facts, losses = patient.summary(), [check.validation_loss for check in patient.checks()]
    assert patient.done
    assert not facts.stopped_early
    assert facts.steps < facts.planned_steps
    assert losses.index(min(losses)) == len(losses) - 3  # two looks after the least
    assert facts.validation_loss == min(losses) < losses[-1]
    assert [check.best for check in patient.checks()].count(True) >= 1
    assert not (patient.folder / "checkpoints" / "passing").exists()


def test_the_weights_that_are_kept_are_those_of_the_best_epoch(patient, tiny, colours, tmp_path):
    best = [check.step for check in patient.checks() if check.best][-1]
    epochs = next(step.epoch for step in patient.steps() if step.step == best)
    short = train(recipe_for(tiny("chat"), f"train.epochs={epochs}"), tmp_path / "short", colours)
    assert short.summary().validation_loss == pytest.approx(patient.summary().validation_loss, abs=1e-6)
    ours, theirs = weights(patient), weights(short)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_patience_changes_no_step(patient, tiny, colours, tmp_path):
    plain = train(recipe_for(tiny("chat"), "train.patience=0"), tmp_path / "plain", colours)
    n = len(patient.steps())
    assert n < len(plain.steps())
    assert [step.loss for step in plain.steps()[:n]] == [step.loss for step in patient.steps()]


@pytest.mark.parametrize("place", ["before the end", "after the last look"])
def test_a_patient_training_that_is_killed_goes_on_to_the_same_end(
    patient, tiny, colours, tmp_path, monkeypatch, place
):
    last = patient.summary().steps
    real_append, real_finish = Run.append, Run.finish

    def dying(self, record):
        real_append(self, record)
        if getattr(record, "step", 0) == last - 2 and not hasattr(record, "best"):
            raise KeyboardInterrupt

    def stillborn(self, summary):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, *(("append", dying) if place == "before the end" else ("finish", stillborn)))
    recipe = recipe_for(tiny("chat"), "train.patience=2", "train.checkpoint_every=1")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", colours)
    monkeypatch.setattr(Run, "append", real_append)
    monkeypatch.setattr(Run, "finish", real_finish)
    resumed = train(recipe, tmp_path / "cut", colours, resume=True)
    assert resumed.checks() == patient.checks()
    assert resumed.summary().validation_loss == patient.summary().validation_loss
    ours, theirs = weights(resumed), weights(patient)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_patience_needs_rows_to_judge_by(tiny, colours, tmp_path):
    blind = colours.model_copy(update={"source": colours.source.model_copy(update={"validation": None})})
    with pytest.raises(ConfigError, match="no validation rows"):
        train(recipe_for(tiny("chat"), "train.patience=1"), tmp_path / "blind", blind)


def test_what_is_forgotten_is_measured_of_the_kept_weights(tiny, colours_file, tmp_path):
    settings = ("train.patience=2", "forgetting.tasks=[nli]", "forgetting.limit=8")
    recipe = recipe_for(tiny("chat"), f"task={colours_file}", *settings)
    run = tunesmith.train(recipe, tmp_path / "run")
    told = run.forgetting()
    assert told.step == [check.step for check in run.checks() if check.best][-1] < run.summary().steps
    assert told.checks == tuple(run.checks())
    assert told.passed is None
