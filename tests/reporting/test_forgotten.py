"""What was forgotten, and the tasks of a mixture: as the page and the terminal tell them."""

import pytest

from tests.reporting.made import headings, text, trained
from tunesmith.data.leakage import Leak
from tunesmith.data.ledger import Ledger, Share
from tunesmith.reporting.forgotten import forgotten, lines, task_losses
from tunesmith.reporting.report import render
from tunesmith.runs.records import Ability, Check, Forgetting, Step

P = {"low": -0.3, "high": -0.1, "p": 0.0004}
ABILITIES = (
    Ability(task="topic", cluster="topic", metric="accuracy", before=0.7, after=0.5, difference=-0.2, n=120,
            chance=0.2, chance_after=0.25, retained=0.5, retained_low=0.31, retained_high=0.69, **P),
    Ability(task="nli", cluster="nli", metric="accuracy", before=0.34, after=0.3, difference=-0.04, n=120,
            chance=0.33, chance_after=0.3, **P),
    Ability(task="topic", cluster="topic", metric="choice_loss", before=1.1, after=2.2, difference=1.1, n=120, **P),
    Ability(task="general text", cluster="text", metric="nats_per_token", before=3.1, after=3.2, difference=0.1, n=60,
            retained=0.905, retained_low=0.89, retained_high=0.92, **P),
)  # fmt: skip
CHECKS = (
    Check(step=10, retained=0.96, validation_loss=2.0, passed=True, best=True),
    Check(step=20, retained=0.77, validation_loss=1.9, passed=False, best=False),
)


def told(**more):
    return Forgetting(step=10, abilities=ABILITIES, retained=0.771, low=0.7, high=0.84, tasks_retained=0.5, **more)


@pytest.fixture
def run(tmp_path):
    share = {"task": "topic", "cluster": "topic", "size": 70, "rate": 0.4, "rows": 140, "tokens": 13828}
    ledger = Ledger(
        rows=9, kept=9, tokens=900, answer_tokens=90, longest=100, epochs=2, held=("nli",),
        tasks=(Share(**share, answer_tokens=575, epochs=2.0),),
        leaked=("topic/1",), leaks=(Leak("topic/1", "nli/test/7", "exact", 1.0),), left_out=True,
    )  # fmt: skip
    made = trained(tmp_path / "lora", ledger=ledger)
    made.write_json("forgetting.json", told(max_forgetting=0.05, passed=True, checks=CHECKS).model_dump())
    return made


def test_the_page_shows_what_was_forgotten(run):
    page = render([run])
    said = text(page)
    assert "What was forgotten" in headings(page)
    assert "It kept 77.1 % [70.0 %, 84.0 %] of what the base could do" in said
    assert "90.5 % of the probability it gave to a token of general text" in said
    assert "At most 5.0 % may be forgotten, of all and of the general text: the weights of step 10 are kept." in said
    for one in ABILITIES:
        assert f"{one.before:.3f}" in said
        assert f"{one.after:.3f}" in said
    assert "Looked at while training: step 10 96.0 %, step 20 77.0 % (too little)" in said
    assert "Share retained" in page
    assert "that it did not learn, 0.510 → 0.250." in said
    assert "->" not in said


def test_the_page_shows_the_tasks_of_a_mixture(run):
    said = text(render([run]))
    assert "Held out: nli." in said
    assert "13,828" in said
    assert "2.00" in said


def test_rows_left_out_are_told_and_not_warned_of(run):
    said = text(render([run]))
    assert "sharing text with rows that are scored (leaked), left out: topic/1" in said
    assert "text of scored rows is in" not in said


def test_a_training_that_was_not_measured_has_no_such_section(tmp_path):
    assert "What was forgotten" not in headings(render([trained(tmp_path / "lora")]))


def test_the_terminal_tells_each_ability_by_its_own_metric(run):
    said = lines(told())
    assert [line.split()[0] for line in said[1:]] == ["topic", "nli", "general"]
    assert "kept 50%" in said[1]
    assert "(the base is at chance)" in said[2]
    assert any("in 2 epochs:" in line for line in run.ledger().lines())
    assert any("1 leaked (1 exact), left out: topic/1" in line for line in run.ledger().lines())


def test_nothing_that_could_be_forgotten_draws_no_chart(run):
    run.write_json("forgetting.json", Forgetting(step=1, abilities=ABILITIES[1:2]).model_dump())
    found = forgotten("LoRA", run)
    assert found.chart is None
    assert "there was nothing to forget" in found.finding


def test_a_reading_of_nothing_has_no_lines_but_the_sentence():
    assert len(lines(Forgetting(step=1, abilities=()))) == 1


def test_the_loss_of_a_task_is_the_mean_of_its_first_and_last_steps():
    def step(i, **losses):
        fixed = {"epoch": 1, "loss": 1.0, "learning_rate": 0.1, "gradient_norm": 1.0}
        return Step(step=i, tokens=1, answer_tokens=1, seconds=1.0, task_losses=losses, **fixed)

    steps = [step(i, a=10.0 - i, **({"b": 5.0} if i > 7 else {})) for i in range(10)]
    assert task_losses(steps) == {"a": (9.5, 1.5), "b": (5.0, 5.0)}
