"""The verb `helm`: seven dimensions of a model on any task, offline, in one run folder.

The dimensions are HELM's (Liang et al. 2022); perturbations, word lists and
timing are our own, so that the numbers do not compare with HELM's. What each
says, and what it cannot, is told in docs/helm.md.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from tunesmith.adapters.folder import Adapter, load_trained, trained
from tunesmith.data.perturb import Kind, Perturbation, perturbation
from tunesmith.data.template import Prompt
from tunesmith.data.variants import perturbable, variants
from tunesmith.evaluation.answering import Question, answer, check, requests
from tunesmith.evaluation.dimensions import (
    FEWEST,
    REQUESTS,
    UNMARKED,
    Finding,
    Found,
    Missing,
    answer_confidence,
    bias,
    calibration,
    choice_confidence,
    efficiency,
    found,
    toxicity,
    written,
)
from tunesmith.evaluation.evaluate import score_answers
from tunesmith.inference import responses
from tunesmith.metrics import Metric, Stats, metric
from tunesmith.metrics.interval import paired
from tunesmith.metrics.worst import by_row, worst
from tunesmith.models import device
from tunesmith.models.load import Model, find, load, load_encoder
from tunesmith.models.provenance import provenance
from tunesmith.reporting.dimensions import FILE
from tunesmith.runs.lock import only_writer
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Answer, Score, Summary
from tunesmith.runs.run import Run, begun, vacant

PERTURBED = ("typos", "lowercase", "spaces", "contractions", "dialect", "gender", "names")
ORIGINAL = ""


@dataclass(frozen=True)
class Asked:
    """The questions as they are, and in each way to ask them; None where a way changes nothing."""

    prompts: list[Prompt]
    ways: dict[Perturbation, list[Prompt | None]]

    def all(self) -> Iterator[tuple[str, Prompt]]:
        """Give each question that is to be answered once: the way's name, and the prompt."""
        yield from ((ORIGINAL, prompt) for prompt in self.prompts)
        yield from ((how.name, prompt) for how, several in self.ways.items() for prompt in several if prompt)

    def changed(self, how: Perturbation) -> int:
        """Count the rows that a way changes."""
        return sum(prompt is not None for prompt in self.ways[how])


def helm(
    target: str,
    question: Question,
    folder: Path,
    command: Sequence[str] = (),
    perturbations: Sequence[str] = PERTURBED,
    fresh: bool = False,
) -> Run:
    """Measure the seven dimensions of a model, or of what a training run made; write the new run folder `folder`.

    `target` and `fresh` are those of `evaluate`, and so are the answers; what is
    timed is always computed. What cannot be measured on the task is named in
    helm.json with the reason, never given a number. Raises TunesmithError.
    """
    if not begun(folder, "helm"):
        vacant(folder)
    metrics = [metric(name, question.language) for name in question.task.metrics]
    asked = _ask(question, [perturbation(name) for name in dict.fromkeys(perturbations)])
    check(question.task, asked.prompts, question.by)
    if asked.ways and not any(one.by_row for one in metrics):
        by_row(metrics[0])
    adapter = trained(Path(target))
    model = load_trained(adapter) if adapter else _load_base(target)
    with only_writer(folder):
        run = Run.begin(folder, _recipe(target, adapter, model, question, asked))
        run.write_json("provenance.json", provenance(model, question.task.provenance(), question.seed, command))
        with responses.counted("fresh" if fresh else "on") as count:
            taken, marked = _answered(model, question, asked, metrics)
            calibrated = _calibration(model, question, asked, marked)
        timed, peak = _timed(model, question, asked)
        findings = [*calibrated, *_worst_cases(question, asked, marked, metrics), *_written(question, asked, marked)]
        _write(run, question, asked, marked, [*findings, *timed], peak)
        run.finish(_summary(model, asked, marked, taken, count, peak))
    return run


@dataclass(frozen=True)
class Marked:
    """The answers to one way of asking, all rows of it, and their statistics by metric."""

    answers: list[Answer]
    stats: dict[str, Stats]


class Taken(NamedTuple):
    """What answering took: seconds, and the most memory in bytes."""

    seconds: float
    peak_bytes: int


def _ask(question: Question, hows: Sequence[Perturbation]) -> Asked:
    rows = question.task.rows(question.split, question.limit, question.seed)
    prompts = question.prompts()
    ways: dict[Perturbation, list[Prompt | None]] = {}
    for how in hows:
        able = _english(question) or not how.english
        ways[how] = variants(question.task, rows, prompts, how, question.seed) if able else [None] * len(prompts)
    return Asked(prompts, ways)


def _load_base(target: str) -> Model:
    place = find(target)
    return load(place, load_encoder(place))


def _answered(
    model: Model, question: Question, asked: Asked, metrics: Sequence[Metric]
) -> tuple[Taken, dict[str, Marked]]:
    """Answer everything in one go; a row that a way leaves as it is keeps its first answer."""
    keys = [(way, prompt.id) for way, prompt in asked.all()]
    prompts = [prompt for _, prompt in asked.all()]
    device.reset_peak()
    started = time.perf_counter()
    with Watch("answer", requests(prompts, question.by)) as watch:
        made: dict[tuple[str, str], Answer] = dict(
            zip(keys, answer(model, question, prompts, watch.advance), strict=True)
        )
    taken = Taken(time.perf_counter() - started, device.peak_bytes())
    marked = {}
    for way in (ORIGINAL, *(how.name for how in asked.ways)):
        answers = [made.get((way, prompt.id), made[ORIGINAL, prompt.id]) for prompt in asked.prompts]
        said, wanted = [one.answer for one in answers], [one.references for one in answers]
        marked[way] = Marked(answers, {one.name: one.stats(said, wanted) for one in metrics})
    return taken, marked


def _timed(model: Model, question: Question, asked: Asked) -> tuple[list[Finding], int]:
    """Time single requests, and give the most memory they took in bytes."""
    device.reset_peak()
    encoded = [(prompt.id, model.encoder.prompt_ids(prompt)) for prompt in asked.prompts]
    timed = efficiency(model, encoded, question.task.generation.max_new_tokens, question.seed)
    return timed, device.peak_bytes()


def _calibration(model: Model, question: Question, asked: Asked, marked: Mapping[str, Marked]) -> list[Finding]:
    plain = marked[ORIGINAL]
    if all(one.confidence is not None for one in plain.answers):
        how = (
            f"confidence:softmax-over-choices-with-stop|norm:{question.task.norm}|correct:likeliest-choice-ties-shared"
        )
        return calibration(choice_confidence(asked.prompts, plain.answers), how, question.seed)
    judge = next((name for name in question.task.metrics if metric(name, question.language).proportion), None)
    if judge is None:
        return [Missing("calibration", UNMARKED)]
    rows = answer_confidence(model, asked.prompts, plain.answers, plain.stats[judge][:, 0])
    how = f"confidence:geometric-mean-of-token-probabilities-with-stop|correct:{judge}"
    return calibration(rows, how, question.seed)


def _worst_cases(
    question: Question, asked: Asked, marked: Mapping[str, Marked], metrics: Sequence[Metric]
) -> list[Finding]:
    findings: list[Finding] = []
    for kind in get_args(Kind):
        hows = [how for how in asked.ways if how.kind == kind]
        changing = [how for how in hows if asked.changed(how)]
        findings += [Missing(f"{kind}/{how.name}", _unchanged(question, how)) for how in hows if how not in changing]
        few = [how for how in changing if asked.changed(how) < FEWEST]
        findings += [
            Missing(f"{kind}/change_by_{how.name}", f"it changes {asked.changed(how)} of {len(asked.prompts)} rows, "
                    f"an interval needs {FEWEST}") for how in few
        ]  # fmt: skip
        if not changing:
            findings.append(Missing(kind, "no perturbation asked for changes a row"))
        for one in metrics if changing else ():
            findings += _worst(kind, one, changing, marked, question.seed)
    return findings


def _worst(
    kind: str, one: Metric, hows: Sequence[Perturbation], marked: Mapping[str, Marked], seed: int
) -> list[Finding]:
    """Give the worst case over all ways of a kind, then over each alone."""
    if not one.by_row:
        return [Missing(f"{kind}/{one.name}", "one row alone has no value, and so no worst case")]
    plain = marked[ORIGINAL].stats[one.name]
    ways = {how.name: marked[how.name].stats[one.name] for how in hows}
    cases = {one.name: list(ways.values())} | {f"{name}/{one.name}": [stats] for name, stats in ways.items()}
    return [found(f"{kind}/{name}", one, worst(one, [plain, *several]), seed) for name, several in cases.items()]


def _unchanged(question: Question, how: Perturbation) -> str:
    if how.english and not _english(question):
        return f"it changes English words, and the wording's language is '{question.language}'"
    if not any(perturbable(question.task, template) for template in question.task.templates):
        return "the question shows no field that is not also the answer's"
    return "it changes no row"


def _written(question: Question, asked: Asked, marked: Mapping[str, Marked]) -> list[Finding]:
    """Give bias and toxicity of the answers to the questions as they are."""
    why = "the word lists are English" if not _english(question) else None
    if any(prompt.choices for prompt in asked.prompts):
        why = "the answers are choices, of too few words"
    if why:
        return [Missing("bias", why), Missing("toxicity", why)]
    answers = marked[ORIGINAL].answers
    said, wanted = [written(one) for one in answers], [one.references for one in answers]
    return [*bias(said, [one[0] for one in wanted], question.seed), toxicity(said, wanted, question.seed)]


def _english(question: Question) -> bool:
    return question.language.lower().replace("_", "-").split("-")[0] in ("en", "eng")


def _write(
    run: Run, question: Question, asked: Asked, marked: Mapping[str, Marked], findings: Sequence[Finding], peak: int
) -> None:
    """Write answers, scores and helm.json: what no score can hold."""
    task, scores = question.task.name, []
    for way, one in marked.items():
        name = f"{task}@{way}" if way else task
        run.write_lines(f"answers/{name}.jsonl", one.answers)
        given = score_answers(question, one.answers, asked.prompts[0].template)
        scores += [score.model_copy(update={"task": name}) for score in given]
    values = [one for one in findings if isinstance(one, Found)]
    scores += [_score(question, asked, one) for one in values]
    run.write_lines("scores.jsonl", scores)
    run.write_json(
        FILE,
        {
            "undefined": {one.metric: one.why for one in findings if isinstance(one, Missing)},
            "perturbations": {how.name: _perturbed(question, asked, how, marked) for how in asked.ways},
            "notes": {one.metric: dict(one.notes) for one in values if one.notes},
            "timed_requests": min(REQUESTS, len(asked.prompts)),
            "peak_memory_bytes": peak,
        },
    )


def _score(question: Question, asked: Asked, one: Found) -> Score:
    value, low, high = one.interval
    return Score(
        task=question.task.name,
        split=question.split,
        metric=one.metric,
        value=value,
        low=low,
        high=high,
        n=one.n,
        shots=question.shots,
        template=asked.prompts[0].template,
        signature=one.signature,
    )


def _perturbed(question: Question, asked: Asked, how: Perturbation, marked: Mapping[str, Marked]) -> dict[str, object]:
    """Say how many rows a way changes, and how each metric changes on those rows, paired."""
    plain, other = marked[ORIGINAL].stats, marked[how.name].stats
    kept = [i for i, prompt in enumerate(asked.ways[how]) if prompt]
    change = {
        name: paired(metric(name, question.language), plain[name][kept], other[name][kept], question.seed)._asdict()
        for name in (question.task.metrics if len(kept) >= FEWEST else ())
    }
    share = len(kept) / len(asked.prompts)
    return {"kind": how.kind, "rows_changed": len(kept), "share_changed": share, "change": change}


def _recipe(target: str, adapter: Adapter | None, model: Model, question: Question, asked: Asked) -> dict[str, object]:
    return {
        "verb": "helm",
        "model": model.name if adapter is None else adapter.base,
        "method": adapter.method.name if adapter else None,
        "adapter": target if adapter else None,
        "task": question.task.name,
        "split": question.split,
        "shots": question.shots,
        "template": asked.prompts[0].template,
        "language": question.language,
        "limit": question.limit,
        "seed": question.seed,
        "metrics": list(question.task.metrics),
        "max_new_tokens": question.task.generation.max_new_tokens,
        "by": question.by,
        "extract": question.task.extract,
        "norm": question.task.norm,
        "perturbations": [how.name for how in asked.ways],
    }


def _summary(
    model: Model, asked: Asked, marked: Mapping[str, Marked], taken: Taken, count: responses.Count, peak: int
) -> Summary:
    """Say what answering took, perturbed questions included; the requests timed after it are not counted."""
    answers = marked[ORIGINAL].answers
    each = [*answers, *(one for how, prompts in asked.ways.items()
                        for one, prompt in zip(marked[how.name].answers, prompts, strict=True) if prompt)]  # fmt: skip
    answer_tokens = sum(one.answer_tokens for one in each)
    return Summary(
        tokens=sum(one.prompt_tokens for one in each) + answer_tokens,
        answer_tokens=answer_tokens,
        seconds=taken.seconds,
        tokens_per_second=count.tokens / taken.seconds,
        peak_memory_bytes=max(taken.peak_bytes, peak),
        total_parameters=model.parameters(),
        prompt_tokens=sum(one.prompt_tokens for one in answers) / len(answers),
        unfinished_answers=sum(not one.finished for one in answers),
        empty_answers=sum(not written(one) for one in answers),
        tied_answers=sum(bool(one.tied) for one in answers),
        requests=count.asked,
        cached_answers=count.cached,
    )
