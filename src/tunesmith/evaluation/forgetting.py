"""Forgetting: what a model could do before it was tuned and can no longer do after.

Two things are measured on the same questions before and after: tasks that are not learned, and how well the model
predicts a small fixed general text. Choices are not listed in the questions: a small model that has not been taught
to choose from a list cannot, and would have nothing to forget. An ability is the task's first metric; where it is
answered by choice, the loss on the right choice says the same more finely.

Chance is what the same answers score when each is marked against another question's references: 1/k for guesses among
k even choices, all of its score for a model that always says the same, and for a summary what any summary shares with
any other. Where each question has choices of its own it is a guess among them. What a model has of an ability is its
score above that.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from tunesmith.data.blend import Blend
from tunesmith.data.encode import Encoder
from tunesmith.data.rows import draw
from tunesmith.data.task import Task
from tunesmith.data.template import Prompt
from tunesmith.data.unlearned import by_choice, measured
from tunesmith.errors import DataError
from tunesmith.evaluation.answering import Question, answer, by_likelihood, check, requests
from tunesmith.inference import responses
from tunesmith.inference.score import Continuation
from tunesmith.metrics import LOWER_IS_BETTER, metric
from tunesmith.metrics.interval import paired, paired_values
from tunesmith.metrics.loss import CHOICE_LOSS, NATS_PER_TOKEN, choice_loss
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.models.load import Model
from tunesmith.recipe import Recipe
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Ability, Answer, Forgetting, TextLoss
from tunesmith.runs.run import Run

TEXT = "general text"
SHIFTS = 20  # how many other questions each answer is marked against, to know what chance gives


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
        with responses.counted("on" if kept else "off"), Watch("measure what it can do", total, quiet) as watch:
            answers = [
                tuple(
                    said.model_copy(update={"id": f"{one.split}/{said.id}"})  # ids may repeat from split to split
                    for one, prompts in of_task
                    for said in answer(model, one, prompts, watch.advance)
                )
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
    if isinstance(work, Task):
        tasks = measured(asked, [work])
    else:
        tasks = measured(asked, [member.task for member in work.members], work.held)
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
            _markable(question, prompts)
            asked.append(question)
            left -= len(prompts)
    return tuple(asked)


def _markable(question: Question, prompts: Sequence[Prompt]) -> None:
    """Refuse, before anything is spent, what could not be marked after."""
    for name in question.task.metrics:
        metric(name, question.language)
    odd = next((one for one in prompts if one.choices and not set(one.choices) & set(one.references)), None)
    if odd is not None:
        raise DataError(
            f"task '{question.task.name}', row {odd.id}: none of its references is one of its choices",
            fix="leave 'references' out, or write them as the choices are",
        )


def abilities(question: Question, before: Sequence[Answer], after: Sequence[Answer]) -> list["Found"]:
    """Compare the answers to one task: by its first metric, and by the loss on the right choice where there is one."""
    task, mark = question.task, metric(question.task.metrics[0], question.language)
    was, now = (_Marked(_stats(mark, side, 0), _chance(mark, side)) for side in (before, after))
    found = [_found(task, mark, was, now)]
    if all(one.log_likelihoods for one in (*before, *after)):
        losses = [np.array([[_choice_loss(one)] for one in side]) for side in (before, after)]
        found.append(Found(_ability(task, CHOICE_LOSS, losses[0], losses[1])))
    return found


class _Marked(NamedTuple):
    """The statistics of each answer, and their means where it is marked against other questions' references."""

    own: Stats
    chance: Stats


def _stats(mark: Metric, answers: Sequence[Answer], shift: int) -> Stats:
    wanted = [answers[(i + shift) % len(answers)].references for i in range(len(answers))]
    return mark.stats([one.answer for one in answers], wanted)


def _chance(mark: Metric, answers: Sequence[Answer]) -> Stats:
    """Mark answers against the references of others, evenly spread over the rows.

    Where each question has choices of its own, others' references are none of them: there every choice is marked.
    """
    if all(one.choices for one in answers) and len({frozenset(one.choices) for one in answers}) > 1:
        return _guesses(mark, answers)
    n = len(answers)
    shifts = sorted({round(n * (i + 1) / (SHIFTS + 1)) for i in range(SHIFTS)} - {0, n}) or [0]
    found: Stats = np.mean([_stats(mark, answers, shift) for shift in shifts], axis=0)
    return found


def _guesses(mark: Metric, answers: Sequence[Answer]) -> Stats:
    """Give the mean statistics of all choices of each question: what a guess among them is worth."""
    pairs = [(choice, one.references) for one in answers for choice in one.choices]
    each = mark.stats([choice for choice, _ in pairs], [wanted for _, wanted in pairs])
    counts = np.array([len(one.choices) for one in answers])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    found: Stats = np.add.reduceat(each, starts, axis=0) / counts[:, None]
    return found


class Found(NamedTuple):
    """An ability, and how much of it there was and is in each resample of its rows; None for a loss on choices.

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

    Not the mean of their shares: that of a task in which the base is hardly above chance is mostly noise. Nor are
    such tasks left out: those that luck put above chance would be kept, and seem to have lost by it.
    """
    told = [(one.ability, one.had, one.has) for one in found if one.had is not None and one.has is not None]
    if not told:
        return None
    had, has = (sum(_amounts(ability)[i] for ability, _, _ in told) for i in (0, 1))
    before, after = np.sum([one for _, one, _ in told], axis=0), np.sum([one for _, _, one in told], axis=0)
    return Share(has / had, _shares(before, after, had)) if np.quantile(before, 0.025) > 0 else None


def _amounts(ability: Ability) -> tuple[float, float]:
    if ability.task == TEXT:
        return 1.0, math.exp(ability.before - ability.after)
    return ability.before - (ability.chance or 0.0), ability.after - (ability.chance_after or 0.0)


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
    ability = _ability(None, NATS_PER_TOKEN, was, now)
    return _retaining(ability, np.ones_like(first), np.exp(first - second))


def _found(task: Task, mark: Metric, was: _Marked, now: _Marked) -> Found:
    """Compare one metric, and what is above chance by it."""
    chances = {"chance": mark.value(was.chance), "chance_after": mark.value(now.chance)}
    ability = _ability(task, mark, was.own, now.own).model_copy(update=chances)
    if mark.name in LOWER_IS_BETTER:
        return Found(ability)
    own = paired_values(mark, was.own, now.own, _random(task.name))
    chance = paired_values(mark, was.chance, now.chance, _random(task.name))  # the same draws of rows
    return _retaining(ability, own[0] - chance[0], own[1] - chance[1])


def _retaining(ability: Ability, had: Stats, has: Stats) -> Found:
    """Add the share that is retained, where there is anything: where the base is above chance for certain."""
    if np.quantile(had, 0.025) <= 0:
        return Found(ability, had, has)
    before, after = _amounts(ability)
    low, high = np.quantile(_shares(had, has, before), [0.025, 0.975])
    told = {"retained": after / before, "retained_low": float(low), "retained_high": float(high)}
    return Found(ability.model_copy(update=told), had, has)


def _random(name: str) -> np.random.Generator:
    """Give the draws of one ability: others must not be drawn alike, or their chances would add up."""
    return np.random.default_rng(int(draw(0, f"forgetting/{name}")[:15], 16))


def _ability(task: Task | None, mark: Metric, was: Stats, now: Stats) -> Ability:
    """Compare two readings of one metric of a task; of the general text for None."""
    about = (TEXT, "text", "en") if task is None else (task.name, task.cluster, task.templates[0].language)
    told = paired(mark, was, now)
    values = {"before": mark.value(was), "after": mark.value(now), **told._asdict()}
    return Ability(task=about[0], cluster=about[1], language=about[2], metric=mark.name, n=len(was), **values)


def _choice_loss(one: Answer) -> float:
    right = next(i for i, choice in enumerate(one.choices) if choice in one.references)
    return choice_loss(one.log_likelihoods, right)


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
