"""Warnings: given where they apply, and only there."""

from tests.reporting.made import evaluated, pair, text, trained
from tunesmith.data.ledger import Ledger
from tunesmith.recipe import Recipe
from tunesmith.reporting.report import render
from tunesmith.runs.records import Trouble
from tunesmith.runs.run import Run


def test_warnings_are_given_where_they_apply(tmp_path):
    ledger = Ledger(rows=9, kept=9, tokens=900, answer_tokens=90, longest=100, leaked=("train/1", "train/2"))
    made = trained(tmp_path / "lora", ledger=ledger, steps=8, stopped_early=True)
    run = evaluated(
        tmp_path / "base", 3, rows=12, unfinished_answers=5, empty_answers=2, requests=96, cached_answers=80
    )
    said = text(render([made, run]))
    assert "stopped early after step 8 of 20" in said
    assert "text of scored rows is in 2 of 9 training rows" in said
    assert "the length limit cut off 5 of 12 answers" in said
    assert "there is no text in 2 of 12 answers" in said
    assert "80 of 96 requests were answered before" in said
    assert "rests on 12 rows only" in said


def test_sound_runs_carry_no_warnings(tmp_path):
    assert "To know about these numbers" not in render(pair(tmp_path))


def test_runs_over_different_rows_are_shown_without_a_difference(tmp_path):
    page = render([evaluated(tmp_path / "a", 3, rows=40), evaluated(tmp_path / "b", 9, rows=30, shots=3)])
    assert "3-shot: no difference can be given." in text(page)
    assert "p &lt; 0.001" not in page


def test_a_run_that_only_began_is_told_with_a_warning(tmp_path):
    run = Run.create(tmp_path / "begun", {**Recipe().model_dump(mode="json"), "verb": "train"})
    assert "has not come to its end" in text(render([run]))


def test_skipped_steps_and_spikes_are_told_with_where_their_rows_are(tmp_path):
    made = trained(tmp_path / "lora")
    for step, kind in ((3, "not a number"), (5, "spike"), (9, "spike")):
        made.append(Trouble(step=step, kind=kind, told="told", rows=("train/1",)))
    said = text(render([made]))
    assert "step 3 could not be taken, as the loss was no number" in said
    assert "2 steps (5, 9) had a loss far above the others" in said
    assert "troubles.jsonl" in said
