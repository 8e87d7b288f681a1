"""Killed anywhere and resumed == never killed, bit for bit."""

import gc
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from tests.conftest import colours_in
from tests.test_cli import call
from tests.training.test_train import recipe_for
from tunesmith.data.task import read_task
from tunesmith.errors import FitError, RunError
from tunesmith.recipe import Recipe, make_recipe
from tunesmith.runs import checkpoint
from tunesmith.runs.lock import only_writer
from tunesmith.runs.run import Run, differences
from tunesmith.training import loop, trackers
from tunesmith.training.train import train

pytestmark = pytest.mark.no_cover  # many whole trainings: traced, they take a quarter longer

# Children come from a clean process that has imported everything and computed nothing.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["tunesmith.training.train", "tunesmith.data.task"])
SETTINGS = ("train.epochs=2", "limit.train=40", "train.checkpoint_every=2", "train.batch_tokens=256")


def dies_at(event):
    """Let this process be killed at the n-th of: a line added to a log, a file or folder brought to disk."""
    count, fsync, append = [0], os.fsync, Run.append

    def counted():
        count[0] += 1
        if count[0] == event:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_fsync(handle):
        counted()
        fsync(handle)

    def dying_append(self, record):
        append(self, record)
        counted()

    os.fsync, Run.append = dying_fsync, dying_append
    return count


def child(recipe, folder, task_file, event, events):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    gc.freeze()  # what came with the clean process is no garbage
    torch.set_num_threads(1)
    trackers.PATIENCE_SECONDS = 60.0  # machines that run other tests take their time to import an exporter's client
    count = dies_at(event)
    train(Recipe.model_validate(recipe), Path(folder), read_task(Path(task_file)), resume=True)
    events.value = count[0]


def run_child(recipe, folder, task_file, event=0, seconds=None):
    """Train in a process of its own; give its exit code and how many events it saw."""
    events = CHILDREN.Value("i", 0)
    arguments = (recipe.model_dump(mode="json"), str(folder), str(task_file), event, events)
    process = CHILDREN.Process(target=child, args=arguments)
    process.start()
    if seconds is not None:
        time.sleep(seconds)
        process.kill()
    process.join()
    return process.exitcode, events.value


def outcome(folder):
    """Give the bytes of the weights, and the log without its clock."""
    run = Run.open(folder)
    assert run.done
    (made,) = (path for path in (folder / "checkpoints").iterdir() if path.name in ("adapter", "model"))
    (weights,) = made.glob("*.safetensors")
    log = [step.model_copy(update={"seconds": 0.0}) for step in run.steps()]
    return weights.read_bytes(), log


@pytest.mark.parametrize(
    ("kind", "method"), [("chat", "lora"), ("chat", "full"), ("t5", "lora"), ("chat", "sparse_mask")]
)
def test_killed_anywhere_and_resumed_equals_never_killed(tiny, colours_file, tmp_path, kind, method):
    settings = [*SETTINGS, f"method={method}", "train.accumulate=2"]
    recipe = recipe_for(tiny(kind), *settings, task=str(colours_file))
    if method == "lora":
        recipe = recipe.model_copy(update={"method": recipe.method.model_copy(update={"dropout": 0.2})})
    code, events = run_child(recipe, tmp_path / "whole", colours_file)
    assert code == 0
    expected = outcome(tmp_path / "whole")

    def killed(number):
        """Kill a run five times, let it end, and give how often it died."""
        draw, folder = random.Random(f"{kind}/{method}/{number}"), tmp_path / f"killed-{number}"
        codes = [run_child(recipe, folder, colours_file, draw.randint(1, events // 2))[0] for _ in range(5)]
        assert run_child(recipe, folder, colours_file)[0] == 0
        assert outcome(folder) == expected
        return codes.count(-signal.SIGKILL)

    with ThreadPoolExecutor(2) as both:
        assert sum(both.map(killed, range(2))) >= 6


def test_killed_at_any_moment_and_resumed_equals_never_killed(tiny, colours_file, tmp_path):
    recipe = recipe_for(tiny("chat"), *SETTINGS, "train.epochs=6", task=str(colours_file))
    first = CHILDREN.Process(target=os.getpid)  # waits for the clean process, whose imports are not to be timed
    first.start()
    first.join()
    began = time.monotonic()
    assert run_child(recipe, tmp_path / "whole", colours_file)[0] == 0
    took, draw = time.monotonic() - began, random.Random(1)
    kills = 0
    for _ in range(20):
        code, _ = run_child(recipe, tmp_path / "killed", colours_file, seconds=draw.uniform(0.3, 0.9) * took)
        kills += code == -signal.SIGKILL
        if kills == 3:
            break
        if code == 0:  # the machine was busier when the whole run was timed: from the start, and sooner
            shutil.rmtree(tmp_path / "killed")
            took *= 0.7
    assert kills == 3
    assert run_child(recipe, tmp_path / "killed", colours_file)[0] == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


@pytest.fixture(scope="module")
def died(tiny, tmp_path_factory):
    """A folder with a whole run, one that died after some checkpoints and their task; and their recipe."""
    folder = tmp_path_factory.mktemp("died")
    file = folder / "colours.yaml"
    file.write_text(colours_in(folder).to_yaml(), encoding="utf-8")
    recipe = recipe_for(tiny("chat"), *SETTINGS, task=str(file))
    _, events = run_child(recipe, folder / "whole", file)
    code, _ = run_child(recipe, folder / "run", file, event=events - 12)
    assert code == -signal.SIGKILL
    assert checkpoint.newest(folder / "run" / "checkpoints").step >= 4
    return folder, recipe


@pytest.fixture
def stopped(died, tmp_path):
    """A run of one's own that died after some checkpoints, its recipe and its task."""
    folder, recipe = died
    shutil.copytree(folder / "run", tmp_path / "run")
    return tmp_path / "run", recipe, read_task(folder / "colours.yaml")


def test_a_damaged_checkpoint_is_passed_over_and_the_result_is_the_same(stopped, died):
    folder, recipe, _ = stopped
    newest = checkpoint.newest(folder / "checkpoints").folder
    weights = newest / "optimizer.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 4
    weights.write_bytes(content)
    assert run_child(recipe, folder, died[0] / "colours.yaml")[0] == 0
    assert outcome(folder) == outcome(died[0] / "whole")
    assert (newest.with_name(newest.name + ".corrupt")).is_dir()


def test_resuming_another_recipe_or_other_data_is_refused_by_name(stopped):
    folder, recipe, task = stopped
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": 0.5})})
    with pytest.raises(RunError, match="train.learning_rate: .* then, 0.5 now"):
        train(other, folder, task, resume=True)
    file = task.source.train.file
    before = file.read_text()
    try:
        file.write_text(before + json.dumps({"id": "new", "thing": "sea", "colour": "blue"}) + "\n")
        with pytest.raises(RunError, match="data.train"):
            train(recipe, folder, task, resume=True)
    finally:
        file.write_text(before)


def test_resuming_on_another_base_is_refused(stopped):
    folder, recipe, task = stopped
    told = json.loads((folder / "provenance.json").read_text())
    told["model"]["sha256"] = "0" * 64
    (folder / "provenance.json").write_text(json.dumps(told))
    with pytest.raises(RunError, match="model.sha256: 0000"):
        train(recipe, folder, task, resume=True)


def test_a_run_without_resume_is_never_overwritten(stopped):
    folder, recipe, task = stopped
    with pytest.raises(RunError, match="is not empty"):
        train(recipe, folder, task)


def test_two_processes_cannot_write_one_run(stopped):
    folder, recipe, task = stopped
    with only_writer(folder), pytest.raises(RunError, match="another process is writing"):
        train(recipe, folder, task, resume=True)


def test_a_full_disk_stops_with_the_last_checkpoint_intact(stopped, monkeypatch):
    folder, recipe, task = stopped
    before = checkpoint.newest(folder / "checkpoints").step

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tunesmith.training.resume.save_file", full)
    with pytest.raises(FitError, match="disk is full; earlier checkpoints are as they were"):
        train(recipe, folder, task, resume=True)
    assert checkpoint.newest(folder / "checkpoints").step == before


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, 80 MiB, on which a run can be begun."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m", "none", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_disk_that_is_really_full_stops_the_run_and_space_lets_it_go_on(tiny, colours_file, tmp_path, small_disk):
    recipe = recipe_for(tiny("chat"), *SETTINGS, task=str(colours_file))
    _, events = run_child(recipe, tmp_path / "whole", colours_file)
    folder = small_disk / "run"
    run_child(recipe, folder, colours_file, event=events - 12)
    before = checkpoint.newest(folder / "checkpoints")
    assert before is not None
    with (small_disk / "filler").open("wb") as filler:
        filler.write(bytes(shutil.disk_usage(small_disk).free - 64 * 1024))
    with pytest.raises(FitError, match="disk is full; earlier checkpoints are as they were"):
        train(recipe, folder, read_task(colours_file), resume=True)
    assert checkpoint.newest(folder / "checkpoints") == before
    assert not Run(folder).done
    (small_disk / "filler").unlink()
    assert run_child(recipe, folder, colours_file)[0] == 0
    assert outcome(folder) == outcome(tmp_path / "whole")


@pytest.mark.long
@pytest.mark.parametrize(("kind", "method"), [("chat", "lora"), ("chat", "full"), ("t5", "lora"), ("t5", "full")])
def test_killed_thirty_times_and_resumed_equals_never_killed(tiny, colours_file, tmp_path, kind, method):
    """One run with a checkpoint after every step, killed again and again, most often inside a save."""
    settings = [*SETTINGS, f"method={method}", "train.checkpoint_every=1", "train.epochs=4", "limit.train=60"]
    recipe = recipe_for(tiny(kind), *settings, task=str(colours_file))
    code, events = run_child(recipe, tmp_path / "whole", colours_file)
    assert code == 0
    draw, folder, kills = random.Random(f"{kind}/{method}"), tmp_path / "run", 0
    for _ in range(30):
        kills += run_child(recipe, folder, colours_file, draw.randint(1, max(2, events // 20)))[0] == -signal.SIGKILL
    assert run_child(recipe, folder, colours_file)[0] == 0
    assert kills == 30
    assert outcome(folder) == outcome(tmp_path / "whole")


@pytest.mark.long
def test_the_embedded_model_killed_five_times_equals_never_killed(tmp_path):
    recipe = make_recipe({"task": "demo"}, ("limit.train=24", "limit.validation=4", "train.checkpoint_every=1"))
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_tokens": 512})})
    task = files("tunesmith") / "tasks/demo.yaml"
    code, events = run_child(recipe, tmp_path / "whole", task)
    assert code == 0
    draw = random.Random(2)
    deaths = [draw.randint(1, events // 6) for _ in range(5)]
    assert [run_child(recipe, tmp_path / "run", task, event)[0] for event in deaths] == [-signal.SIGKILL] * 5
    assert run_child(recipe, tmp_path / "run", task)[0] == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_finished_run_is_given_back_as_it_is(tiny, colours, tmp_path):
    recipe = recipe_for(tiny("chat"), "limit.train=8")
    run = train(recipe, tmp_path / "run", colours, resume=True)
    files = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    assert train(recipe, tmp_path / "run", colours, resume=True) == run
    assert files == {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_at_the_steps_edge_and_says_how_to_go_on(
    tiny, colours_file, tmp_path, monkeypatch, capsys, number, code
):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_for(tiny("chat"), *SETTINGS, "forgetting.limit=8", task=str(colours_file)).to_yaml())
    assert call(monkeypatch, capsys, "train", path, tmp_path / "whole")[0] == 0
    real = loop._accumulate

    def interrupted(*given):
        os.kill(os.getpid(), number)
        return real(*given)

    monkeypatch.setattr(loop, "_accumulate", interrupted)
    for step in (1, 2):
        ended, _, errors = call(monkeypatch, capsys, "train", path, tmp_path / "run", "--resume")
        assert ended == code
        assert f"stopped at step {step} of" in errors
        assert "--resume" in errors
    assert json.loads((tmp_path / "run/summary.json").read_text())["stopped_by"] == number.name
    monkeypatch.setattr(loop, "_accumulate", real)
    assert call(monkeypatch, capsys, "train", path, tmp_path / "run", "--resume")[0] == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert Run.open(tmp_path / "run").summary().resumes == 2
    ended, out, _ = call(monkeypatch, capsys, "train", path, tmp_path / "run", "--resume")
    assert (ended, "has come to its end" in out) == (0, True)


def test_a_step_that_is_not_a_number_leaves_the_weights_and_names_its_rows(tiny, colours, tmp_path, monkeypatch):
    recipe = recipe_for(tiny("chat"), "limit.train=40", "train.batch_tokens=256", "train.bad_steps=1")
    real, seen = loop._accumulate, []

    def poisoned(model, made, optimizer, *more):
        loss, by_task = real(model, made, optimizer, *more)
        seen.append([weight.clone() for weight in optimizer.weights])
        return float("nan") if len(seen) == 2 else loss, by_task

    monkeypatch.setattr(loop, "_accumulate", poisoned)
    run = train(recipe, tmp_path / "run", colours)
    (trouble,) = run.troubles()
    assert (trouble.step, trouble.kind) == (2, "not a number")
    assert all(torch.equal(a, b) for a, b in zip(seen[1], seen[2], strict=True))
    assert [step.step for step in run.steps()][:2] == [1, 3]
    ids = {row.id for row in colours.rows("train")}
    assert trouble.rows
    assert set(trouble.rows) <= ids
    assert run.summary().skipped_steps == 1


def test_a_spike_is_told_with_its_rows(tiny, colours, tmp_path, monkeypatch):
    recipe = recipe_for(tiny("chat"), "train.epochs=4", "limit.train=40", "train.batch_tokens=256")
    real, seen = loop._accumulate, []

    def spiking(*given):
        seen.append(1)
        loss, by_task = real(*given)
        return loss * (10 if len(seen) == 12 else 1), by_task

    monkeypatch.setattr(loop, "_accumulate", spiking)
    run = train(recipe, tmp_path / "run", colours)
    (trouble,) = run.troubles()
    assert (trouble.step, trouble.kind) == (12, "spike")
    assert len(run.steps()) == run.summary().planned_steps


def test_running_out_of_memory_names_the_batch_and_what_to_change(tiny, colours, tmp_path, monkeypatch):
    def greedy(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:120] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(loop, "loss_at", greedy)
    no_validation = colours.model_copy(update={"source": colours.source.model_copy(update={"validation": None})})
    with pytest.raises(FitError, match=r"out of memory at a batch of 1 x \d+ tokens") as error:
        train(recipe_for(tiny("chat")), tmp_path / "run", no_validation)
    assert "gradient_checkpointing" in error.value.fix


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_gradient_checkpointing_changes_no_number(tiny, colours, tmp_path, kind):
    settings = ("limit.train=24", "method.dropout=0.2")
    plain = train(recipe_for(tiny(kind), *settings), tmp_path / "plain", colours)
    saving = train(recipe_for(tiny(kind), *settings, "train.gradient_checkpointing=true"), tmp_path / "saving", colours)
    for one, other in zip(plain.steps(), saving.steps(), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-6)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-5)


def test_differences_are_named_with_both_values():
    before, now = {"a": {"b": 1, "c": (1, 2)}, "d": 3}, {"a": {"b": 2, "c": [1, 2]}, "e": 4}
    assert differences(before, now) == ["a.b: 1 then, 2 now", "d: 3 then, None now", "e: None then, 4 now"]
    assert differences(make_recipe({}).model_dump(), make_recipe({}).model_dump()) == []


@pytest.mark.parametrize("method", ["prefix", "prompt_tuning", "p_tuning"])
def test_virtual_tokens_are_learned_under_gradient_checkpointing_too(tiny, colours, tmp_path, method):
    settings = (f"method.name={method}", "limit.train=16")
    whole = train(recipe_for(tiny("chat"), *settings), tmp_path / "whole", colours)
    saving = train(
        recipe_for(tiny("chat"), *settings, "train.gradient_checkpointing=true"), tmp_path / "saving", colours
    )
    assert saving.summary().final_loss == pytest.approx(whole.summary().final_loss, abs=1e-5)
