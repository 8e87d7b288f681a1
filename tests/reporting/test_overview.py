"""The overview: several tasks at a glance, counted by their paired tests."""

from tests.reporting.made import evaluated, headings, text
from tunesmith.reporting.gather import gather
from tunesmith.reporting.ladders import ladders
from tunesmith.reporting.overview import overview
from tunesmith.reporting.report import render


def on_two_tasks(folder, keep, **asked):
    """Make an evaluation of two tasks: the second is answered alike by all."""
    run = evaluated(folder, keep, **asked)
    answers = run.answers("demo")
    same = [answer.model_copy(update={"answer": answers[0].references[0]}) for answer in answers]
    run.write_lines("answers/other.jsonl", same)
    scores = [
        score.model_copy(update={"task": "other", "value": 1.0, "low": 1.0, "high": 1.0}) for score in run.scores()
    ]
    run.write_lines("scores.jsonl", [*run.scores(), *scores])
    return run


def pair_of(tmp_path):
    return [on_two_tasks(tmp_path / "base", 3), on_two_tasks(tmp_path / "tuned", 11, method="lora")]


def test_one_task_needs_no_overview(tmp_path):
    assert overview(ladders(gather([evaluated(tmp_path / "a", 3)]))) is None


def test_tasks_are_counted_by_their_tests(tmp_path):
    found = overview(ladders(gather(pair_of(tmp_path))))
    assert found.runs == ("zero-shot", "LoRA")
    assert found.finding == (
        "Against zero-shot, LoRA is better on 1 of 2 tasks and worse on 0; on the other 1 the difference may be chance."
    )
    assert found.chart().words.count("ROUGE-1") == 4


def test_one_run_on_several_tasks_names_them(tmp_path):
    found = overview(ladders(gather([on_two_tasks(tmp_path / "base", 3)])))
    assert found.finding == "2 tasks were scored: demo, other."


def test_several_tasks_open_with_their_overview_and_tell_the_costs_once(tmp_path):
    page = render(pair_of(tmp_path))
    assert headings(page)[:3] == ["2 tasks at a glance", "Task by task", "Answers side by side"]
    assert text(page).count("Prompt tokens per request") == 0
    assert page.count('id="cost"') == 1
