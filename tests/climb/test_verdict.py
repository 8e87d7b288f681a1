"""The verdict by its rules, on made-up scores and costs worked out by hand."""

import numpy as np
import pytest

from tunesmith.climb.verdict import best, break_evens, cheapest, corrected, decide, not_worth, unbeaten
from tunesmith.reporting.compare import Comparison
from tunesmith.runs.records import Forgetting, Score
from tunesmith.runs.rungs import Cost, Rung


def score(value, metric="rouge1"):
    told = {"task": "t", "split": "test", "shots": 0, "template": "a", "signature": "s"}
    return Score(metric=metric, value=value, low=value - 0.02, high=value + 0.02, n=50, **told)


def test_of(difference, p, metric="rouge1"):
    ends = {"low": difference - 0.03, "high": difference + 0.03}
    return Comparison(task="t", metric=metric, a=0.2, b=0.2 + difference, difference=difference, p=p, n=50, **ends)


test_of.__test__ = False
ZERO = Cost(request_seconds=0.5, prompt_tokens=100)
FEW = Cost(making_seconds=60, request_seconds=2.0, prompt_tokens=900)
LORA = Cost(making_seconds=600, request_seconds=0.5, prompt_tokens=100, trained_parameters=1000)
RUNGS = [Rung(name=n, model="m", cost=c) for n, c in (("zero-shot", ZERO), ("few-shot", FEW), ("LoRA", LORA))]
SCORES = [score(0.20), score(0.26), score(0.31)]


def tests_of(*told):
    pairs = [("few-shot", "zero-shot"), ("LoRA", "zero-shot"), ("LoRA", "few-shot")]
    return corrected({pair: test_of(*one) for pair, one in zip(pairs, told, strict=True)})


tests_of.__test__ = False


def test_p_values_are_corrected_together_by_holm():
    found = tests_of((0.06, 0.03), (0.11, 0.001), (0.05, 0.02))
    # Sorted: .001 x 3, .02 x 2, .03 x 1, and never below an earlier one (Holm 1979).
    assert [one.corrected for one in found] == pytest.approx([0.04, 0.003, 0.04])
    assert [one.verdict for one in found] == ["better"] * 3
    found = tests_of((0.06, 0.03), (0.11, 0.03), (0.05, 0.03))
    assert [one.corrected for one in found] == pytest.approx([0.09] * 3)
    assert {one.verdict for one in found} == {"undecided"}


def test_a_difference_called_real_on_the_way_is_called_so_at_the_end():
    """All pairs of the ladder count from the start: later tests, however they end, only lower an earlier p-value."""
    random, pairs = np.random.default_rng(0), 15
    for _ in range(200):
        tests = {(f"b{i}", f"a{i}"): test_of(0.1, float(p)) for i, p in enumerate(random.uniform(0, 1, pairs) ** 4)}
        before = [1.0] * pairs
        for made in range(1, pairs + 1):
            now = [one.corrected for one in corrected(dict(list(tests.items())[:made]), pairs)]
            assert all(after <= earlier + 1e-12 for after, earlier in zip(now, before, strict=False))
            before = now
    assert corrected({("one-shot", "zero-shot"): test_of(0.1, 0.03)}, 15)[0].verdict == "undecided"


def test_a_lower_score_is_better_where_it_counts_errors():
    found = corrected({("LoRA", "zero-shot"): test_of(-0.1, 0.001, "ter")})
    assert found[0].verdict == "better"


def test_the_rung_that_beats_all_others_is_taken_and_when_it_has_paid_is_said():
    made = decide(RUNGS, SCORES, tests_of((0.06, 0.001), (0.11, 0.001), (0.05, 0.001)), None, (1000, None))
    assert (made.recommended, made.good) == ("LoRA", ("LoRA",))
    assert "every other rung is significantly beaten" in made.sentence
    # 600 - 60 seconds more to make, 1.5 seconds less for a request.
    assert "paid back against few-shot, the best prompt, after 360 requests." in made.sentence


def test_of_rungs_that_are_as_good_the_cheapest_over_the_requests_is_taken():
    tests = tests_of((0.06, 0.001), (0.11, 0.001), (0.01, 0.6))
    few, many = (decide(RUNGS, SCORES, tests, None, (n, None)) for n in (100, 1000))
    assert few.good == many.good == ("few-shot", "LoRA")
    assert few.recommended == "few-shot"  # 60 + 200 against 600 + 50 seconds
    assert many.recommended == "LoRA"  # 60 + 2000 against 600 + 500
    assert "few-shot is not significantly better, and dearer over 1,000 requests" in many.sentence


def test_times_that_a_noisy_machine_cannot_tell_apart_do_not_decide():
    costs = {
        "LoRA": Cost(making_seconds=100, request_seconds=1.2, trained_parameters=10, prompt_tokens=100),
        "full": Cost(making_seconds=200, request_seconds=1.0, trained_parameters=1000, prompt_tokens=100),
        "few-shot": Cost(request_seconds=1.9, prompt_tokens=900),
    }
    assert cheapest(list(costs), costs, 1000) == "LoRA"  # 1300 against 1200 seconds: alike
    assert cheapest(list(costs), costs, 100_000) == "LoRA"
    slow = {**costs, "LoRA": costs["LoRA"].model_copy(update={"request_seconds": 1.3})}
    assert cheapest(list(slow), slow, 100_000) == "full"
    assert cheapest(list(costs), costs, 10) == "few-shot"
    rungs = [Rung(name=name, model="m", cost=cost) for name, cost in costs.items()]
    tests = corrected({("full", "LoRA"): test_of(0.0, 0.9)})
    made = decide(rungs[:2], SCORES[:2], tests, None, (1000, None))
    assert made.recommended == "LoRA"
    assert "full is not significantly better, and not clearly cheaper over 1,000 requests" in made.sentence


def test_with_a_target_the_cheapest_rung_that_reaches_it_is_taken():
    tests = tests_of((0.06, 0.001), (0.11, 0.001), (0.05, 0.001))
    made = decide(RUNGS, SCORES, tests, 0.25, (100, None))
    assert (made.recommended, made.good) == ("few-shot", ("few-shot", "LoRA"))
    assert "it reaches 0.25; LoRA does too, and is dearer over 100 requests" in made.sentence
    missed = decide(RUNGS, SCORES, tests, 0.9, (100, None))
    assert missed.recommended == "LoRA"
    assert "No rung reaches the target of 0.9" in missed.sentence


def test_a_rung_below_may_beat_one_above():
    contrasts = tests_of((-0.06, 0.001), (0.0, 0.9), (0.06, 0.001))
    assert unbeaten(["zero-shot", "few-shot", "LoRA"], contrasts) == ["zero-shot", "LoRA"]


def test_break_even_is_where_the_totals_cross():
    found = {(one.rung, one.than): one.requests for one in break_evens({rung.name: rung.cost for rung in RUNGS})}
    assert found == {("few-shot", "zero-shot"): None, ("LoRA", "zero-shot"): None, ("LoRA", "few-shot"): 360.0}
    assert LORA.seconds(360) == pytest.approx(FEW.seconds(360))
    noise = FEW.model_copy(update={"request_seconds": 0.6})  # a fifth more than LoRA's: the machine may decide
    (one,) = break_evens({"few-shot": noise, "LoRA": LORA})
    assert (one.requests, one.clear) == (pytest.approx(5400), False)


def test_a_training_that_no_requests_pay_back_is_said_to_be_bought_for_quality():
    """Against the prompt that scores best, not against the one that is easiest to beat."""
    scores = [score(0.27), score(0.20), score(0.31)]
    made = decide(RUNGS, scores, tests_of((-0.06, 0.001), (0.04, 0.001), (0.11, 0.001)), None, (1000, None))
    assert made.recommended == "LoRA"
    assert "not clearly faster than those of zero-shot, the best prompt: what it pays back is quality" in made.sentence


def test_a_training_that_took_no_longer_than_choosing_the_best_prompt_has_nothing_to_pay_back():
    slow = RUNGS[1].model_copy(update={"cost": FEW.model_copy(update={"making_seconds": 900})})
    tests = tests_of((0.06, 0.001), (0.11, 0.001), (0.05, 0.001))
    made = decide([RUNGS[0], slow, RUNGS[2]], SCORES, tests, None, (1000, None))
    assert made.sentence.endswith("Making it took 10 min 00 s, no longer than choosing few-shot, the best prompt.")


def test_a_recommended_prompt_is_set_against_the_training_that_is_as_good():
    tests = tests_of((0.06, 0.001), (0.11, 0.001), (0.01, 0.6))
    made = decide(RUNGS, SCORES, tests, None, (100, None))
    assert made.recommended == "few-shot"
    assert made.sentence.endswith("From 360 requests on LoRA is cheaper in all.")
    assert "From" not in decide(RUNGS, SCORES, tests, None, (1000, None)).sentence


def test_what_a_recommended_training_leaves_of_other_abilities_is_said():
    full = Rung(name="full", model="m", cost=LORA.model_copy(update={"trained_parameters": 9000}))
    tests = corrected({("full", "LoRA"): test_of(0.0, 0.9)})
    told = [RUNGS[2], full], SCORES[:2], tests, None, (1000, None)
    less, most = (Forgetting(step=1, abilities=(), retained=x, low=x - 0.1, high=x + 0.1) for x in (0.843, 0.951))
    ends = "84.3 % [74.3, 94.3] is left; full leaves 95.1 % [85.1, 105.1]."
    assert decide(*told, {"LoRA": less, "full": most}).sentence.endswith(ends)
    ends = "could do besides, 95.1 % [85.1, 105.1] is left."
    assert decide(*told, {"LoRA": most, "full": less}).sentence.endswith(ends)
    assert "besides" not in decide(*told).sentence


def test_the_only_rung_is_not_said_to_beat_others():
    made = decide(RUNGS[:1], SCORES[:1], (), None, (1000, None))
    assert made.sentence.startswith("Take zero-shot: it is the only rung that could be taken. It has ROUGE-1 0.200")


def test_full_tuning_is_not_worth_it_where_tuning_gained_too_little_at_best():
    gained, useless = (corrected({("LoRA", "zero-shot"): test_of(d, 0.5)})[0] for d in (0.0, -0.025))
    assert not_worth(score(0.3), gained, 0.01) is None  # up to +0.030
    assert "LoRA gains at best +0.005 ROUGE-1 over zero-shot, less than 0.01" in not_worth(score(0.3), useless, 0.01)
    assert "less than 0.01 is left to gain" in not_worth(score(0.995), None, 0.01)
    assert not_worth(score(0.98), None, 0.01) is None
    assert "left to gain" in not_worth(score(0.001, "unparsed"), None, 0.01)


def test_the_best_score_is_the_lowest_where_it_counts_errors():
    assert best({"a": score(0.3), "b": score(0.4), "c": score(0.4)}) == "b"
    assert best({"a": score(0.3, "ter"), "b": score(0.2, "ter")}) == "b"
