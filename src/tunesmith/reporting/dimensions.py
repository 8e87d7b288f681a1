"""The seven dimensions of a model on a task, runs side by side."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.errors import RunError
from tunesmith.metrics import Metric, Stats, metric
from tunesmith.metrics.interval import Paired, paired
from tunesmith.metrics.toxicity import lexicon_toxicity
from tunesmith.metrics.worst import worst
from tunesmith.reporting.compare import language, method_title
from tunesmith.reporting.numbers import fixed, metric_title, signed, size
from tunesmith.runs.records import DIMENSIONS, Answer, Score
from tunesmith.runs.run import Run

FILE = "helm.json"
SAME = ("task", "split", "limit", "seed", "shots", "template", "by", "perturbations")
EXPLAINED = {
    "accuracy": "the task's own metrics",
    "calibration": "whether the model is right as often as it is sure",
    "robustness": "the worst case of each row, as it is and perturbed",
    "fairness": "the worst case of each row, as it is and about or from somebody else",
    "bias": "how unequally the answers name groups; 0 is equally",
    "toxicity": "a list of words, no classifier",
    "efficiency": "single requests, one by one",
}
TITLES = {
    "ece_10": "ECE, 10 bins of equal width", "ece_10_mass": "ECE, 10 bins of equal mass",
    "selective_accuracy_10": "accuracy of the surest 10 %", "selective_area": "accuracy by sureness, area",
    "accuracy": "share right", "confidence": "mean confidence", "lexicon_toxicity": "lexicon toxicity",
    "prefill_tokens_per_second": "prefill, tokens/s", "decode_tokens_per_second": "decode, tokens/s",
    "latency_p50_seconds": "latency p50, s", "latency_p95_seconds": "latency p95, s",
}  # fmt: skip


def helm_table(runs: Sequence[Run]) -> str:
    """Write the seven dimensions of one or several runs side by side, as plain text.

    Raises RunError for a run that `helm` has not made, or if two were not asked the same.
    """
    told = [_told(run) for run in runs]
    _same(runs)
    columns = [_column(run, facts) for run, facts in zip(runs, told, strict=True)]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    titles = _titles(runs)
    for run in runs[1:]:
        columns.append({key: _signed(*found[:3]) for key, found in differences(runs[0], run).items()})
        titles.append(f"{run.name} - {runs[0].name}")
    lines: list[list[str]] = [[_asked(runs[0])], ["", *titles]]
    for part in DIMENSIONS:
        lines.append([f"{part}: {EXPLAINED[part]}"])
        shown = [[f"  {key[1]}", *(column.get(key, "-") for column in columns)] for key in keys if key[0] == part]
        lines += shown or [["  no number: see below"]]
    return "\n".join([*_aligned(lines), *_missing(runs, told), REMARK])


def differences(a: Run, b: Run) -> dict[tuple[str, str], Paired]:
    """Give `b` minus `a`, paired by row, for all that is marked answer by answer, by dimension and title.

    These are the task's own metrics, their worst cases, and toxicity.
    """
    task, found = a.asked()["task"], {}
    kinds = {name: str(facts["kind"]) for name, facts in _told(a)["perturbations"].items() if facts["rows_changed"]}
    answers = {way: _matched(a, b, f"{task}@{way}" if way else task) for way in ("", *kinds)}
    for name in a.asked()["metrics"]:
        one = metric(name, language(a, task))
        ours, theirs = ({way: _stats(one, sides[i]) for way, sides in answers.items()} for i in (0, 1))
        found["accuracy", _title("accuracy", name)] = paired(one, ours[""], theirs[""])
        for kind in dict.fromkeys(kinds.values()) if one.by_row else ():
            ways = ["", *(way for way in kinds if kinds[way] == kind)]
            before, after = (worst(one, [stats[way] for way in ways]) for stats in (ours, theirs))
            found[kind, _title(kind, name)] = paired(one, before, after)
    if any(score.dimension == "toxicity" for score in a.scores()):
        toxic = lexicon_toxicity()
        before, after = (_stats(toxic, side) for side in answers[""])
        found["toxicity", _title("toxicity", toxic.name)] = paired(toxic, before, after)
    return found


def _stats(one: Metric, answers: Sequence[Answer]) -> Stats:
    return one.stats([answer.answer for answer in answers], [answer.references for answer in answers])


def _matched(a: Run, b: Run, task: str) -> tuple[list[Answer], list[Answer]]:
    ours, theirs = a.answers(task), {answer.id: answer for answer in b.answers(task)}
    return ours, [theirs[answer.id] for answer in ours]


REMARK = (
    "In brackets the 95 % interval. The perturbations and word lists are our own: these numbers do not compare with "
    "HELM's, and lexicon toxicity not with Perspective's."
)


def _told(run: Run) -> dict[str, Any]:
    path = run.folder / FILE
    if not path.is_file():
        raise RunError(f"{run.folder}: holds no {FILE}", fix="name finished runs of tunesmith bench helm")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _same(runs: Sequence[Run]) -> None:
    """Refuse runs that were asked different questions: their numbers would not stand side by side."""
    first, *others = (run.asked() for run in runs)
    for run, asked in zip(runs[1:], others, strict=True):
        other = next((key for key in SAME if asked.get(key) != first.get(key)), None)
        if other:
            raise RunError(
                f"{run.folder}: {other} is {asked.get(other)}, that of {runs[0].folder} is {first.get(other)}",
                fix="measure both on the same rows, asked in the same ways",
            )


def _asked(run: Run) -> str:
    asked = run.asked()
    rows = len(run.answers(asked["task"]))
    shots = f"{asked['shots']}-shot" if asked["shots"] else "zero-shot"
    return f"{asked['task']}, {asked['split']}, {rows} rows, {shots}"


def _titles(runs: Sequence[Run]) -> list[str]:
    """Name each run by its folder and what answered."""
    asked = [(run.name, run.asked()) for run in runs]
    made = [
        f"{told['model']}, {method_title(told['method'])}" if told["method"] else told["model"] for _, told in asked
    ]
    return [f"{name} ({what})" for (name, _), what in zip(asked, made, strict=True)]


def _column(run: Run, told: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Give what one run shows, by dimension and title, in the order to show it in."""
    task, cells = run.asked()["task"], {}
    rows = len(run.answers(task))
    for score in run.scores():
        part = score.dimension
        name = score.metric if part == "accuracy" else score.metric.removeprefix(f"{part}/")
        # The worst cases of single perturbations are in scores.jsonl; here is how each changes the mean.
        if score.task == task and (part == "accuracy" or "/" not in name):
            title = _title(part, name)
            cells[part, title] = _value(score)
            notes = _beside(score, told["notes"].get(score.metric, {}), rows)
            cells |= {(part, f"{title}: {note}"): text for note, text in notes.items()}
    for name, facts in told["perturbations"].items():
        first = next(iter(facts["change"]), None)
        if first:
            title = f"change by {name}, {metric_title(first)} ({facts['rows_changed']} rows)"
            cells[facts["kind"], title] = _change(facts["change"][first])
    cells["efficiency", "peak memory, one request"] = size(told["peak_memory_bytes"])
    return cells


def _title(part: str, name: str) -> str:
    if part in ("robustness", "fairness"):
        return f"worst case, {metric_title(name)}"
    return metric_title(name) if part == "accuracy" else TITLES.get(name, name.replace("_", " "))


def _value(score: Score) -> str:
    digits = 1 if score.value >= 10 else 3
    return f"{score.value:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def _beside(score: Score, notes: Mapping[str, Any], rows: int) -> dict[str, str]:
    """Give what a value is to be read against."""
    known = {"by chance": notes.get("by_chance"), "of the references": notes.get("references")}
    said = {title: fixed(value) for title, value in known.items() if value is not None}
    return {"answers with such words": f"{score.n} of {rows}", **said} if score.dimension == "bias" else said


def _change(change: Mapping[str, float]) -> str:
    """Write how a metric changes on the rows changed: unlike the worst case, it can go up."""
    return _signed(change["difference"], change["low"], change["high"])


def _signed(difference: float, low: float, high: float) -> str:
    if not (difference or low or high):
        return "no difference"
    return f"{signed(difference)} [{signed(low)}, {signed(high)}]"


def _missing(runs: Sequence[Run], told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what has no number, and why, once for all metrics with the same reason in the same runs."""
    whose: dict[tuple[str, str], list[str]] = {}
    for run, facts in zip(runs, told, strict=True):
        for name, why in facts["undefined"].items():
            whose.setdefault((name, why), []).append(run.name)
    reasons: dict[tuple[str, tuple[str, ...]], dict[str, list[str]]] = {}
    for (metric_name, why), whole in whose.items():
        part, _, name = metric_name.partition("/")
        named = reasons.setdefault((why, tuple(whole)), {}).setdefault(part, [])
        named += [name.replace("_", " ")] if name else []
    lines = []
    for (why, which), parts in reasons.items():
        what = "; ".join(f"{part} ({', '.join(named)})" if named else part for part, named in parts.items())
        lines.append(f"  {what}{'' if len(which) == len(runs) else ' in ' + ', '.join(which)}: {why}")
    return ["without a number:", *lines] if lines else []


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [line for line in lines if len(line) > 1]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        line[0] if len(line) == 1
        else "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]  # fmt: skip
