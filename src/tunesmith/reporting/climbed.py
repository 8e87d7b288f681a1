"""A climb as the page tells it: its rungs with what each gained, cost and forgot, and the charts of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tunesmith.metrics import LOWER_IS_BETTER, merit
from tunesmith.reporting import charts, costs
from tunesmith.reporting.drawing import Chart
from tunesmith.reporting.gather import Gathered, opened
from tunesmith.reporting.ladders import Ladder, scale
from tunesmith.reporting.numbers import amount, count, duration, fixed, interval, metric_title, percent, whole
from tunesmith.reporting.scales import Unit, unit
from tunesmith.runs.records import Forgetting, Score
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import BreakEven, Contrast, Cost, Rung, Tried, Verdict, rungs_of

THOUSAND = 1000


@dataclass(frozen=True)
class Step:
    """A rung that was taken: `short` is its name without its model, which is `model` as the climb calls it.

    `against` is its test against the rung below.
    """

    rung: Rung
    short: str
    model: str
    score: Score
    cost: Cost
    against: Contrast | None
    kept: Forgetting | None
    standing: costs.Standing

    @property
    def told(self) -> str:
        """Say its score in words."""
        return f"{metric_title(self.score.metric)} {fixed(self.score.value)} {interval(self.score)}"


class Figure(NamedTuple):
    """One of the few numbers to remember: what it is of, the number, and what to know about it."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Climbed:
    """A climb: its steps from the first to the last, all its `rungs`, taken or not, and how its costs are counted.

    `ladder` holds its evaluations, and those of other runs on the same split of the same task.
    """

    verdict: Verdict
    ladder: Ladder
    steps: tuple[Step, ...]
    rungs: tuple[Rung, ...]
    target: float | None
    counted: Unit

    @property
    def chosen(self) -> Step:
        """Give the step that is recommended."""
        return next(step for step in self.steps if step.rung.name == self.verdict.recommended)

    @property
    def metric(self) -> str:
        """Name the metric that decides."""
        return self.chosen.score.metric

    @property
    def lower_is_better(self) -> bool:
        """Tell whether the metric that decides counts what is wrong."""
        return self.metric in LOWER_IS_BETTER

    @property
    def scale(self) -> str:
        """Say how the values of the metric that decides are to be read."""
        return scale(self.metric)

    @property
    def first(self) -> Step:
        """Give the step that the recommended one is shown against: the first of its model."""
        return next(step for step in self.steps if step.rung.model == self.chosen.rung.model)

    @property
    def rows(self) -> list[tuple[Rung, Step | None]]:
        """Give every rung in its place on the ladder; one that was passed over has no step."""
        steps = {step.rung.name: step for step in self.steps}
        return [(rung, steps.get(rung.name)) for rung in self.rungs]

    @property
    def reasons(self) -> tuple[list[str], list[str]]:
        """Give the verdict's reasons: those that are tests of the recommended rung, then the others.

        Where they are not one for each test, the first six stand for the recommended rung's.
        """
        said, tests = self.verdict.reasons, self.verdict.contrasts
        if len(said) != len(tests):
            return list(said[:6]), list(said[6:])
        of = [self.verdict.recommended in (test.rung, test.below) for test in tests]
        mine, rest = ([one for one, here in zip(said, of, strict=True) if here == own] for own in (True, False))
        return (mine, rest) if mine else (rest[:6], rest[6:])

    @property
    def evens(self) -> tuple[list[BreakEven], list[BreakEven]]:
        """Give the break-evens: those of the recommended rung, then the others."""
        name = self.verdict.recommended
        mine = [one for one in self.verdict.break_evens if name in (one.rung, one.than)]
        return mine, [one for one in self.verdict.break_evens if one not in mine]

    @property
    def contrasts(self) -> list[Contrast]:
        """Give every paired test, those of the recommended rung first."""
        name = self.verdict.recommended
        return sorted(self.verdict.contrasts, key=lambda test: name not in (test.rung, test.below))

    @property
    def models(self) -> list[str]:
        """Name the models, in the order of the climb."""
        return list(dict.fromkeys(step.model for step in self.steps))

    @property
    def accompanied(self) -> bool:
        """Tell whether the ladder holds runs that are not of the climb."""
        return len(self.ladder.lines) > len(self.steps)

    @property
    def ends(self) -> tuple[float, float]:
        """Give the lowest and the highest end of the steps' intervals."""
        return min(step.score.low for step in self.steps), max(step.score.high for step in self.steps)

    @property
    def tried(self) -> list[tuple[Step, Sequence[Tried]]]:
        """Give the steps that were chosen among several candidates, with these."""
        return [(step, step.rung.tried) for step in self.steps if len(step.rung.tried) > 1]

    def cost(self, seconds: float) -> str:
        """Write a cost: as money where an hour has a price, else as time."""
        return amount(seconds * self.counted.worth) if not self.counted.is_time else duration(seconds)

    def total(self, step: Step) -> float:
        """Give what a step costs in all for the requests of the verdict, in the page's unit."""
        return step.cost.seconds(self.verdict.requests) * self.counted.worth


def climbed(told: Gathered, ladders: Sequence[Ladder]) -> Climbed | None:
    """Give the one climb of a report; None if there is none, or if none of its rungs was taken."""
    ladder = next((one for one in ladders if any(line.run == told.recommended for line in one.lines)), None)
    if told.verdict is None or told.recommended is None or ladder is None:
        return None
    root = told.climbs[0]
    rungs, main = rungs_of(root), told.recommended.scores()[0].metric  # another run may bring another first metric
    scores = {line.run: line.scores[main] for line in ladder.lines if main in line.scores}
    taken = [rung for rung in rungs if (scored := opened(root, rung.eval)) and scored in scores and rung.cost]
    find = _step(root, told.verdict, scores)
    steps = tuple(find(rung, taken[:i]) for i, rung in enumerate(taken))
    target = (root.asked().get("target") or {}).get(main)
    if told.verdict.recommended not in {rung.name for rung in taken}:
        return None
    return Climbed(told.verdict, ladder, steps, rungs, target, unit(told.verdict.price))


def _step(root: Run, verdict: Verdict, scores: Mapping[Run, Score]) -> Callable[[Rung, Sequence[Rung]], Step]:
    """Give what tells a rung, from the rungs before it."""

    def told(rung: Rung, before: Sequence[Rung]) -> Step:
        below = next((one.name for one in reversed(before) if one.model == rung.model), None)
        trained = opened(root, rung.train)
        against = next((one for one in verdict.contrasts if (one.rung, one.below) == (rung.name, below)), None)
        good: costs.Standing = "good" if rung.name in verdict.good else "other"
        return Step(
            rung,
            rung.title,
            rung.aside or rung.model,
            scores[Run.open(root.folder / str(rung.eval))],
            rung.cost or Cost(),
            against,
            trained.forgetting() if trained else None,
            "recommended" if rung.name == verdict.recommended else good,
        )

    return told


def figures(climb: Climbed) -> list[Figure]:
    """Give the numbers to remember of the recommended rung: quality, what it costs to make and to use, what is left."""
    chosen, first = climb.chosen, climb.first
    score, rows = chosen.score, f"{interval(chosen.score)} on {chosen.score.n} rows"
    moved = fixed(score.value) if chosen is first else f"{fixed(first.score.value)} → {fixed(score.value)}"
    of = "" if chosen is first else f", from {first.short}"
    making = chosen.cost.making_seconds
    price = "" if climb.verdict.price is None else f", at {climb.verdict.price:g} an hour"
    tokens = f"{whole(chosen.cost.prompt_tokens)} tokens read, {whole(chosen.cost.answer_tokens)} written for each"
    return [
        Figure(f"{metric_title(score.metric)}{of}", moved, rows),
        Figure("to make it, once", climb.cost(making) if making else "nothing", _made(chosen) + price * bool(making)),
        Figure("per 1,000 requests", climb.cost(THOUSAND * chosen.cost.request_seconds), tokens + price),
        _retained(chosen),
    ]


def _made(step: Step) -> str:
    if not step.cost.making_seconds:
        return "no training, no choosing"
    if step.rung.train:
        return f"{count(step.cost.trained_parameters)} trained parameters"
    return f"choosing among {len(step.rung.tried)} candidates" if step.rung.tried else "choosing on validation rows"


def _retained(step: Step) -> Figure:
    """Say what is left of the model's other abilities."""
    if step.rung.train is None:
        return Figure("of its other abilities kept", "all", "no weight is changed")
    kept = step.kept
    if kept is None or kept.retained is None:
        return Figure("of its other abilities kept", "–", "not measured")
    ends = f"[{percent(kept.low or 0.0)}, {percent(kept.high or 0.0)}]"
    return Figure("of its other abilities kept", percent(kept.retained), ends)


def price_chart(climb: Climbed) -> Chart:
    """Draw quality against cost in all."""
    requests, how = f"{climb.verdict.requests:,}", "time" if climb.counted.is_time else "money"
    title = f"cost in all: making it, and {requests} requests ({how})"
    frame = costs.Frame(title, metric_title(climb.metric), climb.counted, climb.target, groups=tuple(climb.models))
    spots = [_spot(climb, step, climb.total(step)) for step in climb.steps]
    return costs.quality(spots, frame, "Quality against cost, rung by rung")


def _spot(climb: Climbed, step: Step, x: float, across: tuple[float, float] | None = None) -> costs.Spot:
    score = step.score
    price = climb.cost(step.cost.seconds(climb.verdict.requests))
    told = f"{step.told}; {price} in all for {climb.verdict.requests:,} requests"
    if step.kept is not None and step.kept.retained is not None:
        told += f"; {percent(step.kept.retained)} of its other abilities kept"
    return costs.Spot(step.short, x, score.value, score.low, score.high, told, step.standing, step.model, across)


def kept_chart(climb: Climbed) -> Chart | None:
    """Draw quality against what is left of the other abilities; None unless two rungs say that."""
    known = [step for step in climb.steps if step.kept is not None and step.kept.retained is not None]
    if len(known) < 2:
        return None
    still = [step for step in climb.steps if step.rung.train is None]
    best = [
        max(
            (step for step in still if step.model == model),
            key=lambda step: merit(climb.metric, step.score.value),
            default=None,
        )
        for model in climb.models
    ]
    spots = [_spot(climb, step, 1.0) for step in best if step]
    for step, kept in ((step, step.kept) for step in known):
        if kept is not None:
            spots.append(_spot(climb, step, kept.retained or 0.0, (kept.low or 0.0, kept.high or 0.0)))
    if len(climb.models) > 1:  # no line and no legend says whose a point is
        spots = [replace(spot, name=f"{spot.name} ({spot.group})") for spot in spots]
    title = "share retained of what the base could do besides"
    told = (title, metric_title(climb.metric), climb.counted)
    frame = costs.Frame(*told, percent=True, joined=False, groups=tuple(climb.models))
    return costs.quality(spots, frame, "Quality against what is retained, rung by rung")


def totals_chart(climb: Climbed) -> Chart | None:
    """Draw the cost in all against the number of requests; None unless two rungs have a cost for each.

    Where an hour of the machine is free there is none either: no rung is dearer than another.
    """
    worth, steps = climb.counted.worth, [step for step in climb.steps if step.cost.request_seconds]
    if len(steps) < 2 or not worth:
        return None
    lines = {
        step.rung.name: costs.Line(
            step.rung.name, step.cost.making_seconds * worth, step.cost.request_seconds * worth, step.standing
        )
        for step in steps
    }
    crossings = [
        costs.Crossing(one.rung, one.than, one.requests, lines[one.rung].total(one.requests))
        for one in climb.verdict.break_evens
        if one.requests
        and one.clear
        and {one.rung, one.than} <= lines.keys()
        and climb.verdict.recommended in (one.rung, one.than)
    ]
    return costs.totals(list(lines.values()), crossings, climb.verdict.requests, climb.counted)


def overtaken(one: BreakEven) -> str:
    """Say from how many requests on a rung is cheaper in all than another."""
    if one.requests is None:
        return f"{one.rung} never becomes cheaper in all than {one.than}: its requests take as much, or more."
    told = f"{one.rung} is cheaper in all than {one.than} from {whole(one.requests)} requests on"
    return f"{told}." if one.clear else f"{told} by these times, but a request takes nearly as long: it may be chance."


def tried_chart(step: Step, tried: Sequence[Tried]) -> Chart:
    """Draw the candidates of a rung on the validation rows; the one that was taken is marked."""
    taken = step.rung.shots
    marks = [
        charts.Mark(one.name, one.value, one.low, one.high, one.n, "after" if one.shots == taken else "other")
        for one in tried
    ]
    return charts.dots(marks, metric_title(tried[0].metric))
