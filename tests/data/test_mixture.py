"""Mixtures: shares by the papers' formulas, streams that depend on nothing but seed and ids."""

import json
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from tunesmith.data.blend import load, load_tasks
from tunesmith.data.mixture import Mixture, apportion, chosen, load_mixture, rates
from tunesmith.errors import ConfigError, DataError

WORD, LIST = "{{ word }}", {"choices": "{{ options }}"}
TEMPLATES = [
    {"name": "plain", "prompt": "Say {{ word }}{{ options_ }}", "answer": WORD, **LIST},
    {"name": "other", "prompt": "Repeat: {{ word }}{{ options_ }}", "answer": WORD, **LIST},
    {"name": "thought", "kind": "chain_of_thought", "prompt": "Say {{ word }}", "answer": "{{ rationale }} {{ word }}",
     "choices": "{{ offered | default(none) }}"},
    {"name": "back", "kind": "inverted", "prompt": "Which word? {{ word }}", "answer": WORD},
]  # fmt: skip


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Write task files of so many rows; their names lead to them from the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(clusters=None, rationale=False, **sizes):
        for name, size in sizes.items():
            cluster = (clusters or {}).get(name, "letters")
            source = {"train": {"file": f"{name}.jsonl"}}
            task = {"name": name, "cluster": cluster, "source": source, "templates": TEMPLATES}
            (tmp_path / f"{name}.yaml").write_text(json.dumps(task))
            told = {"options": ["w0", "w1"], **({"rationale": "Because."} if rationale else {})}
            rows = [{"id": str(i), "word": f"w{i % 2}", **told} for i in range(size)]
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [f"{name}.yaml" for name in sizes]

    return make


def mixture(**values):
    return Mixture.parse(values, "mixture")


def test_cap_protects_the_small_task():
    assert rates({"big": 1_000_000, "small": 1_000}, cap=3000) == {"big": 0.75, "small": 0.25}


def test_rates_are_those_of_the_t5_paper():
    """Section 3.5.2: r_m = min(e_m, K) / sum min(e_n, K), then to the power 1/T and normalised again."""
    sizes = {"a": 900, "b": 400, "c": 100}
    assert rates(sizes) == pytest.approx({"a": 9 / 14, "b": 4 / 14, "c": 1 / 14})
    assert rates(sizes, temperature=2.0) == pytest.approx({"a": 3 / 6, "b": 2 / 6, "c": 1 / 6})
    assert rates(sizes, cap=400, temperature=2.0) == pytest.approx({"a": 2 / 5, "b": 2 / 5, "c": 1 / 5})


def test_a_great_temperature_makes_all_equal():
    assert rates({"a": 10_000, "b": 10}, temperature=1e9) == pytest.approx({"a": 0.5, "b": 0.5})


def test_shares_are_given_out_by_largest_remainder():
    assert apportion({"a": 0.5, "b": 0.3, "c": 0.2}, 7) == {"a": 4, "b": 2, "c": 1}  # 3.5, 2.1, 1.4
    assert apportion({"a": 0.25, "b": 0.75}, 4000) == {"a": 1000, "b": 3000}


@pytest.mark.parametrize("total", [3, 4, 10, 97, 1000])
def test_no_row_is_lost_and_no_task_left_out(total):
    counts = apportion({"a": 0.9989, "b": 0.001, "c": 0.0001}, total)
    assert sum(counts.values()) == total
    assert min(counts.values()) >= 1


def test_too_few_rows_for_the_tasks_are_refused():
    with pytest.raises(ConfigError, match="2 rows are too few for 3 tasks"):
        apportion({"a": 0.4, "b": 0.3, "c": 0.3}, 2)


def test_choices_are_drawn_in_their_shares():
    found = Counter(chosen({0: 1.0, 3: 3.0}, 7, str(i)) for i in range(4000))
    assert found[3] / 4000 == pytest.approx(0.75, abs=0.02)


def test_without_cap_every_row_is_learned_once(made):
    blend = load(mixture(tasks=made(a=30, b=10)))
    assert blend.counts() == {"a": 30, "b": 10}
    ids = [drawn.prompt.id for drawn in blend.epoch(0)]
    assert sorted(ids) == sorted([f"a/{i}" for i in range(30)] + [f"b/{i}" for i in range(10)])


def test_a_capped_task_shows_further_rows_in_every_epoch(made):
    blend = load(mixture(tasks=made(a=30, b=10), cap=10))
    shown = [{one.prompt.id for one in blend.epoch(number) if one.task.name == "a"} for number in range(3)]
    assert [len(ids) for ids in shown] == [10, 10, 10]
    assert len(set.union(*shown)) == 30


def test_a_small_task_begins_anew_when_its_rows_are_used_up(made):
    names = made(a=30, b=4)
    blend = load(mixture(tasks=[{"task": names[0], "rate": 0.7}, {"task": names[1], "rate": 0.3}], rows=20))
    drawn = [one for one in blend.epoch(0) if one.task.name == "b"]
    assert sorted(one.prompt.id for one in drawn if not one.turn) == ["b/0", "b/1", "b/2", "b/3"]
    assert [one.prompt.id for one in drawn if one.turn] == [f"{one.name}#2" for one in drawn if one.turn]
    assert len(drawn) == 6


def test_the_next_turn_of_a_row_is_asked_in_another_way_at_times(made):
    names = made(a=2, b=20)
    blend = load(mixture(tasks=[{"task": names[0], "rate": 0.5}, {"task": names[1], "rate": 0.5}], rows=80))
    asked = {one.prompt.template for one in blend.epoch(0) if one.name == "a/0"}
    assert asked == {"plain", "other"}


def test_the_stream_is_its_epochs_one_after_the_other(made):
    blend = load(mixture(tasks=made(a=7, b=5), cap=3))
    told = [prompt.id for prompt in islice(blend.stream(), 12)]
    assert told == [one.prompt.id for number in (0, 1) for one in blend.epoch(number)]


def test_the_stream_is_the_same_in_another_process(made, tmp_path):
    made(a=30, b=10)
    code = (
        "from itertools import islice; from tunesmith.data.mixture import Mixture;"
        "from tunesmith.data.blend import load;"
        "m = Mixture.parse({'tasks': ['a.yaml', 'b.yaml'], 'cap': 12, 'shots': {0: 1, 2: 1}, 'options': 0.5}, 'm');"
        "print([hash_ for hash_ in map(repr, islice(load(m, seed=3).stream(), 40))])"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path, env={"PYTHONHASHSEED": seed, "PATH": ""}, capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert told[0] == told[1]
    assert "b/" in told[0]


def test_the_first_rows_of_a_limit_are_those_of_a_greater_one(made):
    names = made(a=30, b=10)
    asked = mixture(tasks=names, shots={2: 1.0}, options=0.5)
    few, many = ({one.prompt.id: one.prompt for one in load(asked, limit=n).epoch(0)} for n in (5, 20))
    assert len(few) == 10
    assert {name: many[name] for name in few} == few


def test_a_held_out_cluster_is_not_learned(made):
    names = made({"a": "nli", "b": "nli"}, a=5, b=5, c=5, d=5)
    blend = load(mixture(tasks=names, hold_out=["nli", "d"]))
    assert {one.task.name for one in blend.epoch(0)} == {"c"}
    assert {task.name for task in blend.held} == {"a", "b", "d"}
    assert blend.rates() == {"c": 1.0}


def test_a_mixture_within_a_mixture_shares_its_rate(made):
    a, b, c = made(a=30, b=10, c=40)
    inner = {"mixture": {"tasks": [a, b], "cap": 10}}
    assert load(mixture(tasks=[inner, c])).rates() == pytest.approx({"a": 10 / 60, "b": 10 / 60, "c": 40 / 60})
    weighed = load(mixture(tasks=[{**inner, "rate": 3}, {"task": c, "rate": 1}]))
    assert weighed.rates() == pytest.approx({"a": 0.375, "b": 0.375, "c": 0.25})


def test_a_hold_out_reaches_into_a_mixture_within(made):
    a, b, c = made({"a": "nli"}, a=30, b=10, c=40)
    blend = load(mixture(tasks=[{"mixture": {"tasks": [a, b]}}, c], hold_out=["nli"]))
    assert blend.counts() == {"b": 10, "c": 40}


def test_what_a_mixture_within_does_not_say_it_takes_from_outside(made):
    a, b, c = made({"a": "nli"}, a=30, b=30, c=40)
    outer = {"tasks": [{"mixture": {"tasks": [a, b]}}, c], "cap": 10, "shots": {2: 1.0}}
    blend = load(mixture(**outer))
    assert blend.counts() == {"a": 10, "b": 10, "c": 10}
    assert {len(one.prompt.shots) for one in blend.epoch(0)} == {2}
    said = load(mixture(**{**outer, "tasks": [{"mixture": {"tasks": [a, b], "shots": {1: 1.0}, "cap": 5}}, c]}))
    assert said.counts() == {"a": 5, "b": 5, "c": 10}
    assert {len(one.prompt.shots) for one in said.epoch(0)} == {1, 2}


def test_a_hold_out_holds_for_the_whole_mixture(made):
    a, b, c = made({"a": "nli", "b": "nli"}, a=30, b=30, c=40)
    inner = {"mixture": {"tasks": [a, c], "hold_out": ["nli"]}}
    blend = load(mixture(tasks=[inner, b]))
    assert blend.counts() == {"c": 40}
    assert {task.name for task in blend.held} == {"a", "b"}
    assert load(mixture(tasks=[inner], hold_out=["nli"])).counts() == {"c": 40}


def test_a_mixture_in_a_file_may_hold_others_beside_it(made, tmp_path, monkeypatch):
    made(a=3, b=4)
    (tmp_path / "inner.yaml").write_text("tasks: [a.yaml]\n")
    (tmp_path / "outer.yaml").write_text("tasks: [{mixture: inner.yaml}, {mixture: {tasks: [b.yaml]}}]\n")
    (tmp_path / "self.yaml").write_text("tasks: [{mixture: self.yaml}]\n")
    monkeypatch.chdir("/")
    assert load(load_mixture(tmp_path / "outer.yaml")).counts() == {"a": 3, "b": 4}
    with pytest.raises(ConfigError, match="is a part of itself"):
        load(load_mixture(tmp_path / "self.yaml"))


def test_rows_left_out_are_neither_learned_nor_shown(made):
    out = {f"a/{i}" for i in range(0, 30, 2)}
    drawn = load(mixture(tasks=made(a=30), shots={2: 1.0}), leave_out=out).epoch(0)
    assert {one.name for one in drawn} == {f"a/{i}" for i in range(1, 30, 2)}
    assert {shot.answer for one in drawn for shot in one.prompt.shots} == {"w1"}
    with pytest.raises(DataError, match="every training row of task 'a' is left out"):
        load(mixture(tasks=made(a=30)), leave_out={f"a/{i}" for i in range(30)})


@pytest.mark.parametrize("text", ["tasks: [a.yaml, b.yaml]", "mixture: {tasks: [a.yaml, b.yaml]}", "mixture: mix.yaml"])
def test_the_tasks_of_a_mixture_or_a_recipe_are_named_by_its_file(made, tmp_path, text):
    made(a=3, b=4)
    (tmp_path / "mix.yaml").write_text("tasks: [a.yaml, b.yaml]")
    (tmp_path / "what.yaml").write_text(text)
    assert [task.name for task in load_tasks("what.yaml")] == ["a", "b"]


@pytest.mark.parametrize("text", ["task: a.yaml\nmixture: null", "{model: x, task: a.yaml}"])
def test_the_task_of_a_recipe_is_named_by_its_file(made, tmp_path, text):
    made(a=3)
    (tmp_path / "what.yaml").write_text(text)
    assert [task.name for task in load_tasks("what.yaml")] == ["a"]
    (tmp_path / "what.yaml").write_text("model: smollm2")
    assert [task.name for task in load_tasks("what.yaml")] == ["demo"]


def test_one_name_stands_for_a_list_of_it(made):
    a, b = made({"a": "nli"}, a=3, b=4)
    assert load(mixture(tasks=[a, b], hold_out="nli")).counts() == {"b": 4}


def test_a_mixture_file_names_its_tasks_from_where_it_lies(made, tmp_path, monkeypatch):
    made(a=3)
    (tmp_path / "mix.yaml").write_text("tasks: [a.yaml]\n")
    monkeypatch.chdir("/")
    assert load(load_mixture(tmp_path / "mix.yaml")).counts() == {"a": 3}


def test_shots_kinds_and_options_are_drawn_in_their_shares(made):
    names = made(rationale=True, a=600)
    kinds = {"direct": 0.5, "chain_of_thought": 0.25, "inverted": 0.25}
    drawn = load(mixture(tasks=names, shots={0: 0.5, 2: 0.5}, kinds=kinds, options=0.3)).epoch(0)
    assert sum(len(one.prompt.shots) == 2 for one in drawn) / 600 == pytest.approx(0.5, abs=0.07)
    assert sum(one.prompt.template == "thought" for one in drawn) / 600 == pytest.approx(0.25, abs=0.06)
    assert sum(one.prompt.template == "back" for one in drawn) / 600 == pytest.approx(0.25, abs=0.06)
    direct = [one for one in drawn if one.prompt.template in ("plain", "other")]
    listed = [one for one in direct if "Options:" in one.prompt.question]
    assert len(listed) / len(direct) == pytest.approx(0.3, abs=0.09)


def test_examples_are_asked_as_the_question_is_and_never_are_it(made):
    drawn = load(mixture(tasks=made(a=40), shots={3: 1.0})).epoch(0)
    for one in drawn:
        assert len(one.prompt.shots) == 3
        assert all(shot.question.startswith(one.prompt.question[:3]) for shot in one.prompt.shots)


def test_a_part_says_for_itself_how_it_is_asked(made):
    a, b = made(a=20, b=20)
    drawn = load(mixture(tasks=[{"task": a, "shots": {2: 1.0}, "options": 0}, b])).epoch(0)
    assert all((len(one.prompt.shots) == 2) == (one.task.name == "a") for one in drawn)
    assert all(("Options:" in one.prompt.question) == (one.task.name == "b") for one in drawn)


def test_a_task_without_rationales_gives_its_share_to_the_other_kinds(made):
    drawn = load(mixture(tasks=made(a=20), kinds={"direct": 0.5, "chain_of_thought": 0.5})).epoch(0)
    assert {one.prompt.template for one in drawn} == {"plain", "other"}


def test_kinds_that_no_wording_has_are_refused(made):
    with pytest.raises(DataError, match="task 'a' has no wording of kind chain_of_thought"):
        load(mixture(tasks=made(a=20), kinds={"chain_of_thought": 1.0})).epoch(0)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"tasks": []}, "tasks"),
        ({"tasks": ["a.yaml", "a.yaml"]}, "names the task 'a' twice"),
        ({"tasks": [{"task": "a.yaml", "rate": 1}, "b.yaml"]}, "gives a 'rate' to some"),
        ({"tasks": ["a.yaml"], "hold_out": ["nlu"]}, "is 'nlu' or belongs to it"),
        ({"tasks": ["a.yaml", "b.yaml"], "hold_out": ["letters"]}, "every task of the mixture is held out"),
        ({"tasks": [{"mixture": {"tasks": ["a.yaml"]}, "task": "b.yaml"}]}, "either a 'task' or a 'mixture'"),
        ({"tasks": ["a.yaml"], "shots": {-1: 1}}, "shots"),
        ({"tasks": [{"task": "a.yaml", "rate": 1}], "temperature": 2}, "both rates and a temperature"),
        ({"tasks": ["a.yaml"], "capp": 3}, "has no field 'capp'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(made, values, told):
    made(a=5, b=5)
    with pytest.raises(ConfigError, match=told):
        load(Mixture.parse(values, "recipe"))
