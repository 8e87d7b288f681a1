"""Small files written as the benchmarks' authors write theirs."""

import csv
import json
from pathlib import Path

SUBJECTS = ("anatomy", "virology", "world_religions")
BBH = ("navigate", "object_counting", "logical_deduction_three_objects")
COLOURS = ("red", "green", "blue", "black")


def write_mmlu(folder: Path, sizes: tuple[int, ...] = (6, 4, 3), header: bool = False) -> None:
    for subject, size in zip(SUBJECTS, sizes, strict=True):
        for split, n in (("dev", 5), ("test", size)):
            path = folder / "mmlu" / split / f"{subject}_{split}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                out = csv.writer(file)
                if header:
                    out.writerow(["question", "choice0", "choice1", "choice2", "choice3", "answer"])
                for i in range(n):
                    answer = (i * 3) % 4
                    question = f'Which colour has box {i}, "{split}" of {subject}? '
                    out.writerow([question, *COLOURS, answer if header else "ABCD"[answer]])


def write_bbh(folder: Path, n: int = 3) -> None:
    (folder / "bbh").mkdir(parents=True, exist_ok=True)
    for task in BBH:
        rows = [{"input": f"{task}: {i} boxes are blue.", "target": ["Yes", "No", "(A)"][i % 3]} for i in range(n)]
        (folder / "bbh" / f"{task}.json").write_text(json.dumps({"canary": "none", "examples": rows}))


def write_lines(path: Path, lines: list[str]) -> None:
    if path.stem == "train":  # of the same form, but about other things
        for here, there in (("red", "tan"), ("box", "tub"), ("fell", "sank"), ("so ", "as ")):
            lines = [line.replace(here, there) for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def tsv(path: Path, *rows: tuple[object, ...]) -> None:
    write_lines(path, ["\t".join(map(str, row)) for row in rows])


def write_glue(folder: Path) -> None:
    """All nine tasks, a few rows each."""
    glue = folder / "glue"
    entails = ("entailment", "not_entailment")
    for split in ("train", "dev"):
        tsv(glue / f"CoLA/{split}.tsv", ("gj04", 1, "", "A red box."), ("gj04", 0, "*", "A box red has."))
        tsv(glue / f"SST-2/{split}.tsv", ("sentence", "label"), ("so blue ", 0), ("so green ", 1))
        tsv(
            glue / f"MRPC/{split}.tsv",
            ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
            (1, 10, 11, "The box is red.", 'Red is the "box.'),
            (0, 12, 13, "The box is red.", "A blue one."),
        )
        tsv(
            glue / f"QQP/{split}.tsv",
            ("id", "qid1", "qid2", "question1", "question2", "is_duplicate"),
            (1, 2, 3, "Is it red?", "Is it not blue?", 0),
            (4, 5, 6, "Is it red?", "Red, is it?", 1),
        )
        tsv(
            glue / f"STS-B/{split}.tsv",
            (
                "index",
                "genre",
                "filename",
                "year",
                "old_index",
                "source1",
                "source2",
                "sentence1",
                "sentence2",
                "score",
            ),
            (0, "g", "f", 2012, 1, "s", "t", "A box.", "One box.", 4.8),
        )
        tsv(
            glue / f"QNLI/{split}.tsv",
            ("index", "question", "sentence", "label"),
            (0, "Which?", "The red one.", entails[0]),
            (1, "Who?", "The red one.", entails[1]),
        )
        for task, labels in (("RTE", entails), ("WNLI", (1, 0))):
            rows = [(i, f"The box {i} is red.", "It is red.", label) for i, label in enumerate(labels)]
            tsv(glue / f"{task}/{split}.tsv", ("index", "sentence1", "sentence2", "label"), *rows)
    head = ("index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse")
    head = (*head, "sentence1_parse", "sentence2_parse", "sentence1", "sentence2", "label1", "gold_label")
    for name in ("train", "dev_matched", "dev_mismatched"):
        rows = [
            (i, 1, 1, "g", "", "", "", "", f"Box {i} is red.", "It is red.", label, label)
            for i, label in enumerate(("entailment", "neutral", "contradiction"))
        ]
        tsv(glue / f"MNLI/{name}.tsv", head, *rows)


def write_superglue(folder: Path) -> None:
    passage = "The red box fell .\n@highlight\nIt was red"
    rows = {
        "BoolQ": [{"question": "is it red", "passage": "It is red.", "idx": 0, "label": True}],
        "CB": [{"premise": "It is red.", "hypothesis": "red", "label": "neutral", "idx": 0}],
        "COPA": [
            {"premise": "It fell.", "choice1": "It broke.", "choice2": "It flew.", "question": "effect", "label": 0,
             "idx": 0}
        ],
        "MultiRC": [
            {"idx": 3, "version": 1.1, "passage": {"text": "It is red.", "questions": [
                {"question": "Which?", "idx": 7, "answers": [{"text": "red", "idx": 1, "label": 1},
                                                             {"text": "blue", "idx": 2, "label": 0}]}]}}
        ],
        "ReCoRD": [
            {"source": "s", "idx": 2,
             "passage": {"text": passage, "entities": [{"start": 4, "end": 6}, {"start": 8, "end": 10}]},
             "qas": [{"query": "@placeholder fell", "idx": 5, "answers": [{"start": 8, "end": 10, "text": "box"}]}]}
        ],
        "RTE": [{"premise": "It is red.", "hypothesis": "red", "label": "not_entailment", "idx": 0}],
        "WiC": [
            {"word": "box", "sentence1": "A box.", "sentence2": "To box.", "idx": 0, "label": False, "start1": 2,
             "start2": 3,
             "end1": 5, "end2": 6, "version": 1.1}
        ],
        "WSC": [
            {"target": {"span2_index": 3, "span1_index": 0, "span1_text": "the box.", "span2_text": "it"}, "idx": 0,
             "label": True, "text": "The box fell because it was red."}
        ],
    }  # fmt: skip
    for task, lines in rows.items():
        for split in ("train", "val"):
            write_lines(folder / "superglue" / task / f"{split}.jsonl", [json.dumps(line) for line in lines])
