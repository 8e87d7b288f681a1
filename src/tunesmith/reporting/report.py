"""The report: one self-contained HTML page, computed from run folders and nothing else.

`gather` sorts the runs into rungs and trainings, the functions below it compute
what each section shows, and `report.html.jinja` words and arranges it. A section
without facts is left out. The same runs give the same page, byte for byte.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jinja2

from tunesmith.data.ledger import Ledger
from tunesmith.errors import ConfigError, RunError, TunesmithError
from tunesmith.metrics import METRICS, metric
from tunesmith.recipe import Recipe
from tunesmith.reporting import charts
from tunesmith.reporting.compare import METHOD_TITLES, Comparison, compare, label
from tunesmith.runs.records import Answer, Score, Summary
from tunesmith.runs.run import Run

FEW_ROWS = 30  # below this an interval says little
NO_RUNGS: list[dict[str, Any]] = []
NO_VERDICT: dict[str, Any] = {}

Side = Literal["before", "after"]
T = TypeVar("T")


@dataclass(frozen=True)
class Rung:
    """One evaluated run under the name people give it, and the training that made its model."""

    name: str
    run: Run
    trained: Run | None = None


@dataclass(frozen=True)
class Gathered:
    """The given runs, climbs expanded: `trained` under their names, the verdict if one was given."""

    rungs: tuple[Rung, ...]
    trained: tuple[tuple[str, Run], ...]
    climbs: tuple[Run, ...]
    verdict: Mapping[str, Any]

    def runs(self) -> list[tuple[str, Run]]:
        """Give every training and evaluation under its name, each training before the rung it made."""
        placed: list[tuple[str, Run]] = []
        for rung in self.rungs:
            placed += [pair for pair in self.trained if pair[1] == rung.trained and pair not in placed]
            placed.append((rung.name, rung.run))
        return [pair for pair in self.trained if pair not in placed] + placed


@dataclass(frozen=True)
class Line:
    """One rung of a ladder: its scores, and how they differ from the first rung's."""

    rung: Rung
    scores: Mapping[str, Score]
    against: Mapping[str, Comparison]
    problem: TunesmithError | None
    answering: Summary | None
    training: Summary | None

    @property
    def peak_memory_bytes(self) -> int:
        """Give the most that the rung needed at any time."""
        return max((taken.peak_memory_bytes for taken in (self.answering, self.training) if taken), default=0)


@dataclass(frozen=True)
class Ladder:
    """The rungs that were scored on one split of one task; the first metric is the main one."""

    task: str
    split: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    after: Line | None

    @property
    def main(self) -> str:
        """Name the metric that charts, examples and the finding speak of."""
        return self.metrics[0]

    def role(self, line: Line) -> charts.Role:
        """Say which colour of the page a rung has."""
        return "before" if line is self.lines[0] else "after" if line is self.after else "other"


@dataclass(frozen=True)
class Reply:
    """One rung's answer to an example question, and what the main metric gives it."""

    side: Side
    name: str
    answer: Answer
    value: float


@dataclass(frozen=True)
class Example:
    """One question with the answers before and after; `why` says what it is an example of."""

    why: str
    question: str
    references: tuple[str, ...]
    replies: tuple[Reply, ...]
    change: float


@dataclass(frozen=True)
class Examples:
    """The questions shown, and of all questions how many gained, lost and stayed."""

    chosen: tuple[Example, ...]
    asked: int
    gained: int
    lost: int
    loss_shown: bool


@dataclass(frozen=True)
class Training:
    """One training as the page tells it."""

    name: str
    asked: Recipe
    options: Mapping[str, str]
    rows: Mapping[str, int]
    ledger: Ledger | None
    summary: Summary | None
    curve: tuple[str, str] | None
    window: int
    validated: int


class Warn(NamedTuple):
    """Something that a reader of the numbers must know, and what can be done about it."""

    what: str
    fix: str


class Fact(NamedTuple):
    """One thing that the runs agree on, or each value with the names of the runs it holds for."""

    name: str
    values: tuple[tuple[str, str], ...]


def render(runs: Sequence[Run]) -> str:
    """Give the report of `runs` as one HTML page that loads nothing. Raises RunError if there are none."""
    if not runs:
        raise RunError("there are no runs to report on", fix="name at least one run folder")
    told = gather(runs)
    found = ladders(told)
    trainings = [_training(name, run) for name, run in told.trained]
    return _page().render(
        **_heading(told, found),
        finding=finding(found, trainings, told.verdict),
        reasons=told.verdict.get("reasons") or [],
        ladders=[(ladder, _ladder_chart(ladder)) for ladder in found],
        trainings=trainings,
        evaluations=agree([(rung.name, _asked_of(rung)) for rung in told.rungs]),
        recipes=[
            (name, run.folder, (run.folder / "recipe.yaml").read_text(encoding="utf-8")) for name, run in told.runs()
        ],
        costs=[(name, run.asked().get("verb"), taken) for name, run in told.runs() if (taken := summary(run))],
        examples=[(ladder, shown) for ladder in found if (shown := examples(ladder))],
        warnings=warnings(told, found),
        provenance=agree([(name, _origin(run)) for name, run in told.runs()]),
        commands=_commands(told),
    )


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write the report of `runs` to `path`, in the place of an earlier one. Raises RunError if it cannot be a file."""
    if path.is_dir():
        raise RunError(f"{path}: is a folder", fix=f"name a file, such as {path / 'report.html'}")
    page = render(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(page, encoding="utf-8")
    aside.replace(path)


def gather(runs: Iterable[Run]) -> Gathered:
    """Sort runs into rungs and trainings, and a climb into its parts, in the order given.

    An evaluation belongs to the training whose folder it names as its adapter. Raises RunError for another kind of run.
    """
    named: list[Rung] = []
    trained: list[Run] = []
    climbs: list[Run] = []
    for run in runs:
        verb = run.asked().get("verb")
        if verb == "climb":
            climbs.append(run)
            rungs, made = _climbed(run)
            named, trained = named + rungs, trained + made
        elif verb == "eval":
            named.append(Rung(label(run), run))
        elif verb == "train":
            trained.append(run)
        else:
            raise RunError(f"{run.folder}: is a run of '{verb}'", fix="name folders that train, eval or climb has made")
    named, trained = list(dict.fromkeys(named)), list(dict.fromkeys(trained))
    names = _apart([(rung.name, rung.run) for rung in named])
    rungs = [
        Rung(name, rung.run, rung.trained or _maker(rung.run, trained)) for name, rung in zip(names, named, strict=True)
    ]
    titles = _apart([(_method_title(run), run) for run in trained])
    verdicts = [found for climb in climbs if (found := _json(climb, "verdict.json", NO_VERDICT))]
    verdict = verdicts[0] if len(verdicts) == 1 else {}
    return Gathered(tuple(rungs), tuple(zip(titles, trained, strict=True)), tuple(climbs), verdict)


def _climbed(climb: Run) -> tuple[list[Rung], list[Run]]:
    rungs, trained = [], []
    for rung in _json(climb, "rungs.json", NO_RUNGS):
        made = Run.open(climb.folder / rung["train"]) if rung.get("train") else None
        trained += [made] if made else []
        if rung.get("eval"):
            rungs.append(Rung(rung["name"], Run.open(climb.folder / rung["eval"]), made))
    return rungs, trained


def _maker(run: Run, trained: Sequence[Run]) -> Run | None:
    adapter = run.asked().get("adapter")
    made = [train for train in trained if adapter and train.folder.resolve() == Path(adapter).resolve()]
    return made[0] if made else None


def _apart(named: Sequence[tuple[str, Run]]) -> list[str]:
    """Give the names, with the folder added where two are the same."""
    names = [name for name, _ in named]
    return [name if names.count(name) == 1 else f"{name} ({run.folder})" for name, run in named]


def _method_title(run: Run) -> str:
    method = run.asked().get("method") or {}
    name = method if isinstance(method, str) else str(method.get("name", "training"))
    return METHOD_TITLES.get(name, name)


def ladders(told: Gathered) -> list[Ladder]:
    """Give one ladder for each split of each task that was scored, in the order of the rungs."""
    grounds = dict.fromkeys((score.task, score.split) for rung in told.rungs for score in rung.run.scores())
    return [_ladder(told, task, split) for task, split in grounds]


def _ladder(told: Gathered, task: str, split: str) -> Ladder:
    scored = [
        (rung, {s.metric: s for s in rung.run.scores() if (s.task, s.split) == (task, split)}) for rung in told.rungs
    ]
    scored = [(rung, scores) for rung, scores in scored if scores]
    first = scored[0][0]
    lines = tuple(_line(first, rung, scores, task) for rung, scores in scored)
    metrics = tuple(dict.fromkeys(name for _, scores in scored for name in scores))
    return Ladder(task, split, metrics, lines, _after(lines, metrics[0], told.verdict.get("recommended")))


def _line(first: Rung, rung: Rung, scores: Mapping[str, Score], task: str) -> Line:
    found: list[Comparison] = []
    problem = None
    if rung is not first:
        try:
            found = compare(first.run, rung.run)
        except (RunError, ConfigError) as wrong:  # other rows, or a metric of another program: shown, but not compared
            problem = wrong
    against = {one.metric: one for one in found if one.task == task}
    training = summary(rung.trained) if rung.trained else None
    return Line(rung, scores, against, problem, summary(rung.run), training)


def _after(lines: Sequence[Line], main: str, recommended: str | None) -> Line | None:
    """Choose what the first rung is shown against: the recommended rung, else the one that scores best."""
    rest = [line for line in lines[1:] if main in line.scores]
    advised = [line for line in rest if line.rung.name == recommended]
    return max(advised or rest, key=lambda line: line.scores[main].value, default=None)


def finding(found: Sequence[Ladder], trainings: Sequence[Training], verdict: Mapping[str, Any]) -> str:
    """Say in one sentence what came out: the verdict's, else the main comparison, else how the loss moved."""
    if verdict.get("sentence"):
        return str(verdict["sentence"])
    if found:
        return _scored(found[0])
    ended = [(training.name, taken) for training in trainings if (taken := training.summary)]
    return _trained(*ended[-1]) if ended else "These runs have not come to a result yet."


def _scored(ladder: Ladder) -> str:
    shown = ladder.after or ladder.lines[0]
    score = shown.scores[ladder.main]
    name = shown.rung.name
    value = f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
    said = f"{name[:1].upper()}{name[1:]} scores {metric_title(score.metric)} {value}"
    against = shown.against.get(ladder.main)
    if against:
        said += f", {_difference(against, ladder.lines[0].rung.name)}"
    return f"{said} on {score.n} {ladder.split} rows."


def _difference(against: Comparison, first: str) -> str:
    if round(against.difference, 3) == 0:
        return f"the same as {first}"
    side = "above" if against.difference > 0 else "below"
    chance = ", which may be chance" if against.verdict() == "undecided" else ""
    return f"{abs(against.difference):.3f} {side} {first}{chance} ({p_value(against.p)})"


def _trained(name: str, taken: Summary) -> str:
    pairs = {
        "validation": (taken.first_validation_loss, taken.validation_loss),
        "training": (taken.first_loss, taken.final_loss),
    }
    for kind, (first, last) in pairs.items():
        if first is not None and last is not None:
            moved = f"the {kind} loss went from {first:.3f} to {last:.3f} nats per answer token"
            return f"In {taken.steps:,} steps of {name}, {moved}."
    return f"{name[:1].upper()}{name[1:]} was trained for {taken.steps:,} steps."


def examples(ladder: Ladder) -> Examples | None:
    """Choose six questions that both sides answered, spread over what the change did; None if there are no answers.

    Where there is one rung only, its answers stand alone and are spread over their own values.
    """
    if ladder.main not in METRICS:
        return None
    lines: list[tuple[Side, Line]] = [("before", ladder.lines[0])]
    if ladder.after:
        lines.append(("after", ladder.after))
    replies = [_replies(side, line.rung, ladder) for side, line in lines]
    shared = [name for name in replies[0] if all(name in others for others in replies)]
    rows = [tuple(side[name] for side in replies) for name in shared]
    if not rows:
        return None
    changes = [row[-1].value - (row[0].value if len(row) > 1 else 0.0) for row in rows]
    chosen = tuple(_example(why, rows[i], changes[i]) for i, why in spread(changes, len(lines) > 1))
    gained, lost = (sum(sign * change > 1e-9 for change in changes) for sign in (1, -1))
    return Examples(chosen, len(rows), gained, lost, min(changes) < -1e-9)


def _replies(side: Side, rung: Rung, ladder: Ladder) -> dict[str, Reply]:
    answers = rung.run.answers(ladder.task)
    if not answers:
        return {}
    mark = metric(ladder.main)
    values = mark.values(mark.stats([x.answer for x in answers], [x.references for x in answers]), 1)
    return {x.id: Reply(side, rung.name, x, float(value)) for x, value in zip(answers, values, strict=True)}


def _example(why: str, replies: tuple[Reply, ...], change: float) -> Example:
    """Show the shortest of the prompts: the question without the shots that another rung put before it."""
    question = min((reply.answer.prompt for reply in replies), key=len)
    return Example(why, question, replies[0].answer.references, replies, change)


def spread(changes: Sequence[float], paired: bool) -> list[tuple[int, str]]:
    """Choose positions: the three largest, two at the middle, the smallest; all of them if there are six or fewer.

    Ties go to the earlier row, so that the choice never depends on luck.
    """
    order = sorted(range(len(changes)), key=lambda i: (-changes[i], i))
    if len(order) <= 6:
        return [(i, "") for i in order]
    middle = max(3, len(order) // 2 - 1)
    last = "highest" if not paired else "largest loss" if changes[order[-1]] < 0 else "smallest gain"
    last = last if paired else "lowest"
    top = "largest gain" if paired else "highest"
    reasons = [top, f"second {top}", f"third {top}", "middle", "middle", last]
    return list(zip([*order[:3], *order[middle : middle + 2], order[-1]], reasons, strict=True))


def warnings(told: Gathered, found: Sequence[Ladder]) -> list[Warn]:
    """Name everything that makes the numbers say less than they seem to."""
    said = [warn for name, run in told.runs() for warn in _run_warnings(name, run)]
    said += [warn for ladder in found for line in ladder.lines for warn in _score_warnings(ladder, line)]
    return said


def _run_warnings(name: str, run: Run) -> list[Warn]:
    said = []
    taken, ledger = summary(run), run.ledger()
    n = sum(len(run.answers(task)) for task in run.tasks())
    if taken is None:
        return [
            Warn(
                f"{name}: the run in {run.folder} has not come to its end.",
                "Resume it, or run it again in a new folder.",
            )
        ]
    if taken.stopped_early:
        at = f" after step {taken.steps:,} of {taken.planned_steps:,}" if taken.planned_steps else ""
        said.append(Warn(f"{name}: the run was stopped early{at}.", "Add --resume to its command to finish it."))
    if taken.unfinished_answers:
        said.append(
            Warn(
                f"{name}: {taken.unfinished_answers} of {n} answers cut off by the length limit.",
                "Raise generation.max_new_tokens in the task; what was cut off cannot score.",
            )
        )
    if taken.empty_answers:
        said.append(
            Warn(
                f"{name}: {taken.empty_answers} of {n} answers empty; they score 0.",
                "Read them in the run's answers.",
            )
        )
    if ledger and ledger.leaked:
        said.append(
            Warn(
                f"{name}: {len(ledger.leaked)} of {ledger.rows} training rows share text with scored rows.",
                "Remove the rows named under leaked, and train again: scores on seen text are too high.",
            )
        )
    return said


def _score_warnings(ladder: Ladder, line: Line) -> list[Warn]:
    said = []
    n = min(score.n for score in line.scores.values())
    if n < FEW_ROWS:
        rows = "1 row" if n == 1 else f"{n} rows"
        said.append(
            Warn(f"{line.rung.name}: its {ladder.task} score rests on {rows} only.", f"Score at least {FEW_ROWS}.")
        )
    if line.problem:
        said.append(Warn(f"{line.rung.name}: no difference can be given. {line.problem.what}.", f"{line.problem.fix}."))
    return said


def agree(named: Sequence[tuple[str, Mapping[str, str]]]) -> list[Fact]:
    """Merge the facts of several runs: one value where all have the same, else each with the runs it holds for."""
    facts = []
    for key in dict.fromkeys(key for _, values in named for key in values):
        holders: dict[str, list[str]] = {}
        for name, values in named:
            if key in values:
                holders.setdefault(values[key], []).append(name)
        whole = len(holders) == 1
        facts.append(
            Fact(
                key,
                tuple((value, "" if whole else ", ".join(dict.fromkeys(names))) for value, names in holders.items()),
            )
        )
    return facts


def summary(run: Run) -> Summary | None:
    """Give what the run took, or None if it has not come that far."""
    return run.summary() if (run.folder / "summary.json").is_file() else None


def _training(name: str, run: Run) -> Training:
    asked = Recipe.parse(
        {key: value for key, value in run.asked().items() if key != "verb"}, where=f"{run.folder}/recipe.yaml"
    )
    taken, steps = summary(run), run.steps()
    losses = [(float(step.step), step.loss) for step in steps]
    validated = [(float(step.step), step.validation_loss) for step in steps if step.validation_loss is not None]
    if taken and taken.first_validation_loss is not None:
        validated.insert(0, (0.0, taken.first_validation_loss))
    window = len(losses) // 10 | 1  # odd, so that the mean is centred on a step
    curve = charts.both(partial(charts.loss, losses, validated, window)) if losses else None
    return Training(name, asked, _options(asked), _data_rows(run), run.ledger(), taken, curve, window, len(validated))


def _options(asked: Recipe) -> dict[str, str]:
    """Give what the method was asked beside its name and learning rate, in words."""
    values = asked.method.model_dump(mode="json", exclude={"name", "learning_rate"})
    return {name.replace("_", " ").capitalize(): _said(value) for name, value in values.items()}


def _said(value: object) -> str:
    """Write a recipe's value: lists with commas, numbers without idle zeros."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _data_rows(run: Run) -> dict[str, int]:
    data = _provenance(run).get("data") or {}
    return {split: found["rows"] for split, found in data.items() if found and found.get("rows") is not None}


def _ladder_chart(ladder: Ladder) -> tuple[str, str]:
    scored = [(line, line.scores[ladder.main]) for line in ladder.lines if ladder.main in line.scores]
    marks = [charts.Mark(line.rung.name, s.value, s.low, s.high, s.n, ladder.role(line)) for line, s in scored]
    return charts.both(partial(charts.ladder, marks, metric_title(ladder.main)))


def _heading(told: Gathered, found: Sequence[Ladder]) -> dict[str, str]:
    """Give the page's title, the models it is about, and the day of the last run."""
    runs = [run for _, run in told.runs()]
    tasks = [ladder.task for ladder in found] or [Path(str(run.asked().get("task", run.name))).stem for run in runs]
    models = [_model(run) for run in runs]
    days = [str(_provenance(run).get("created") or "")[:10] for run in runs]
    return {
        "task": ", ".join(dict.fromkeys(tasks)),
        "model": ", ".join(dict.fromkeys(models)),
        "day": max(days, default=""),
    }


def _model(run: Run) -> str:
    return str((_provenance(run).get("model") or {}).get("name") or run.asked().get("model", ""))


def _asked_of(rung: Rung) -> dict[str, str]:
    """Give what an evaluation was asked, as facts that can be set against another's."""
    asked = rung.run.asked()
    facts = {
        name.capitalize(): asked.get(name) for name in ("model", "task", "split", "shots", "template", "limit", "seed")
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def _origin(run: Run) -> dict[str, str]:
    """Give where the numbers come from: software, hardware, model and data, as far as the run has written it down."""
    known = _provenance(run)
    model, hardware = known.get("model") or {}, known.get("hardware") or {}
    cores, memory, parameters = hardware.get("cores"), hardware.get("memory_bytes"), model.get("parameters")
    packages = known.get("packages") or {}
    facts = {
        "Model": _listed(model.get("name"), model.get("kind"), parameters and f"{parameters:,} parameters"),
        "Model SHA-256": model.get("sha256"),
        **{f"Data, {split}": _data(found or {}) for split, found in (known.get("data") or {}).items()},
        "Number format": _listed(known.get("dtype"), known.get("dtype_reason")),
        "Seed": known.get("seed"),
        "Processor": _listed(hardware.get("processor"), cores and f"{cores} cores"),
        "Memory": memory and size(memory),
        "Device": hardware.get("device"),
        "Platform": known.get("platform"),
        "Python": known.get("python"),
        "tunesmith": known.get("tunesmith"),
        "Packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _data(found: Mapping[str, Any]) -> str:
    rows = found.get("rows")
    return _listed(found.get("place"), rows is not None and f"{rows:,} rows", found.get("sha256"))


def _listed(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part)


def _commands(told: Gathered) -> list[str]:
    """Give the commands that made the runs, each once, in the order to repeat them.

    A climb's own command makes all of its parts again, so theirs are left out.
    """
    climbs = [climb for climb in told.climbs if _provenance(climb).get("command")]
    whole = {climb.folder.resolve() for climb in climbs}
    parts = [run for _, run in told.runs() if run.folder.resolve().parent not in whole]
    commands = [_provenance(run).get("command") for run in (*climbs, *parts)]
    return list(dict.fromkeys(str(command) for command in commands if command))


def _provenance(run: Run) -> dict[str, Any]:
    return run.provenance() if (run.folder / "provenance.json").is_file() else {}


def _json(climb: Run, name: str, absent: T) -> T:
    """Give what a climb's file holds, or `absent` if the climb has not come that far."""
    path = climb.folder / name
    if not path.is_file():
        return absent
    found: T = json.loads(path.read_text(encoding="utf-8"))
    return found


def _page() -> jinja2.Template:
    """Load the template; whatever a run holds is escaped, and a name it lacks is an error rather than a blank."""
    folder = jinja2.PackageLoader("tunesmith.reporting", "")
    page = jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters |= {
        "method": lambda name: METHOD_TITLES.get(name, name),
        "metric": metric_title,
        "p": p_value,
        "size": size,
        "time": duration,
        "count": count,
        "signed": signed,
    }
    return page.get_template("report.html.jinja")


def metric_title(name: str) -> str:
    """Write a metric the way papers do: ROUGE-1, BLEU, exact match."""
    if name.startswith("rouge"):
        return f"ROUGE-{name.removeprefix('rouge')}"
    return {"bleu": "BLEU", "chrf": "chrF", "f1": "F1"}.get(name, name.replace("_", " "))


def p_value(p: float) -> str:
    """Write a p-value with three decimals, and never as zero."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def signed(value: float) -> str:
    """Write a difference with its sign, a true minus, and three decimals."""
    text = f"{value:+.3f}"
    return "\N{PLUS-MINUS SIGN}0.000" if text[1:] == "0.000" else text.replace("-", "\N{MINUS SIGN}")


def size(amount: float) -> str:
    """Write bytes in the largest decimal unit that keeps a digit before the point."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = next((k for k in reversed(range(5)) if amount >= 1000**k), 0)
    return f"{_short(amount / 1000**power)} {units[power]}" if power else f"{amount:.0f} B"


def count(amount: float) -> str:
    """Write a large count short: 4.88 M, 135 M, 1.5 B."""
    for unit, power in (("B", 1e9), ("M", 1e6)):
        if amount >= power:
            return f"{_short(amount / power)} {unit}"
    return f"{amount:,.0f}"


def _short(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 99.95 else f"{amount:.3g}"


def duration(seconds: float) -> str:
    """Write seconds the way people say them: 8.2 s, 3 min 12 s, 1 h 04 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
