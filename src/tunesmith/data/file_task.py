"""A data file that stands for a task: its splits are parts of itself, its wordings the family `instructions`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.data.formats import told
from tunesmith.data.rows import Source, read_rows, shares
from tunesmith.errors import DataError

PARTS = {"train": (0.0, 0.9), "validation": (0.9, 0.95), "test": (0.95, 1.0)}
PLAIN = {"instruction", "answer"}


def file_task(path: Path) -> dict[str, Any]:
    """Give the values of the task that a data file stands for.

    Nine tenths of its rows are for training, the rest in halves for validation and test; a part into which no row
    falls is no split. An instruction's answer has no right length: it may grow to 256 tokens.
    Raises DataError if the file is of no known format, or could be read in two ways.
    """
    records = [row.fields for row in read_rows(Source(file=path, format="rows"))]
    columns = list(dict.fromkeys(name for record in records for name in record))
    form = told(records)
    if form == "rows" and not set(columns) >= PLAIN:
        raise _unclear(path, columns, "which no known format has")
    if form != "rows" and "answer" in columns and (form == "alpaca" or "instruction" in columns):
        raise _unclear(path, columns, "where the answer may be 'answer' or the format's own")
    if "completion" in columns and any(isinstance(record.get("label"), bool) for record in records):
        raise _unclear(path, columns, "where 'label' may mark bad completions, and all would be learned")
    source = Source(file=path.resolve(), format=form)
    return {
        "name": path.stem,
        "cluster": "instructions",
        "source": {split: source.model_copy(update={"part": part}) for split, part in _filled(source).items()},
        "references": ["answers"] if form == "natural-instructions" else [],
        "metrics": ["rouge1", "rougeL"],
        "generation": {"max_new_tokens": 256},
        "templates": "instructions",
    }


def _filled(source: Source) -> Mapping[str, tuple[float, float]]:
    """Give the parts into which rows fall. Raises DataError if none is left to train on."""
    places = shares(source)
    filled = {name: part for name, part in PARTS.items() if any(part[0] <= place < part[1] for place in places)}
    if "train" not in filled:
        raise DataError(
            f"{source.place}: holds {len(places)} rows, too few to be cut into training and test",
            fix="add rows, or write a task file that names a file for each split (docs/tasks.md)",
        )
    return filled


def _unclear(path: Path, columns: Sequence[str], why: str) -> DataError:
    """Say that the columns of a file make no task by themselves, and which lines do."""
    usable = [name for name in columns if name.isidentifier() and name != "id"] or ["field"]
    file, question, answer = (json.dumps(text, ensure_ascii=False) for text in (
        path.name, f"{{{{ {usable[0]} }}}}", f"{{{{ {usable[-1]} }}}}"))  # fmt: skip
    lines = (
        "write these lines into a task file beside it, with your own wording (docs/tasks.md):",
        f"name: {json.dumps(path.stem, ensure_ascii=False)}",
        f"source: {{train: {{file: {file}, part: [0, 0.9]}}, test: {{file: {file}, part: [0.9, 1]}}}}",
        f"templates: [{{name: plain, prompt: {question}, answer: {answer}}}]",
    )
    return DataError(f"{path}: has the columns {', '.join(columns)}, {why}", fix="\n    ".join(lines))
