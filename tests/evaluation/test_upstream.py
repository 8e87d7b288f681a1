"""The authors' files are read into the columns of the hub's data sets, or refused by name."""

import json

import pytest

from tests.conftest import SHARED, needs_shared
from tests.evaluation.upstream_files import write_bbh, write_glue, write_lines, write_mmlu, write_superglue
from tunesmith.errors import DataError
from tunesmith.evaluation.upstream import GLUE, SUPERGLUE, Place, bbh, glue, mmlu, superglue


@pytest.mark.parametrize("header", [False, True])
def test_mmlu_with_letters_or_with_a_header_and_numbers_gives_the_same_rows(tmp_path, header):
    write_mmlu(tmp_path, header=header)
    rows = mmlu(Place(tmp_path, "anatomy"))
    assert (len(rows["dev"]), len(rows["test"])) == (5, 6)
    assert rows["test"][1] == {
        "question": 'Which colour has box 1, "test" of anatomy? ',
        "subject": "anatomy",
        "choices": ["red", "green", "blue", "black"],
        "answer": 3,
    }
    assert mmlu(Place(tmp_path, "anatomy", shots=False))["dev"] == []


@pytest.mark.parametrize("line", ["q,a,b,c,d", "q,a,b,c,d,E", "q,a,b,c,d,", "q,a,b,c,d,e,A"])
def test_a_wrong_line_of_mmlu_is_named(tmp_path, line):
    write_mmlu(tmp_path)
    write_lines(tmp_path / "mmlu/test/anatomy_test.csv", ["q,a,b,c,d,A", line])
    with pytest.raises(DataError, match=r"anatomy_test.csv line 2"):
        mmlu(Place(tmp_path, "anatomy"))


def test_bbh_gives_its_examples(tmp_path):
    write_bbh(tmp_path)
    rows = bbh(Place(tmp_path, "navigate"))["test"]
    assert rows[0] == {"input": "navigate: 0 boxes are blue.", "target": "Yes"}
    (tmp_path / "bbh/navigate.json").write_text(json.dumps({"canary": "none"}))
    with pytest.raises(DataError, match="no list of examples"):
        bbh(Place(tmp_path, "navigate"))


def test_all_nine_tasks_of_glue_have_the_hubs_columns_and_numbers(tmp_path):
    write_glue(tmp_path)
    rows = {name: glue(Place(tmp_path, name)) for name in GLUE}
    assert len(rows) == 9
    first = {name: found.get("validation", found.get("validation_matched"))[0] for name, found in rows.items()}
    assert first["cola"] == {"sentence": "A red box.", "label": 1, "idx": 0}
    assert first["sst2"] == {"sentence": "so blue ", "label": 0, "idx": 0}
    assert first["mrpc"]["sentence2"] == 'Red is the "box.'
    assert first["qqp"] == {"question1": "Is it red?", "question2": "Is it not blue?", "label": 0, "idx": 0}
    assert first["stsb"] == {"sentence1": "A box.", "sentence2": "One box.", "label": 4.8, "idx": 0}
    assert first["qnli"] == {"question": "Which?", "sentence": "The red one.", "label": 0, "idx": 0}
    assert [row["label"] for row in rows["rte"]["validation"]] == [0, 1]
    assert [row["label"] for row in rows["wnli"]["validation"]] == [1, 0]
    assert [row["label"] for row in rows["mnli"]["validation_mismatched"]] == [0, 1, 2]
    assert first["mnli"]["premise"] == "Box 0 is red."
    assert all(found["train"] for found in rows.values())


def test_all_eight_tasks_of_superglue_have_the_hubs_columns_and_numbers(tmp_path):
    write_superglue(tmp_path)
    rows = {name: superglue(Place(tmp_path, name))["validation"] for name in SUPERGLUE}
    assert len(rows) == 8
    assert rows["boolq"] == [{"question": "is it red", "passage": "It is red.", "idx": 0, "label": 1}]
    assert [rows[name][0]["label"] for name in ("cb", "copa", "rte", "wic")] == [2, 0, 1, 0]
    assert [row["label"] for row in rows["multirc"]] == [1, 0]
    assert rows["multirc"][1]["idx"] == {"paragraph": 3, "question": 7, "answer": 2}
    assert rows["record"][0]["entities"] == ["box", "red"]
    assert rows["record"][0]["answers"] == ["box"]
    assert rows["wsc.fixed"][0]["span1_text"] == "The box"


def test_an_absent_file_is_named_with_those_that_are_there(tmp_path):
    write_glue(tmp_path)
    (tmp_path / "glue/RTE/dev.tsv").unlink()
    with pytest.raises(DataError, match=r"RTE/dev.tsv: no such file") as wrong:
        glue(Place(tmp_path, "rte"))
    assert "train.tsv" in wrong.value.fix


def test_a_row_of_another_width_or_label_is_named(tmp_path):
    write_glue(tmp_path)
    path = tmp_path / "glue/RTE/dev.tsv"
    write_lines(path, ["index\tsentence1\tsentence2\tlabel", "0\tone\ttwo"])
    with pytest.raises(DataError, match=r"dev.tsv line 2: has 3 columns, not 4"):
        glue(Place(tmp_path, "rte"))
    write_lines(path, ["index\tsentence1\tsentence2\tlabel", "0\tone\ttwo\tmaybe"])
    with pytest.raises(DataError, match="no known label"):
        glue(Place(tmp_path, "rte"))


@needs_shared("mmlu")
def test_the_real_files_have_the_published_sizes():
    subjects = sorted(path.name.removesuffix("_test.csv") for path in (SHARED / "mmlu/test").iterdir())
    assert len(subjects) == 57
    assert sum(len(mmlu(Place(SHARED, subject, False))["test"]) for subject in subjects) == 14_042
    tasks = [path.stem for path in (SHARED / "bbh").glob("*.json")]
    assert sum(len(bbh(Place(SHARED, task))["test"]) for task in tasks) == 6_511
    sizes = {
        name: [len(glue(Place(SHARED, name))[split]) for split in ("train", "validation")]
        for name in ("cola", "rte", "wnli")
    }
    assert sizes == {"cola": [8_551, 1_043], "rte": [2_490, 277], "wnli": [635, 71]}
