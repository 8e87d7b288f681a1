"""Formats: the well-known shapes of instruction files, turned into rows of plain fields.

Whatever the format, a row gets the same fields: `instruction`, `input` and `system` ("" where there is none), `answer`,
`history` (the earlier turns, [question, answer] each) and, from natural-instructions, `answers`. They come as a unit
and win over fields that a record has under these names, since an answer belongs to its own question. All other
fields stay: alpaca's `output` can still be asked for. Only lists of turns are left out, as each row is one of them.

What a model would not see, or learn wrongly, is refused and never left out in silence: tools, images, a question
without an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tunesmith.errors import DataError
from tunesmith.names import suggest

Format = Literal["auto", "rows", "alpaca", "messages", "sharegpt", "natural-instructions"]
Role = Literal["system", "user", "assistant"]
Fields = Mapping[str, Any]

CHATS = ("messages", "conversation", "conversations")
SPOKEN = (*CHATS, "prompt", "completion")
KEYS = {"messages": ("role", "content"), "sharegpt": ("from", "value")}
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant",
}  # fmt: skip
TOOLS = ("tools", "functions", "tool_calls", "function_call")
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation: `place` says which, for messages; `learned` is false where it is only read."""

    role: Role
    text: str
    place: str
    learned: bool = True


def told(records: Sequence[Fields]) -> Format:
    """Tell the format of a file from the field names that occur in it, all records and all their turns considered.

    No single record decides what the others mean, and each of them must then hold to the format. Columns of any
    other names are plain rows, and so is a `messages` that is no list of turns.
    """
    names = set[str]().union(*records)
    if {"Definition", "Instances"} <= names:
        return "natural-instructions"
    keys = {
        str(key)
        for record in records
        for turn in _listed(_chat(record)) or []
        if isinstance(turn, dict)
        for key in turn
    }
    for form in ("messages", "sharegpt"):
        if KEYS[form][0] in keys:
            return form
    if {"instruction", "output"} <= names:
        return "alpaca"
    return "messages" if {"prompt", "completion"} <= names else "rows"


def instances(records: Sequence[Fields], place: str) -> list[Fields]:
    """Give a record for each instance of task files of natural-instructions, with its own id and the task's definition.

    Of the task's other fields none is copied. Raises DataError naming the instance that has no input or output.
    """
    made: list[Fields] = []
    for number, task in enumerate(records, 1):
        where = f"{place} row {number}" if len(records) > 1 else place
        definition = "\n".join(_text(part, "Definition", where) for part in _several(_field(task, "Definition", where)))
        found = _field(task, "Instances", where)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise DataError(
                f"{where}: 'Instances' is no list of objects", fix='write [{"input": ..., "output": [...]}]'
            )
        made += [_instance(one, definition, f"{where} instance {i}") for i, one in enumerate(found, 1)]
    if not made:
        raise DataError(f"{place}: has no instances", fix="check that the file is the one you meant")
    return made


def turned(record: Fields, form: Format, where: str) -> list[Fields]:
    """Give the rows of one record: one for each turn of the assistant that is to be learned, or one in all.

    Raises DataError beginning with `where` for what does not fit the format.
    """
    if form in ("rows", "natural-instructions"):  # of the latter, `instances` has made rows
        return [record]
    _refuse_unseen(record, f"{where}:", (*TOOLS, *MEDIA))
    if form == "alpaca":
        return [{**record, **_alpaca(record, where)}]
    if isinstance(record.get("prompt"), str) and "completion" in record and _chat(record) is None:
        return [{**record, **_completed(record, where)}]
    turns = _conversation(record, form, where)
    kept = {name: value for name, value in record.items() if name not in SPOKEN or _listed(value) is None}
    system, spoken = _opened(turns, _text(record.get("system"), "system", where), where)
    return [{**kept, **row, "system": system} for row in _answered(spoken, where)]


def _instance(one: Fields, definition: str, where: str) -> Fields:
    answers = [_text(answer, "output", where) for answer in _several(_field(one, "output", where))]
    if not answers or not all(answer.strip() for answer in answers):
        raise DataError(f"{where}: has no output, or an empty one", fix="fill or remove that instance")
    rest = {name: value for name, value in one.items() if name != "output"}
    return {**rest, **_plain(definition, answers[0], input=_text(_field(one, "input", where), "input", where)),
            "answers": answers}  # fmt: skip


def _alpaca(record: Fields, where: str) -> Fields:
    instruction = _filled(record, "instruction", where)
    made = _plain(instruction, _filled(record, "output", where), _text(record.get("input"), "input", where))
    earlier = _earlier(record.get("history") or [], where)
    return {**made, "system": _text(record.get("system"), "system", where), "history": earlier}


def _earlier(history: Any, where: str) -> list[list[str]]:
    listed = _listed(history)
    pairs = [_listed(pair) or [] for pair in listed or []]
    if listed is None or any(len(pair) != 2 for pair in pairs):
        raise DataError(f"{where}: 'history' is no list of [question, answer] pairs", fix="correct or remove it")
    return [[_text(text, "history", where) for text in pair] for pair in pairs]


def _completed(record: Fields, where: str) -> Fields:
    made = _plain(_filled(record, "prompt", where), _filled(record, "completion", where))
    return {**made, "system": _text(record.get("system"), "system", where)}


def _plain(instruction: str, answer: str, input: str = "") -> Fields:
    return {"instruction": instruction, "input": input, "answer": answer.strip(), "system": "", "history": []}


def _conversation(record: Fields, form: Format, where: str) -> list[Turn]:
    """Give the turns of a record; those of a `prompt` are read, and those of its `completion` learned."""
    name = next((name for name in CHATS if record.get(name) is not None), None)
    if name is not None:
        return _turns(record[name], name, form, where)
    if form == "messages" and "prompt" in record:
        read = [replace(turn, learned=False) for turn in _turns(record["prompt"], "prompt", form, where)]
        return [*read, *_turns(_field(record, "completion", where), "completion", form, where)]
    raise DataError(
        f"{where}: has none of the fields {', '.join(CHATS)}; it has {', '.join(record)}",
        fix="keep records of one format in one file, or say the right 'format' in the source",
    )


def _turns(value: Any, name: str, form: Format, where: str) -> list[Turn]:
    turns = _listed(value)
    if turns is None:
        raise DataError(
            f"{where}: '{name}' is a {type(value).__name__}, no list of turns",
            fix="write a list, or templates of your own and 'format: rows' in the source",
        )
    return [_turn(one, form, where, f"turn {number} of '{name}'") for number, one in enumerate(turns, 1)]


def _turn(one: Any, form: Format, where: str, place: str) -> Turn:
    who, what = KEYS[form]
    if not isinstance(one, dict) or one.get(who) is None:
        raise DataError(
            f"{where}: {place} has no '{who}'", fix=f'write {{"{who}": ..., "{what}": ...}}, or name another format'
        )
    _refuse_unseen(one, f"{where}: {place}", (*TOOLS, *MEDIA, *THOUGHTS))
    said = str(one[who])
    if said not in ROLES:
        raise DataError(
            f"{where}: {place} is of '{said}'",
            fix="tools are not learned: leave out such conversations" if said in TOOL_ROLES else suggest(said, ROLES),
        )
    text = _content(one.get(what), f"{where}: {place}")
    if not text.strip() and ROLES[said] != "system":
        raise DataError(f"{where}: {place} is empty", fix="fill it, or remove the conversation")
    return Turn(ROLES[said], text.strip() if ROLES[said] == "assistant" else text, place, _weighs(one, where, place))


def _weighs(one: Fields, where: str, place: str) -> bool:
    """Tell whether a turn is learned: OpenAI's files say `weight: 0` of those that are only read."""
    weight = one.get("weight")
    if weight not in (None, 0, 1):
        raise DataError(f"{where}: {place} has the weight {weight!r}", fix="a turn counts in full or not: 1 or 0")
    return weight != 0


def _content(value: Any, place: str) -> str:
    """Give the text of a turn, which may come in parts. Raises DataError for parts that are no text."""
    parts = value if isinstance(value, list) else [{"type": "text", "text": value}]
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise DataError(f"{place} has a part of type '{kind}'", fix="only texts are read: leave such turns out")
    return "".join(_text(part.get("text"), "text", place) for part in parts)


def _opened(turns: Sequence[Turn], system: str, where: str) -> tuple[str, list[Turn]]:
    """Cut the system text off the beginning of a conversation; a record may hold it in a field of its own."""
    if not turns or turns[0].role != "system":
        return system, list(turns)
    if system and system != turns[0].text:
        raise DataError(f"{where}: has a 'system' and another in its first turn", fix="keep one of them")
    return turns[0].text, list(turns[1:])


def _answered(turns: Sequence[Turn], where: str) -> list[Fields]:
    """Give a row for each answer that is to be learned, with all turns before its question as history."""
    _refuse_disorder(turns, where)
    pairs = list(zip(turns[::2], turns[1::2], strict=True))
    history = [[question.text, answer.text] for question, answer in pairs]
    made: list[Fields] = [
        {**_plain(question.text, answer.text), "history": history[:i]}
        for i, (question, answer) in enumerate(pairs)
        if answer.learned
    ]
    if not made:
        raise DataError(f"{where}: has no turn of the assistant to learn", fix="add one, or remove the row")
    return made


def _refuse_disorder(turns: Sequence[Turn], where: str) -> None:
    """Refuse turns that are not question, answer, question, answer."""
    for number, turn in enumerate(turns):
        if turn.role == ("assistant" if number % 2 else "user"):
            continue
        if turn.role == "system":
            raise DataError(f"{where}: {turn.place} is a further system text", fix="have one system text, at the start")
        if not number:
            raise DataError(f"{where}: {turn.place} answers no question", fix="begin with a turn of the user")
        raise DataError(
            f"{where}: {turn.place} is the {turn.role}'s, as is the turn before it", fix="join the two, or remove one"
        )
    if len(turns) % 2:
        raise DataError(
            f"{where}: {turns[-1].place} is a question without an answer", fix="add the answer or remove it"
        )


def _refuse_unseen(holder: Fields, place: str, names: Sequence[str]) -> None:
    """Refuse what a record or a turn holds besides the texts that a model reads."""
    found = next((name for name in names if holder.get(name) not in (None, "", "[]", [], {})), None)
    if found is not None:
        kind = "thoughts apart from the answer are" if found in THOUGHTS else "tools are"
        kind = "only texts are" if found in MEDIA else f"no {kind}"
        raise DataError(f"{place} has a field '{found}'", fix=f"{kind} learned: remove the field, or such rows")


def _chat(record: Fields) -> Any:
    return next((record[name] for name in CHATS if record.get(name) is not None), None)


def _listed(value: Any) -> list[Any] | None:
    """Give a list as it is, and one that a table holds as columns, turned; None for anything else."""
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        return [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]
    return list(value) if isinstance(value, (list, tuple)) else None


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _field(record: Fields, name: str, where: str) -> Any:
    if name not in record:
        raise DataError(f"{where}: has no field '{name}'; it has {', '.join(record)}", fix=suggest(name, record))
    return record[name]


def _filled(record: Fields, name: str, where: str) -> str:
    text = _text(_field(record, name, where), name, where)
    if not text.strip():
        raise DataError(
            f"{where}: its '{name}' is empty", fix="fill or remove that row, or see 'where' in docs/tasks.md"
        )
    return text


def _text(value: Any, name: str, where: str) -> str:
    """Give a text, "" for none, and a number as written. Raises DataError for anything else."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise DataError(
        f"{where}: '{name}' is a {type(value).__name__}, no text",
        fix="write a text, or templates of your own and 'format: rows' in the source",
    )
