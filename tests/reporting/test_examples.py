"""Examples: a fixed choice that shows gains and losses alike."""

import pytest

from tests.reporting.made import evaluated, text
from tunesmith.metrics import metric
from tunesmith.reporting.examples import examples, spread
from tunesmith.reporting.gather import gather
from tunesmith.reporting.ladders import ladders
from tunesmith.reporting.report import render


def test_six_examples_are_spread_over_what_the_change_did():
    changes = [0.1 * i for i in range(-10, 50)]
    chosen = spread(changes)
    assert [i for i, _ in chosen] == [59, 58, 57, 30, 29, 0]
    assert [why for _, why in chosen] == [
        "best",
        "second best",
        "third best",
        "from the middle",
        "from the middle",
        "worst",
    ]


@pytest.mark.parametrize("n", range(1, 15))
def test_no_example_is_shown_twice_and_few_are_all_shown(n):
    chosen = [i for i, _ in spread([0.0] * n)]
    assert len(set(chosen)) == len(chosen) == min(n, 6)


def test_examples_show_the_question_without_shots_and_the_value_of_each_answer(tmp_path):
    runs = [evaluated(tmp_path / "shots", 3, shots=3), evaluated(tmp_path / "tuned", 11, method="lora")]
    shown = examples(ladders(gather(runs))[0])
    mark = metric("rouge1")
    for example in shown.chosen:
        assert "An example" not in example.asked.question
        for reply in example.replies:
            value = mark.stats([reply.answer.answer], [reply.answer.references])[0, 0]
            assert reply.value == pytest.approx(value)
            assert f"<b>{value:.3f}</b>" in render(runs)
    assert shown.gained + shown.lost <= shown.asked == 40


def test_where_the_metric_needs_many_rows_single_answers_are_said_to_be_marked_by_exact_match(tmp_path):
    runs = [evaluated(tmp_path / "a", 3, metrics=("macro_f1",)), evaluated(tmp_path / "b", 18, metrics=("macro_f1",))]
    assert examples(ladders(gather(runs))[0]).metric == "exact_match"
    assert "exact match rose on 40 of 40 questions" in text(render(runs))
