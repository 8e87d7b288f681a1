"""The command `score`: predictions and references read from files of any usual kind, and paired up."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.rows import FORMATS, Row, Source, read_lines, read_rows
from tunesmith.errors import DataError
from tunesmith.metrics.interval import Paired, holm
from tunesmith.metrics.score import Mark, compare, score
from tunesmith.names import suggest

PREDICTIONS = ("prediction", "answer", "output", "hypothesis", "text")
REFERENCES = ("references", "reference", "target", "answer", "summary", "output", "text")


@dataclass(frozen=True)
class Pairs:
    """Predictions and the references of each, in the order of the predictions; `ids` where the rows have their own."""

    predictions: list[str]
    references: list[tuple[str, ...]]
    ids: tuple[str, ...] = ()

    def ordered_as(self, other: "Pairs") -> "Pairs":
        """Give the same pairs in the order of `other`, by id. Raises DataError if they are of other rows."""
        if not (self.ids and other.ids):
            return self
        if set(self.ids) != set(other.ids):
            raise DataError("the two files of predictions have different ids", fix="compare answers to the same rows")
        places = {name: i for i, name in enumerate(self.ids)}
        order = [places[name] for name in other.ids]
        return Pairs([self.predictions[i] for i in order], [self.references[i] for i in order], other.ids)


@dataclass(frozen=True)
class Scored:
    """Marks of some predictions and, where others were given, how these differ from them: others minus predictions."""

    marks: list[Mark]
    others: list[Mark]
    differences: list[Paired]
    one_line: bool = False

    def _adjusted(self) -> list[float]:
        return holm([found.p for found in self.differences])

    def json(self) -> str:
        """Write everything as one JSON object."""
        told: dict[str, object] = {"scores": [mark._asdict() for mark in self.marks]}
        if self.others:
            told["against"] = [mark._asdict() for mark in self.others]
            told["differences"] = [
                {"metric": mark.metric, **found._asdict(), "p_holm": adjusted}
                for mark, found, adjusted in zip(self.marks, self.differences, self._adjusted(), strict=True)
            ]
        return json.dumps(told, ensure_ascii=False, indent=1)

    def table(self) -> str:
        """Write the scores for people."""
        wide = max(len(mark.metric) for mark in self.marks)
        lines = [f"{mark.metric:<{wide}}  {mark.value:.4f}  [{mark.low:.4f}, {mark.high:.4f}]" for mark in self.marks]
        for i, (mark, found, p) in enumerate(zip(self.others, self.differences, self._adjusted(), strict=True)):
            lines[i] += f"  against {mark.value:.4f}  {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
            lines[i] += f"  p={p:.4f}"
        lines.append(f"{self.marks[0].n} answers; in brackets the 95 % interval")
        if len(self.differences) > 1:
            lines.append("p is corrected for the number of metrics (Holm)")
        if self.one_line and any(mark.metric.startswith("rougeLsum") for mark in self.marks):
            lines.append("no text has more than one line, so rougeLsum equals rougeL; files of lines cannot show it")
        if self.marks[0].empty:
            lines.append(f"{self.marks[0].empty} of them are empty; they count, and score what an empty answer scores")
        return "\n".join(lines)


def score_pairs(pairs: Pairs, metrics: Sequence[str], language: str = "en", against: Pairs | None = None) -> Scored:
    """Score predictions by each of `metrics`, and compare others with them if they are given.

    Raises ConfigError for an unknown metric, DataError if the others answer other rows.
    """
    one_line = not any("\n" in text for texts in (pairs.predictions, *pairs.references) for text in texts)
    if against is None:
        return Scored(score(pairs.predictions, pairs.references, metrics, language), [], [], one_line)
    against = against.ordered_as(pairs)
    if against.references != pairs.references:
        raise DataError(
            "the two files of predictions have different references", fix="compare answers to the same rows"
        )
    found = compare(pairs.predictions, against.predictions, pairs.references, metrics, language)
    marks, others, differences = (list(column) for column in zip(*found, strict=True))
    return Scored(marks, others, differences, one_line)


def read_pairs(
    predictions: Path, references: Sequence[Path] = (), field: str | None = None, reference_field: str | None = None
) -> Pairs:
    """Read predictions and their references.

    A jsonl, json, csv, tsv or parquet file gives a field of each row; any other
    file gives its lines. Several reference files give several references per
    row; none means that the predictions' own rows hold them, as in a run's answers.
    Rows that have ids on both sides are paired by id, others by position.
    Raises DataError if a side is missing, a field unknown, or the numbers differ.
    """
    said = _read(predictions)
    ids = tuple(row.id for row in said) if all("id" in row.fields for row in said) else ()
    asked = field or _field(said, PREDICTIONS, predictions)
    if not references:
        named = reference_field or _field(said, REFERENCES[:3], predictions)
        return Pairs(_texts(said, asked, predictions), [_several(row, named, predictions) for row in said], ids)
    columns = [_column(said, predictions, path, reference_field) for path in references]
    return Pairs(_texts(said, asked, predictions), [sum(row, ()) for row in zip(*columns, strict=True)], ids)


def _read(path: Path) -> list[Row]:
    if path.suffix.removeprefix(".").lower() in FORMATS:
        return read_rows(Source(file=path, format="rows"))
    return [Row(str(number), {"text": line}) for number, line in enumerate(read_lines(path), 1)]


def _column(said: Sequence[Row], predictions: Path, path: Path, field: str | None) -> list[tuple[str, ...]]:
    """Give the references that one file has for each prediction."""
    rows = _read(path)
    named = field or _field(rows, REFERENCES, path)
    if all("id" in row.fields for row in (*said, *rows)):
        by_id, answered = {row.id: row for row in rows}, {row.id for row in said}
        for lost, here, there in (
            (answered - set(by_id), path, predictions),
            (set(by_id) - answered, predictions, path),
        ):
            if lost:
                raise DataError(
                    f"{here}: has no row with the id '{min(lost)}' of {there} (nor {len(lost) - 1} more)",
                    fix="give one prediction for each reference, and one reference for each prediction",
                )
        rows = [by_id[row.id] for row in said]
    if len(rows) != len(said):
        raise DataError(
            f"{len(said)} predictions in {predictions}, {len(rows)} references in {path}",
            fix="give one reference per prediction; empty lines count",
        )
    return [_several(row, named, path) for row in rows]


def _field(rows: Sequence[Row], names: Sequence[str], path: Path) -> str:
    fields = rows[0].fields
    found = next((name for name in names if name in fields), None)
    if found is None:
        raise DataError(
            f"{path}: none of the fields {', '.join(names)}",
            fix=f"name one with --field or --reference-field: {', '.join(fields)}",
        )
    return found


def _texts(rows: Sequence[Row], field: str, path: Path) -> list[str]:
    return [_text(_value(row, field, path), row, field, path) for row in rows]


def _several(row: Row, field: str, path: Path) -> tuple[str, ...]:
    value = _value(row, field, path)
    many = value if isinstance(value, list | tuple) else [value]
    return tuple(_text(one, row, field, path) for one in many)


def _text(value: Any, row: Row, field: str, path: Path) -> str:
    """Take a text, or a number as a label or rating; nothing else has one way to be written."""
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise DataError(f"{path} row {row.id}: '{field}' is {value!r}, no text", fix="give a text, or a list of references")


def _value(row: Row, field: str, path: Path) -> Any:
    if row.fields.get(field) is None:
        raise DataError(f"{path} row {row.id}: has no field '{field}'", fix=suggest(field, row.fields))
    return row.fields[field]
