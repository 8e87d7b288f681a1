import pytest

from tunesmith.errors import FitError, RunError
from tunesmith.runs import machine
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Answer, Score, Step, Summary
from tunesmith.runs.run import Run, check_disk

STEP = Step(step=1, epoch=1, loss=2.0, learning_rate=0.1, gradient_norm=1.0, tokens=10, answer_tokens=3, seconds=0.5)
SUMMARY = Summary(
    tokens=10, answer_tokens=3, seconds=1.0, tokens_per_second=10, peak_memory_bytes=1, total_parameters=5
)


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        Run.create(tmp_path, {})
    with pytest.raises(RunError, match="is not empty"):
        Run.create(tmp_path / "x", {})
    assert (tmp_path / "x").read_text() == "mine"


def test_too_little_disk_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(FitError, match="MiB free on the disk"):
        Run.create(tmp_path / "run", {}, need_bytes=2**60)
    assert not (tmp_path / "run").exists()
    check_disk(tmp_path / "a" / "b", 1)


def test_what_is_written_is_read_back_equal(tmp_path):
    run = Run.create(tmp_path / "run", {"verb": "eval", "task": "t"})
    answer = Answer(
        id="a",
        question="q",
        prompt="p\u2028x",
        answer="é",
        references=("r",),
        prompt_tokens=3,
        answer_tokens=2,
        finished=True,
    )
    score = Score(
        task="t", split="test", metric="rouge1", value=0.5, low=0.4, high=0.6, n=9, shots=0, template="p", signature="s"
    )
    run.append(STEP)
    run.append(STEP.model_copy(update={"step": 2}))
    run.write_lines("answers/t.jsonl", [answer])
    run.write_lines("scores.jsonl", [score])
    run.finish(SUMMARY)
    again = Run.open(tmp_path / "run")
    assert [step.step for step in again.steps()] == [1, 2]
    assert (again.answers("t"), again.scores(), again.summary(), again.tasks()) == ([answer], [score], SUMMARY, ["t"])
    assert again.asked() == {"verb": "eval", "task": "t"}
    assert again.done
    assert again.ledger() is None
    assert not list((tmp_path / "run").rglob("*.part"))


def test_a_run_that_was_stopped_is_not_done(tmp_path):
    run = Run.create(tmp_path / "run", {})
    run.finish(SUMMARY.model_copy(update={"stopped_early": True}))
    assert not run.done
    assert run.summary().stopped_early


def test_a_line_cut_off_by_a_crash_is_no_fact_and_a_broken_one_is_an_error(tmp_path):
    run = Run.create(tmp_path / "run", {})
    run.append(STEP)
    log = tmp_path / "run" / "steps.jsonl"
    log.write_text(log.read_text() + '{"step": 2, "lo')
    assert len(run.steps()) == 1
    log.write_text('{"step": 2, "lo\n')
    with pytest.raises(RunError, match="steps.jsonl line 1"):
        run.steps()


def test_what_is_missing_says_so(tmp_path):
    with pytest.raises(RunError, match="is not a run folder"):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "run", {})
    with pytest.raises(RunError, match="did not come to its end"):
        run.summary()
    (tmp_path / "run" / "summary.json").write_text("{")
    with pytest.raises(RunError, match="is not JSON"):
        run.summary()


def test_the_machine_is_described_and_its_memory_measured():
    told = machine.describe(["tunesmith", "train"])
    assert told["command"] == "tunesmith train"
    assert told["hardware"]["cores"] >= 1
    machine.reset_peak()
    before = machine.peak_bytes()
    block = bytearray(200 * 2**20)
    assert machine.peak_bytes() - before > 150 * 2**20
    del block
    machine.reset_peak()
    assert machine.peak_bytes() < before + 100 * 2**20


def test_progress_speaks_at_the_end_where_there_is_no_terminal(capsys):
    with Watch("train", 3) as watch:
        watch.advance(1, loss="3.0")
        watch.advance(2, loss="2.0")
    assert capsys.readouterr().err == "train 3/3  loss 2.0\n"
