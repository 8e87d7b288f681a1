"""How the verb `bench` goes: tasks and data, then the model, then every request in one go, then the run folder."""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunesmith.adapters.folder import Adapter, load_trained, trained
from tunesmith.errors import ConfigError, DataError
from tunesmith.evaluation import lmtasks
from tunesmith.evaluation.benchmarks import SUITES, Average, Bench, Suite
from tunesmith.evaluation.harness import Counts, Harness
from tunesmith.evaluation.lmtasks import Asked, Outcome
from tunesmith.evaluation.tally import Marks, average, marks_of
from tunesmith.metrics.interval import Interval
from tunesmith.models import device
from tunesmith.models.load import Model, find, load, load_encoder
from tunesmith.models.provenance import provenance
from tunesmith.names import suggest
from tunesmith.runs.progress import Watch
from tunesmith.runs.records import Answer, Choice, Protocol, Score, Summary
from tunesmith.runs.run import Run, vacant


@dataclass(frozen=True)
class Plan:
    """One benchmark to run: its tasks with their questions, its averages, and what has to be told beside them."""

    name: str
    suite: Suite
    tasks: tuple[Asked, ...]
    averages: tuple[Average, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Marked:
    """A task whose questions are answered: their marks, and the hash of the prompts."""

    asked: Asked
    outcomes: tuple[Outcome, ...]
    marks: Mapping[str, Marks]
    prompts: str


def run_bench(target: str, asked: Bench, folder: Path, command: Sequence[str] = ()) -> Run:
    """Do what `bench` promises."""
    adapter = trained(Path(target))
    place = None if adapter else find(target)
    manager = lmtasks.index()
    plans = [plan(manager, name, asked) for name in asked.names]
    _no_task_twice(plans)
    run = _started(folder, _asked(target, adapter, asked, plans))
    model = load_trained(adapter, asked.dtype) if adapter else load(place, load_encoder(place), asked.dtype or "auto")  # type: ignore[arg-type]
    run.write_json("provenance.json", {**provenance(model, _sources(plans, asked), asked.seed, command), **_versions()})
    device.reset_peak()
    started = time.perf_counter()
    harness, made = _answered(model, plans, asked)
    seconds = time.perf_counter() - started
    scores: list[Score] = []
    protocols: list[Protocol] = []
    answers: list[Answer] = []
    for one in plans:
        marked = [_marked(task, made, one.suite, asked.seed) for task in one.tasks]
        answers += [answer for task in marked for answer in _write(run, task, harness)]
        protocols += [_protocol(one, task, harness.counts) for task in marked]
        scores += _scores(one, marked, model, asked)
    run.write_lines("protocols.jsonl", protocols)
    run.write_lines("scores.jsonl", scores)
    run.finish(_summary(model, harness.counts, answers, seconds))
    return run


def plan(manager: Any, name: str, asked: Bench) -> Plan:
    """Build the tasks of a benchmark and choose their questions. Raises ConfigError and DataError."""
    known = manager.task_index
    suite = SUITES.get(name) or Suite(name, f"lm-eval {name}", _averages_of_group(known, name))
    if name not in SUITES and name not in known:
        raise ConfigError(f"there is no benchmark '{name}'", fix=suggest(name, [*SUITES, *known]))
    shots = asked.shots if asked.shots is not None else suite.shots
    specs, absent = _specs(known, suite, asked, shots)
    built = lmtasks.build(manager, specs if specs is not None else suite.tasks)
    ready = [lmtasks.prepare(task + suite.suffix, made, shots, asked.seed) for task, made in sorted(built.items())]
    chosen = lmtasks.limited(ready, asked.limit, asked.seed)
    notes = [suite.note] if suite.note else []
    if absent:
        notes.append(f"{name}: {len(built)} of {len(built) + len(absent)} tasks; no files for {', '.join(absent)}")
    fewer = Counter(task.shots for task in ready if shots is not None and task.shots < shots)
    notes += [f"{name}: {n} tasks show {k} worked examples, not {shots}: they have no more" for k, n in fewer.items()]
    averages = suite.averages + _parts(known, suite)
    return Plan(name, suite, tuple(chosen), averages, tuple(notes))


def _specs(
    known: Mapping[str, Any], suite: Suite, asked: Bench, shots: int | None
) -> tuple[list[dict[str, Any]] | None, list[str]]:
    """Give each task's changes, None if a name can be built as it is, and the tasks that the folder has no files of."""
    tasks = lmtasks.leaves(known, suite.tasks)
    if asked.data is None and suite.change is None and not lmtasks.REPLACED.keys() & set(tasks):
        return None, []
    specs, refused = [], {}
    for task in tasks:
        spec = {
            "task": task,
            **lmtasks.REPLACED.get(task, {}),
            **(suite.change(known[task].cfg) if suite.change else {}),
        }
        try:
            if asked.data is not None:
                drawn = bool(shots if shots is not None else known[task].cfg.get("num_fewshot"))
                spec["custom_dataset"] = lmtasks.reader(known, task, asked.data, drawn)
            specs.append(spec)
        except DataError as wrong:
            refused[task] = wrong
            if "no such file" not in wrong.what:
                raise
    if not specs:
        raise refused[tasks[0]]
    return specs, sorted(refused)


def _parts(known: Mapping[str, Any], suite: Suite) -> tuple[Average, ...]:
    found = []
    for part, group in (suite.parts or {}).items():
        tasks = frozenset(task + suite.suffix for task in lmtasks.leaves(known, group))
        found.append(replace(suite.averages[0], name=part, tasks=tasks))
    return tuple(found)


def _averages_of_group(known: Mapping[str, Any], name: str) -> tuple[Average, ...]:
    """Give the averages that lm-eval's own group of tasks declares."""
    config = known[name].cfg if name in known and known[name].kind.name == "GROUP" else None
    listed = (config or {}).get("aggregate_metric_list") or []
    found = []
    for one in [listed] if isinstance(listed, dict) else listed:
        filters = one.get("filter_list") or "none"
        for kept in [filters] if isinstance(filters, str) else filters:
            metric = one["metric"] if kept == "none" else f"{one['metric']},{kept}"
            found.append(Average(metric, {"": (metric,)}, by_size=bool(one.get("weight_by_size", True))))
    return tuple(found)


def _no_task_twice(plans: Sequence[Plan]) -> None:
    twice = [task for task, n in Counter(one.name for made in plans for one in made.tasks).items() if n > 1]
    if twice:
        raise ConfigError(f"the task '{twice[0]}' is asked twice", fix="name each benchmark once, in runs of their own")


def _started(folder: Path, asked: Mapping[str, Any]) -> Run:
    """Begin a run, or go on with one that was interrupted: whatever was answered is found again where it is cached."""
    if (folder / "recipe.yaml").is_file() and not (folder / "DONE").is_file() and Run.open(folder).asked() == asked:
        return Run.open(folder)
    vacant(folder)
    return Run.create(folder, asked)


def _answered(model: Model, plans: Sequence[Plan], asked: Bench) -> tuple[Harness, dict[int, Any]]:
    """Ask everything at once, so that the engine sees which requests begin alike."""
    harness = Harness(model, asked.seed)
    tasks = [task for one in plans for task in one.tasks]
    requests = [request for task in tasks for request in lmtasks.requests_of(task, harness, asked.chat)]
    with Watch("answer", sum(request.repeats or 1 for request in requests)) as watch:
        harness.on_batch = watch.advance
        return harness, lmtasks.answer(harness, requests)


def _marked(asked: Asked, made: Mapping[int, Any], suite: Suite, seed: int) -> Marked:
    found = lmtasks.outcomes(asked, made, suite.read)
    aggregates = asked.task.aggregation()
    marks = {}
    for name in dict.fromkeys(key for outcome in found for key in outcome.marks):
        items = [outcome.marks[name] for outcome in found if name in outcome.marks]
        marked = marks_of(name, items, aggregates.get(name.partition(",")[0]), seed)
        if marked:
            marks[name] = marked
    prompts = hashlib.sha256("".join(_prompt_hash(outcome) for outcome in found).encode()).hexdigest()
    return Marked(asked, tuple(found), marks, prompts)


def _scores(planned: Plan, tasks: Sequence[Marked], model: Model, asked: Bench) -> list[Score]:
    """Give the benchmark's averages, then each task's metrics."""
    marks = {task.asked.name: task.marks for task in tasks}
    prompts = hashlib.sha256("".join(task.prompts for task in tasks).encode()).hexdigest()
    how = (
        f"{'chat' if asked.chat else 'plain'}|dtype:{device.dtype_name(model.dtype.torch)}|lm-eval:{version('lm-eval')}"
    )
    found = []
    for one in planned.averages:
        known = average(one, marks)
        if known:
            covered = [task.asked.name for task in tasks if one.covers(task.asked.name)]
            of = "questions" if one.by_size else f"tasks:{_names(one, covered)}"
            signature = f"{one.called}|mean-of-{of}|prompts:{prompts[:12]}|{how}|{known.interval_name}"
            name = f"{planned.name}/{one.name}" if one.name else planned.name
            found.append(_score(planned, tasks[0].asked, (name, one.called), (known.interval, known.n), signature))
    for task in tasks:
        for metric, mark in task.marks.items():
            about = f"version:{task.asked.version}|prompts:{task.prompts[:12]}|{how}|interval:{mark.interval_name}"
            counted = (mark.interval, len(mark.stats))
            found.append(
                _score(planned, task.asked, (task.asked.name, metric), counted, f"{mark.metric.signature}|{about}")
            )
    return found


def _names(one: Average, covered: Sequence[str]) -> str:
    """Say over which tasks a mean is: their number, or up to nine names."""
    return ",".join(covered) if len(covered) < 10 else f"{len(covered)}-files"


def _score(planned: Plan, asked: Asked, names: tuple[str, str], known: tuple[Interval, int], signature: str) -> Score:
    interval, n = known
    return Score(
        task=names[0],
        split=asked.split,
        metric=names[1],
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=n,
        shots=asked.shots,
        template=planned.suite.protocol,
        signature=signature,
    )


def _write(run: Run, task: Marked, harness: Harness) -> list[Answer]:
    """Write what was answered, written answers whole and choices with their likelihoods; give the written ones."""
    if not task.asked.generates:
        run.write_lines(f"choices/{task.asked.name}.jsonl", [_choice(task.asked, one) for one in task.outcomes])
        return []
    answers = [answer for one in task.outcomes for answer in _answers(task.asked, one, harness)]
    run.write_lines(f"answers/{task.asked.name}.jsonl", answers)
    return answers


def _choice(asked: Asked, outcome: Outcome) -> Choice:
    found = [request.resps[0] for request in outcome.requests]
    totals = tuple(float(one[0] if isinstance(one, tuple) else one) for one in found)
    choices = asked.task.doc_to_choice(outcome.requests[0].doc) if asked.task.OUTPUT_TYPE == "multiple_choice" else []
    chosen = max(range(len(totals)), key=totals.__getitem__) if len(choices) == len(totals) else None
    return Choice(
        id=outcome.id,
        prompt=_prompt_hash(outcome),
        log_likelihoods=totals,
        chosen=chosen,
        right=None if chosen is None else _right(asked.task, outcome.requests[0].doc, choices),
        marks={name: float(mark) for name, mark in outcome.marks.items() if isinstance(mark, int | float)},
    )


def _right(task: Any, doc: Any, choices: Sequence[str]) -> int | None:
    """Give the place of the right choice, None if there are several or it is none of them."""
    told = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(told, str):
        told = choices.index(told) if told in choices else None
    return told if isinstance(told, int) and 0 <= told < len(choices) else None


def _answers(asked: Asked, outcome: Outcome, harness: Harness) -> list[Answer]:
    request = outcome.requests[0]
    question, right = asked.task.doc_to_text(request.doc), asked.task.doc_to_target(request.doc)
    return [
        Answer(
            id=outcome.id if not i else f"{outcome.id}#{i + 1}",
            question=str(question),
            prompt=str(request.args[0]),
            answer=made.text,
            references=tuple(map(str, right)) if isinstance(right, list) else (str(right),),
            prompt_tokens=harness.sizes[id(request)],
            answer_tokens=len(made.ids),
            finished=made.finished,
        )
        for i, made in enumerate(outcome.made)
    ]


def _prompt_hash(outcome: Outcome) -> str:
    texts = [[str(text) for text in request.args[: 1 if len(request.args) == 1 else 2]] for request in outcome.requests]
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()


def _protocol(planned: Plan, task: Marked, counts: Counts) -> Protocol:
    name = task.asked.name
    return Protocol(
        task=name,
        name=planned.suite.protocol,
        version=task.asked.version,
        shots=task.asked.shots,
        questions=len(task.outcomes),
        of=len(task.asked.ids),
        requests=counts.requests[name],
        moved=counts.moved[name],
        cut=counts.cut[name],
        prompts=task.prompts,
        first_prompt=str(task.outcomes[0].requests[0].args[0]),
    )


def _asked(target: str, adapter: Adapter | None, asked: Bench, plans: Sequence[Plan]) -> dict[str, Any]:
    return {
        "verb": "bench",
        "model": adapter.base if adapter else target,
        "method": adapter.method.name if adapter else None,
        "adapter": target if adapter else None,
        "benchmarks": list(asked.names),
        "shots": asked.shots,
        "limit": asked.limit,
        "data": str(asked.data) if asked.data else None,
        "seed": asked.seed,
        "chat": asked.chat,
        "dtype": asked.dtype or "auto",
        "notes": [note for one in plans for note in one.notes],
    }


def _sources(plans: Sequence[Plan], asked: Bench) -> dict[str, Any]:
    """Give the SHA-256 of the questions of each task, those that were not chosen included."""
    place = str(asked.data) if asked.data else "hub"
    told = {
        task.name: hashlib.sha256(" ".join(sorted(task.ids)).encode()).hexdigest()
        for one in plans
        for task in one.tasks
    }
    return {"place": place, "questions_sha256": told}


def _versions() -> dict[str, Any]:
    return {"lm_eval": version("lm-eval")}


def _summary(model: Model, counts: Counts, answers: Sequence[Answer], seconds: float) -> Summary:
    read, written, requests = (sum(one.values()) for one in (counts.read, counts.written, counts.requests))
    return Summary(
        tokens=read + written,
        answer_tokens=written,
        seconds=seconds,
        tokens_per_second=(read + written) / seconds,
        peak_memory_bytes=device.peak_bytes(),
        total_parameters=model.parameters(),
        prompt_tokens=read / requests,
        unfinished_answers=sum(not answer.finished for answer in answers) if answers else None,
        empty_answers=sum(not answer.answer.strip() for answer in answers) if answers else None,
    )
