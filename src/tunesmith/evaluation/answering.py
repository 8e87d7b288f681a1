"""Answers to the questions of a task: the likeliest of the choices, or what is found in a generated text.

The likelihood of a choice is that of its tokens and of the stop token after them, in the form that the model is trained
and served in. Without the stop token "no" would always be at least as likely as "no idea", which begins with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from tunesmith.data.encode import Encoder
from tunesmith.data.rows import draw
from tunesmith.data.shots import pick_shots
from tunesmith.data.task import Split, Task
from tunesmith.data.template import Prompt, Shot
from tunesmith.errors import ConfigError
from tunesmith.inference import responses
from tunesmith.inference.score import Continuation
from tunesmith.metrics.choice import normalised
from tunesmith.metrics.extract import EXTRACTORS, extract
from tunesmith.models.load import Model
from tunesmith.names import pick
from tunesmith.runs.records import Answer

By = Literal["auto", "generation", "likelihood"]
TIE = 1e-5  # of the best score: what another batch may move it by, in fp32


def by_likelihood(prompt: Prompt, by: By) -> bool:
    """Tell whether a question is answered by the likelihood of its choices: if it has some, unless asked otherwise."""
    return by == "likelihood" or (by == "auto" and bool(prompt.choices))


@dataclass(frozen=True)
class Question:
    """What to evaluate: which rows of a task, asked how, answered by what.

    `same_shots` shows every question the same examples, drawn from the seed alone: what all prompts then begin
    with is read once. Otherwise each question has examples of its own, drawn from the seed and its id.
    `listed` says whether wordings with a place for their choices list them.
    """

    task: Task
    split: Split = "test"
    shots: int = 0
    template: str | None = None
    limit: int | None = None
    seed: int = 0
    by: By = "auto"
    same_shots: bool = False
    listed: bool = True

    def prompts(self) -> list[Prompt]:
        """Render the questions. Raises DataError, ConfigError for the same shots on the split they are taken from."""
        if not (self.same_shots and self.shots):
            return self.task.prompts(self.split, self.shots, self.seed, self.template, self.limit, self.listed)
        if self.split == "train":
            raise ConfigError(
                "the same shots for all would show some training rows their own answers",
                fix="evaluate another split, or leave --same-shots out",
            )
        shown = [Shot(one.question, one.answer) for one in self._examples()]
        prompts = self.task.prompts(self.split, 0, self.seed, self.template, self.limit, self.listed)
        return [prompt.with_shots(shown) for prompt in prompts]

    def _examples(self) -> list[Prompt]:
        wording = self.task.wording(None if self.template == "any" else self.template, "", self.seed)
        return [
            wording.render(row, options=self.listed)
            for row in pick_shots(self.task.rows("train"), "", self.shots, self.seed)
        ]

    @property
    def language(self) -> str:
        """Give the language of the wording that is asked: that of the answers."""
        return self.task.wording(None if self.template == "any" else self.template, "", self.seed).language


def check(task: Task, prompts: Sequence[Prompt], by: By) -> None:
    """Refuse what cannot be answered as asked. Raises ConfigError."""
    pick(dict.fromkeys(get_args(By)), by, "way to answer")
    if task.extract is not None:
        pick(EXTRACTORS, task.extract, "extractor")
    bare = next((prompt for prompt in prompts if not prompt.choices), None)
    if bare and by == "likelihood":
        raise ConfigError(
            f"template '{bare.template}' has no choices to compare the likelihood of",
            fix="add 'choices' to it, or leave --by out",
        )
    if bare and task.extract == "choice":
        raise ConfigError(
            f"template '{bare.template}' has no choices for 'extract: choice' to look for",
            fix="add 'choices' to it, or use another extractor",
        )


def requests(prompts: Sequence[Prompt], by: By) -> int:
    """Count what the engine is asked for: a likelihood for each choice, or a text for each question."""
    return sum(len(prompt.choices) if by_likelihood(prompt, by) else 1 for prompt in prompts)


def answer(model: Model, question: Question, prompts: Sequence[Prompt], advance: Callable[[int], None]) -> list[Answer]:
    """Answer the questions, in the order given. Raises DataError and FitError where a prompt cannot be read."""
    reads = [_Read(prompt, _encode(model.encoder, prompt)) for prompt in prompts]
    chosen = [i for i, prompt in enumerate(prompts) if by_likelihood(prompt, question.by)]
    written = sorted(set(range(len(prompts))) - set(chosen))
    answers = dict(zip(written, _written(model, question.task, [reads[i] for i in written], advance), strict=True))
    answers |= zip(chosen, _chosen(model, question, [reads[i] for i in chosen], advance), strict=True)
    return [answers[i] for i in range(len(prompts))]


class _Read(NamedTuple):
    """A question, and the tokens that the model reads of it."""

    prompt: Prompt
    ids: tuple[int, ...]


def _encode(encoder: Encoder, prompt: Prompt) -> tuple[int, ...]:
    encoder.check_text(prompt)
    return encoder.prompt_ids(prompt)


def _written(model: Model, task: Task, reads: Sequence[_Read], advance: Callable[[int], None]) -> list[Answer]:
    """Let the model write an answer to each question, and extract it where the task asks for that."""
    asked = [(read.prompt.id, read.ids) for read in reads]
    answers = []
    for read, made in zip(
        reads, responses.generate(model, asked, task.generation.max_new_tokens, advance), strict=True
    ):
        text = model.encoder.text(made.ids)
        found = text if task.extract is None else extract(task.extract, text, read.prompt.choices) or ""
        told = {"output": text} if task.extract else {}
        answers.append(_record(model, read, answer=found, answer_tokens=len(made.ids), finished=made.finished, **told))
    return answers


def _chosen(model: Model, question: Question, reads: Sequence[_Read], advance: Callable[[int], None]) -> list[Answer]:
    """Give the likeliest choice of each question."""
    asked = [[Continuation(read.ids, ids) for ids in _choices(model.encoder, read.prompt)] for read in reads]
    found = iter(responses.loglikelihoods(model, [one for each in asked for one in each], advance))
    return [
        _likeliest(model, question, read, [(len(one.ids), next(found).total) for one in each])
        for read, each in zip(reads, asked, strict=True)
    ]


def _choices(encoder: Encoder, prompt: Prompt) -> list[tuple[int, ...]]:
    """Give the tokens of each choice as the answer to its question, stop token included."""
    answers = [replace(prompt, answer=choice) for choice in prompt.choices]
    for one in answers:
        encoder.check_text(one)
    return [encoder.answer_ids(one) for one in answers]


def _likeliest(model: Model, question: Question, read: _Read, found: Sequence[tuple[int, float]]) -> Answer:
    """Choose by what was `found` of each choice: its tokens and its log-likelihood."""
    choices, totals = read.prompt.choices, [total for _, total in found]
    scores = normalised(totals, choices, question.task.norm)
    first = np.flatnonzero(scores.max() - scores <= TIE * abs(scores.max()))
    # Taking the first of equals would favour answer A.
    best = int(first[int(draw(question.seed, f"tie/{read.prompt.id}"), 16) % len(first)])
    shares = np.exp(scores - scores.max())
    return _record(
        model,
        read,
        answer=choices[best],
        answer_tokens=found[best][0],
        finished=True,
        choices=choices,
        log_likelihoods=tuple(totals),
        confidence=float(shares[best] / shares.sum()),
        tied=tuple(choices[i] for i in first) if len(first) > 1 else (),
    )


def _record(model: Model, read: _Read, **answered: Any) -> Answer:
    prompt = read.prompt
    return Answer(
        id=prompt.id,
        question=prompt.question,
        prompt=model.encoder.prompt_text(prompt),
        references=prompt.references,
        prompt_tokens=len(read.ids),
        **answered,
    )
