"""Calibration, bias, toxicity and efficiency: each a function from a model's answers to findings.

A finding is a value with its interval, or the reason why there is none:
where nothing can be measured, no number is made up.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tunesmith.data.rows import draw
from tunesmith.data.template import Prompt
from tunesmith.inference import responses
from tunesmith.inference.generate import generate
from tunesmith.inference.score import Continuation
from tunesmith.metrics import calibration as sure
from tunesmith.metrics.fairness import (
    Groups,
    association_counts,
    association_metric,
    by_chance,
    heard,
    representation_counts,
    representation_metric,
)
from tunesmith.metrics.groups import ASSOCIATED, KINDS, groups, targets
from tunesmith.metrics.interval import Interval, interval, interval_name
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.metrics.toxicity import lexicon_toxicity
from tunesmith.models.load import Model
from tunesmith.runs.records import Answer

Ids = tuple[int, ...]
REQUESTS = 8  # timed one by one
FEWEST = 5  # answers with a word of the lists: resamples of fewer show no spread


@dataclass(frozen=True)
class Found:
    """A value with its 95 % interval over `n` rows; `notes` say what to read it against."""

    metric: str
    interval: Interval
    n: int
    signature: str
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """A dimension, or one metric of it, that this task cannot show, and why."""

    metric: str
    why: str


Finding = Found | Missing


def found(name: str, metric: Metric, stats: Stats, seed: int, **notes: Any) -> Found:
    """Give a metric's value on given statistics with its interval."""
    how = f"{metric.signature}|interval:{interval_name(metric, seed)}"
    return Found(name, interval(metric, stats, seed), len(stats), how, notes)


CALIBRATION: dict[str, Callable[[Stats], float]] = {  # of rows [n, (confidence, correctness)]
    "ece_10": lambda rows: sure.expected_error(rows[:, 0], rows[:, 1]),
    "ece_10_mass": lambda rows: sure.expected_error(rows[:, 0], rows[:, 1], by="mass"),
    "selective_accuracy_10": lambda rows: sure.selective_accuracy(rows[:, 0], rows[:, 1]),
    "selective_area": lambda rows: sure.selective_area(rows[:, 0], rows[:, 1]),
    "accuracy": lambda rows: float(rows[:, 1].mean()),
    "confidence": lambda rows: float(rows[:, 0].mean()),
}
UNMARKED = (
    "not defined for this task: none of its metrics says of an answer that it is right or wrong; "
    "add exact_match or accuracy to the task's metrics if that can be said"
)


def calibration(rows: Stats, how: str, seed: int) -> list[Finding]:
    """Give how well confidence and correctness, the columns of `rows` [n, 2], go together."""
    return [
        found(f"calibration/{name}", Metric(name, _given, f"{name}|{how}", of_rows=of_rows), rows, seed)
        for name, of_rows in CALIBRATION.items()
    ]


def choice_confidence(prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Stats:
    """Give [rows, 2]: the share of the likeliest choice among all choices, and whether it is the right one.

    Choices that share the first place share the credit.
    """
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        first = answer.tied or (answer.answer,)
        rows.append((answer.confidence, (prompt.answer in first) / len(first)))
    return np.array(rows, dtype=np.float64)


def answer_confidence(model: Model, prompts: Sequence[Prompt], answers: Sequence[Answer], right: Stats) -> Stats:
    """Give [rows, 2]: the geometric mean of the probabilities of an answer's tokens, and whether it is right.

    The stop token counts where the model wrote one; an answer without text has no other token.
    """
    wanted = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = model.encoder.answer_ids(replace(prompt, answer=written(answer)))
        wanted.append(Continuation(model.encoder.prompt_ids(prompt), ids if answer.finished else ids[:-1] or ids))
    likely = [math.exp(one.total / len(one.tokens)) for one in responses.loglikelihoods(model, wanted)]
    return np.stack([np.minimum(likely, 1.0), right], axis=1)


def written(answer: Answer) -> str:
    """Give the whole text that the model wrote, also where only a part of it is marked."""
    return answer.answer if answer.output is None else answer.output


def bias(answers: Sequence[str], references: Sequence[str], seed: int) -> list[Finding]:
    """Give how unequally answers name groups of people, at all and beside professions and adjectives.

    Only answers in which such a word stands count, and are what is resampled.
    """
    findings = []
    for kind in KINDS:
        named = groups(kind)
        pairs = [representation_counts(texts, named) for texts in (answers, references)]
        findings.append(_bias(representation_metric(f"representation_{kind}"), pairs, named, seed))
        for what in ASSOCIATED:
            pairs = [association_counts(texts, named, targets(what)) for texts in (answers, references)]
            metric = association_metric(f"association_{kind}_{what}", len(named))
            findings.append(_bias(metric, pairs, named, seed))
    return findings


def toxicity(answers: Sequence[str], references: Sequence[Sequence[str]], seed: int) -> Found:
    """Give the share of answers whose words our lexicon finds toxic; beside it the share of first references."""
    metric = lexicon_toxicity()
    theirs = metric.stats([wanted[0] for wanted in references], references)
    return found(
        "toxicity/lexicon_toxicity", metric, metric.stats(answers, references), seed, references=float(theirs.mean())
    )


def efficiency(model: Model, asked: Sequence[tuple[str, Ids]], new: int, seed: int) -> list[Finding]:
    """Time single requests: the same ones on every model, drawn by (seed, id), one after the other.

    Reading a prompt is timed as an answer of one token, writing as what a whole
    answer takes longer, per further token. A request of one user at a time is
    what an interactive user waits for; a batch gives more tokens per second.
    Whatever else the machine does while this is measured counts, too.
    """
    sample = sorted(asked, key=lambda one: draw(seed, f"time/{one[0]}"))[:REQUESTS]
    _timed(model, sample[0], new)  # the first call prepares what all share
    rows = []
    for one in sample:
        (_, reading), (written, whole) = _timed(model, one, 1), _timed(model, one, new)
        rows.append((len(one[1]), reading, written - 1, max(whole - reading, 1e-9), whole))
    taken = np.array(rows, dtype=np.float64)
    wrote = taken[taken[:, 2] > 0]
    measured = {name: wrote if name == DECODE else taken for name in TIMES}
    return [
        _timing(name, measured[name], seed, of)
        if len(measured[name])
        else Missing(f"efficiency/{name}", "no timed answer had a second token")
        for name, of in TIMES.items()
    ]


DECODE = "decode_tokens_per_second"
TIMES: dict[str, Callable[[Stats], float]] = {  # of rows [requests, (read, seconds, written, seconds, whole seconds)]
    "prefill_tokens_per_second": lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()),
    DECODE: lambda rows: float(rows[:, 2].sum() / rows[:, 3].sum()),
    "latency_p50_seconds": lambda rows: float(np.quantile(rows[:, 4], 0.5)),
    "latency_p95_seconds": lambda rows: float(np.quantile(rows[:, 4], 0.95)),
}


def _timing(name: str, rows: Stats, seed: int, of_rows: Callable[[Stats], float]) -> Found:
    how = f"{name}|requests:{len(rows)}-one-by-one"
    return found(f"efficiency/{name}", Metric(name, _given, how, of_rows=of_rows), rows, seed)


def _timed(model: Model, one: tuple[str, Ids], new: int) -> tuple[int, float]:
    """Give the tokens written for one request, its stop token included, and the seconds it took."""
    started = time.perf_counter()
    made = generate(model, [one], new)[0]
    return min(new, len(made.ids) + made.finished), time.perf_counter() - started


def _bias(metric: Metric, pairs: Sequence[Stats], named: Groups, seed: int) -> Finding:
    said, wanted = (heard(counts) for counts in pairs)
    name = f"bias/{metric.name}"
    if not len(said):
        beside = " beside one of a group" if metric.name.startswith("association") else ""
        return Missing(name, f"none of the words occurred{beside} in any answer")
    if len(said) < FEWEST:
        return Missing(name, f"only {len(said)} of {len(pairs[0])} answers hold such words, an interval needs {FEWEST}")
    times = said.sum(0).reshape(-1, len(named)).sum(1) * len(next(iter(named.values())))
    seen = [round(count) for count in times if count]
    notes = {
        "words": sum(seen),
        "by_chance": sum(by_chance(count, len(named)) for count in seen) / len(seen),
        "references": metric.value(wanted) if len(wanted) else None,
    }
    return found(name, metric, said, seed, **notes)


def _given(_said: Sequence[str], _wanted: Sequence[Sequence[str]]) -> Stats:
    return np.empty((0, 1))
