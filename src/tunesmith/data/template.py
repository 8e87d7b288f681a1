"""Templates: wordings of a question and its answer, in sandboxed Jinja.

`Template.render(row)` gives a `Prompt`: the text of one question, before any
tokenizer or chat template has seen it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar

import jinja2
import jinja2.exceptions
import jinja2.meta
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import field_validator

from tunesmith.config import Record
from tunesmith.data.rows import Row
from tunesmith.errors import DataError
from tunesmith.names import nearest

T = TypeVar("T")

Kind = Literal["direct", "chain_of_thought", "inverted"]
OPTIONS = "options_"
HEADS = {"zh": "選項："}  # above the listed choices, by language; "Options:" in all others

_EXPRESSION = re.compile(r"\s*\{\{(?P<inside>.*)\}\}\s*", re.DOTALL)
_JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)


@dataclass(frozen=True)
class Shot:
    """One worked example shown before the question."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """One question as text, with its answer and the references it is marked against.

    `shots` are worked examples; `history` are the earlier turns of a conversation of which the question is the last.
    """

    id: str
    question: str
    answer: str
    references: tuple[str, ...]
    template: str
    choices: tuple[str, ...] = ()
    shots: tuple[Shot, ...] = field(default=())
    system: str = ""
    history: tuple[Shot, ...] = field(default=())

    def with_shots(self, shots: Sequence[Shot]) -> "Prompt":
        """Give the same question with `shots` shown before it."""
        return replace(self, shots=tuple(shots))


class Template(Record):
    """One wording: `prompt` and `answer` are Jinja texts over a row's fields.

    `choices` are the answers that are possible: a list for all rows, or a Jinja
    expression such as "{{ options }}" that gives each row its own, or none of its own with `default(none)`.
    Where the prompt says `{{ options_ }}` they are listed, in lines of their own, unless a mixture leaves them out.
    `kind` says what is asked for: the answer, the answer after a chain of thought, or, inverted, the question.
    `system` and `history` ("{{ history }}": pairs of question and answer) are what comes before in a conversation.
    """

    name: str
    prompt: str
    answer: str
    choices: tuple[str, ...] | str = ()
    language: str = "en"
    kind: Kind = "direct"
    system: str = ""
    history: str = ""

    @field_validator("prompt", "answer", "system")
    @classmethod
    def _compiles(cls, text: str) -> str:
        try:
            _JINJA.parse(text)
        except jinja2.TemplateSyntaxError as wrong:
            raise ValueError(f"is not Jinja: {wrong.message} (line {wrong.lineno})") from None
        return text

    @field_validator("history")
    @classmethod
    def _is_expression(cls, text: str) -> str:
        if text:
            cls._expresses(text)
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
        """Name the row fields that the question shows, its listed choices aside."""
        return (_names(self.prompt) | _names(self.system) | _names(self.history)) - {OPTIONS}

    def listed(self) -> frozenset[str]:
        """Name the row fields that the choices are made of."""
        return _names(self.choices) if isinstance(self.choices, str) else frozenset()

    def lists_choices(self) -> bool:
        """Tell whether the question has a place for the list of its choices."""
        return OPTIONS in _names(self.prompt)

    def answers(self) -> frozenset[str]:
        """Name the row fields that the answer and its choices are made of."""
        own = _names(self.choices) if isinstance(self.choices, str) else frozenset()
        return _names(self.answer) | own

    def render(self, row: Row, references: Sequence[str] = (), options: bool = True) -> Prompt:
        """Fill the wording with one row's fields, its choices listed if it has a place for them and `options` says so.

        `references` names the fields that hold the reference answers, a text or
        a list of texts each; without them the rendered answer is the one reference, as it is of an inverted wording.
        Raises DataError naming the field that the row lacks, or an answer that is empty.
        """
        choices = self._choices(row)
        listed = _listed(choices, self.language) if options else ""
        shown = self._fill(self.prompt, row, **{OPTIONS: listed})
        named = () if self.kind == "inverted" else references  # they answer the question, which is asked for here
        marked = tuple(text for name in named for text in _texts(row.fields.get(name)))
        answer = marked[0] if marked and not self._answerable(row) else self._fill(self.answer, row).strip()
        if not answer:
            raise DataError(
                f"row {row.id}: template '{self.name}' gives an empty answer", fix="fill or remove that row"
            )
        chosen = choices if self.kind == "direct" else ()  # a chain of thought names a choice, but is none
        if chosen and answer not in chosen:
            raise DataError(
                f"row {row.id}: answer '{answer}' is none of: {', '.join(choices)}", fix="correct the row or 'choices'"
            )
        said = self._fill(self.system, row) if self.system else ""
        return Prompt(
            row.id, shown, answer, marked or (answer,), self.name, chosen, (), said.strip(), self._history(row)
        )

    def _history(self, row: Row) -> tuple[Shot, ...]:
        """Give the earlier turns of a row. Raises DataError if they are no pairs of texts."""
        if not self.history:
            return ()
        made = self._guarded(row, lambda: _expression(self.history)(dict(row.fields)))
        try:
            return tuple(Shot(str(question), str(answer)) for question, answer in made or ())
        except (TypeError, ValueError, jinja2.UndefinedError):
            raise DataError(
                f"row {row.id}: 'history' of template '{self.name}' gives {made!r}",
                fix="it must give a list of [question, answer] pairs",
            ) from None

    def _choices(self, row: Row) -> tuple[str, ...]:
        """Give the choices of a row. Raises DataError if they are no list of different texts."""
        if not isinstance(self.choices, str):
            return self.choices
        made = self._guarded(row, lambda: _expression(str(self.choices))(dict(row.fields)))
        if made is None and _says_none(self.choices):
            return ()
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

    def _fill(self, text: str, row: Row, **given: str) -> str:
        return self._guarded(row, lambda: _compiled(text).render({**row.fields, **given}))

    def _guarded(self, row: Row, make: Callable[[], T]) -> T:
        try:
            return make()
        except jinja2.UndefinedError as wrong:
            raise self._missing(row, str(wrong)) from None
        except (jinja2.TemplateError, jinja2.exceptions.SecurityError, TypeError, ValueError, ArithmeticError) as wrong:
            raise DataError(f"row {row.id}: template '{self.name}': {wrong}", fix="correct the template") from None

    def _missing(self, row: Row, told: str = "") -> DataError:
        lacking = sorted(self.fields() - set(row.fields), key=lambda name: (f"'{name}'" not in told, name))
        name = lacking[0] if lacking else "?"
        close = nearest(name, row.fields)
        fix = f"did you mean '{close}'?" if close else f"use one of: {', '.join(sorted(row.fields))}"
        return DataError(f"template '{self.name}' uses the field '{name}', which row {row.id} does not have", fix=fix)


def derived(row: Row, made: Mapping[str, str]) -> Row:
    """Add to a row the fields `made` of its own by Jinja: a text, or the value of a lone expression "{{ ... }}".

    Raises DataError naming the field that cannot be made.
    """
    fields = dict(row.fields)
    for name, text in made.items():
        try:
            alone = _EXPRESSION.fullmatch(text) and is_expression(text)
            value = _expression(text)(dict(row.fields)) if alone else _compiled(text).render(dict(row.fields))
            if isinstance(value, jinja2.Undefined):
                value._fail_with_undefined_error()
        except (jinja2.TemplateError, jinja2.exceptions.SecurityError, TypeError, ValueError, ArithmeticError) as wrong:
            raise DataError(
                f"row {row.id}: its field '{name}' cannot be made: {wrong}", fix=f"correct 'fields.{name}' of the task"
            ) from None
        fields[name] = value
    return Row(row.id, fields)


def uses(*texts: str) -> frozenset[str]:
    """Name the fields that texts in Jinja use."""
    return frozenset().union(*map(_names, texts))


def holds(row: Row, condition: str) -> bool:
    """Tell whether an expression "{{ ... }}" over a row's fields is true. Raises DataError if it cannot be told."""
    try:
        return bool(_expression(condition)(dict(row.fields)))
    except (jinja2.TemplateError, jinja2.exceptions.SecurityError, TypeError, ValueError, ArithmeticError) as wrong:
        raise DataError(f"row {row.id}: 'where' cannot be told: {wrong}", fix="correct 'where' of the task") from None


def compiles(text: str) -> bool:
    """Tell whether a text is Jinja."""
    try:
        _compiled(text)
    except jinja2.TemplateSyntaxError:
        return False
    return True


def is_expression(text: str) -> bool:
    """Tell whether a text is one Jinja expression, "{{ ... }}" and nothing else."""
    try:
        _expression(text)
    except jinja2.TemplateSyntaxError:  # "{{ a }} and {{ b }}" begins and ends like one
        return False
    return True


def _listed(choices: Sequence[str], language: str) -> str:
    """Write choices below each other, beginning a paragraph."""
    lines = "".join(f"\n- {choice}" for choice in choices)
    return f"\n\n{HEADS.get(language, 'Options:')}{lines}" if choices else ""


def _texts(value: Any) -> list[str]:
    listed = value.tolist() if hasattr(value, "tolist") else value  # an array, from parquet
    return [str(one) for one in (listed if isinstance(listed, (list, tuple)) else [listed]) if one]


@lru_cache(maxsize=512)
def _names(text: str) -> frozenset[str]:
    found = jinja2.meta.find_undeclared_variables(_JINJA.parse(text))
    return frozenset(found - set(_JINJA.globals))


@lru_cache(maxsize=512)
def _says_none(text: str) -> bool:
    """Tell whether an expression gives none by its own words, as in `options | default(none)`."""
    return any(constant.value is None for constant in _JINJA.parse(text).find_all(jinja2.nodes.Const))


@lru_cache(maxsize=512)
def _compiled(text: str) -> jinja2.Template:
    return _JINJA.from_string(text)


@lru_cache(maxsize=512)
def _expression(text: str) -> Any:
    inside = _EXPRESSION.fullmatch(text)
    return _JINJA.compile_expression(inside["inside"] if inside else "", undefined_to_none=False)
