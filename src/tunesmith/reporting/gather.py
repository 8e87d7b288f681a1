"""The runs of a report, sorted out: what was evaluated, what was trained for it, and a climb's parts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.errors import RunError
from tunesmith.reporting.compare import label, method_title
from tunesmith.runs.records import Summary
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import Verdict, rungs_of, verdict_of


@dataclass(frozen=True)
class Evaluated:
    """One evaluated run under the name people give it, and the training that made its model."""

    name: str
    run: Run
    trained: Run | None = None


@dataclass(frozen=True)
class Gathered:
    """The runs of a report: `trained` gives each training its name.

    `verdict` is that of the one climb; None if there is not exactly one, as several would contradict each other.
    `inside` says of each part of a climb which one it belongs to.
    """

    evaluated: tuple[Evaluated, ...]
    trained: Mapping[Run, str]
    climbs: tuple[Run, ...]
    verdict: Verdict | None
    inside: Mapping[Run, Run]

    @property
    def recommended(self) -> Run | None:
        """Give the evaluation of the rung that the verdict recommends."""
        if self.verdict is None:
            return None
        climb, name = self.climbs[0], self.verdict.recommended
        return next((opened(climb, rung.eval) for rung in rungs_of(climb) if rung.name == name), None)

    def taken(self, run: Run) -> Summary | None:
        """Give what a run took; of answering inside a climb the engine's own time, which is kept with each answer.

        The time of the process would say how often the climb was killed and what it found answered before. Peak memory
        stays that of the process which came to the end: what it took to answer is not kept with the answers.
        """
        found = summary(run)
        if found is None or run not in self.inside or not found.engine_seconds:
            return found
        seconds = found.engine_seconds
        own = {"seconds": seconds, "tokens_per_second": found.tokens / seconds, "cached_answers": 0}
        return found.model_copy(update=own)

    def named(self) -> dict[Run, str]:
        """Give every run a name of its own, in the order to repeat them: a training before its evaluation."""
        placed: dict[Run, str] = {}
        for one in self.evaluated:
            if one.trained:
                placed[one.trained] = f"{self.trained[one.trained]} (training)"
            placed[one.run] = one.name
        alone = {run: f"{name} (training)" for run, name in self.trained.items() if run not in placed}
        return alone | placed


def gather(runs: Iterable[Run]) -> Gathered:
    """Sort runs into evaluations and trainings, and a climb into its parts, in the order given.

    An evaluation belongs to the training whose folder it names as its adapter. Raises RunError for another kind of run.
    """
    given = list(dict.fromkeys(runs))
    parts = [part for run in given for part in _parts(run)]
    trained = list(dict.fromkeys(part for part in parts if isinstance(part, Run)))
    found = list(dict.fromkeys(part for part in parts if isinstance(part, Evaluated)))
    climbs = tuple(run for run in given if _verb(run) == "climb")
    rungs = {opened(climb, rung.train): rung.name for climb in climbs for rung in rungs_of(climb)}
    titles = _apart([(rungs.get(run) or method_title(run.asked()["method"]["name"]), run) for run in trained])
    names = _apart([(one.name, one.run) for one in found])
    evaluated = [
        Evaluated(name, one.run, one.trained or _maker(one.run, trained))
        for name, one in zip(names, found, strict=True)
    ]
    verdict = verdict_of(climbs[0]) if len(climbs) == 1 else None
    inside = {run: climb for climb in climbs for part in _climbed(climb) for run in _runs(part)}
    return Gathered(tuple(evaluated), dict(zip(trained, titles, strict=True)), climbs, verdict, inside)


def summary(run: Run) -> Summary | None:
    """Give what the run took, or None if it has not come that far."""
    return run.summary() if (run.folder / "summary.json").is_file() else None


def _verb(run: Run) -> str:
    return str(run.asked().get("verb"))


def _parts(run: Run) -> list[Run | Evaluated]:
    """Give a training as it is, an evaluation under its name, and a climb's own of both."""
    verb = _verb(run)
    if verb == "climb":
        return _climbed(run)
    if verb not in ("train", "eval"):
        raise RunError(f"{run.folder}: is a run of '{verb}'", fix="name folders that train, eval or climb has made")
    return [run if verb == "train" else Evaluated(label(run), run)]


def _climbed(climb: Run) -> list[Run | Evaluated]:
    """Give the trainings and evaluations of a climb, from its first rung to its last."""
    parts: list[Run | Evaluated] = []
    for rung in rungs_of(climb):
        trained = opened(climb, rung.train)
        parts += [trained] if trained else []
        scored = opened(climb, rung.eval)
        parts += [Evaluated(rung.name, scored, trained)] if scored else []
    return parts


def _runs(part: Run | Evaluated) -> list[Run]:
    return [part] if isinstance(part, Run) else [part.run]


def opened(climb: Run, folder: str | None) -> Run | None:
    """Open a part of a climb by the folder that a rung names; None if it names none."""
    return Run.open(climb.folder / folder) if folder else None


def _maker(run: Run, trained: Sequence[Run]) -> Run | None:
    """Find the training whose folder an evaluation names as its adapter."""
    adapter = run.asked().get("adapter")
    return next((made for made in trained if adapter and made.folder.resolve() == Path(adapter).resolve()), None)


def _apart(named: Sequence[tuple[str, Run]]) -> list[str]:
    """Give the names, with the folder added where two are the same."""
    names = [name for name, _ in named]
    return [name if names.count(name) == 1 else f"{name} ({run.folder})" for name, run in named]
