"""Exporters show what the log says, from its first line, and can neither stop nor hold a run."""

import json
import signal
import subprocess
import time
from contextlib import nullcontext

import pytest

from tests.training.test_resume import SETTINGS, outcome, run_child
from tests.training.test_train import recipe_for
from tunesmith.errors import ConfigError
from tunesmith.runs.run import Run
from tunesmith.training import trackers
from tunesmith.training.train import train


def shown(run):
    """Read every scalar that TensorBoard would show, as (step, value) in the order written."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "exports/tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(run, name):
    steps = [(step.step, getattr(step, name)) for step in run.steps()]
    return [pytest.approx(pair, rel=1e-6) for pair in steps if pair[1] is not None]


def test_tensorboard_shows_what_the_log_says_whenever_it_is_asked_for(tiny, colours_file, tmp_path):
    """A run begins without it, is killed, goes on with it, is killed again, and ends."""
    recipe = recipe_for(tiny("chat"), *SETTINGS, task=str(colours_file))
    _, events = run_child(recipe, tmp_path / "plain", colours_file)
    tracked = recipe.model_copy(update={"track": ("tensorboard",)})
    assert run_child(recipe, tmp_path / "run", colours_file, event=events // 3)[0] == -signal.SIGKILL
    assert run_child(tracked, tmp_path / "run", colours_file, event=events // 3)[0] == -signal.SIGKILL
    assert run_child(tracked, tmp_path / "run", colours_file)[0] == 0
    run, found = Run.open(tmp_path / "run"), shown(Run.open(tmp_path / "run"))
    for name in ("loss", "learning_rate", "gradient_norm", "validation_loss"):
        assert found[name] == logged(run, name)
    assert len(found["tokens_per_second"]) == len(run.steps())
    assert outcome(run.folder) == outcome(tmp_path / "plain")


def test_the_exporter_of_a_trainer_that_is_gone_leaves_alone_what_the_next_one_shows(tiny, colours, tmp_path):
    run = train(recipe_for(tiny("chat"), "limit.train=24", "track=[tensorboard]"), tmp_path / "run", colours)
    before = shown(run)
    trackers.mirror("tensorboard", run, trainer=-1, ended=lambda seconds: True)
    assert before["loss"]
    assert shown(run) == before


def test_an_exporter_that_fails_is_named_and_the_run_goes_on(tiny, colours, tmp_path, capsys, monkeypatch):
    start = trackers._start

    def blocked(name, run, say):
        (run.folder / "exports").mkdir()
        (run.folder / "exports/tensorboard").write_text("a file where TensorBoard wants a folder")
        return start(name, run, say)

    monkeypatch.setattr(trackers, "_start", blocked)
    run = train(recipe_for(tiny("chat"), "limit.train=24", "track=[tensorboard]"), tmp_path / "run", colours)
    assert run.done
    assert "tensorboard failed, see" in capsys.readouterr().err
    assert "Error" in (run.folder / "exports/tensorboard.log").read_text()


def test_an_exporter_that_cannot_be_started_is_named_and_the_run_goes_on(tiny, colours, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trackers.sys, "executable", str(tmp_path / "no-python"))
    run = train(recipe_for(tiny("chat"), "limit.train=24", "track=[tensorboard]"), tmp_path / "run", colours)
    assert run.done
    assert "tensorboard cannot be started" in capsys.readouterr().err


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_an_exporter_that_hangs_is_ended(tmp_path, monkeypatch, error):
    process = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE)
    monkeypatch.setattr(
        trackers, "_start", lambda name, run, say: trackers._Mirror(name, process, process.stdin, tmp_path)
    )
    monkeypatch.setattr(trackers, "PATIENCE_SECONDS", 0.2)
    said, began = [], time.monotonic()
    with pytest.raises(RuntimeError) if error else nullcontext(), trackers.export(["wandb"], None, said.append):
        if error:
            raise error
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 5
    assert "wandb did not take the last steps within" in said[0]


def test_an_exporter_that_is_not_installed_is_refused_before_anything_is_made(tiny, colours, tmp_path, monkeypatch):
    missing = trackers.TRACKERS["wandb"]._replace(module="no_such_client")
    monkeypatch.setitem(trackers.TRACKERS, "wandb", missing)
    with pytest.raises(ConfigError, match="wandb needs the package 'wandb'") as error:
        train(recipe_for(tiny("chat"), "track=[wandb]"), tmp_path / "run", colours)
    assert error.value.fix == "pip install wandb"
    assert not (tmp_path / "run").exists()


def test_a_log_is_followed_line_by_whole_line(tmp_path):
    log = tmp_path / "steps.jsonl"
    looks = iter(['{"step": 1}\n{"st', 'ep": 2}\n', '{"step": 3}\n{"step": '])

    def ended(seconds):
        more = next(looks, None)
        if more is not None:
            with log.open("a") as file:
                file.write(more)
        return more is None

    assert list(trackers.follow(log, ended)) == [{"step": 1}, {"step": 2}, {"step": 3}]


def test_losses_of_tasks_are_told_by_name():
    step = {"step": 3, "loss": 1.0, "tokens": 10, "seconds": 2.0, "task_losses": {"a": 0.5}, "validation_loss": None}
    told = trackers.numbers(json.loads(json.dumps(step)))
    assert told == {"loss": 1.0, "tokens": 10, "seconds": 2.0, "tokens_per_second": 5.0, "task_losses/a": 0.5}
