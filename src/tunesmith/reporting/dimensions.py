"""The seven dimensions of a model on a task, runs side by side."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.errors import RunError
from tunesmith.reporting.numbers import fixed, metric_title, signed, size
from tunesmith.runs.records import Score
from tunesmith.runs.run import Run

FILE = "helm.json"
DIMENSIONS = ("accuracy", "calibration", "robustness", "fairness", "bias", "toxicity", "efficiency")
SAME = ("task", "split", "limit", "seed", "shots", "template", "perturbations")
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
    "accuracy": "right", "confidence": "mean confidence", "lexicon_toxicity": "lexicon toxicity, share of answers",
    "prefill_tokens_per_second": "prefill, tokens/s", "decode_tokens_per_second": "decode, tokens/s",
    "latency_p50_seconds": "latency p50, s", "latency_p95_seconds": "latency p95, s",
}  # fmt: skip


def dimension(score: Score) -> str:
    """Name the dimension that a score belongs to; accuracy for a metric of the task itself."""
    head, slash, _ = score.metric.partition("/")
    return head if slash and head in DIMENSIONS else "accuracy"


def helm_table(runs: Sequence[Run]) -> str:
    """Write the seven dimensions of one or several runs side by side, as plain text.

    Raises RunError for a run that `helm` has not made, or if two were not asked the same.
    """
    told = [_told(run) for run in runs]
    _same(runs)
    columns = [_column(run, facts) for run, facts in zip(runs, told, strict=True)]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    lines: list[list[str]] = [["", *_titles(runs)]]
    for part in DIMENSIONS:
        lines.append([f"{part}: {EXPLAINED[part]}"])
        lines += [[f"  {key[1]}", *(column.get(key, "-") for column in columns)] for key in keys if key[0] == part]
    return "\n".join([*_aligned(lines), *_missing(runs, told), REMARK])


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


def _titles(runs: Sequence[Run]) -> list[str]:
    """Name each run by its model and folder."""
    return [f"{run.asked()['model']} ({run.name})" for run in runs]


def _column(run: Run, told: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Give what one run shows, by dimension and title, in the order to show it in."""
    task, cells = run.asked()["task"], {}
    for score in run.scores():
        part, _, name = (
            score.metric.partition("/") if dimension(score) != "accuracy" else ("accuracy", "", score.metric)
        )
        if score.task == task and "/" not in name:
            cells[part, _title(part, name)] = _value(score) + _beside(told["notes"].get(score.metric, {}))
    for name, facts in told["perturbations"].items():
        title = f"change by {name} ({facts['share_changed']:.0%} of rows)"
        cells[facts["kind"], title] = _change(facts)
    cells["efficiency", "peak memory, one request"] = size(told["peak_memory_bytes"])
    return cells


def _title(part: str, name: str) -> str:
    if part in ("robustness", "fairness"):
        return f"{metric_title(name)}, worst case"
    return metric_title(name) if part == "accuracy" else TITLES.get(name, name.replace("_", " "))


def _value(score: Score) -> str:
    digits = 1 if score.value >= 10 else 3
    return f"{score.value:.{digits}f} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def _beside(notes: Mapping[str, Any]) -> str:
    known = {"references": "references", "by_chance": "by chance"}
    said = [f"{title} {fixed(notes[key])}" for key, title in known.items() if notes.get(key) is not None]
    return f"  ({', '.join(said)})" if said else ""


def _change(facts: Mapping[str, Any]) -> str:
    """Write how the task's first metric changes on average: unlike the worst case, it can go up."""
    if not facts.get("change"):
        return "-"
    name, change = next(iter(facts["change"].items()))
    return f"{signed(change['difference'])} [{signed(change['low'])}, {signed(change['high'])}] {metric_title(name)}"


def _missing(runs: Sequence[Run], told: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what has no number, and why, once for all runs and metrics with the same reason."""
    reasons: dict[str, dict[str, list[str]]] = {}
    for title, facts in zip(_titles(runs), told, strict=True):
        for metric, why in facts["undefined"].items():
            reasons.setdefault(why, {}).setdefault(metric, []).append(title)
    lines = []
    for why, metrics in reasons.items():
        everyone = all(len(titles) == len(runs) for titles in metrics.values())
        whose = "" if everyone else f" ({'; '.join(dict.fromkeys(t for titles in metrics.values() for t in titles))})"
        lines.append(f"  {', '.join(metrics)}{whose}: {why}")
    return ["without a number:", *lines] if lines else []


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    rows = [line for line in lines if len(line) > 1]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        line[0] if len(line) == 1
        else "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]  # fmt: skip
