"""Ladders: the evaluated runs of one task, each set against the first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.errors import ConfigError, RunError, TunesmithError
from tunesmith.metrics import CORRELATIONS, LOWER_IS_BETTER, UNPARSED, merit
from tunesmith.reporting import charts
from tunesmith.reporting.compare import Comparison, compare
from tunesmith.reporting.drawing import Chart
from tunesmith.reporting.gather import Evaluated, Gathered
from tunesmith.reporting.numbers import metric_title
from tunesmith.runs.records import Score, Summary
from tunesmith.runs.run import Run


@dataclass(frozen=True)
class Line:
    """One evaluated run on a ladder: its scores, how they differ from the first line's, and what they cost.

    `problem` says why there is no difference to the first, if there is none.
    """

    name: str
    run: Run
    scores: Mapping[str, Score]
    against: Mapping[str, Comparison]
    problem: TunesmithError | None
    answering: Summary | None
    training: Summary | None

    @property
    def peak_memory_bytes(self) -> int:
        """Give the most that answering or training needed at any time."""
        return max((taken.peak_memory_bytes for taken in (self.answering, self.training) if taken), default=0)


@dataclass(frozen=True)
class Ladder:
    """The lines that were scored on one split of one task; the first metric is the main one.

    `after` is the line that the first is shown against.
    """

    task: str
    split: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    after: Line | None

    @property
    def main(self) -> str:
        """Name the metric that charts, examples and the finding speak of."""
        return self.metrics[0]

    @property
    def before(self) -> Line:
        """Give the first line, which the others are compared with."""
        return self.lines[0]

    @property
    def scale(self) -> str:
        """Say how the main metric's values are to be read."""
        return scale(self.main)

    def role(self, line: Line) -> charts.Role:
        """Say which colour of the page a line has."""
        return "before" if line is self.before else "after" if line is self.after else "other"

    def chart(self) -> Chart:
        """Draw the main metric of each line."""
        scored = [(line, line.scores[self.main]) for line in self.lines if self.main in line.scores]
        marks = [charts.Mark(line.name, s.value, s.low, s.high, s.n, self.role(line)) for line, s in scored]
        return charts.dots(marks, metric_title(self.main))


def scale(name: str) -> str:
    """Say how the values of a metric are to be read."""
    if name == UNPARSED:
        return "go from 0 to 1; lower is better"
    if name in LOWER_IS_BETTER:
        return "count what would have to be changed; lower is better"
    return "go from −1 to 1; higher is better" if name in CORRELATIONS else "go from 0 to 1; higher is better"


def ladders(told: Gathered) -> list[Ladder]:
    """Give one ladder for each split of each task that was scored, its lines in the order of the runs."""
    grounds = dict.fromkeys((score.task, score.split) for one in told.evaluated for score in one.run.scores())
    return [_ladder(told, task, split) for task, split in grounds]


def _ladder(told: Gathered, task: str, split: str) -> Ladder:
    scored = [(one, _scores(one.run, task, split)) for one in told.evaluated]
    scored = [(one, scores) for one, scores in scored if scores]
    first = scored[0][0].run
    lines = tuple(_line(told.taken, first, one, scores, task) for one, scores in scored)
    metrics = tuple(dict.fromkeys(name for line in lines for name in line.scores))
    return Ladder(task, split, metrics, lines, _after(lines, metrics[0], told.recommended))


def _scores(run: Run, task: str, split: str) -> dict[str, Score]:
    return {score.metric: score for score in run.scores() if (score.task, score.split) == (task, split)}


def _line(
    taken: Callable[[Run], Summary | None], first: Run, one: Evaluated, scores: Mapping[str, Score], task: str
) -> Line:
    found: list[Comparison] = []
    problem = None
    if one.run != first:
        try:
            found = compare(first, one.run)
        except (RunError, ConfigError) as wrong:  # other rows, or a metric of another program: shown, but not compared
            problem = wrong
    against = {comparison.metric: comparison for comparison in found if comparison.task == task}
    training = taken(one.trained) if one.trained else None
    return Line(one.name, one.run, scores, against, problem, taken(one.run), training)


def _after(lines: Sequence[Line], main: str, recommended: Run | None) -> Line | None:
    """Choose what the first line is shown against: the recommended one, else the one that scores best."""
    rest = [line for line in lines[1:] if main in line.scores]
    advised = [line for line in rest if line.run == recommended]
    return max(advised or rest, key=lambda line: merit(main, line.scores[main].value), default=None)
