"""The verdict: which rungs are good enough, and which of those is the cheapest. Pure: scores, tests and costs in.

The rules, in their order:

1. Every pair of rungs is tested on the same rows by the metric that decides, and all p-values are corrected together
   by Holm's method: the chance that any of the differences that are called real is none stays below 5 %. All pairs of
   the ladder count from the start, also those of rungs that are yet to come or are never taken: so what is called
   better on the way is called so at the end.
2. A rung is good enough if it reaches the target; without one, or if none does, if no other is significantly better.
3. Of those the cheapest is taken: by the time of making it once and answering a number of requests. Times within a
   quarter of the least count as the least, as a machine is no more constant than that; of those, the rung is taken that
   trains the fewest weights, then the one with the shortest prompt.
4. All weights are not tuned where tuning some of them gained, at best, less than what a gain is worth. The climb ends
   where there is less than that left to gain, or with the first rung that reaches the target.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from tunesmith.metrics import LOWER_IS_BETTER, merit
from tunesmith.metrics.interval import holm
from tunesmith.reporting.compare import Comparison
from tunesmith.reporting.numbers import duration, fixed, metric_title, p_value, retained, signed, whole
from tunesmith.runs.records import Forgetting, Score
from tunesmith.runs.rungs import BreakEven, Contrast, Cost, Rung, Verdict

ALIKE = 1.25  # times the least


def corrected(tests: Mapping[tuple[str, str], Comparison], pairs: int = 0) -> tuple[Contrast, ...]:
    """Correct the tests of a climb together, as part of `pairs` tests; the keys are (rung, rung below).

    Tests that were not made count as such with p = 1: those that are made later can only lower what is given here.
    """
    adjusted = holm([test.p for test in tests.values()] + [1.0] * (pairs - len(tests)))[: len(tests)]
    return tuple(
        Contrast(
            rung=rung,
            below=below,
            **test.model_dump(include={"metric", "difference", "low", "high", "p", "n"}),
            corrected=p,
            verdict=test.model_copy(update={"p": p}).verdict(),
        )
        for ((rung, below), test), p in zip(tests.items(), adjusted, strict=True)
    )


def decide(
    rungs: Sequence[Rung],
    scores: Sequence[Score],
    contrasts: Sequence[Contrast],
    target: float | None,
    costing: tuple[int, float | None],
    kept: Mapping[str, Forgetting] | None = None,
) -> Verdict:
    """Recommend one of the rungs that were taken, each with its main score; `costing` is (requests, price per hour).

    `kept` is what trainings left of the base's other abilities, by rung, where it was measured. It decides nothing, and
    is said.
    """
    requests, price = costing
    names = [rung.name for rung in rungs]
    reached = [name for name, score in zip(names, scores, strict=True) if target is not None and reaches(score, target)]
    good = reached or unbeaten(names, contrasts)
    costs = {rung.name: rung.cost or Cost() for rung in rungs}
    chosen = cheapest(good, costs, requests)
    score = scores[names.index(chosen)]
    least = min(good, key=lambda name: costs[name].seconds(requests))
    cost = f"{'dearer' if chosen == least else 'not clearly cheaper'} over {whole(requests)} requests"
    told = [
        _sentence(chosen, score, good, target, cost, len(names) > 1),
        _paid(chosen, rungs, dict(zip(names, scores, strict=True))),
        _later(chosen, good, costs, requests),
        _left(chosen, good, kept or {}),
    ]
    return Verdict(
        recommended=chosen,
        sentence=" ".join(one for one in told if one),
        reasons=tuple(map(reason, contrasts)),
        good=tuple(good),
        requests=requests,
        price=price,
        contrasts=tuple(contrasts),
        break_evens=break_evens(costs),
    )


def reaches(score: Score, target: float) -> bool:
    """Tell whether a score is at least as good as `target`."""
    return merit(score.metric, score.value) >= merit(score.metric, target)


def unbeaten(names: Sequence[str], contrasts: Sequence[Contrast]) -> list[str]:
    """Name the rungs that no other one is significantly better than."""
    beaten = {one.below for one in contrasts if one.verdict == "better"}
    beaten |= {one.rung for one in contrasts if one.verdict == "worse"}
    return [name for name in names if name not in beaten]


def cheapest(names: Sequence[str], costs: Mapping[str, Cost], requests: int) -> str:
    """Name the rung that takes the least time in all; of those that take about as little, the least trained one."""
    least = min(costs[name].seconds(requests) for name in names)
    alike = [name for name in names if costs[name].seconds(requests) <= ALIKE * least]
    return min(alike, key=lambda name: (costs[name].trained_parameters, costs[name].prompt_tokens))


def best(scores: Mapping[str, Score]) -> str:
    """Name the rung with the best score, of equal ones the first."""
    return max(scores, key=lambda name: merit(scores[name].metric, scores[name].value))


def break_evens(costs: Mapping[str, Cost]) -> tuple[BreakEven, ...]:
    """Say of each pair from how many requests on the one that is dearer to make is the cheaper in all.

    Making it takes m seconds more, a request d seconds less: m / d requests. None where a request takes no less; not
    clear where it takes so little less that the machine's noise may decide.
    """
    found = []
    for a, b in combinations(costs, 2):
        than, rung = sorted((a, b), key=lambda name: costs[name].making_seconds)
        more = costs[rung].making_seconds - costs[than].making_seconds
        less = costs[than].request_seconds - costs[rung].request_seconds
        if more > 0:
            clear = costs[than].request_seconds > ALIKE * costs[rung].request_seconds
            found.append(BreakEven(rung=rung, than=than, requests=more / less if less > 0 else None, clear=clear))
    return tuple(found)


def not_worth(best: Score, last: Contrast | None, worth: float) -> str | None:
    """Say why nothing dearer is tried after a tuned rung; None if it should be.

    `best` is the best score so far, `last` the tuned rung against the best one
    below it, `worth` the least difference of the metric that is worth paying for.
    """
    title = metric_title(best.metric)
    left = best.value if best.metric in LOWER_IS_BETTER else 1 - best.value  # every metric ends at 0 or 1
    if left < worth:
        return f"{title} is {fixed(best.value)}: less than {worth:g} is left to gain"
    if last is not None:
        gain = -last.low if last.metric in LOWER_IS_BETTER else last.high
        if gain < worth:
            return f"{last.rung} gains at best {signed(gain)} {title} over {last.below}, less than {worth:g}"
    return None


def reason(contrast: Contrast) -> str:
    """Write one test in words."""
    word = {"better": "better than", "worse": "worse than", "undecided": "not clearly different from"}
    return (
        f"{contrast.rung} is {word[contrast.verdict]} {contrast.below}: {metric_title(contrast.metric)} "
        f"{signed(contrast.difference)} [{signed(contrast.low)}, {signed(contrast.high)}], "
        f"{p_value(contrast.corrected)}"
    )


def _sentence(chosen: str, score: Score, good: Sequence[str], target: float | None, cost: str, several: bool) -> str:
    told = f"{metric_title(score.metric)} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
    value = f"It has {told} on {score.n} {score.split} rows."
    others = [name for name in good if name != chosen]
    be = "is" if len(others) == 1 else "are"
    if target is not None and reaches(score, target):
        too = f"; {listed(others)} {'does' if len(others) == 1 else 'do'} too, and {be} {cost}" if others else ""
        return f"Take {chosen}: it reaches {target:g}{too}. {value}"
    missed = f" No rung reaches the target of {target:g}." if target is not None else ""
    if not others:
        why = "every other rung is significantly beaten" if several else "it is the only rung that could be taken"
        return f"Take {chosen}: {why}. {value}{missed}"
    return f"Take {chosen}: {listed(others)} {be} not significantly better, and {cost}. {value}{missed}"


def _paid(chosen: str, rungs: Sequence[Rung], scores: Mapping[str, Score]) -> str:
    """Say what a recommended training costs, and when faster requests pay it back against the best prompt."""
    costs = {rung.name: rung.cost or Cost() for rung in rungs}
    if not costs[chosen].trained_parameters:
        return ""
    made = f"Making it took {duration(costs[chosen].making_seconds)}"
    prompts = {name: scores[name] for name, cost in costs.items() if not cost.trained_parameters}
    if not prompts:
        return f"{made}."
    prompt = best(prompts)
    if costs[prompt].making_seconds >= costs[chosen].making_seconds:
        return f"{made}, no longer than choosing {prompt}, the best prompt."
    (even,) = break_evens({prompt: costs[prompt], chosen: costs[chosen]})
    if even.requests and even.clear:
        return f"{made}, paid back against {prompt}, the best prompt, after {whole(even.requests)} requests."
    same = f"its requests are not clearly faster than those of {prompt}, the best prompt"
    return f"{made}; {same}: what it pays back is quality."


def _later(chosen: str, good: Sequence[str], costs: Mapping[str, Cost], requests: int) -> str:
    """Say from how many requests on another rung that is good enough is clearly the cheaper one."""
    found = [
        one
        for one in break_evens({name: costs[name] for name in good})
        if one.than == chosen and one.clear and one.requests and one.requests > requests
    ]
    if not found:
        return ""
    soonest = min(found, key=lambda one: one.requests or 0.0)
    return f"From {whole(soonest.requests or 0.0)} requests on {soonest.rung} is cheaper in all."


def _left(chosen: str, good: Sequence[str], kept: Mapping[str, Forgetting]) -> str:
    """Say what a recommended training left of the base's other abilities, and which other good one leaves the most."""
    if chosen not in kept:
        return ""
    told = f"Of what the base could do besides, {retained(kept[chosen])} is left"
    most = max((name for name in good if name in kept), key=lambda name: kept[name].retained or 0.0)
    return f"{told}." if most == chosen else f"{told}; {most} leaves {retained(kept[most])}."


def listed(names: Sequence[str]) -> str:
    """Write names one after the other: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
