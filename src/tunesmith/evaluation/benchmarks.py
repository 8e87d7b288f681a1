"""The verb `bench`: whole benchmarks, lm-eval's tasks answered by our engine.

The table below says which tasks a benchmark has and how its authors make one
number of them. Any other name is one of lm-eval's own tasks, groups or tags.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.names import extra
from tunesmith.runs.records import Score
from tunesmith.runs.run import Run


@dataclass(frozen=True)
class Average:
    """How one number is made of several tasks.

    called: the metric's name in the score.
    metrics: those that count, by task, "" standing for all others; those of one task are averaged first.
    name: what follows the benchmark's name, e.g. "stem"; "" for the authors' own number.
    groups: tasks that are averaged before the rest, each group counting as one task.
    by_size: every question counts alike; otherwise every task or group does.
    tasks: the tasks that count; none named: all.
    """

    called: str
    metrics: Mapping[str, tuple[str, ...]]
    name: str = ""
    groups: tuple[tuple[str, ...], ...] = ()
    by_size: bool = False
    tasks: frozenset[str] = frozenset()

    def of(self, task: str) -> tuple[str, ...]:
        """Give the metrics that count for a task."""
        return self.metrics.get(task, self.metrics.get("", ()))

    def covers(self, task: str) -> bool:
        """Tell whether a task counts."""
        return not self.tasks or task in self.tasks


@dataclass(frozen=True)
class Suite:
    """One benchmark.

    tasks: what lm-eval calls it. protocol: whose prompts and marking these are.
    shots: the authors' number of worked examples; None: that of lm-eval's task.
    parts: further averages, each over the tasks of one of lm-eval's groups.
    read: finds the answer in a written text, None if there is none.
    change: what is changed in each task's configuration; its tasks are then called with `suffix`.
    note: where the average differs from the authors'.
    """

    tasks: str
    protocol: str
    averages: tuple[Average, ...] = ()
    shots: int | None = None
    parts: Mapping[str, str] | None = None
    read: Callable[[str], str | None] | None = None
    change: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    suffix: str = ""
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """What to ask: benchmarks by name, and how.

    `shots` None takes each benchmark's own number; `limit` is the number of questions of each benchmark;
    `data` a folder of upstream files, None for the hub.
    """

    names: tuple[str, ...]
    shots: int | None = None
    limit: int | None = None
    data: Path | None = None
    seed: int = 0
    chat: bool = False
    dtype: str | None = None


def bench(target: str, asked: Bench, folder: Path, command: Sequence[str] = ()) -> Run:
    """Answer benchmarks with a model, or with what a training run made; write the run folder `folder`.

    A run that was interrupted goes on if the same is asked of it. Raises
    TunesmithError; without lm-eval, one with the command that installs it.
    """
    extra("lm_eval", "bench")
    from tunesmith.evaluation.benching import run_bench

    return run_bench(target, asked, folder, command)


def table(run: Run) -> list[str]:
    """Write the scores of a run as lines, averages first, and what a reader has to know about them."""
    scores, protocols = run.scores(), run.protocols()
    by_task: dict[str, list[Score]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(score)
    width = max(map(len, by_task))
    lines = [f"{task:<{width}}  {_told(given)}" for task, given in by_task.items()]
    if not any(score.metric.startswith("unparsed") for score in scores):
        lines.append("unparsed answers: none, for likelihoods chose among given ones")
    for field, told in (
        ("cut", "requests lost their beginning: the model's context has no room for it"),
        ("moved", "answers begin with a token that also holds the question's last letters; it is scored as a whole"),
    ):
        counts = {one.task: getattr(one, field) for one in protocols if getattr(one, field)}
        if counts:
            where = ", ".join(f"{task} {n}" for task, n in sorted(counts.items(), key=lambda pair: -pair[1])[:4])
            lines.append(f"{sum(counts.values())} of {sum(one.requests for one in protocols)} {told} ({where})")
    return [*lines, *run.asked()["notes"]]


def _told(scores: Sequence[Score]) -> str:
    marks = [f"{score.metric} {score.value:.4f} [{score.low:.4f}, {score.high:.4f}]" for score in scores]
    return f"n={scores[0].n:<5} {scores[0].shots}-shot  {'  '.join(marks)}"


def read_direct(text: str) -> str | None:
    """Read an answer that is all of the text, as BIG-Bench Hard's authors read those without a chain of thought."""
    return text.strip() or None


def read_chain(text: str) -> str | None:
    """Read what follows the last "answer is", without its full stop, as BIG-Bench Hard's authors do."""
    *_, said = text.rpartition("answer is ")
    return said.strip().split("\n")[0].removesuffix(".") or None if "answer is " in text else None


def _two_spaces(config: Mapping[str, Any]) -> dict[str, Any]:
    """Write MMLU's prompts as its authors' evaluate.py does: two spaces before the subject, the question as it is."""
    return {
        "description": str(config["description"]).replace(" about ", " about  "),
        "doc_to_text": str(config["doc_to_text"]).replace("{{question.strip()}}", "{{question}}"),
    }


def _mmlu(tasks: str, protocol: str, part: str, **more: Any) -> Suite:
    parts = {name: part.format(name) for name in ("stem", "humanities", "social_sciences", "other")}
    by_question = Average("acc", {"": ("acc",)}, by_size=True)
    return Suite(tasks, protocol, (by_question,), shots=5, parts=parts, **more)


def _bbh(tasks: str, metric: str, theirs: str, **more: Any) -> Suite:
    """Average as the paper does, over 23 tasks, and as lm-eval does, over questions."""
    kinds = ("logical_deduction", "tracking_shuffled_objects")
    triples = tuple(tuple(f"{tasks}_{kind}_{n}_objects" for n in ("three", "five", "seven")) for kind in kinds)
    averages = (
        Average(metric, {"": (metric,)}, groups=triples),
        *(Average(one, {"": (one,)}, name="by_size", by_size=True) for one in dict.fromkeys((metric, theirs))),
        Average("unparsed", {"": ("unparsed",)}, by_size=True),
    )
    return Suite(tasks, f"lm-eval {tasks}", averages, **more)


SUITES: dict[str, Suite] = {
    "mmlu": _mmlu("mmlu", "lm-eval mmlu", "mmlu_{}"),
    "mmlu:cloze": _mmlu("mmlu_continuation", "lm-eval mmlu_continuation", "mmlu_{}_continuation"),
    "mmlu:original": _mmlu("mmlu", "hendrycks mmlu", "mmlu_{}", change=_two_spaces, suffix="_original"),
    "bbh": _bbh("bbh_fewshot", "accuracy", "exact_match", read=read_direct),
    "bbh_cot": _bbh("bbh_cot_fewshot", "accuracy", "exact_match,get-answer", read=read_chain),
    "bbh_choice": _bbh(
        "leaderboard_bbh", "acc_norm", "acc_norm",
        note="bbh_choice: 24 of the 27 files, 20 of the authors' 23 tasks, have answers to choose among",
    ),
    "glue": Suite(
        "glue", "lm-eval glue",
        (Average("average", {"": ("acc",), "cola": ("mcc",), "mrpc": ("f1", "acc"), "qqp": ("f1", "acc")},
                 groups=(("mnli", "mnli_mismatch"),)),),
        note="glue: the average is over at most 8 of the 9 tasks, on their development sets; lm-eval has no STS-B",
    ),
    "superglue": Suite(
        "super-glue-lm-eval-v1", "lm-eval super_glue",
        (Average("average", {"": ("acc",), "cb": ("f1", "acc"), "record": ("f1", "em")}),),
        note="superglue: on the development sets; MultiRC counts as accuracy over answers (the authors': F1a and EM)",
    ),
}  # fmt: skip
