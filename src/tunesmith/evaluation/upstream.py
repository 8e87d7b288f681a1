"""Benchmark files as their authors publish them, read into the columns of the hub's data sets.

lm-eval's tasks are written for those columns; with them its own prompts, shots
and marking run on files, and no network is touched.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.data.rows import read_lines
from tunesmith.errors import DataError

Fields = dict[str, Any]
Splits = dict[str, list[Fields]]
ENTAILS = {"entailment": 0, "not_entailment": 1}


class Place(NamedTuple):
    """One data set of the hub, and the folder of upstream files that stands for it."""

    folder: Path
    name: str
    shots: bool = True

    def file(self, *parts: str) -> Path:
        """Give the path of a file below the folder. Raises DataError naming what is there instead."""
        path = self.folder.joinpath(*parts)
        if not path.is_file():
            upper = next(parent for parent in path.parents if parent.exists())
            found = ", ".join(sorted(entry.name for entry in upper.iterdir())[:12]) if upper.is_dir() else ""
            raise DataError(f"{path}: no such file", fix=f"put it there; {upper} holds: {found or 'nothing'}")
        return path


def mmlu(place: Place) -> Splits:
    """Read {dev,test}/SUBJECT_{dev,test}.csv: question, four choices, the answer as a letter or a number from 0.

    The authors' files have no header, copies made of the hub's data have one; both are read.
    """
    subject = place.name
    splits = ("dev", "test") if place.shots else ("test",)
    found = {split: _mmlu_file(place.file("mmlu", split, f"{subject}_{split}.csv"), subject) for split in splits}
    return {"dev": [], **found}


def bbh(place: Place) -> Splits:
    """Read TASK.json: {"examples": [{"input", "target"}]}."""
    path = place.file("bbh", f"{place.name}.json")
    rows = _json(path.read_text(encoding="utf-8"), str(path)).get("examples")
    if not rows or any(set(row) != {"input", "target"} for row in rows):
        raise DataError(f"{path}: is no list of examples with input and target", fix="take the authors' file")
    return {"test": rows}


def glue(place: Place) -> Splits:
    """Read TASK/{train,dev}.tsv; the training rows only where shots are taken from them."""
    if place.name not in GLUE:
        raise DataError(f"glue '{place.name}': no such task among the files of GLUE", fix=f"use {', '.join(GLUE)}")
    folder, row, header = GLUE[place.name]
    names = GLUE_SPLITS.get(place.name, {"validation": "dev"})
    wanted = {**names, "train": "train"} if place.shots else names
    found: Splits = {"train": []}
    for split, name in wanted.items():
        lines = _tsv(place.file("glue", folder, f"{name}.tsv"), header)
        found[split] = [{**row(fields), "idx": i} for i, fields in enumerate(lines)]
    return found


def superglue(place: Place) -> Splits:
    """Read TASK/{train,val}.jsonl; the training rows only where shots are taken from them."""
    if place.name not in SUPERGLUE:
        known = ", ".join(SUPERGLUE)
        raise DataError(f"superglue '{place.name}': no such task among the files of SuperGLUE", fix=f"use {known}")
    folder, rows = SUPERGLUE[place.name]
    wanted = {"validation": "val", **({"train": "train"} if place.shots else {})}
    found = {
        split: [made for fields in _jsonl(place.file("superglue", folder, f"{name}.jsonl")) for made in rows(fields)]
        for split, name in wanted.items()
    }
    return {"train": [], **found}


READERS: dict[str, Callable[[Place], Splits]] = {
    "cais/mmlu": mmlu,
    "SaylorTwift/bbh": bbh,
    "nyu-mll/glue": glue,
    "aps/super_glue": superglue,
}


def _mmlu_file(path: Path, subject: str) -> list[Fields]:
    rows: list[Fields] = []
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        for cells in reader:
            if not rows and cells and cells[-1].strip().lower() == "answer":
                continue
            answer = cells[-1].strip() if len(cells) == 6 else ""
            if answer not in {*"ABCD", *"0123"} or not answer:
                raise DataError(
                    f"{path} line {reader.line_num}: is not question, four choices, answer",
                    fix="take the authors' file",
                )
            right = int(answer) if answer.isdigit() else "ABCD".index(answer)
            rows.append({"question": cells[0], "subject": subject, "choices": cells[1:5], "answer": right})
    return rows


def _tsv(path: Path, header: Sequence[str] | None) -> Iterator[Mapping[str, str]]:
    """Read tab-separated rows; a `header` is given for a file that has none. Quote characters are plain text."""
    lines = [line.split("\t") for line in read_lines(path)]
    names, first = (list(header), 1) if header else (lines[0], 2)
    for number, cells in enumerate(lines[first - 1 :], first):
        if len(cells) != len(names):
            raise DataError(f"{path} line {number}: has {len(cells)} columns, not {len(names)}", fix="mend that line")
        yield dict(zip(names, cells, strict=True))


def _jsonl(path: Path) -> Iterator[Fields]:
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            yield _json(line, f"{path} line {number}")


def _json(text: str, where: str) -> Fields:
    try:
        return dict(json.loads(text))
    except (json.JSONDecodeError, TypeError, ValueError) as wrong:
        raise DataError(f"{where}: is not a JSON object: {wrong}", fix="mend it, or take the authors' file") from None


def _copied(*names: str, label: str = "label", labels: Mapping[str, int] | None = None) -> Callable[..., Fields]:
    """Make a row of columns taken over by their names, and a label: a number, or one of `labels`."""

    def row(fields: Mapping[str, str]) -> Fields:
        told = fields.get(label, "")
        if any(name not in fields for name in names) or (told not in labels if labels else not told.isdigit()):
            raise DataError(
                f"a row has not the columns {', '.join(names)} and {label}, or no known label: {dict(fields)}",
                fix="take the authors' file",
            )
        return {**{name: fields[name] for name in names}, "label": labels[told] if labels else int(told)}

    return row


def _renamed(row: Callable[..., Fields], **names: str) -> Callable[..., Fields]:
    return lambda fields: {names.get(name, name): value for name, value in row(fields).items()}


def _similarity(fields: Mapping[str, str]) -> Fields:
    return {**{name: fields[name] for name in ("sentence1", "sentence2")}, "label": float(fields["score"])}


_NLI = _copied("sentence1", "sentence2", label="gold_label", labels={"entailment": 0, "neutral": 1, "contradiction": 2})
GLUE: dict[str, tuple[str, Callable[..., Fields], Sequence[str] | None]] = {
    "cola": ("CoLA", _copied("sentence"), ("source", "label", "star", "sentence")),
    "sst2": ("SST-2", _copied("sentence"), None),
    "mrpc": ("MRPC", _renamed(_copied("#1 String", "#2 String", label="Quality"),
                              **{"#1 String": "sentence1", "#2 String": "sentence2"}), None),
    "qqp": ("QQP", _copied("question1", "question2", label="is_duplicate"), None),
    "stsb": ("STS-B", _similarity, None),
    "mnli": ("MNLI", _renamed(_NLI, sentence1="premise", sentence2="hypothesis"), None),
    "qnli": ("QNLI", _copied("question", "sentence", labels=ENTAILS), None),
    "rte": ("RTE", _copied("sentence1", "sentence2", labels=ENTAILS), None),
    "wnli": ("WNLI", _copied("sentence1", "sentence2"), None),
}  # fmt: skip
GLUE_SPLITS = {"mnli": {"validation_matched": "dev_matched", "validation_mismatched": "dev_mismatched"}}


def _same(labels: Mapping[Any, int], *names: str) -> Callable[[Fields], list[Fields]]:
    """Make the one row of a line: some columns as they are, and the label as a number."""
    return lambda line: [{**{name: line[name] for name in names}, "label": labels[line["label"]]}]


def _multirc(line: Fields) -> list[Fields]:
    """Give one row for each answer of each question of a paragraph."""
    return [
        {"paragraph": line["passage"]["text"], "question": asked["question"], "answer": answer["text"],
         "idx": {"paragraph": line["idx"], "question": asked["idx"], "answer": answer["idx"]},
         "label": int(answer["label"])}
        for asked in line["passage"]["questions"]
        for answer in asked["answers"]
    ]  # fmt: skip


def _record(line: Fields) -> list[Fields]:
    """Give one row for each query; spans count their last letter, too."""
    text = line["passage"]["text"]
    entities = sorted({text[span["start"] : span["end"] + 1] for span in line["passage"]["entities"]})
    return [
        {"passage": text, "query": asked["query"], "entities": entities,
         "answers": sorted({answer["text"] for answer in asked["answers"]}),
         "idx": {"passage": line["idx"], "query": asked["idx"]}}
        for asked in line["qas"]
    ]  # fmt: skip


def _wsc(line: Fields) -> list[Fields]:
    spans = {key: line["target"][key] for key in ("span1_index", "span1_text", "span2_index", "span2_text")}
    for key in ("span1", "span2"):
        spans[f"{key}_text"] = _span(line["text"], spans[f"{key}_text"], spans[f"{key}_index"])
    return [{"text": line["text"], **spans, "idx": line["idx"], "label": int(line["label"])}]


def _span(text: str, span: str, index: int) -> str:
    """Write a span as its passage does (the hub's "wsc.fixed"): some differ in a letter's case or a stop."""
    if span in text:
        return span
    first = text.split()[index][:1]
    mended = (span[:1].lower() if first.islower() else span[:1].upper()) + span[1:].rstrip(".").replace("\n", " ")
    return mended if mended in text else span


_TRUTH = {False: 0, True: 1}
SUPERGLUE: dict[str, tuple[str, Callable[[Fields], list[Fields]]]] = {
    "boolq": ("BoolQ", _same(_TRUTH, "question", "passage", "idx")),
    "cb": ("CB", _same({"entailment": 0, "contradiction": 1, "neutral": 2}, "premise", "hypothesis", "idx")),
    "copa": ("COPA", _same({0: 0, 1: 1}, "premise", "choice1", "choice2", "question", "idx")),
    "multirc": ("MultiRC", _multirc),
    "record": ("ReCoRD", _record),
    "rte": ("RTE", _same(ENTAILS, "premise", "hypothesis", "idx")),
    "wic": ("WiC", _same(_TRUTH, "word", "sentence1", "sentence2", "start1", "end1", "start2", "end2", "idx")),
    "wsc.fixed": ("WSC", _wsc),
}
