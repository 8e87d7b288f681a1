"""A climb as the page tells it: every rung in its place, and the few numbers to remember."""

import pytest

from tests.reporting.made import climbed as made
from tests.reporting.made import evaluated, text
from tunesmith.reporting.climbed import climbed, figures, kept_chart, overtaken, price_chart, totals_chart
from tunesmith.reporting.gather import gather
from tunesmith.reporting.ladders import ladders
from tunesmith.reporting.report import render
from tunesmith.runs.records import Forgetting
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import BreakEven


def read(root):
    told = gather([root])
    return climbed(told, ladders(told))


@pytest.fixture
def climb(tmp_path):
    return made(tmp_path / "climb")


def test_every_rung_has_its_place_and_one_passed_over_its_reason(climb):
    found = read(climb)
    assert [(rung.name, step is not None) for rung, step in found.rows] == [
        ("zero-shot", True),
        ("1-shot", True),
        ("4-shot", True),
        ("prompt tuning", True),
        ("LoRA", True),
        ("full fine-tuning", False),
    ]
    assert "full fine-tuning passed over 9.1 GB needed, 4.0 GB free" in text(render([climb]))


def test_a_rung_is_set_against_the_one_below_it(climb):
    steps = read(climb).steps
    assert [step.against and step.against.below for step in steps] == [
        None,
        "zero-shot",
        "1-shot",
        "4-shot",
        "prompt tuning",
    ]
    assert "+0.100 [+0.050, +0.150] p = 0.012, corrected" in text(render([climb]))


def test_the_numbers_to_remember_are_those_of_the_recommended_rung(climb):
    found = read(climb)
    shown = {figure.name: figure.value for figure in figures(found)}
    before, after = found.first.score.value, found.chosen.score.value
    assert shown["ROUGE-1, from zero-shot"] == f"{before:.3f} → {after:.3f}"
    assert shown["to make it, once"] == "3 min 18 s"
    assert shown["per 1,000 requests"] == "8 min 20 s"
    assert shown["of its other abilities kept"] == "–"


def test_a_price_turns_costs_into_money(tmp_path):
    found = read(made(tmp_path / "climb", price=3.6))
    assert {figure.name: figure.value for figure in figures(found)}["per 1,000 requests"] == "0.50"
    assert "at 3.6 per hour" in text(render([Run.open(tmp_path / "climb")]))


def test_a_recommended_prompt_has_nothing_to_make_and_forgets_nothing(tmp_path):
    found = read(made(tmp_path / "climb", recommended="zero-shot", good=("zero-shot",)))
    shown = {figure.name: figure.value for figure in figures(found)}
    assert "→" not in shown["ROUGE-1"]
    assert shown["to make it, once"] == "nothing"
    assert shown["of its other abilities kept"] == "all"


def test_what_is_drawn_is_what_the_folders_hold(climb):
    found = read(climb)
    words = price_chart(found).words
    for step in found.steps:
        assert f"{step.rung.name}: ROUGE-1 {step.score.value:.3f}" in words
    assert "LoRA is cheaper than 4-shot from 330 requests on" in totals_chart(found).words


def test_what_is_kept_is_drawn_once_two_rungs_say_it(climb):
    assert kept_chart(read(climb)) is None
    for name, share in (("lora", 0.9), ("prompt_tuning", 0.99)):
        told = Forgetting(step=1, abilities=(), retained=share, low=share - 0.05, high=share + 0.05)
        Run.open(climb.folder / name).write_json("forgetting.json", told.model_dump())
    assert "90.0 % of its other abilities kept" in kept_chart(read(climb)).words


def test_a_break_even_is_said_in_words():
    assert overtaken(BreakEven(rung="LoRA", than="4-shot", requests=330.4)).endswith("from 330 requests on.")
    assert "never" in overtaken(BreakEven(rung="LoRA", than="zero-shot", requests=None))


def test_runs_without_a_climb_have_none(tmp_path):
    told = gather([evaluated(tmp_path / "a", 3)])
    assert climbed(told, ladders(told)) is None
