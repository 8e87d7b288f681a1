"""Instruction files of the well-known formats become rows of plain fields, and prompts in the right order."""

import json

import pytest
import yaml
from datasets import Dataset

from tunesmith.data.formats import told
from tunesmith.data.rows import Source, read_rows
from tunesmith.data.task import Task, load_task
from tunesmith.errors import ConfigError, DataError
from tunesmith.models.load import find, load_encoder

ALPACA = {"instruction": "Say it in French.", "input": "cheese", "output": "fromage"}
ASKED = {"role": "user", "content": "Wie heißt du?"}
TOLD = {"role": "assistant", "content": "小明。"}
MORE = {"role": "user", "content": "And your age?"}
SAID = {"role": "assistant", "content": " Seven. "}
CHAT = {"messages": [{"role": "system", "content": "Be brief."}, ASKED, TOLD, MORE, SAID]}
FROM = {"system": "system", "user": "human", "assistant": "gpt"}
SHAREGPT = {"conversations": [{"from": FROM[turn["role"]], "value": turn["content"]} for turn in CHAT["messages"]]}
NATURAL = {
    "Contributors": ["A"],
    "Definition": ["Answer the question."],
    "Positive Examples": [{"input": "a", "output": "b"}],
    "Instances": [
        {"id": "t1-1", "input": "Where is Paris?", "output": ["France", "In France"]},
        {"id": "t1-2", "input": "Where is Rome?", "output": ["Italy"]},
    ],
}
OWN = {"name": "own", "prompt": "{{ q }}", "answer": "{{ a }}"}


@pytest.fixture
def read(tmp_path):
    """Write records into a file and read them as a source says."""

    def reading(*records, **source):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in records), encoding="utf-8")
        return read_rows(Source(file=path, **source))

    return reading


@pytest.fixture
def refused(read):
    """Give the two lines with which records are refused, their place aside."""

    def refusal(*records, **source):
        with pytest.raises(DataError) as error:
            read(*records, **source)
        assert "rows.jsonl row" in error.value.what
        assert error.value.fix
        return error.value.what.split("rows.jsonl ")[1]

    return refusal


def fields(row):
    return {name: row.fields.get(name) for name in ("instruction", "input", "answer", "system", "history")}


def test_alpaca_keeps_its_fields_and_gets_the_common_ones(read):
    earlier = [["Hello?", "Hi."]]
    first, second = read(ALPACA, {**ALPACA, "input": None, "system": "Be kind.", "history": earlier, "source": "me"})
    assert fields(first) == {
        "instruction": "Say it in French.", "input": "cheese", "answer": "fromage", "system": "", "history": [],
    }  # fmt: skip
    assert fields(second) == {**fields(first), "input": "", "system": "Be kind.", "history": earlier}
    assert (first.fields["output"], second.fields["source"]) == ("fromage", "me")


@pytest.mark.parametrize(
    "record", [CHAT, {"conversation": CHAT["messages"]}, SHAREGPT], ids=["messages", "hf", "sharegpt"]
)
def test_a_conversation_gives_a_row_for_each_answer(read, record):
    one, two = read({"id": "c7", "topic": "names", **record})
    assert (one.id, two.id) == ("c7/1", "c7/2")
    assert fields(one) == {
        "instruction": "Wie heißt du?", "input": "", "answer": "小明。", "system": "Be brief.", "history": [],
    }  # fmt: skip
    assert fields(two) == {
        "instruction": "And your age?", "input": "", "answer": "Seven.", "system": "Be brief.",
        "history": [["Wie heißt du?", "小明。"]],
    }  # fmt: skip
    assert set(two.fields) - set(fields(two)) == {"id", "topic"}


def test_one_answer_keeps_the_conversations_id_and_a_system_text_may_stand_beside(read):
    (row,) = read({"id": 3, "messages": [ASKED, TOLD], "system": "Be brief."})
    assert (row.id, row.fields["system"]) == ("3", "Be brief.")
    (row,) = read({"id": 3, "messages": [{"role": "developer", "content": ""}, ASKED, TOLD]})
    assert row.fields["system"] == ""


def test_contents_in_parts_are_joined_and_roles_of_other_systems_understood(read):
    parts = [{"type": "text", "text": "Wie heißt "}, {"type": "text", "text": "du?"}]
    (row,) = read({"conversations": [{"role": "human", "content": parts}, {"role": "gpt", "content": "小明。"}]})
    assert (row.fields["instruction"], row.fields["answer"]) == ("Wie heißt du?", "小明。")


def test_a_turn_of_no_weight_is_read_and_not_learned(read):
    (row,) = read({"messages": [ASKED, {**TOLD, "weight": 0}, MORE, {**SAID, "weight": 1}]})
    assert (row.fields["answer"], row.fields["history"]) == ("Seven.", [["Wie heißt du?", "小明。"]])


def test_of_a_prompt_and_its_completion_only_the_completion_is_learned(read):
    (row,) = read({"prompt": "The sky is", "completion": " blue.", "n": 1})
    assert (row.fields["instruction"], row.fields["answer"]) == ("The sky is", "blue.")
    assert (row.fields["completion"], row.fields["n"]) == (" blue.", 1)
    (row,) = read({"prompt": [ASKED, TOLD, MORE], "completion": [SAID]})
    assert (row.fields["answer"], row.fields["history"]) == ("Seven.", [["Wie heißt du?", "小明。"]])
    assert "completion" not in row.fields


@pytest.mark.parametrize("definition", [["Answer the question."], "Answer the question."])
def test_a_task_of_natural_instructions_gives_its_instances(tmp_path, definition):
    path = tmp_path / "task1.json"
    path.write_text(json.dumps({"Definition": definition, "Instances": NATURAL["Instances"]}))
    one, two = read_rows(Source(file=path))
    assert (one.id, two.id) == ("t1-1", "t1-2")
    assert fields(one)["instruction"] == "Answer the question."
    assert (one.fields["input"], one.fields["answer"]) == ("Where is Paris?", "France")
    assert (one.fields["answers"], two.fields["answers"]) == (["France", "In France"], ["Italy"])


def test_several_tasks_may_share_a_file(read):
    other = {**NATURAL, "Definition": ["Translate."], "Instances": [{"id": "t2-1", "input": "a", "output": "b"}]}
    rows = read(NATURAL, other)
    assert [row.fields["instruction"] for row in rows] == ["Answer the question."] * 2 + ["Translate."]


@pytest.mark.parametrize(("turns", "said"), [
    ([ASKED, {"role": "tool", "content": "5"}], "turn 2 of 'messages' is of 'tool'"),
    ([ASKED, {"role": "asistant", "content": "5"}], "turn 2 of 'messages' is of 'asistant'"),
    ([ASKED, MORE, TOLD], "turn 2 of 'messages' is the user's, as is the turn before it"),
    ([ASKED, TOLD, SAID], "turn 3 of 'messages' is the assistant's, as is the turn before it"),
    ([ASKED, {"role": "assistant", "content": " "}], "turn 2 of 'messages' is empty"),
    ([ASKED, {"role": "assistant", "content": None}], "turn 2 of 'messages' is empty"),
    ([{"role": "user", "content": ""}, TOLD], "turn 1 of 'messages' is empty"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, TOLD], "part of type 'image_url'"),
    ([{"role": "user", "content": ["hello"]}, TOLD], "part of type 'str'"),
    ([ASKED, {**TOLD, "tool_calls": [{"id": "x"}]}], "turn 2 of 'messages' has a field 'tool_calls'"),
    ([ASKED, {**TOLD, "reasoning_content": "Hm."}], "turn 2 of 'messages' has a field 'reasoning_content'"),
    ([ASKED, {**TOLD, "weight": 0.5}], "turn 2 of 'messages' has the weight 0.5"),
    ([TOLD, ASKED, SAID], "turn 1 of 'messages' answers no question"),
    ([ASKED, TOLD, MORE], "turn 3 of 'messages' is a question without an answer"),
    ([ASKED, {"role": "system", "content": "x"}, TOLD], "turn 2 of 'messages' is a further system text"),
    ([ASKED, {"from": "gpt", "value": "x"}], "turn 2 of 'messages' has no 'role'"),
    ([ASKED, {**TOLD, "weight": 0}], "has no turn of the assistant to learn"),
    ([], "has no turn of the assistant to learn"),
    ("Hello", "'messages' is a str, no list of turns"),
    ([ASKED, {"role": "assistant", "content": {"a": 1}}], "'text' is a dict, no text"),
])  # fmt: skip
def test_what_is_no_conversation_of_texts_is_refused_with_its_place(refused, turns, said):
    what = refused(CHAT, {"messages": turns})
    assert what.startswith("row 2: ")
    assert said in what


@pytest.mark.parametrize(("record", "said"), [
    ({**CHAT, "tools": [{"name": "search"}]}, "has a field 'tools'"),
    ({**SHAREGPT, "image": "cat.png"}, "has a field 'image'"),
    ({**CHAT, "system": "Be long."}, "has a 'system' and another in its first turn"),
    ({"instruction": "x", "output": ""}, "its 'output' is empty"),
    ({"instruction": " ", "input": "y", "output": "z"}, "its 'instruction' is empty"),
    ({"instruction": "x", "output": ["y"]}, "'output' is a list, no text"),
    ({**ALPACA, "history": "long ago"}, "'history' is no list of [question, answer] pairs"),
    ({**ALPACA, "history": [["only a question"]]}, "'history' is no list of [question, answer] pairs"),
    ({"prompt": "x", "completion": None}, "its 'completion' is empty"),
    ({"prompt": [ASKED], "completion": "x"}, "'completion' is a str, no list of turns"),
])  # fmt: skip
def test_what_a_record_cannot_say_is_refused(refused, record, said):
    assert said in refused(record)


def test_empty_lists_of_tools_and_nulls_are_nothing(read):
    assert len(read({**CHAT, "tools": "[]", "images": None, "functions": []})) == 2


def test_records_of_two_formats_in_a_file_are_refused(refused):
    assert "row 2: has none of the fields messages" in refused(CHAT, ALPACA)
    assert "row 2: has no field 'output'" in refused(ALPACA, {"instruction": "x"})


def test_instances_that_lack_something_are_refused(read):
    for lacking, said in (({"input": "x"}, "instance 1: has no field 'output'"),
                          ({"input": "x", "output": []}, "instance 1: has no output"),
                          ({"output": ["x"]}, "instance 1: has no field 'input'")):  # fmt: skip
        with pytest.raises(DataError) as error:
            read({**NATURAL, "Instances": [lacking]})
        assert said in error.value.what
    with pytest.raises(DataError, match="'Instances' is no list of objects"):
        read({**NATURAL, "Instances": "none"})
    with pytest.raises(DataError, match="has no instances"):
        read({**NATURAL, "Instances": []})


@pytest.mark.parametrize(("records", "known"), [
    ([ALPACA], "alpaca"),
    ([CHAT], "messages"),
    ([{"conversations": CHAT["messages"]}], "messages"),
    ([{"prompt": "x", "completion": "y"}], "messages"),
    ([SHAREGPT], "sharegpt"),
    ([NATURAL], "natural-instructions"),
    ([{"messages": "you have mail", "label": "spam"}], "rows"),
    ([{"conversation": ["hello", "hi"]}], "rows"),
    ([{"messages": None}, CHAT], "messages"),
    ([{"prompt": "x", "chosen": "y", "rejected": "z"}], "rows"),
    ([{"instruction": "x", "answer": "y"}], "rows"),
])  # fmt: skip
def test_the_format_is_told_from_the_fields_of_all_records(records, known):
    assert told(records) == known


def task(tmp_path, records, template=OWN, **values):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, records)))
    source = {"train": {"file": tmp_path / "rows.jsonl"}}
    return Task.parse(
        {"name": "t", "source": source, "templates": template if isinstance(template, str) else [template], **values},
        "test",
    )


def test_a_file_that_has_what_the_wordings_ask_for_is_left_as_it_is(tmp_path):
    talk = {
        "id": "c",
        "conversations": [{"from": "Ann", "value": "Hi"}, {"from": "Bob", "value": "Ho"}],
        "a": "They greet.",
    }
    summarize = {"name": "s", "prompt": "{% for t in conversations %}{{ t.value }} {% endfor %}", "answer": "{{ a }}"}
    (prompt,) = task(tmp_path, [talk], summarize).prompts("train")
    assert (prompt.id, prompt.question) == ("c", "Hi Ho ")
    several = {"instruction": "x", "output": ["one", "two"], "tools": ["saw"]}
    plain = {"name": "p", "prompt": "{{ instruction }}", "answer": "{{ output[1] }}"}
    assert task(tmp_path, [several], plain).rows("train")[0].fields == several
    made = task(tmp_path, [several], {**plain, "answer": "{{ answer }}"}, fields={"answer": "{{ output | join }}"})
    assert made.prompts("train")[0].answer == "onetwo"


def test_wordings_may_ask_for_both_the_files_fields_and_the_common_ones(tmp_path):
    both = {"name": "b", "prompt": "{{ instruction }} {{ output | upper }}", "answer": "{{ answer }}"}
    assert task(tmp_path, [ALPACA], both).prompts("train")[0].question == "Say it in French. FROMAGE"
    fields = {"a": "{{ answer }}", "q": "{{ instruction }}"}
    assert task(tmp_path, [CHAT], fields=fields).prompts("train")[1].answer == "Seven."


def test_a_format_that_is_named_is_kept_to(read, refused):
    assert dict(read(CHAT, format="rows")[0].fields) == CHAT
    assert "row 1: has none of the fields messages" in refused({"text": "x"}, format="sharegpt")
    assert "turn 1 of 'messages' has no 'from'" in refused(CHAT, format="sharegpt")
    (row,) = read({**ALPACA, "answer": "other"}, format="alpaca")
    assert row.fields["answer"] == "fromage"
    assert read({**ALPACA, "answer": "other"})[0].fields["answer"] == "other"
    with pytest.raises(ConfigError, match="format"):
        Source.parse({"file": "x.jsonl", "format": "llama"}, "task.yaml")


def test_ids_do_not_depend_on_the_order_of_the_file(read):
    records = [CHAT, {"messages": [ASKED, TOLD]}, {"messages": [MORE, SAID]}]
    ids = [row.id for row in read(*records)]
    assert sorted(ids) == sorted(row.id for row in read(*records[::-1]))
    assert [name.partition("/")[2] for name in ids] == ["1", "2", "", ""]
    unnamed = [{"input": name, "output": "x"} for name in "abc"]
    natural = [read({**NATURAL, "Instances": some}) for some in (unnamed, unnamed[::-1])]
    assert [row.id for row in natural[0]] == [row.id for row in natural[1]][::-1]


def test_ids_that_meet_are_refused(read):
    with pytest.raises(DataError, match="id 'a/1' is used 2 times"):
        read({"id": "a", **CHAT}, {"id": "a/1", "messages": [ASKED, TOLD]})


def test_splits_keep_a_conversation_together(read):
    records = [{"id": f"c{i}", **CHAT} for i in range(60)]
    parts = [{row.id.partition("/")[0] for row in read(*records, part=part)} for part in ((0, 0.5), (0.5, 1))]
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == 60
    assert sum(len(read(*records, part=part)) for part in ((0, 0.5), (0.5, 1))) == 120


def test_conversations_may_be_parted_by_a_field(read):
    records = [{"id": f"c{i}", "system": f"topic {i % 4}", "messages": [ASKED, TOLD]} for i in range(40)]
    for name in ("system", "topic"):
        by = [{**record, "topic": record["system"]} for record in records]
        parts = [read(*by, part=part, part_by=name) for part in ((0, 0.5), (0.5, 1))]
        topics = [{row.fields["system"] for row in part} for part in parts]
        assert not topics[0] & topics[1]
    with pytest.raises(DataError, match="has no field 'theme' for its part"):
        read(*records, part_by="theme")


def test_where_leaves_out_what_a_format_would_refuse(tmp_path):
    empty = {**ALPACA, "output": " "}
    made = {"fields": {"answer": "{{ output }}"}, "where": "{{ output.strip() }}", "cluster": "instructions"}
    (prompt,) = task(tmp_path, [ALPACA, empty], "instructions", **made).prompts("train")
    assert (prompt.question, prompt.answer) == ("Say it in French.\n\ncheese", "fromage")


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_lists_of_structs_in_parquet_are_read(tmp_path, name):
    turns = CHAT["messages"] if name == "messages" else SHAREGPT["conversations"]
    empty = {"tool_calls": None, "weight": None}
    Dataset.from_list([{"id": "p", name: [{**turn, **empty} for turn in turns]}]).to_parquet(
        str(tmp_path / "p.parquet")
    )
    rows = read_rows(Source(file=tmp_path / "p.parquet"))
    assert [(row.id, row.fields["answer"]) for row in rows] == [("p/1", "小明。"), ("p/2", "Seven.")]


def test_turns_that_a_table_holds_as_columns_are_read(read):
    turned = {key: [turn[key] for turn in CHAT["messages"]] for key in ("role", "content")}
    assert [row.fields["answer"] for row in read({"messages": turned})] == ["小明。", "Seven."]


@pytest.mark.parametrize("record", [CHAT, SHAREGPT], ids=["messages", "sharegpt"])
def test_the_model_reads_the_turns_in_their_order_and_learns_the_last(tiny, tmp_path, record):
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"id": "c", **record}, ensure_ascii=False), encoding="utf-8")
    source = {"train": {"file": path}}
    prompts = Task.parse({"name": "t", "source": source, "templates": "instructions"}, "test").prompts("train")
    encoder = load_encoder(find(str(tiny("chat"))))
    encoded = encoder.encode(prompts[1])
    assert encoder.tokenizer.decode(list(encoded.prompt), skip_special_tokens=False) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWie heißt du?<|im_end|>\n"
        "<|im_start|>assistant\n小明。<|im_end|>\n<|im_start|>user\nAnd your age?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert encoder.tokenizer.decode(list(encoded.answer), skip_special_tokens=False) == "Seven.<|im_end|>"


def many(make, n=80):
    return [{"id": f"r{i}", **make(i)} for i in range(n)]


@pytest.mark.parametrize(("suffix", "make"), [
    ("jsonl", lambda i: {**ALPACA, "input": str(i)}),
    ("json", lambda i: CHAT),
    ("parquet", lambda i: SHAREGPT),
    ("csv", lambda i: {"prompt": f"What is {i}?", "completion": "一個數"}),
    ("tsv", lambda i: {"instruction": f"What is {i}?", "answer": "數"}),
])  # fmt: skip
def test_a_data_file_stands_for_a_task(tmp_path, suffix, make):
    path = tmp_path / f"mine.{suffix}"
    records = many(make)
    if suffix == "parquet":
        Dataset.from_list(records).to_parquet(str(path))
    elif suffix in ("csv", "tsv"):
        mark = "," if suffix == "csv" else "\t"
        lines = [mark.join(records[0]), *(mark.join(map(str, record.values())) for record in records)]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_text("\n".join(map(json.dumps, records)) if suffix == "jsonl" else json.dumps(records))
    task = load_task(path.name, beside=tmp_path)
    assert (task.name, task.cluster, task.splits()) == ("mine", "instructions", ["train", "validation", "test"])
    ids = {split: {row.id.partition("/")[0] for row in task.rows(split)} for split in task.splits()}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values())) == 80
    assert len(ids["train"]) > 60
    assert all(prompt.answer for split in task.splits() for prompt in task.prompts(split))
    assert Task.parse(task.model_dump(), "again") == task


def test_a_task_file_of_natural_instructions_stands_for_a_task_with_all_its_references(tmp_path):
    path = tmp_path / "task1.json"
    made = [{"id": f"i{i}", "input": str(i), "output": [f"{i}", f"number {i}"]} for i in range(40)]
    path.write_text(json.dumps({**NATURAL, "Instances": made}))
    prompt = load_task(str(path)).prompts("train")[0]
    assert prompt.question == f"Answer the question.\n\n{prompt.answer}"
    assert prompt.references == (prompt.answer, f"number {prompt.answer}")


def test_a_small_file_has_the_splits_into_which_rows_fall(tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(json.dumps({**ALPACA, "id": name}) for name in "abc"))
    assert load_task(str(path)).splits() == ["train"]
    path.write_text(json.dumps({**ALPACA, "id": "r39"}))  # whose hash falls on 0.916, into validation
    with pytest.raises(DataError, match="holds 1 rows, too few"):
        load_task(str(path))


@pytest.mark.parametrize(("record", "why"), [
    ({"id": 1, "text": "x", "label": "y"}, "the columns id, text, label, which no known format has"),
    ({**ALPACA, "answer": "x"}, "the answer may be 'answer'"),
    ({"prompt": "x", "completion": "y", "label": False}, "'label' may mark bad completions"),
    ({"文字": "x", "two words": "y"}, "the columns 文字, two words"),
])  # fmt: skip
def test_other_columns_are_answered_with_a_task_file_to_write(tmp_path, record, why):
    path = tmp_path / "my file.jsonl"
    path.write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(DataError) as error:
        load_task(str(path))
    assert why in error.value.what
    said, *lines = error.value.fix.split("\n")
    assert "docs/tasks.md" in said
    made = Task.parse(yaml.safe_load("\n".join(lines)), "fix")
    assert (made.name, len(lines)) == ("my file", 3)
    assert made.templates[0].fields() <= set(record)


def test_a_data_file_that_is_not_there_is_said_so():
    with pytest.raises(ConfigError, match="none.parquet: no such file"):
        load_task("none.parquet")
