import json

import pytest
from datasets import Dataset

from tests.conftest import SHARED, needs_shared
from tunesmith.config import Record
from tunesmith.data.rows import Row, Source, fingerprint, first, read_rows
from tunesmith.errors import ConfigError, DataError

ROWS = [{"id": f"r{i}", "text": f"line {i}", "label": i % 2} for i in range(40)]


def written(tmp_path, suffix, text):
    path = tmp_path / f"rows.{suffix}"
    path.write_text(text, encoding="utf-8")
    return Source(file=path)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    if suffix == "parquet":
        Dataset.from_list(ROWS).to_parquet(str(tmp_path / "rows.parquet"))
        source = Source(file=tmp_path / "rows.parquet")
    else:
        mark = "\t" if suffix == "tsv" else ","
        lines = [mark.join(["id", "text", "label"]), *(mark.join(map(str, row.values())) for row in ROWS)]
        texts = {"jsonl": "\n".join(map(json.dumps, ROWS)), "json": json.dumps(ROWS)}
        source = written(tmp_path, suffix, texts.get(suffix, "\n".join(lines)))
    rows = read_rows(source)
    assert [row.id for row in rows] == [f"r{i}" for i in range(40)]
    assert [str(row.fields["label"]) for row in rows[:3]] == ["0", "1", "0"]


def test_an_object_with_one_list_is_read_as_that_list(tmp_path):
    source = written(tmp_path, "json", json.dumps({"canary": "x", "examples": ROWS}))
    assert len(read_rows(source)) == 40


def test_a_malformed_json_line_is_named_by_its_number(tmp_path):
    with pytest.raises(DataError, match=r"rows.jsonl line 3: is not JSON"):
        read_rows(written(tmp_path, "jsonl", '{"a": 1}\n\n{"a": \n'))
    with pytest.raises(DataError, match="line 1: is list"):
        read_rows(written(tmp_path, "jsonl", "[1]\n"))
    with pytest.raises(DataError, match="rows.json line 2"):
        read_rows(written(tmp_path, "json", '[{"a": 1},\n {]'))
    with pytest.raises(DataError, match="not a list of objects"):
        read_rows(written(tmp_path, "json", "[1, 2]"))


def test_a_broken_table_row_is_named_by_its_line(tmp_path):
    with pytest.raises(DataError, match="line 3: has not the 2 columns"):
        read_rows(written(tmp_path, "csv", "a,b\n1,2\n1,2,3\n"))
    with pytest.raises(DataError, match="',' expected after"):
        read_rows(written(tmp_path, "csv", 'a,b\n"1"x,2\n'))
    assert read_rows(written(tmp_path, "tsv", 'a\tb\n"quoted\t2\n'))[0].fields["a"] == '"quoted'


def test_quoted_csv_fields_may_hold_newlines(tmp_path):
    rows = read_rows(written(tmp_path, "csv", 'text,n\n"two\nlines, one field",007\n'))
    assert dict(rows[0].fields) == {"text": "two\nlines, one field", "n": "007"}


@pytest.mark.parametrize(("name", "text", "said"), [
    ("rows.jsonl", "", "holds no rows"),
    ("rows.xlsx", "x", "format 'xlsx' is not known"),
    ("rows.parquet", "x", "cannot be read as parquet"),
])  # fmt: skip
def test_unreadable_files_say_so(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        read_rows(Source(file=tmp_path / name))


def test_a_missing_file_and_other_encodings_say_so(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_rows(Source(file=tmp_path / "none.jsonl"))
    (tmp_path / "latin.csv").write_bytes("a\nMünchen\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_rows(Source(file=tmp_path / "latin.csv"))


def test_ids_come_from_the_field_asked_for_or_from_the_content(tmp_path):
    text = '{"k": "x", "t": 1}\n{"k": "y", "t": 1}\n'
    source = written(tmp_path, "jsonl", text)
    assert [row.id for row in read_rows(source.model_copy(update={"id": "k"}))] == ["x", "y"]
    by_content = [row.id for row in read_rows(source)]
    turned = written(tmp_path, "jsonl", "\n".join(reversed(text.strip().split("\n"))))
    assert [row.id for row in read_rows(turned)] == by_content[::-1]


def test_equal_contents_get_different_ids_and_equal_ids_are_refused(tmp_path):
    rows = read_rows(written(tmp_path, "jsonl", '{"t": 1}\n{"t": 1}\n'))
    assert rows[1].id == f"{rows[0].id}-2"
    with pytest.raises(DataError, match="id 'a' is used 2 times"):
        read_rows(written(tmp_path, "jsonl", '{"id": "a"}\n{"id": "a"}\n'))
    with pytest.raises(DataError, match="row 1: has no field 'nr'"):
        read_rows(Source(file=tmp_path / "rows.jsonl", id="nr"))


def test_parts_of_one_file_never_overlap_and_leave_nothing_out(tmp_path):
    source = written(tmp_path, "jsonl", "\n".join(map(json.dumps, ROWS)))
    parts = [read_rows(source.model_copy(update={"part": part})) for part in [(0.0, 0.7), (0.7, 1.0)]]
    ids = [{row.id for row in part} for part in parts]
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 40
    with pytest.raises(DataError, match="no row falls into part"):
        read_rows(source.model_copy(update={"part": (0.0, 0.0001)}))


def test_rows_that_share_a_field_stay_in_one_part(tmp_path):
    written(tmp_path, "jsonl", "\n".join(json.dumps({"passage": f"p{i % 9}", "n": i}) for i in range(90)))
    source = Source(file=tmp_path / "rows.jsonl", part_by="passage")
    parts = [read_rows(source.model_copy(update={"part": part})) for part in [(0.0, 0.7), (0.7, 1.0)]]
    passages = [{row.fields["passage"] for row in part} for part in parts]
    assert not passages[0] & passages[1]
    assert sum(map(len, parts)) == 90
    with pytest.raises(DataError, match="has no field 'pasage' for its part"):
        read_rows(source.model_copy(update={"part": (0.0, 0.5), "part_by": "pasage"}))


@pytest.mark.parametrize("values", [{}, {"file": "a.jsonl", "hub": "b"}, {"file": "a.jsonl", "part": [0.5, 0.5]}])
def test_a_source_names_one_place_and_a_proper_share(values):
    with pytest.raises(ConfigError):
        Source.parse(values, "task.yaml")
    assert issubclass(Source, Record)


def test_a_smaller_limit_is_a_subset_of_a_larger_one():
    rows = [Row(f"r{i}", {}) for i in range(50)]
    ten, twenty = ({row.id for row in first(rows, n, seed=4)} for n in (10, 20))
    assert ten < twenty
    assert {row.id for row in first(rows, 10, seed=5)} != ten
    assert first(rows, None, 4) == rows


def test_the_fingerprint_sees_content_and_not_order():
    rows = [Row("a", {"x": 1}), Row("b", {"x": 2})]
    assert fingerprint(rows) == fingerprint(rows[::-1])
    assert fingerprint(rows) != fingerprint([Row("a", {"x": 1}), Row("b", {"x": 3})])


def test_a_hub_data_set_that_cannot_be_reached_says_so():
    with pytest.raises(DataError, match="hub data set 'nobody/nothing-here' cannot be loaded"):
        read_rows(Source(hub="nobody/nothing-here", split="train"))


def test_a_hub_data_set_is_read_through_datasets(tmp_path):
    """A local folder in the hub's layout goes through the same `load_dataset` call."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    rows = read_rows(Source(hub=str(tmp_path / "set"), split="test"))
    assert [row.id for row in rows][:2] == ["r0", "r1"]


@needs_shared("dialogsum")
def test_real_dialogues_are_read_by_their_own_ids():
    rows = read_rows(Source(file=SHARED / "dialogsum" / "test.jsonl", id="fname"))
    assert len(rows) == 500
    assert rows[0].id == "test_0"
