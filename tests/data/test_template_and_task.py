import numpy as np
import pytest

from tests.conftest import needs_shared, write_rows
from tunesmith.data.rows import Row
from tunesmith.data.task import embedded_tasks, load_task, read_task, split_named
from tunesmith.data.template import Template
from tunesmith.errors import ConfigError, DataError

ROW = Row("r1", {"dialogue": "A: hi", "summary": " They greet. ", "n": 3})
PLAIN = Template(name="plain", prompt="{{ dialogue }}\nSummary:\n", answer="{{ summary }}")


def test_a_row_fills_prompt_and_answer():
    prompt = PLAIN.render(ROW)
    assert prompt.question == "A: hi\nSummary:\n"
    assert prompt.answer == "They greet."
    assert prompt.references == ("They greet.",)
    assert PLAIN.fields() == {"dialogue", "summary"}


def test_a_field_that_the_row_lacks_is_answered_with_the_nearest():
    with pytest.raises(DataError) as error:
        Template(name="t", prompt="{{ dialoge }}", answer="{{ summary }}").render(ROW)
    assert error.value.what == "template 't' uses the field 'dialoge', which row r1 does not have"
    assert error.value.fix == "did you mean 'dialogue'?"


def test_an_empty_answer_and_one_outside_the_choices_are_refused():
    with pytest.raises(DataError, match="empty answer"):
        PLAIN.render(Row("r2", {"dialogue": "x", "summary": "  "}))
    choosy = Template(name="c", prompt="x", answer="{{ n }}", choices=("1", "2"))
    with pytest.raises(DataError, match="answer '3' is none of: 1, 2"):
        choosy.render(ROW)


def wording(choices, **row):
    template = Template(name="c", prompt="{{ q }}", answer="{{ a }}", choices=choices)
    return template.render(Row("r1", {"q": "x", "a": "1", **row}))


def test_each_row_may_have_choices_of_its_own():
    assert wording("{{ options }}", options=["1", "2"]).choices == ("1", "2")
    assert wording("{{ [a, b] }}", b=3).choices == ("1", "3")
    assert wording(" {{ text.split(';') }} ", text="1; 2;3").choices == ("1", "2", "3")
    assert wording("{{ options }}", options=np.array([1, 2])).choices == ("1", "2")
    assert Template(name="c", prompt="x", answer="y", choices="{{ options }}").fields() == {"options"}


@pytest.mark.parametrize("options", ["1, 2", ["1"], [], ["1", "1"], ["1", ""], {"1": "2"}, 7, None])
def test_choices_that_are_no_list_of_different_texts_are_refused(options):
    with pytest.raises(DataError, match="row r1: 'choices' of template 'c' gives"):
        wording("{{ options }}", options=options)


def test_a_row_without_choices_of_its_own_is_answered_freely():
    assert wording("{{ options | default(none) }}").choices == ()


def test_wrong_choices_are_refused_where_they_are_written():
    with pytest.raises(DataError, match="uses the field 'optoins'"):
        wording("{{ optoins }}", options=["1", "2"])
    for choices in ("yes, no", "{{ a }}, {{ b }}", ["yes", "yes"], "{{ a"):
        with pytest.raises(ConfigError, match="choices"):
            Template.parse({"name": "t", "prompt": "x", "answer": "y", "choices": choices}, "task.yaml")
    with pytest.raises(DataError):
        wording("{{ ''.__class__.__mro__ }}")
    with pytest.raises(DataError, match="answer '1' is none of: 2, 3"):
        wording("{{ options }}", options=["2", "3"])


def test_templates_are_sandboxed():
    for text in ("{{ ''.__class__.__mro__ }}", "{{ dialogue.__class__ }}"):
        with pytest.raises(DataError):
            Template(name="evil", prompt=text, answer="x").render(ROW)
    assert (
        Template(name="loop", prompt="{% for i in range(2) %}{{ i }}{% endfor %}", answer="x").render(ROW).question
        == "01"
    )


def test_broken_jinja_is_a_config_error():
    with pytest.raises(ConfigError, match="is not Jinja"):
        Template.parse({"name": "t", "prompt": "{{ a", "answer": "b"}, "task.yaml")


def test_references_come_from_their_fields_where_a_split_has_them():
    row = Row("r", {"dialogue": "x", "s1": "one", "s2": "two", "s3": ""})
    prompt = PLAIN.render(row, references=("s1", "s2", "s3"))
    assert prompt.references == ("one", "two")
    assert prompt.answer == "one"
    assert PLAIN.render(ROW, references=("s1", "s2")).references == ("They greet.",)


def test_an_inverted_wording_is_marked_against_its_own_answer():
    asked = Template(name="i", kind="inverted", prompt="{{ s1 }}", answer="{{ q }}")
    assert asked.render(Row("r", {"q": "x?", "s1": "one"}), references=("s1",)).references == ("x?",)


def task_file(tmp_path, **changes):
    write_rows(tmp_path / "rows.jsonl", [{"id": "a", "q": "x", "s1": "one"}, {"id": "b", "q": "y", "s1": "two"}])
    values = {"source": "{train: {file: rows.jsonl}}", "references": "[]", "answer": "'{{ s1 }}'", **changes}
    path = tmp_path / "task.yaml"
    path.write_text(
        f"name: t\nsource: {values['source']}\nreferences: {values['references']}\n"
        f"templates:\n  - {{name: p, prompt: '{{{{ q }}}}', answer: {values['answer']}}}\n"
    )
    return path


def test_files_are_relative_to_the_task_file(tmp_path, monkeypatch):
    path = task_file(tmp_path)
    monkeypatch.chdir("/")
    assert [row.id for row in read_task(path).rows("train")] == ["a", "b"]
    assert load_task("task.yaml", beside=tmp_path) == read_task(path)


def test_a_missing_split_is_an_error(tmp_path):
    with pytest.raises(DataError) as error:
        read_task(task_file(tmp_path)).prompts("test")
    assert error.value.what == "task 't' has no test split"
    assert error.value.fix == "add 'source.test' to the task file"


def test_a_reference_field_that_no_row_has_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no row has the reference field 's9'"):
        read_task(task_file(tmp_path, references="[s1, s9]")).rows("train")


def test_an_unknown_key_in_a_task_file_is_answered(tmp_path):
    with pytest.raises(ConfigError) as error:
        read_task(task_file(tmp_path, source="{trian: {file: rows.jsonl}}"))
    assert "source has no field 'trian'" in error.value.what
    assert error.value.fix == "did you mean 'train'?"


def test_unknown_tasks_templates_and_splits_are_answered_with_the_nearest(colours):
    with pytest.raises(ConfigError) as error:
        load_task("dmeo")
    assert "did you mean 'demo'?" in error.value.fix
    with pytest.raises(ConfigError, match="no such file"):
        load_task("nothing.yaml")
    with pytest.raises(ConfigError) as error:
        colours.template("aks")
    assert error.value.fix == "did you mean 'ask'?"
    with pytest.raises(ConfigError) as error:
        split_named("tset")
    assert error.value.fix == "did you mean 'test'?"


def test_training_sees_every_wording_and_a_row_keeps_its_own(colours):
    drawn = {prompt.id: prompt.template for prompt in colours.prompts("train", template="any")}
    assert set(drawn.values()) == {"ask", "say"}
    again = colours.prompts("train", template="any", limit=10)
    assert all(drawn[prompt.id] == prompt.template for prompt in again)
    assert {prompt.template for prompt in colours.prompts("test")} == {"ask"}
    assert {prompt.template for prompt in colours.prompts("test", template="say")} == {"say"}


def test_a_task_saved_and_read_is_equal(colours, colours_file):
    assert read_task(colours_file) == colours


def test_the_provenance_names_each_split(colours):
    told = colours.provenance()
    assert {split: facts["rows"] for split, facts in told.items()} == {"train": 96, "validation": 16, "test": 24}
    assert len({facts["sha256"] for facts in told.values()}) == 3


@pytest.mark.parametrize("name", embedded_tasks())
def test_every_embedded_task_renders_each_row_in_each_wording(name):
    task = load_task(name)
    for template in task.templates:
        for split in task.splits():
            assert all(prompt.question.strip() for prompt in task.prompts(split, template=template.name))


@needs_shared("dialogsum")
def test_dialogsum_test_rows_have_three_references():
    from pathlib import Path

    task = read_task(Path(__file__).parents[2] / "tasks" / "dialogsum-local.yaml")
    prompts = task.prompts("test", limit=20)
    assert {len(prompt.references) for prompt in prompts} == {3}


def thoughtful(kind):
    answer = "{{ steps }} So the answer is {{ a }}." if kind == "chain_of_thought" else "{{ a }}"
    template = Template(name="t", prompt="{{ q }}{{ options_ }}", answer=answer, choices="{{ options }}", kind=kind)
    return template.render(Row("r1", {"q": "1 + 1?", "steps": "Count.", "a": "2", "options": ["1", "2"]}))


def test_a_chain_of_thought_lists_the_choices_and_is_none_of_them():
    thought, direct = thoughtful("chain_of_thought"), thoughtful("direct")
    assert thought.question == direct.question == "1 + 1?\n\nOptions:\n- 1\n- 2"
    assert (thought.answer, thought.choices) == ("Count. So the answer is 2.", ())
    assert (direct.answer, direct.choices) == ("2", ("1", "2"))


def test_the_field_that_is_missing_is_named_and_not_one_that_may_be():
    template = Template(name="t", prompt="{{ q }}", answer="{{ steps }}", choices="{{ options | default(none) }}")
    with pytest.raises(DataError, match="uses the field 'steps'"):
        template.render(Row("r1", {"q": "x"}))


def sieve(tmp_path, where):
    write_rows(tmp_path / "rows.jsonl", [{"t": "x", "s": "a"}, {"t": "y", "s": ""}, {"t": "z", "s": "-"}])
    (tmp_path / "task.yaml").write_text(
        "name: t\nsource: {train: {file: rows.jsonl}}\nfields: {said: \"{{ s | replace('-', '') }}\"}\n"
        f"where: '{where}'\ntemplates: [{{name: p, prompt: '{{{{ t }}}}', answer: '{{{{ said }}}}'}}]\n"
    )
    return read_task(tmp_path / "task.yaml")


def test_where_leaves_out_rows_by_their_own_fields_and_those_made(tmp_path):
    task = sieve(tmp_path, "{{ said }}")
    assert [row.fields["t"] for row in task.rows("train")] == ["x"]
    assert task.provenance()["train"]["rows"] == 1
    assert len(sieve(tmp_path, "{{ s }}").rows("train")) == 2
    assert len(sieve(tmp_path, "").rows("train")) == 3


def test_where_is_one_expression_that_can_be_told_and_leaves_something(tmp_path):
    with pytest.raises(ConfigError, match="where: is not one expression"):
        sieve(tmp_path, "said")
    with pytest.raises(DataError, match="'where' cannot be told: 'siad' is undefined"):
        sieve(tmp_path, "{{ siad }}").rows("train")
    with pytest.raises(DataError, match="'where' leaves no row of the train split"):
        sieve(tmp_path, "{{ false }}").rows("train")
