"""The verb `eval`: a model answers the questions of one task or several; answers and scores become a run folder."""

import time
from collections.abc import Sequence
from pathlib import Path

from tunesmith.adapters.folder import Adapter, load_trained, trained
from tunesmith.data.task import Task
from tunesmith.data.template import Prompt
from tunesmith.errors import ConfigError
from tunesmith.evaluation.answering import Question, answer, check, requests
from tunesmith.inference import responses
from tunesmith.metrics import UNPARSED, metric
from tunesmith.metrics.score import Mark, score
from tunesmith.models import device
from tunesmith.models.load import Model, find, load, load_encoder
from tunesmith.models.provenance import provenance
from tunesmith.runs.lock import only_writer
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Answer, Score, Summary
from tunesmith.runs.run import Run, begun, vacant

__all__ = ["Question", "evaluate", "score_answers"]


def evaluate(
    target: str | Model,
    question: Question | Sequence[Question],
    folder: Path,
    command: Sequence[str] = (),
    strength: float = 1.0,
    fresh: bool = False,
) -> Run:
    """Let a model, or what a training run made, answer `question`, or several; write the new run folder `folder`.

    `target` is anything `find` knows, a model that is loaded, the folder of a training run, or that of
    an adapter, ours or peft's, of whose effect `strength` (0 to 1) is taken.
    Answers that are kept from before are not computed again, unless `fresh`;
    so an evaluation that was stopped goes on, in its own folder too. Raises TunesmithError.
    """
    if not begun(folder, "eval"):
        vacant(folder)
    adapter = trained(Path(target)) if isinstance(target, str) else None
    if adapter is None and strength != 1.0:
        raise ConfigError(
            f"--strength: {target} is a model, not an adapter", fix="leave it out, or name a training run"
        )
    asked = [(one, one.prompts()) for one in _several(question)]
    for one, prompts in asked:
        check(one.task, prompts, one.by)
        for name in one.task.metrics:
            metric(name, one.language)
    model = load_trained(adapter, strength=strength) if adapter else _base(target)
    told = _asked(str(target) if adapter else None, adapter, model, asked)
    with only_writer(folder):
        run = Run.begin(folder, {**told, **({"strength": strength} if adapter else {})})
        run.write_json("provenance.json", provenance(model, _sources(asked), asked[0][0].seed, command))
        device.reset_peak()
        started = time.perf_counter()
        watching = Watch("answer", sum(requests(prompts, one.by) for one, prompts in asked))
        scores: list[Score] = []
        answers: list[Answer] = []
        with watching as watch, responses.counted("fresh" if fresh else "on") as count:
            for one, prompts in asked:
                found = answer(model, one, prompts, watch.advance)
                run.write_lines(f"answers/{one.task.name}.jsonl", found)
                scores += score_answers(one, found, prompts[0].template)
                answers += found
        run.write_lines("scores.jsonl", scores)
        run.finish(_summary(model, answers, count, time.perf_counter() - started))
    return run


def _several(question: Question | Sequence[Question]) -> list[Question]:
    """Give one question or several as a list. Raises ConfigError if there are none, or two on one task."""
    questions = [question] if isinstance(question, Question) else list(question)
    names = [one.task.name for one in questions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not questions or twice is not None:
        told = "there is no task to evaluate on" if not questions else f"the task '{twice}' is named twice"
        raise ConfigError(told, fix="name each task once")
    return questions


def _sources(asked: Sequence[tuple[Question, Sequence[Prompt]]]) -> dict[str, dict[str, str | int]]:
    if len(asked) == 1:
        return asked[0][0].task.provenance()
    tasks = [one.task for one, _ in asked]
    return {f"{task.name}/{split}": told for task in tasks for split, told in task.provenance().items()}


def score_answers(question: Question, answers: Sequence[Answer], template: str) -> list[Score]:
    """Mark the answers with each metric of the task; the share in which an extractor found nothing comes last.

    Raises DataError if there are none.
    """
    task = question.task
    marks = _marks(question, answers, task.metrics)
    extracted = [answer for answer in answers if answer.output is not None]
    if extracted and UNPARSED not in task.metrics:
        marks += _marks(question, extracted, [UNPARSED])
    return [
        Score(
            task=task.name,
            split=question.split,
            metric=mark.metric,
            value=mark.value,
            low=mark.low,
            high=mark.high,
            n=mark.n,
            shots=question.shots,
            template=template,
            signature=mark.signature + _how(task, answers),
        )
        for mark in marks
    ]


def _marks(question: Question, answers: Sequence[Answer], metrics: Sequence[str]) -> list[Mark]:
    said, wanted = [answer.answer for answer in answers], [answer.references for answer in answers]
    return score(said, wanted, metrics, question.language, question.seed)


def _how(task: Task, answers: Sequence[Answer]) -> str:
    """Name what lies between the model and the marks, for signatures: nothing where its text is marked as it is."""
    extracted = f"|extract:{task.extract}" if any(answer.output is not None for answer in answers) else ""
    chosen = f"|by:likelihood|stop:counted|norm:{task.norm}" if any(answer.choices for answer in answers) else ""
    return extracted + chosen


def _base(target: str | Model) -> Model:
    if isinstance(target, Model):
        return target
    place = find(target)
    return load(place, load_encoder(place))


def _asked(
    target: str | None, adapter: Adapter | None, model: Model, asked: Sequence[tuple[Question, Sequence[Prompt]]]
) -> dict[str, object]:
    """Write down what is asked: of one task beside the model, of several below `tasks`."""
    told = [_asked_of(question, prompts) for question, prompts in asked]
    who = {
        "verb": "eval",
        "model": model.name if adapter is None else adapter.base,
        "method": adapter.method.name if adapter else None,
        "adapter": target,
    }
    return {**who, **told[0]} if len(told) == 1 else {**who, "shots": asked[0][0].shots, "tasks": told}


def _asked_of(question: Question, prompts: Sequence[Prompt]) -> dict[str, object]:
    return {
        "task": question.task.name,
        "split": question.split,
        "shots": question.shots,
        "same_shots": question.same_shots,
        "listed": question.listed,
        "template": prompts[0].template,
        "language": question.language,
        "limit": question.limit,
        "seed": question.seed,
        "metrics": list(question.task.metrics),
        "max_new_tokens": question.task.generation.max_new_tokens,
        "by": question.by,
        "extract": question.task.extract,
        "norm": question.task.norm,
    }


def _summary(model: Model, answers: Sequence[Answer], count: responses.Count, seconds: float) -> Summary:
    prompt_tokens = sum(answer.prompt_tokens for answer in answers)
    answer_tokens = sum(answer.answer_tokens for answer in answers)
    return Summary(
        tokens=prompt_tokens + answer_tokens,
        answer_tokens=answer_tokens,
        seconds=seconds,
        tokens_per_second=count.tokens / seconds,
        peak_memory_bytes=device.peak_bytes(),
        total_parameters=model.parameters(),
        prompt_tokens=prompt_tokens / len(answers),
        unfinished_answers=sum(not answer.finished for answer in answers),
        empty_answers=sum(not (answer.answer or answer.output) for answer in answers),
        tied_answers=sum(bool(answer.tied) for answer in answers),
        requests=count.asked,
        cached_answers=count.cached,
        engine_seconds=count.seconds,
    )
