from pathlib import Path

import pytest

from tests.conftest import needs_shared
from tests.data.hub_rows import ROWS
from tunesmith.config import read_yaml
from tunesmith.data.rows import Row
from tunesmith.data.task import Split, Task, load_task
from tunesmith.data.template import derived, holds
from tunesmith.data.wordings import families
from tunesmith.errors import DataError
from tunesmith.metrics import metric

TASKS = Path(__file__).parents[2] / "tasks"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
BBH = sorted(path.stem for path in (TASKS / "bbh").glob("*.yaml"))
MMLU = sorted(path.stem for path in (TASKS / "mmlu").glob("*.yaml"))
LOCAL = {
    "cola-local": "glue",
    **dict.fromkeys((f"bbh/{name}" for name in BBH), "bbh"),
    **dict.fromkeys((f"mmlu/{name}" for name in MMLU), "mmlu"),
}


def ready(name: str) -> Task:
    path = TASKS / f"{name}.yaml"
    values = read_yaml(path)
    family = values.get("templates", values["cluster"])
    if family not in families():
        pytest.skip(f"there is no family '{family}' yet")
    return load_task(str(path))


def render_all(task: Task, row: Row) -> list[str]:
    """Give the answers to every wording of a task that a row has the fields for."""
    found = []
    for template in task.templates:
        if template.kind == "chain_of_thought" and "rationale" not in row.fields:
            continue
        prompt = template.render(row, task.references)
        assert prompt.question.strip()
        assert prompt.answer
        assert "options" not in row.fields or template.kind != "direct" or len(prompt.choices) > 1
        assert not prompt.choices or prompt.answer in prompt.choices
        found.append(prompt.answer)
    return found


def hub_row(name: str, **changed: object) -> Row:
    return derived(Row("r1", {**ROWS[name], **changed}), ready(name).fields)


@pytest.mark.parametrize("name", [*ROWS, *LOCAL])
def test_a_ready_task_can_be_read_and_says_what_it_is_and_whose(name):
    task = ready(name)
    first = (TASKS / f"{name}.yaml").read_text().partition("\n")[0]
    assert first.startswith("# ")
    assert task.name == name.removesuffix("-local").replace("/", "_")
    assert task.splits() == ["train", "validation", "test"]
    for one in task.metrics:
        assert metric(one, task.language).name == one


@pytest.mark.parametrize("name", ROWS)
def test_a_hub_row_fills_every_wording(name):
    task, row = ready(name), hub_row(name)
    assert not task.where or holds(row, task.where)
    assert len(render_all(task, row)) == len(task.templates) - (
        0 if "rationale" in row.fields else len(task.of_kind("chain_of_thought"))
    )


@pytest.mark.parametrize(("name", "answer"), [
    ("glue_cola", "no"), ("ag_news", "sports"), ("trec", "person"), ("superglue_copa", "The bulb was broken."),
    ("hellaswag", "pours it over the leaves."), ("piqa", "wipe it with a cloth."), ("commonsense_qa", "fridge"),
    ("winogrande", "vase"), ("social_i_qa", "thankful"), ("gsm8k", "1500"), ("mmlu", "7"),
    ("wmt16_de_en", "The house is old."), ("daily_dialog", "On the table ."), ("alpaca", "An apple."),
])  # fmt: skip
def test_the_answer_is_the_right_one(name, answer):
    task, row = ready(name), hub_row(name)
    assert task.of_kind("direct")[0].render(row).answer == answer


def test_splits_of_the_hub_that_have_no_labels_are_not_used():
    labelled = {"ag_news", "trec", "wmt16_de_en", "e2e_nlg", "gsm8k", "mmlu", "daily_dialog"}
    tests = {name: read_yaml(TASKS / f"{name}.yaml")["source"]["test"]["split"] for name in ROWS}
    assert {name for name, split in tests.items() if split == "test"} == labelled


@pytest.mark.parametrize(("name", "hidden"), [
    ("glue_cola", {"label": -1}), ("superglue_copa", {"label": -1}), ("hellaswag", {"label": ""}),
    ("piqa", {"label": -1}), ("commonsense_qa", {"answerKey": ""}), ("winogrande", {"answer": ""}),
])  # fmt: skip
def test_a_hidden_label_is_refused(name, hidden):
    with pytest.raises(DataError, match="field 'answer' cannot be made"):
        hub_row(name, **hidden)


def test_solutions_of_gsm8k_lose_their_annotations_and_end_with_the_answer():
    task, row = ready("gsm8k"), hub_row("gsm8k")
    thought = task.of_kind("chain_of_thought")[0].render(row, task.references)
    assert thought.answer == "Each box holds 3 pens.\nSo she has 500*3 = 1500 pens. So the answer is 1500."
    assert thought.references == ("1500",)


def test_a_choice_that_occurs_twice_is_offered_once():
    assert hub_row("hellaswag").fields["options"] == [
        "pours it over the leaves.",
        "eats the kettle.",
        "paints it green.",
    ]


def test_turns_of_a_dialogue_stand_below_each_other_and_a_lone_turn_is_left_out():
    assert hub_row("daily_dialog").fields["dialogue"] == "A: Are you ready ?\nB: Nearly . Where are my keys ?"
    task = ready("daily_dialog")
    assert not holds(hub_row("daily_dialog", dialog=["Hello ."]), task.where)


def test_empty_replies_and_translations_are_left_out():
    assert not holds(hub_row("alpaca", output=" "), ready("alpaca").where)
    assert not holds(hub_row("wmt16_de_en", translation={"de": "", "en": "Yes."}), ready("wmt16_de_en").where)


def test_the_text_that_an_instruction_is_about_stands_below_it():
    plain = ready("dolly").templates[0]
    assert plain.render(hub_row("dolly")).question == "When was the bridge built?\n\nThe bridge was built in 1932."
    assert plain.render(hub_row("alpaca")).question == "Name a fruit."
    turns = derived(hub_row("alpaca"), {"history": "{{ [['Hi', 'Hello']] }}", "system": "Be kind."})
    told = plain.render(turns)
    assert (told.system, [(turn.question, turn.answer) for turn in told.history]) == ("Be kind.", [("Hi", "Hello")])


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=needs_shared(folder)) for name, folder in LOCAL.items()
])  # fmt: skip
def test_real_rows_fill_every_wording(name):
    task = ready(name)
    for split in task.splits():
        for row in task.rows(split, limit=20):
            render_all(task, row)


@needs_shared("bbh")
def test_letters_of_big_bench_hard_are_read_from_the_question():
    row = ready("bbh/penguins_in_a_table-local").rows("test", limit=1)[0]
    assert row.fields["options"] == ["(A)", "(B)", "(C)", "(D)", "(E)"]
    assert len(BBH) == 27


@needs_shared("bbh")
def test_rows_of_big_bench_hard_without_a_proper_choice_are_left_out():
    task = ready("bbh/ruin_names-local")
    assert sum(len(task.rows(split)) for split in task.splits()) == 248


@needs_shared("mmlu")
def test_every_question_of_mmlu_is_in_one_split_of_its_subject():
    rows = {(name, split): ready(f"mmlu/{name}").rows(split) for name in MMLU for split in SPLITS}
    assert len(MMLU) == 57
    assert {len(found) for (_, split), found in rows.items() if split == "train"} == {5}
    assert sum(len(found) for (_, split), found in rows.items() if split != "train") == 14042
    for name in MMLU:
        asked = [{row.fields["question"] for row in rows[name, split]} for split in SPLITS]
        assert len(set().union(*asked)) == sum(map(len, asked))


@pytest.mark.parametrize("name", MMLU)
def test_the_number_of_an_answer_of_mmlu_names_a_choice(name):
    raw = {"question": "How many?\n", "choice0": "two", "choice1": "two ", "choice2": "six", "choice3": "ten"}
    made = ready(f"mmlu/{name}").fields
    row = derived(Row("r1", {**raw, "answer": "2"}), made)
    assert (row.fields["question"], row.fields["answer"]) == ("How many?", "six")
    assert row.fields["options"] == ["two", "six", "ten"]
    assert derived(Row("r1", {**raw, "answer": "1"}), made).fields["answer"] == "two"
    for wrong in ("", "C", "4"):
        with pytest.raises(DataError, match="field 'answer' cannot be made"):
            derived(Row("r1", {**raw, "answer": wrong}), made)
