import json

import pytest

from tunesmith.errors import DataError
from tunesmith.evaluation.score_files import read_pairs, score_pairs


def write(path, *rows):
    text = "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_text_files_are_paired_line_by_line_and_empty_lines_count(tmp_path):
    said = write(tmp_path / "said.txt", "a cat", "", "b")
    first, second = write(tmp_path / "first.ref", "a cat", "x", "y"), write(tmp_path / "second.ref", "cat", "", "z")
    pairs = read_pairs(said, [first, second])
    assert pairs.predictions == ["a cat", "", "b"]
    assert pairs.references == [("a cat", "cat"), ("x", ""), ("y", "z")]


def test_rows_with_ids_are_paired_by_id(tmp_path):
    said = write(tmp_path / "said.jsonl", {"id": 2, "prediction": "b"}, {"id": 1, "prediction": "a"})
    wanted = write(tmp_path / "wanted.jsonl", {"id": 1, "references": ["A", "AA"]}, {"id": 2, "references": ["B"]})
    assert read_pairs(said, [wanted]).references == [("B",), ("A", "AA")]


def test_a_runs_answers_hold_their_own_references(tmp_path):
    answers = write(tmp_path / "answers.jsonl", {"id": "1", "answer": "a", "references": ["a"]})
    assert read_pairs(answers).references == [("a",)]


def test_fields_can_be_named(tmp_path):
    file = write(tmp_path / "both.csv", "said,gold", "a,b")
    assert read_pairs(file, [file], "said", "gold").references == [("b",)]


@pytest.mark.parametrize(("said", "wanted", "message"), [
    (["a", "b"], ["a"], "2 predictions in .* 1 references in"),
    (['{"id": 1, "prediction": "a"}'], ['{"id": 2, "reference": "a"}'], "no row with the id '1'"),
    (['{"id": 1, "prediction": "a"}'], ['{"id": 1, "reference": "a"}', '{"id": 2, "reference": "a"}'], "id '2'"),
    (['{"prediction": NaN}'], ['{"reference": "a"}'], "is nan, no text"),
    (['{"prediction": ["a"]}'], ['{"reference": "a"}'], "no text"),
    (['{"prediction": "a"}'], ['{"reference": ["a", null]}'], "is None, no text"),
    (['{"guess": "a"}'], ['{"reference": "a"}'], "none of the fields prediction, answer"),
    (['{"prediction": null}'], ['{"reference": "a"}'], "has no field 'prediction'"),
])  # fmt: skip
def test_what_cannot_be_paired_is_refused(tmp_path, said, wanted, message):
    end = "jsonl" if said[0].startswith("{") else "txt"
    with pytest.raises(DataError, match=message):
        read_pairs(write(tmp_path / f"said.{end}", *said), [write(tmp_path / f"wanted.{end}", *wanted)])


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    good = write(tmp_path / "good.txt", "a")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    for name, message in (("lost.txt", "no such file"), ("empty.txt", "holds no lines"), ("latin.txt", "not UTF-8")):
        with pytest.raises(DataError, match=message):
            read_pairs(tmp_path / name, [good])


def test_other_predictions_are_compared_in_the_table_and_the_json(tmp_path):
    wanted = write(tmp_path / "wanted.txt", *["a b c d"] * 6)
    one, other = (read_pairs(write(tmp_path / f"{text[0]}.txt", *[text] * 6), [wanted]) for text in ("a x", "b c d"))
    scored = score_pairs(one, ["rouge1", "ter"], against=other)
    told = json.loads(scored.json())
    assert [found["metric"] for found in told["differences"]] == ["rouge1", "ter"]
    assert told["differences"][0]["difference"] > 0 > told["differences"][1]["difference"]
    assert told["differences"][0]["p_holm"] == 2 * told["differences"][0]["p"]
    first, second, count, note = scored.table().split("\n")
    assert "Holm" in note
    assert first.startswith("rouge1  0.3333  [0.3333, 0.3333]  against 0.8571  +0.5238")
    assert second.startswith("ter     ")
    assert count == "6 answers; in brackets the 95 % interval"


def test_predictions_for_other_rows_are_not_compared(tmp_path):
    one = read_pairs(write(tmp_path / "a.txt", "a"), [write(tmp_path / "x.txt", "x")])
    other = read_pairs(tmp_path / "a.txt", [write(tmp_path / "y.txt", "y")])
    with pytest.raises(DataError, match="different references"):
        score_pairs(one, ["rouge1"], against=other)


def test_it_is_said_that_lines_cannot_show_the_union_over_lines(tmp_path):
    said = write(tmp_path / "said.txt", "a b")
    assert "rougeLsum equals rougeL" in score_pairs(read_pairs(said, [said]), ["rougeLsum"]).table()
    rows = write(tmp_path / "said.jsonl", {"prediction": "a\nb", "references": ["a\nb"]})
    assert "equals" not in score_pairs(read_pairs(rows), ["rougeLsum"]).table()


def test_other_predictions_are_brought_into_the_same_order(tmp_path):
    wanted = write(tmp_path / "wanted.jsonl", *({"id": i, "reference": "yes" if i < 3 else "no"} for i in range(6)))
    rows = [{"id": i, "prediction": "yes" if i % 2 else "no"} for i in range(6)]
    one = read_pairs(write(tmp_path / "one.jsonl", *rows), [wanted])
    other = read_pairs(write(tmp_path / "other.jsonl", *reversed(rows)), [wanted])
    (found,) = score_pairs(one, ["accuracy"], against=other).differences
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    less = read_pairs(
        write(tmp_path / "less.jsonl", *rows[:2]),
        [write(tmp_path / "w.jsonl", *[{"id": i, "reference": "yes"} for i in range(2)])],
    )
    with pytest.raises(DataError, match="different ids"):
        score_pairs(one, ["accuracy"], against=less)
