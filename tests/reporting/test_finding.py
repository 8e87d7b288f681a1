"""The finding: one exact sentence."""

from tests.reporting.made import evaluated, pair, scored, text, trained
from tunesmith.reporting.compare import compare
from tunesmith.reporting.report import render


def test_the_finding_says_what_was_gained_over_what_on_how_many_rows(tmp_path):
    runs = pair(tmp_path)
    score, found = runs[2].scores()[0], compare(runs[0], runs[2])[0]
    assert (
        f"LoRA scores ROUGE-1 {score.value:.3f} [{score.low:.3f}, {score.high:.3f}], "
        f"{found.difference:.3f} above zero-shot (p < 0.001) on 40 test rows."
    ) in text(render(runs))


def test_a_difference_that_may_be_chance_is_not_called_a_gain(tmp_path):
    a = evaluated(tmp_path / "a", 9)
    b = evaluated(tmp_path / "b", 9, shots=3)
    answers = [
        x.model_copy(update={"answer": x.answer + " credit"}) if x.id == "test/7" else x for x in b.answers("demo")
    ]
    b.write_lines("answers/demo.jsonl", answers)
    b.write_lines("scores.jsonl", [scored(name, answers, 3) for name in ("rouge1", "bleu")])
    difference = compare(a, b)[0]
    assert difference.verdict() == "undecided"
    assert f"{abs(difference.difference):.3f}" in text(render([a, b]))
    assert "which may be chance" in text(render([a, b]))


def test_a_training_alone_says_how_its_loss_moved(tmp_path):
    page = render([trained(tmp_path / "lora")])
    assert "the validation loss went from 2.613 to 1.987 nats per answer token" in text(page)
    assert "validation loss after step 0: 2.613" in page
