"""Rows: read from files and hub data sets, with stable ids, splits and a fingerprint.

Text formats are read by the standard library, because its errors have line
numbers and it guesses no types ("007" stays "007"); parquet and hub data sets
go through `datasets`.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tunesmith.config import Record
from tunesmith.data.formats import Format, instances, told, turned
from tunesmith.errors import DataError
from tunesmith.names import suggest

Reader = Callable[[Path], Iterator[Mapping[str, Any]]]
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")


class Source(Record):
    """Where the rows of one split come from: a local `file` or a `hub` data set.

    `id` names the field that identifies a row; without it the id is the row's
    field 'id' where there is one, and otherwise a hash of its content.
    `columns` names the columns of a csv or tsv file that has no header.
    `part: [0.0, 0.9]` keeps the rows whose hashed id falls into that share, so
    that one file can serve as several splits that never overlap. `part_by` names a field that is hashed in the id's
    place: rows that share its content, such as the questions about one passage, stay in one split; so does a
    conversation with all its turns, always.
    `format` names a well-known shape of the records (`data/formats.py`); "auto" tells it from their field names, and
    only where the wordings ask for an `instruction` or `answer` that the records lack; "rows" leaves them as they are.
    """

    file: Path | None = None
    hub: str | None = None
    name: str | None = None
    split: str | None = None
    revision: str | None = None
    id: str | None = None
    columns: tuple[str, ...] = ()
    format: Format = "auto"
    part: tuple[float, float] = Field(default=(0.0, 1.0))
    part_by: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        if (self.file is None) == (self.hub is None):
            raise ValueError("name either a 'file' or a 'hub' data set")
        if not 0.0 <= self.part[0] < self.part[1] <= 1.0:
            raise ValueError("'part' is a share such as [0.0, 0.9]")
        if self.columns and (self.file is None or self.file.suffix.lower() not in (".csv", ".tsv")):
            raise ValueError("'columns' are for a csv or tsv file without a header")
        return self

    @property
    def place(self) -> str:
        """Say where the rows are, for messages."""
        return str(self.file) if self.file else f"{self.hub} (split {self.split or 'train'})"


@dataclass(frozen=True)
class Row:
    """One example: a stable id and its named fields."""

    id: str
    fields: Mapping[str, Any]


def read_rows(source: Source, asked: Collection[str] | None = None) -> list[Row]:
    """Read every row of `source`; where its format is "auto", `asked` names the fields that are wanted of it.

    The k answers of a conversation give k rows, whose ids are the conversation's with "/1" to "/k", if k is not 1.
    Raises DataError naming the file and line of the first row that cannot be
    read, an empty source, or two rows that claim the same id.
    """
    low, high = source.part
    rows = [row for share, found in _grouped(source, asked) if low <= share < high for row in found]
    if not rows:
        raise DataError(f"{source.place}: no row falls into part {list(source.part)}", fix="widen 'part'")
    return rows


def shares(source: Source) -> list[float]:
    """Say where in [0, 1) each row or conversation of `source` falls, by which `part` takes it or not."""
    return [share for share, _ in _grouped(source, None)]


def read_lines(path: Path) -> list[str]:
    """Read a text file's lines, empty ones too. Raises DataError if it is missing, empty, or not UTF-8."""
    if not path.is_file():
        raise DataError(f"{path}: no such file", fix="check the path")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as wrong:
        raise _not_utf8(path, wrong) from None
    lines = lines[:-1] if not lines[-1] else lines
    if not lines:
        raise DataError(f"{path}: holds no lines", fix="check that the file is the one you meant")
    return [line.removesuffix("\r") for line in lines]


def first(rows: Sequence[Row], limit: int | None, seed: int) -> list[Row]:
    """Give the first `limit` rows of an order that depends only on (seed, id).

    A smaller limit is therefore always a subset of a larger one.
    """
    if limit is None or limit >= len(rows):
        return list(rows)
    return sorted(rows, key=lambda row: draw(seed, row.id))[:limit]


def draw(seed: int, name: str) -> str:
    """Give a uniformly distributed hex string that depends only on (seed, name)."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def fingerprint(rows: Iterable[Row]) -> str:
    """Give a SHA-256 over ids and contents that does not depend on the rows' order."""
    lines = sorted(f"{row.id} {_canonical(row.fields)}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _records(source: Source) -> Iterator[Mapping[str, Any]]:
    if source.file is None:
        return _hub_records(source)
    path = source.file
    if not path.is_file():
        raise DataError(f"{path}: no such file", fix="check the path; it is relative to the task file")
    table = partial(_csv, columns=source.columns or None)
    readers: dict[str, Reader] = {"jsonl": _jsonl, "json": _json, "csv": table, "tsv": table, "parquet": _parquet}
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in readers:
        raise DataError(f"{path}: format '{suffix}' is not known", fix=suggest(suffix, FORMATS))
    try:
        return iter(list(readers[suffix](path)))
    except UnicodeDecodeError as wrong:
        raise _not_utf8(path, wrong) from None


def _not_utf8(path: Path, wrong: UnicodeDecodeError) -> DataError:
    return DataError(f"{path}: is not UTF-8 text ({wrong.reason} at byte {wrong.start})", fix="save it as UTF-8")


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _object(line, f"{path} line {number}")


def _object(text: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as wrong:
        raise DataError(
            f"{where}: is not JSON: {wrong.msg} at column {wrong.colno}", fix="mend or remove that line"
        ) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: is {type(value).__name__}, not an object with fields", fix='write {"field": ...} per line'
        )
    return value


def _json(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as wrong:
        raise DataError(f"{path} line {wrong.lineno}: is not JSON: {wrong.msg}", fix="mend that line") from None
    rows = _only_list(value) if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: is not a list of objects", fix='write [{"field": ...}, ...]')
    yield from rows


def _only_list(value: dict[str, Any]) -> Any:
    """Unwrap {"examples": [...]}: files whose rows are the one list in an object, unless they need the rest of it."""
    if "Definition" in value:
        return [value]
    lists = [inner for inner in value.values() if isinstance(inner, list)]
    return lists[0] if len(lists) == 1 else [value]


def _csv(path: Path, columns: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # Tab-separated corpora (GLUE) hold lone quote characters as plain text.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, columns, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path} line {reader.line_num}: "
                        f"has not the {len(reader.fieldnames or [])} columns of the header",
                        fix="quote fields that contain the delimiter",
                    )
                yield row
        except csv.Error as wrong:
            raise DataError(f"{path} line {reader.line_num}: {wrong}", fix="mend that line") from None


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.lib
    from datasets import Dataset

    try:
        yield from Dataset.from_parquet(str(path), keep_in_memory=True)
    except (pyarrow.lib.ArrowException, OSError, RuntimeError) as wrong:
        raise DataError(f"{path}: cannot be read as parquet: {wrong}", fix="write the file again") from None


def _hub_records(source: Source) -> Iterator[Mapping[str, Any]]:
    from datasets import load_dataset

    split = source.split or "train"
    try:
        return iter(load_dataset(source.hub, source.name, split=split, revision=source.revision))
    except Exception as wrong:  # the hub raises a dozen unrelated kinds; each means "not available as named"
        raise DataError(
            f"hub data set '{source.hub}' cannot be loaded: {str(wrong).splitlines()[0]}",
            fix="check the id, the split and the network, or give a local 'file'",
        ) from wrong


def _grouped(source: Source, asked: Collection[str] | None) -> list[tuple[float, list[Row]]]:
    """Read every record of a source: where in [0, 1) it falls, and the rows that it gives."""
    records = list(_records(source))
    if not records:
        raise DataError(f"{source.place}: holds no rows", fix="check that the file is the one you meant")
    form = _format(records, source, asked)
    if form == "natural-instructions":
        records = instances(records, source.place)
    found = _identified(records, source)
    if form == "rows":
        return [(_share(_hashed(row, source)), [row]) for row in found]
    groups = [_expanded(row, form, f"{source.place} row {number}") for number, row in enumerate(found, 1)]
    _refuse_twice([row.id for rows in groups for row in rows], source, "id")
    named = [Row(row.id, {**row.fields, **rows[0].fields}) for row, rows in zip(found, groups, strict=True)]
    return [(_share(_hashed(row, source)), rows) for row, rows in zip(named, groups, strict=True)]


def _format(records: Sequence[Mapping[str, Any]], source: Source, asked: Collection[str] | None) -> Format:
    """Give the format to read records by: a file that has all that is asked of it is never turned unasked."""
    if source.format != "auto":
        return source.format
    wanted = {"instruction", "answer"}.intersection(asked if asked is not None else ("instruction", "answer"))
    return told(records) if wanted.difference(*records) else "rows"


def _expanded(row: Row, form: Format, where: str) -> list[Row]:
    made = turned(row.fields, form, where)
    if len(made) == 1:
        return [Row(row.id, made[0])]
    return [Row(f"{row.id}/{number}", fields) for number, fields in enumerate(made, 1)]


def _identified(records: Sequence[Mapping[str, Any]], source: Source) -> list[Row]:
    """Give each record its id; equal contents without an id field are numbered apart."""
    key = source.id or ("id" if all("id" in record for record in records) else None)
    if key is None:
        seen: Counter[str] = Counter()
        rows = []
        for record in records:
            content = hashlib.sha256(_canonical(record).encode()).hexdigest()[:12]
            seen[content] += 1
            rows.append(Row(content if seen[content] == 1 else f"{content}-{seen[content]}", record))
        return rows
    for number, record in enumerate(records, 1):
        if key not in record:
            raise DataError(f"{source.place} row {number}: has no field '{key}' for its id", fix=suggest(key, record))
    _refuse_twice([str(record[key]) for record in records], source, key)
    return [Row(str(record[key]), record) for record in records]


def _refuse_twice(names: Sequence[str], source: Source, key: str) -> None:
    ids = Counter(names)
    twice = next((name for name, count in ids.items() if count > 1), None)
    if twice is not None:
        raise DataError(
            f"{source.place}: id '{twice}' is used {ids[twice]} times", fix=f"make '{key}' unique, or drop it"
        )


def _canonical(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, default=str)


def _hashed(row: Row, source: Source) -> str:
    """Give what decides the part that a row falls into."""
    if source.part_by is None:
        return row.id
    if source.part_by not in row.fields:
        fix = suggest(source.part_by, row.fields)
        raise DataError(f"{source.place}: row {row.id} has no field '{source.part_by}' for its part", fix=fix)
    return str(row.fields[source.part_by])


def _share(name: str) -> float:
    """Map an id to [0, 1), uniformly and forever the same."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12
