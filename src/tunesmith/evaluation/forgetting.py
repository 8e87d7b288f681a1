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
from tunesmith.data.rows import draw
from tunesmith.data.task import Task, embedded_tasks, load_task
from tunesmith.data.template import Prompt
from tunesmith.errors import ConfigError
from tunesmith.evaluation.answering import Question, answer, by_likelihood, check, requests
from tunesmith.inference import responses
from tunesmith.inference.score import Continuation
from tunesmith.metrics import LOWER_IS_BETTER, metric
from tunesmith.metrics.interval import interval, paired, paired_values
from tunesmith.metrics.loss import CHOICE_LOSS, NATS_PER_TOKEN, choice_loss
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.models.load import Model
from tunesmith.recipe import Recipe
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Ability, Answer, Forgetting, TextLoss
from tunesmith.runs.run import Run

TEXT = "general text"
WRITTEN = "demo"  # summaries: the base model writes fair ones


class Reading(NamedTuple):
    """What a model answered: to the questions of each task, and of the general text the loss of each passage."""

    answers: tuple[tuple[Answer, ...], ...]
    text: tuple[TextLoss, ...]


@dataclass(frozen=True)
class AbilityGauge:
    """The questions by which forgetting is measured, those of one task together; `text`: the general text is one, too.

    Questions that have no room in a model's context, beside `spare` virtual tokens, are not asked, before or after.
    """

    questions: tuple[tuple[Question, ...], ...]
    text: bool
    spare: int = 0

    def take(self, model: Model, kept: bool, quiet: bool = False) -> Reading:
        """Ask the model; `kept` says that its answers may be kept, and taken from those kept before.

        How far it has come is shown, unless `quiet`.
        """
        asked = [[(one, self._fitting(model, one)) for one in of_task] for of_task in self.questions]
        total = sum(requests(prompts, one.by) for of_task in asked for one, prompts in of_task)
        model.net.eval()
        with responses.counted("on" if kept else "off"), Watch("what it can do", total, quiet) as watch:
            answers = [
                tuple(said for one, prompts in of_task for said in answer(model, one, prompts, watch.advance))
                for of_task in asked
            ]
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
            for of_task, was, now in zip(self.questions, before.answers, after.answers, strict=True)
            if was
            for one in abilities(of_task[0], was, now)
        ]
        found += [_of_text(before.text, after.text)] if before.text else []
        told = Forgetting(step=step, abilities=tuple(one.ability for one in found))
        whole = _together(found)
        if whole is None:
            return told
        low, high = np.quantile(whole.spread, [0.025, 0.975])
        tasks = _together([one for one in found if one.ability.task != TEXT])
        share = tasks.value if tasks else None
        return told.model_copy(
            update={"retained": whole.value, "low": float(low), "high": float(high), "tasks_retained": share}
        )

    def write(self, run: Run, before: Reading, after: Reading) -> None:
        """Write both readings below the run's `forgetting/`, so that others can be compared with them."""
        for name, reading in (("before", before), ("after", after)):
            for of_task, answers in zip(self.questions, reading.answers, strict=True):
                run.write_lines(f"forgetting/{name}/{of_task[0].task.name}.jsonl", answers)
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
    questions = [questions_of(task, asked.limit, recipe.seed) for task in tasks]
    virtual = recipe.method.virtual_tokens
    return AbilityGauge(tuple(questions), asked.text, virtual) if questions or asked.text else None


def questions_of(task: Task, limit: int, seed: int) -> tuple[Question, ...]:
    """Ask at most `limit` rows of a task that is not learned: of its test split, then validation, then training.

    A task that is answered by writing is asked a quarter of them, as that takes many times longer.
    Raises ConfigError or DataError if it cannot be asked.
    """
    left = limit if by_choice(task) else -(-limit // 4)
    asked: list[Question] = []
    for split in reversed(task.splits()):
        if left > 0:
            question = Question(task, split, limit=left, seed=seed, listed=False)
            prompts = question.prompts()
            check(task, prompts, question.by)
            asked.append(question)
            left -= len(prompts)
    return tuple(asked)


def unlearned(learned: Sequence[Task], held: Sequence[Task] = ()) -> list[Task]:
    """Give the tasks held out, and embedded ones that share no cluster with those learned.

    Of these, those that are answered by choice, and one that is answered by writing: a model that has been tuned to
    choose may no longer write, and no choice would show it.
    """
    clusters = {task.cluster for task in learned} | {task.name for task in held}
    embedded = [load_task(name) for name in embedded_tasks()]
    asked = [task for task in embedded if task.name == WRITTEN or by_choice(task)]
    return [*held, *(task for task in asked if not {task.cluster, task.name} & clusters)]


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
    """An ability, and how much of it there was and is in each resample of its rows; None where there was none.

    The amount is a task's score above chance; of the general text it is 1 before, and after it the share that is
    left of a token's probability.
    """

    ability: Ability
    had: Stats | None = None
    has: Stats | None = None


class Share(NamedTuple):
    """A share that is retained, and what it is in each resample."""

    value: float
    spread: Stats


def _together(found: Sequence[Found]) -> Share | None:
    """Give what is left of all abilities together, each counted by how much of it there was; None if there was none.

    Not the mean of their shares: that of a task in which the base is hardly above chance is mostly noise.
    """
    told = [(one.ability, one.had, one.has) for one in found if one.had is not None and one.has is not None]
    if not told:
        return None
    had, has = (sum(_amounts(ability)[i] for ability, _, _ in told) for i in (0, 1))
    before, after = np.sum([one for _, one, _ in told], axis=0), np.sum([one for _, _, one in told], axis=0)
    return Share(has / had, _shares(before, after, had))


def _amounts(ability: Ability) -> tuple[float, float]:
    if ability.task == TEXT:
        return 1.0, math.exp(ability.before - ability.after)
    floor = ability.chance or 0.0
    return ability.before - floor, ability.after - floor


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
    first, second = paired_values(NATS_PER_TOKEN, was, now, _random(TEXT))
    return _retaining(_ability(TEXT, "text", NATS_PER_TOKEN, was, now), np.ones_like(first), np.exp(first - second))


def _found(task: Task, mark: Metric, was: Stats, now: Stats, chance: float | None) -> Found:
    """Compare one metric; what is retained is the share of what the base has above chance, if it has anything."""
    told = {"chance": chance, "language": task.templates[0].language}
    ability = _ability(task.name, task.cluster, mark, was, now).model_copy(update=told)
    floor = chance or 0.0
    if mark.name in LOWER_IS_BETTER or interval(mark, was).low <= floor:
        return Found(ability)
    first, second = paired_values(mark, was, now, _random(task.name))
    return _retaining(ability, first - floor, second - floor)


def _retaining(ability: Ability, had: Stats, has: Stats) -> Found:
    before, after = _amounts(ability)
    low, high = np.quantile(_shares(had, has, before), [0.025, 0.975])
    told = {"retained": after / before, "retained_low": float(low), "retained_high": float(high)}
    return Found(ability.model_copy(update=told), had, has)


def _random(name: str) -> np.random.Generator:
    """Give the draws of one ability: others must not be drawn alike, or their chances would add up."""
    return np.random.default_rng(int(draw(0, f"forgetting/{name}")[:15], 16))


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


def by_choice(task: Task) -> bool:
    """Tell whether a task's questions are answered by choice."""
    return all(prompt.choices for prompt in task.prompts(task.splits()[-1], limit=1))


def _longest(encoder: Encoder, prompt: Prompt, question: Question) -> int:
    """Count the tokens that a question and its longest answer may take."""
    answers = [len(encoder.answer_ids(replace(prompt, answer=choice))) for choice in prompt.choices]
    new = max(answers) if by_likelihood(prompt, question.by) else question.task.generation.max_new_tokens
    return len(encoder.prompt_ids(prompt)) + new


def _cut(text: str) -> tuple[str, str]:
    """Cut a text at the space nearest to its middle, or where there is none at its middle."""
    middle = text.find(" ", len(text) // 2)
    middle = middle if middle > 0 else len(text) // 2
    return text[:middle], text[middle:]
