"""Variants: the questions of a task asked again with their content perturbed."""

import re
from collections.abc import Sequence
from dataclasses import replace

from tunesmith.data.perturb import Perturbation
from tunesmith.data.rows import Row
from tunesmith.data.task import Task
from tunesmith.data.template import Prompt, Template


def variants(
    task: Task, rows: Sequence[Row], prompts: Sequence[Prompt], how: Perturbation, seed: int
) -> list[Prompt | None]:
    """Give each of `prompts`, rendered from `rows`, with its content perturbed; None where that changes nothing.

    Only the fields that fill the question change: never its wording, its
    shots, a field that the answer is made of, or one of the choices, also where
    it is named inside a text. The references stay, but for linked perturbations: who
    is called Lakisha in the question is called so in the right answer, or the
    score would fall for no fault of the model. A row in which a place is not clear stays as it is.
    """
    return [_variant(task, row, prompt, how, seed) for row, prompt in zip(rows, prompts, strict=True)]


def perturbable(task: Task, template: Template) -> frozenset[str]:
    """Name the fields that fill the question and do not make the answer or a reference."""
    return template.asks() - template.answers() - set(task.references)


def _variant(task: Task, row: Row, prompt: Prompt, how: Perturbation, seed: int) -> Prompt | None:
    template = task.template(prompt.template)
    marked = template.answers() | set(task.references)
    linked = how.linked and not prompt.choices
    fields = template.asks() | marked if linked else perturbable(task, template)
    texts = {name: row.fields[name] for name in sorted(fields) if _is_content(row.fields.get(name), prompt)}
    if not all(how.clear(text) for text in texts.values()):
        return None
    changed = {
        name: _around(prompt.choices, text, how, seed, row.id if how.linked else f"{row.id}/{name}")
        for name, text in texts.items()
    }
    other = template.render(Row(row.id, {**row.fields, **changed}), task.references)
    if other.question == prompt.question:
        return None
    return replace(other, answer=prompt.answer, references=other.references if linked else prompt.references,
                   shots=prompt.shots)  # fmt: skip


def _is_content(value: object, prompt: Prompt) -> bool:
    return isinstance(value, str) and value.strip() not in prompt.choices


def _around(choices: Sequence[str], text: str, how: Perturbation, seed: int, id: str) -> str:
    """Perturb what stands around the choices that a text names."""
    if not choices:
        return how.change(text, seed, id)
    named = "|".join(re.escape(choice) for choice in sorted(choices, key=len, reverse=True))
    parts = re.split(rf"(?<!\w)({named})(?!\w)", text)
    return "".join(
        part if i % 2 else how.change(part, seed, id if how.linked else f"{id}/{i}") for i, part in enumerate(parts)
    )
