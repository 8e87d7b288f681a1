"""Templates: wordings of a question and its answer, in sandboxed Jinja.

`Template.render(row)` gives a `Prompt`: the text of one question, before any
tokenizer or chat template has seen it.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import jinja2
import jinja2.exceptions
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import field_validator

from tunesmith.config import Record
from tunesmith.data.rows import Row
from tunesmith.errors import DataError
from tunesmith.names import nearest

T = TypeVar("T")

_EXPRESSION = re.compile(r"\s*\{\{(?P<inside>.*)\}\}\s*", re.DOTALL)
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)


@dataclass(frozen=True)
class Shot:
    """One worked example shown before the question."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """One question as text, with its answer and the references it is marked against."""

    id: str
    question: str
    answer: str
    references: tuple[str, ...]
    template: str
    choices: tuple[str, ...] = ()
    shots: tuple[Shot, ...] = field(default=())

    def with_shots(self, shots: Sequence[Shot]) -> "Prompt":
        """Give the same question with `shots` shown before it."""
        return replace(self, shots=tuple(shots))


class Template(Record):
    """One wording: `prompt` and `answer` are Jinja texts over a row's fields.

    `choices` are the answers that are possible: a list for all rows, or a Jinja
    expression such as "{{ options }}" that gives each row its own.
    """

    name: str
    prompt: str
    answer: str
    choices: tuple[str, ...] | str = ()
    language: str = "en"

    @field_validator("prompt", "answer")
    @classmethod
    def _compiles(cls, text: str) -> str:
        try:
            _JINJA.parse(text)
        except jinja2.TemplateSyntaxError as wrong:
            raise ValueError(f"is not Jinja: {wrong.message} (line {wrong.lineno})") from None
        return text

    @field_validator("choices")
    @classmethod
    def _expresses(cls, choices: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if isinstance(choices, str):
            try:
                _expression(choices)
            except jinja2.TemplateSyntaxError:
                raise ValueError('is neither a list nor one expression such as "{{ options }}"') from None
        elif len(set(choices)) < len(choices):
            raise ValueError("names a choice twice")
        return choices

    def fields(self) -> frozenset[str]:
        """Name the row fields that the wording uses."""
        return self.asks() | self.answers()

    def asks(self) -> frozenset[str]:
        """Name the row fields that the question shows."""
        return _names(self.prompt)

    def answers(self) -> frozenset[str]:
        """Name the row fields that the answer and its choices are made of."""
        own = _names(self.choices) if isinstance(self.choices, str) else frozenset()
        return _names(self.answer) | own

    def render(self, row: Row, references: Sequence[str] = ()) -> Prompt:
        """Fill the wording with one row's fields.

        `references` names the fields that hold the reference answers; without
        them the rendered answer is the one reference. Raises DataError naming
        the field that the row lacks, or an answer that is empty.
        """
        shown = self._fill(self.prompt, row)
        marked = tuple(str(row.fields[name]) for name in references if row.fields.get(name))
        answer = marked[0] if marked and not self._answerable(row) else self._fill(self.answer, row).strip()
        if not answer:
            raise DataError(
                f"row {row.id}: template '{self.name}' gives an empty answer", fix="fill or remove that row"
            )
        choices = self._choices(row)
        if choices and answer not in choices:
            raise DataError(
                f"row {row.id}: answer '{answer}' is none of: {', '.join(choices)}", fix="correct the row or 'choices'"
            )
        return Prompt(row.id, shown, answer, marked or (answer,), self.name, choices)

    def _choices(self, row: Row) -> tuple[str, ...]:
        """Give the choices of a row. Raises DataError if they are no list of different texts."""
        if not isinstance(self.choices, str):
            return self.choices
        made = self._guarded(row, lambda: _expression(str(self.choices))(dict(row.fields)))
        if isinstance(made, jinja2.Undefined):
            raise self._missing(row)
        listed = made.tolist() if hasattr(made, "tolist") else made  # an array, from parquet
        found = tuple(str(one).strip() for one in listed) if isinstance(listed, (list, tuple)) else ()
        if not all(found) or len(set(found)) < max(2, len(found)):
            raise DataError(
                f"row {row.id}: 'choices' of template '{self.name}' gives {made!r}",
                fix="it must give a list of two or more different texts",
            )
        return found

    def _answerable(self, row: Row) -> bool:
        """Tell whether the row has the answer's own fields; a split may hold references only."""
        return _names(self.answer) <= set(row.fields)

    def _fill(self, text: str, row: Row) -> str:
        return self._guarded(row, lambda: _compiled(text).render(dict(row.fields)))

    def _guarded(self, row: Row, make: Callable[[], T]) -> T:
        try:
            return make()
        except jinja2.UndefinedError:
            raise self._missing(row) from None
        except (jinja2.TemplateError, jinja2.exceptions.SecurityError, TypeError, ValueError, ArithmeticError) as wrong:
            raise DataError(f"row {row.id}: template '{self.name}': {wrong}", fix="correct the template") from None

    def _missing(self, row: Row) -> DataError:
        lacking = sorted(self.fields() - set(row.fields))
        name = lacking[0] if lacking else "?"
        close = nearest(name, row.fields)
        fix = f"did you mean '{close}'?" if close else f"use one of: {', '.join(sorted(row.fields))}"
        return DataError(f"template '{self.name}' uses the field '{name}', which row {row.id} does not have", fix=fix)


@lru_cache(maxsize=512)
def _names(text: str) -> frozenset[str]:
    found = jinja2.meta.find_undeclared_variables(_JINJA.parse(text))
    return frozenset(found - set(_JINJA.globals))


@lru_cache(maxsize=512)
def _compiled(text: str) -> jinja2.Template:
    return _JINJA.from_string(text)


@lru_cache(maxsize=512)
def _expression(text: str) -> Any:
    inside = _EXPRESSION.fullmatch(text)
    return _JINJA.compile_expression(inside["inside"] if inside else "", undefined_to_none=False)
