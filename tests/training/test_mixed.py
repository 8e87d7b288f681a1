"""Training on a mixture, end to end on real small models."""

import json

import pytest

from tests.conftest import colour_rows, write_rows
from tunesmith.data.task import load_task
from tunesmith.errors import ConfigError, DataError, RunError
from tunesmith.models.load import find
from tunesmith.recipe import make_recipe, read_recipe
from tunesmith.runs.run import Run
from tunesmith.training.loop import lay_out
from tunesmith.training.prepare import load_work, prepare_rows, training_encoder
from tunesmith.training.preview import preview
from tunesmith.training.train import train

WORDINGS = [
    {"name": "ask", "prompt": "{{ thing }}: {{ colour }}. Which colour?", "answer": "{{ colour }}"},
    {"name": "back", "kind": "inverted", "prompt": "A thing that is {{ colour }}?", "answer": "{{ thing }}"},
]


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Three task files of 24, 48 and 12 rows, the last of a cluster of its own, and their names."""
    monkeypatch.chdir(tmp_path)
    for i, (name, size) in enumerate({"a": 24, "b": 48, "held": 12}.items()):
        for split, start, n in (("train", 0, size), ("validation", 200, 4), ("test", 300, 6)):
            rows = [{**row, "thing": f"{name} {row['id']} {split}"} for row in colour_rows(n, 1000 * i + start)]
            write_rows(tmp_path / f"{name}-{split}.jsonl", rows)
        source = {split: {"file": f"{name}-{split}.jsonl"} for split in ("train", "validation", "test")}
        cluster = "held" if name == "held" else "colours"
        told = {"name": name, "cluster": cluster, "source": source, "metrics": ["exact_match"], "templates": WORDINGS}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(told))
    return ["a.yaml", "b.yaml", "held.yaml"]


def recipe_of(folder, tasks, *settings, **mixture):
    told = {"model": str(folder), "dtype": "float32", "length": {"max_tokens": 256}, "limit": {"validation": 4}}
    given = {"tasks": tasks, "cap": 24, "hold_out": ["held"], **mixture}
    return make_recipe({**told, "mixture": given}, ("train.batch_tokens=512", *settings))


def prepared(recipe):
    return prepare_rows(load_work(recipe), recipe, training_encoder(find(recipe.model), recipe))


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_the_table_before_training_is_what_is_trained(tiny, tasks, tmp_path, kind):
    recipe = recipe_of(tiny(kind), tasks, "train.epochs=3", shots={0: 0.5, 2: 0.5})
    told = preview(recipe).ledger
    run = train(recipe, tmp_path / "run")
    assert run.ledger() == told
    table = {share.task: share for share in told.tasks}
    assert {name: (share.size, share.rows, share.epochs) for name, share in table.items()} == {
        "a": (24, 72, 3.0),
        "b": (48, 72, 1.5),
    }
    assert run.summary().tokens == sum(share.tokens for share in told.tasks)
    assert run.summary().answer_tokens == sum(share.answer_tokens for share in told.tasks)


def test_every_epoch_has_its_own_rows_of_a_capped_task(tiny, tasks):
    epochs = prepared(recipe_of(tiny("chat"), tasks, "train.epochs=2")).epochs
    shown = [{row.id for row in rows if row.task == "b"} for rows in epochs]
    assert [len(ids) for ids in shown] == [24, 24]
    assert not shown[0] & shown[1]


def test_the_loss_of_every_task_is_logged_while_training(tiny, tasks, tmp_path):
    run = train(recipe_of(tiny("chat"), tasks), tmp_path / "run")
    assert set().union(*(step.task_losses for step in run.steps())) == {"a", "b"}
    for step in run.steps():
        assert min(step.task_losses.values()) <= step.loss <= max(step.task_losses.values()) + 1e-6


def test_a_mixture_that_is_stopped_and_resumed_equals_one_that_never_was(tiny, tasks, tmp_path, monkeypatch):
    settings = ("train.epochs=3", "train.checkpoint_every=2")
    kinds = {"direct": 0.7, "inverted": 0.3}
    recipe = recipe_of(tiny("chat"), tasks, *settings, kinds=kinds, shots={0: 0.5, 1: 0.5})
    whole = train(recipe, tmp_path / "whole")
    real = Run.append

    def dying(self, record):
        real(self, record)
        if record.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut")
    monkeypatch.setattr(Run, "append", real)
    resumed = train(recipe, tmp_path / "cut", resume=True)
    assert [step.loss for step in resumed.steps()] == [step.loss for step in whole.steps()]
    assert [step.task_losses for step in resumed.steps()] == [step.task_losses for step in whole.steps()]
    files = [run.folder / "checkpoints/adapter/adapter_model.safetensors" for run in (whole, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_another_mixture_is_no_resumption(tiny, tasks, tmp_path, monkeypatch):
    def dying(self, record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "append", dying)
        train(recipe_of(tiny("chat"), tasks), tmp_path / "run")
    with pytest.raises(RunError, match="mixture.cap: 24 then, 12 now"):
        train(recipe_of(tiny("chat"), tasks, cap=12), tmp_path / "run", resume=True)


def test_the_recipe_of_a_run_repeats_it(tiny, tasks, tmp_path):
    run = train(recipe_of(tiny("chat"), tasks), tmp_path / "run")
    again = read_recipe(run.folder / "checkpoints" / "adapter" / "recipe.yaml")
    assert again.mixture == recipe_of(tiny("chat"), tasks).mixture
    assert set(run.provenance()["data"]) == {
        "forgetting",
        *(f"{name}/{split}" for name in ("a", "b", "held") for split in ("train", "validation", "test")),
    }


def test_a_leak_into_a_task_that_is_held_out_is_found_with_both_ids(tiny, tasks, tmp_path):
    planted = {"id": "p", "thing": "held r7300 test", "colour": colour_rows(1, 2300)[0]["colour"]}
    held = [json.loads(line) for line in (tmp_path / "held-test.jsonl").read_text().splitlines()]
    planted |= {key: held[2][key] for key in ("thing", "colour")}
    with (tmp_path / "a-train.jsonl").open("a") as file:
        file.write(json.dumps(planted) + "\n")
    ledger = prepared(recipe_of(tiny("chat"), tasks, cap=100)).ledger
    assert ledger.leaked == ("a/p",)
    (leak,) = ledger.leaks
    assert (leak.id, leak.other, leak.kind) == ("a/p", f"held/test/{held[2]['id']}", "exact")
    assert any("1 leaked (1 exact): a/p" in line for line in ledger.lines())
    dropped = prepared(recipe_of(tiny("chat"), tasks, "leaked=drop", cap=100, shots={2: 1.0}))
    assert len(dropped.rows) == 24 + 48
    assert not any(planted["thing"] in f"{prompt.question}{prompt.shots}" for prompt in dropped.prompts)
    assert dropped.ledger.leaked == ("a/p",)
    assert any("1 leaked (1 exact), left out: a/p" in line for line in dropped.ledger.lines())
    with pytest.raises(DataError, match="a/p with held/test/"):
        prepared(recipe_of(tiny("chat"), tasks, "leaked=error", cap=100))


def test_a_copy_of_what_forgetting_is_measured_by_is_found(tiny, tasks, tmp_path):
    rows = [{"id": f"c{i}", "sentence": row.fields["text"], "colour": "red", "thing": "x"}
            for i, row in enumerate(load_task("sentiment").rows("train")[:3])]  # fmt: skip
    write_rows(tmp_path / "copy.jsonl", rows)
    wording = {"name": "w", "prompt": "Colour of {{ sentence }}?", "answer": "{{ colour }}"}
    told = {"name": "copy", "cluster": "x", "source": {"train": {"file": "copy.jsonl"}}, "templates": [wording]}
    (tmp_path / "copy.yaml").write_text(json.dumps(told))
    leaks = prepared(recipe_of(tiny("chat"), [*tasks, "copy.yaml"], "length.max_tokens=512")).ledger.leaks
    assert [(one.id, one.other, one.kind) for one in leaks] == [
        (f"copy/c{i}", f"sentiment/train/train-00{i + 1}", "exact") for i in range(3)
    ]


def test_the_first_epoch_is_learned_in_the_order_of_the_stream(tiny, tasks, model):
    recipe = recipe_of(tiny("chat"), tasks)
    told = prepared(recipe)
    blend = load_work(recipe)
    assert [row.id for row in told.rows] == [one.prompt.id for one in blend.epoch(0)]
    plan = lay_out(model("chat"), told.epochs, recipe)
    assert [row.id for group in plan.epochs[0] for batch in group for row in batch] == [row.id for row in told.rows]


def test_examples_without_room_are_left_out(tiny, tasks):
    longest = max(row.size for row in prepared(recipe_of(tiny("chat"), tasks)).rows)
    told = prepared(recipe_of(tiny("chat"), tasks, f"length.max_tokens={2 * longest}", shots={5: 1.0}))
    assert all(row.size <= 2 * longest for row in told.rows)
    assert any(row.size > longest for row in told.rows)
    assert any("with fewer worked examples" in line for line in told.ledger.lines())
    assert not told.ledger.trimmed
    assert not told.ledger.dropped


def test_replay_mixes_other_rows_in(tiny, tasks):
    told = {"model": str(tiny("chat")), "dtype": "float32", "length": {"max_tokens": 256}, "task": "b.yaml"}
    ledger = prepared(make_recipe({**told, "replay": {"tasks": ["a.yaml", "held.yaml"], "share": 0.25}})).ledger
    rows = {share.task: share.rows for share in ledger.tasks}
    assert rows == {"b": 48, "a": 11, "held": 5}
    small = make_recipe({**told, "limit": {"train": 3}, "replay": {"tasks": ["a.yaml", "held.yaml"], "share": 0.1}})
    assert {share.task: share.rows for share in prepared(small).ledger.tasks} == {"b": 3, "a": 1, "held": 1}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"task": "a.yaml", "mixture": {"tasks": ["b.yaml"]}}, "names both a 'task' and a 'mixture'"),
        ({"mixture": {"tasks": ["b.yaml"]}, "template": "ask"}, "a mixture draws its wordings"),
        ({"mixture": {"tasks": ["b.yaml"]}, "replay": {"tasks": ["a.yaml"]}}, "'replay' is for one 'task'"),
        ({"mixture": "nothing.yaml"}, "nothing.yaml: no such file"),
    ],
)
def test_what_cannot_go_together_is_refused(values, told):
    with pytest.raises(ConfigError, match=told):
        make_recipe(values)


def test_an_evaluated_text_beside_an_instruction_is_found(tiny, tasks, tmp_path):
    text = load_task("topic").rows("test")[0].fields["text"]
    rows = [{"id": "i", "instruction": "What do you think of this?", "input": text.upper(), "output": "Nothing."}]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    told = {"name": "own", "cluster": "x", "source": {"train": {"file": "own.json"}}, "templates": "instructions"}
    (tmp_path / "own.yaml").write_text(json.dumps(told))
    (leak,) = prepared(recipe_of(tiny("chat"), [*tasks, "own.yaml"], "length.max_tokens=512")).ledger.leaks
    assert (leak.id, leak.other, leak.kind) == ("own/i", "topic/test/test-001", "normalised")
