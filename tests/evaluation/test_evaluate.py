"""An evaluation that was stopped goes on; what was kept is told; the same question has the same scores."""

import json
import subprocess
import sys

import pytest

from tests.test_cli import call
from tunesmith.errors import ConfigError, RunError
from tunesmith.evaluation.evaluate import Question, evaluate
from tunesmith.runs.records import Answer

KILLED = """
import os, signal, sys
from pathlib import Path
from tunesmith.data.task import read_task
from tunesmith.evaluation.evaluate import Question, evaluate
from tunesmith.inference import responses

real, parts = responses.generating.generate, []

def until_the_third(*given):
    parts.append(given)
    if len(parts) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given)

responses.ANSWERS, responses.generating.generate = 5, until_the_third
evaluate(sys.argv[1], Question(read_task(Path(sys.argv[2]))), Path(sys.argv[3]))
"""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_RESPONSES", str(tmp_path / "responses.sqlite"))


def texts(run):
    return [(answer.id, answer.answer) for answer in run.answers("colours")]


def test_a_killed_evaluation_goes_on_in_its_own_folder_with_the_same_answers(
    kept, tiny, colours, colours_file, tmp_path
):
    whole = evaluate(str(tiny("chat")), Question(colours), tmp_path / "whole", fresh=True)
    (tmp_path / "responses.sqlite").unlink()
    command = [sys.executable, "-c", KILLED, tiny("chat"), colours_file, tmp_path / "run"]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    assert not (tmp_path / "run" / "answers").exists()
    run = evaluate(str(tiny("chat")), Question(colours), tmp_path / "run")
    assert run.done
    assert 10 <= run.summary().cached_answers < 24
    assert (texts(run), run.scores()) == (texts(whole), whole.scores())


def test_a_folder_that_asked_something_else_is_not_gone_on_with(kept, tiny, colours, tmp_path):
    run = evaluate(str(tiny("chat")), Question(colours, limit=4), tmp_path / "run")
    with pytest.raises(RunError, match="is not empty"):
        evaluate(str(tiny("chat")), Question(colours, limit=4), tmp_path / "run")
    (run.folder / "DONE").unlink()
    with pytest.raises(RunError, match="asked something else"):
        evaluate(str(tiny("chat")), Question(colours, limit=5), tmp_path / "run")
    assert evaluate(str(tiny("chat")), Question(colours, limit=4), tmp_path / "run").done


def test_speed_counts_only_what_was_computed(kept, tiny, colours, tmp_path):
    def taken(name, **settings):
        return evaluate(str(tiny("chat")), Question(colours, **settings), tmp_path / name).summary()

    first, second, third = taken("a", limit=8), taken("b", limit=8), taken("c", limit=24)
    assert [one.cached_answers for one in (first, second)] == [0, 8]
    assert 8 <= third.cached_answers < 24
    assert 0 < first.tokens_per_second <= first.tokens / first.seconds
    assert second.tokens_per_second == 0
    assert second.tokens == first.tokens
    assert 0 < third.tokens_per_second < third.tokens / third.seconds


def test_the_command_says_how_many_answers_were_kept_and_fresh_computes_them(
    kept, tiny, colours_file, tmp_path, monkeypatch, capsys
):
    def out(name, *more):
        words = ["eval", tiny("chat"), "--task", colours_file, "--limit", "6", "--out", tmp_path / name, *more]
        code, said, errors = call(monkeypatch, capsys, *words)
        assert code == 0, errors
        return said

    assert "answered before" not in out("a")
    said = out("b")
    assert "6 of 6 requests were answered before" in said
    assert "tokens/s" not in said
    assert "answered before" not in out("c", "--fresh")


def test_an_answer_written_by_an_older_version_is_read():
    old = {"id": "1", "question": "q", "prompt": "p", "answer": "a", "references": ["a"], "prompt_tokens": 1}
    line = json.dumps({**old, "answer_tokens": 1, "finished": True})
    assert Answer.model_validate_json(line).answer == "a"


def test_the_same_examples_for_all_questions_depend_on_the_seed_alone(colours):
    prompts = Question(colours, shots=3, same_shots=True).prompts()
    assert len({prompt.shots for prompt in prompts}) == 1
    assert len(prompts[0].shots) == 3
    assert Question(colours, shots=3, same_shots=True, limit=2).prompts()[0].shots == prompts[0].shots
    assert Question(colours, shots=3, same_shots=True, seed=1).prompts()[0].shots != prompts[0].shots
    own = Question(colours, shots=3).prompts()
    assert len({prompt.shots for prompt in own}) > 1
    assert [prompt.question for prompt in own] == [prompt.question for prompt in prompts]
    with pytest.raises(ConfigError, match="their own answers"):
        Question(colours, split="train", shots=3, same_shots=True).prompts()
