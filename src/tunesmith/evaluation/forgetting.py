"""Forgetting: what a model could do before it was tuned and can no longer do after.

Two things are measured on the same questions before and after: tasks that are not learned, and how well the model
predicts a small fixed general text. Choices are not listed in the questions: a small model that has not been taught
to choose from a list cannot, and would have nothing to forget. An ability is the task's first metric; where it is
answered by choice, the loss on the right choice says the same more finely. `retained` is a share of what the base
had above chance.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import NamedTuple

import numpy as np

from tunesmith.data.encode import Encoder
from tunesmith.data.mixture import Blend, load_tasks
from tunesmith.data.task import Split, Task, embedded_tasks, load_task
from tunesmith.data.template import Prompt
from tunesmith.errors import ConfigError
from tunesmith.evaluation.answering import Question, answer, by_likelihood, check
from tunesmith.inference import responses
from tunesmith.inference.score import Continuation
from tunesmith.metrics import LOWER_IS_BETTER, metric
from tunesmith.metrics.interval import interval, paired, paired_values
from tunesmith.metrics.loss import CHOICE_LOSS, NATS_PER_TOKEN, choice_loss
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.models.load import Model
from tunesmith.recipe import Recipe
from tunesmith.runs.records import Ability, Answer, Forgetting, TextLoss
from tunesmith.runs.run import Run

TEXT = "general text"


class Reading(NamedTuple):
    """What a model answered: to the questions of each task, and of the general text the loss of each passage."""

    answers: tuple[tuple[Answer, ...], ...]
    text: tuple[TextLoss, ...]


@dataclass(frozen=True)
class AbilityGauge:
    """The questions by which forgetting is measured; `text` says whether the general text is one.

    Questions that have no room in a model's context, beside `spare` virtual tokens, are not asked, before or after.
    """

    questions: tuple[Question, ...]
    text: bool
    spare: int = 0

    def take(self, model: Model, kept: bool) -> Reading:
        """Ask the model; `kept` says that its answers may be kept, and taken from those kept before."""
        with responses.counted("on" if kept else "off"):
            model.net.eval()
            answers = [tuple(answer(model, one, self._fitting(model, one), _silent)) for one in self.questions]
            return Reading(tuple(answers), text_losses(model, self.spare) if self.text else ())

    def _fitting(self, model: Model, question: Question) -> list[Prompt]:
        """Give the prompts that have room in the context, whatever virtual tokens the model has now."""
        prompts = question.prompts()
        if model.context is None or model.kind == "encoder-decoder":
            return prompts
        encoder = replace(model.encoder, virtual=())
        room = model.context - self.spare
        return [one for one in prompts if _longest(encoder, one, question) <= room]

    def compare(self, before: Reading, after: Reading, step: int) -> Forgetting:
        """Say what was lost between two readings of the same questions."""
        found = [
            one
            for question, was, now in zip(self.questions, before.answers, after.answers, strict=True)
            if was
            for one in abilities(question, was, now)
        ]
        found += [_of_text(before.text, after.text)] if before.text else []
        told = Forgetting(step=step, abilities=tuple(one.ability for one in found))
        parts = [part for part in (_pooled(found[: -1 if before.text else None]), _text_share(found)) if part]
        if not parts:
            return told
        low, high = np.quantile(np.mean([part.spread for part in parts], axis=0), [0.025, 0.975])
        retained = fmean(part.value for part in parts)
        tasks = parts[0].value if parts[0].of_tasks else None
        return told.model_copy(
            update={"retained": retained, "low": float(low), "high": float(high), "tasks_retained": tasks}
        )

    def write(self, run: Run, before: Reading, after: Reading) -> None:
        """Write both readings below the run's `forgetting/`, so that others can be compared with them."""
        for name, reading in (("before", before), ("after", after)):
            for question, answers in zip(self.questions, reading.answers, strict=True):
                run.write_lines(f"forgetting/{name}/{question.task.name}.jsonl", answers)
            if reading.text:
                run.write_lines(f"forgetting/{name}-text.jsonl", reading.text)


def gauge_of(recipe: Recipe, work: Task | Blend) -> AbilityGauge | None:
    """Give the gauge that a recipe asks for; None if for none. Raises ConfigError for a task that is learned."""
    asked = recipe.forgetting
    learned = [work] if isinstance(work, Task) else [member.task for member in work.members]
    if asked.tasks == "auto":
        tasks = unlearned(learned, [] if isinstance(work, Task) else work.held)
    else:
        tasks = [task for name in asked.tasks for task in load_tasks(name)]
        both = {task.name for task in tasks} & {task.name for task in learned}
        if both:
            raise ConfigError(
                f"forgetting.tasks: '{min(both)}' is learned, and cannot say what is forgotten", fix="leave it out"
            )
    questions = [Question(task, _split(task), limit=asked.limit, seed=recipe.seed, listed=False) for task in tasks]
    for question in questions:
        check(question.task, question.prompts(), question.by)
    virtual = recipe.method.virtual_tokens
    return AbilityGauge(tuple(questions), asked.text, virtual) if questions or asked.text else None


def unlearned(learned: Sequence[Task], held: Sequence[Task] = ()) -> list[Task]:
    """Give the tasks held out, and the embedded ones answered by choice that share no cluster with those learned."""
    clusters = {task.cluster for task in learned} | {task.name for task in held}
    embedded = [load_task(name) for name in embedded_tasks()]
    return [*held, *(task for task in embedded if not {task.cluster, task.name} & clusters and _by_choice(task))]


def abilities(question: Question, before: Sequence[Answer], after: Sequence[Answer]) -> list["Found"]:
    """Compare the answers to one task: by its first metric, and by the loss on the right choice where there is one."""
    task, mark = question.task, metric(question.task.metrics[0], question.language)
    was, now = (mark.stats([x.answer for x in side], [x.references for x in side]) for side in (before, after))
    found = [_found(task, mark, was, now, _chance(before))]
    if all(one.log_likelihoods for one in (*before, *after)):
        losses = [np.array([[_choice_loss(one)] for one in side]) for side in (before, after)]
        found.append(_found(task, CHOICE_LOSS, losses[0], losses[1], None))
    return found


class Found(NamedTuple):
    """An ability, and its values before and after in each resample of its rows; None where it cannot be forgotten."""

    ability: Ability
    values: tuple[Stats, Stats] | None


class Part(NamedTuple):
    """A share that is retained, and what it is in each resample."""

    value: float
    spread: Stats
    of_tasks: bool


def _pooled(found: Sequence[Found]) -> Part | None:
    """Give what all tasks together retain of what the base had above chance.

    Not the mean of their shares: that of a task in which the base is hardly above chance is mostly noise.
    """
    told = [(one.ability, one.values) for one in found if one.values is not None]
    if not told:
        return None
    had = sum(one.before - (one.chance or 0.0) for one, _ in told)
    has = sum(one.after - (one.chance or 0.0) for one, _ in told)
    before = np.sum([first - (one.chance or 0.0) for one, (first, _) in told], axis=0)
    after = np.sum([second - (one.chance or 0.0) for one, (_, second) in told], axis=0)
    return Part(has / had, _shares(before, after, had), of_tasks=True)


def _text_share(found: Sequence[Found]) -> Part | None:
    """Give what is retained of the general text: the share of a token's probability, in the geometric mean."""
    if not found or found[-1].ability.task != TEXT or found[-1].values is None:
        return None
    ability, (first, second) = found[-1].ability, found[-1].values
    return Part(math.exp(ability.before - ability.after), np.exp(first - second), of_tasks=False)


def _shares(before: Stats, after: Stats, had: float) -> Stats:
    """Give shares of resamples; one in which the base is at chance says nothing, and counts as a tenth of the whole."""
    share: Stats = after / np.maximum(before, 0.1 * had)
    return share


def text_losses(model: Model, spare: int = 0) -> tuple[TextLoss, ...]:
    """Give how likely a model finds each passage of the general text; of an encoder-decoder, its second half.

    Passages that have no room in its context, beside `spare` virtual tokens, are left out.
    """
    passages = general_text()
    if model.kind == "decoder" and model.context is not None:
        sizes = [len(ids) for ids in model.encoder.wholes([text for _, text in passages])]
        passages = [one for one, size in zip(passages, sizes, strict=True) if size + 1 + spare <= model.context]
    halves = [_cut(text) if model.kind == "encoder-decoder" else ("", text) for _, text in passages]
    pairs = [Continuation(*pair) for pair in model.encoder.pairs(halves)]
    found = responses.loglikelihoods(model, pairs)
    return tuple(
        TextLoss(id=name, nats=-one.total, tokens=len(one.tokens))
        for (name, _), one in zip(passages, found, strict=True)
    )


@cache
def general_text() -> Sequence[tuple[str, str]]:
    """Give the ids and passages of the fixed general text, all written for this purpose."""
    lines = (files("tunesmith") / "evaluation" / "general.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple((row["id"], row["text"]) for row in map(json.loads, lines))


def _of_text(before: Sequence[TextLoss], after: Sequence[TextLoss]) -> Found:
    """Compare the loss on the general text."""
    was, now = (np.array([[one.nats, one.tokens] for one in side], float) for side in (before, after))
    values = paired_values(NATS_PER_TOKEN, was, now, np.random.default_rng(0))
    ability = _ability(TEXT, "text", NATS_PER_TOKEN, was, now)
    share = math.exp(ability.before - ability.after)
    return Found(_retaining(ability, share, np.exp(values[0] - values[1])), values)


def _found(task: Task, mark: Metric, was: Stats, now: Stats, chance: float | None) -> Found:
    """Compare one metric; what is retained is the share of what the base has above chance, if it has anything."""
    told = {"chance": chance, "language": task.templates[0].language}
    ability = _ability(task.name, task.cluster, mark, was, now).model_copy(update=told)
    floor = chance or 0.0
    if mark.name in LOWER_IS_BETTER or interval(mark, was).low <= floor:
        return Found(ability, None)
    values = paired_values(mark, was, now, np.random.default_rng(0))
    had = ability.before - floor
    share = (ability.after - floor) / had
    return Found(_retaining(ability, share, _shares(values[0] - floor, values[1] - floor, had)), values)


def _retaining(ability: Ability, share: float, spread: Stats) -> Ability:
    low, high = np.quantile(spread, [0.025, 0.975])
    return ability.model_copy(update={"retained": share, "retained_low": float(low), "retained_high": float(high)})


def _ability(task: str, cluster: str, mark: Metric, was: Stats, now: Stats) -> Ability:
    told = paired(mark, was, now)
    values = {"before": mark.value(was), "after": mark.value(now)}
    return Ability(task=task, cluster=cluster, metric=mark.name, **values, **told._asdict(), n=len(was))


def _chance(answers: Sequence[Answer]) -> float | None:
    """Give the share of right answers that guessing among the choices would have; None where there are none."""
    return fmean(1 / len(one.choices) for one in answers) if all(one.choices for one in answers) else None


def _choice_loss(one: Answer) -> float:
    right = next(i for i, choice in enumerate(one.choices) if choice in one.references)
    return choice_loss(one.log_likelihoods, right)


def _by_choice(task: Task) -> bool:
    return all(prompt.choices for prompt in task.prompts("test", limit=1))


def _longest(encoder: Encoder, prompt: Prompt, question: Question) -> int:
    """Count the tokens that a question and its longest answer may take."""
    answers = [len(encoder.answer_ids(replace(prompt, answer=choice))) for choice in prompt.choices]
    new = max(answers) if by_likelihood(prompt, question.by) else question.task.generation.max_new_tokens
    return len(encoder.prompt_ids(prompt)) + new


def _split(task: Task) -> Split:
    return "test" if task.source.test is not None else "validation"


def _cut(text: str) -> tuple[str, str]:
    """Cut a text at the space nearest to its middle, or where there is none at its middle."""
    middle = text.find(" ", len(text) // 2)
    middle = middle if middle > 0 else len(text) // 2
    return text[:middle], text[middle:]


def _silent(_: int) -> None:
    """Tell nobody."""
