"""Forgetting, on a small model that has really learned something before it is taught something else."""

import json
import math

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.conftest import WORDS, colour_rows, write_rows
from tunesmith.data.task import load_task
from tunesmith.errors import ConfigError, RunError
from tunesmith.evaluation import forgetting
from tunesmith.evaluation.answering import Question
from tunesmith.evaluation.forgetting import AbilityGauge, Reading, general_text, questions_of, text_losses, unlearned
from tunesmith.evaluation.measured import train
from tunesmith.inference.score import Continuation, loglikelihoods
from tunesmith.metrics.loss import choice_loss
from tunesmith.recipe import make_recipe
from tunesmith.reporting.compare import compare
from tunesmith.reporting.forgotten import lines
from tunesmith.runs.records import Ability, Answer, TextLoss
from tunesmith.runs.run import Run
from tunesmith.training.train import train as learn

CHOICES = list(WORDS)


def task_file(folder, name, answer, question="Say {{ colour }}"):
    """Write a toy task whose rows name a colour, to be answered by choice."""
    for split, start, n in (("train", 0, 96), ("validation", 200, 16), ("test", 300, 24)):
        write_rows(folder / f"{name}-{split}.jsonl", colour_rows(n, start))
    template = {"name": "say", "prompt": question, "answer": answer, "choices": CHOICES}
    source = {split: {"file": f"{name}-{split}.jsonl"} for split in ("train", "validation", "test")}
    path = folder / f"{name}.yaml"
    task = {"name": name, "cluster": name, "source": source, "metrics": ["accuracy"], "templates": [template]}
    path.write_text(json.dumps(task))
    return str(path)


@pytest.fixture(scope="module")
def taught(tiny, tmp_path_factory):
    """A tiny model that has learned to say the colour it is told; and two tasks, that one and a contrary one."""
    folder = tmp_path_factory.mktemp("taught")
    same = task_file(folder, "same", "{{ colour }}")
    shifted = {word: WORDS[(i + 1) % len(WORDS)] for i, word in enumerate(WORDS)}
    other = task_file(folder, "other", f"{{{{ {json.dumps(shifted)}[colour] }}}}")
    told = {
        "model": str(tiny("chat")),
        "dtype": "float32",
        "length": {"max_tokens": 256},
        "task": same,
        "method": "full",
    }
    recipe = make_recipe({**told, "train": {"epochs": 40, "batch_tokens": 512, "learning_rate": 5e-3}})
    learn(recipe, folder / "taught")
    return str(folder / "taught" / "checkpoints" / "model"), same, other


def recipe_of(taught, *settings):
    base, same, other = taught
    told = {"model": base, "dtype": "float32", "length": {"max_tokens": 256}, "task": other, "method": "full"}
    return make_recipe(
        {**told, "train": {"epochs": 8, "batch_tokens": 512, "learning_rate": 3e-3}},
        (f"forgetting.tasks=[{same}]", "forgetting.text=false", *settings),
    )


def test_what_was_known_and_is_contradicted_is_forgotten(taught, tmp_path):
    run = train(recipe_of(taught), tmp_path / "run")
    told = run.forgetting()
    (accuracy, loss) = told.abilities
    assert (accuracy.task, accuracy.metric, accuracy.chance, accuracy.n) == ("same", "accuracy", 1 / len(WORDS), 120)
    assert accuracy.before > 0.7
    assert accuracy.after < 0.5
    assert accuracy.high < 0
    assert accuracy.p < 0.001
    assert told.retained == pytest.approx((accuracy.after - 1 / 8) / (accuracy.before - 1 / 8))
    assert told.low <= told.retained <= told.high < 0.6
    assert (loss.metric, loss.retained) == ("choice_loss", None)
    assert loss.difference > 1.0
    assert any("kept" in line for line in lines(told))


def test_the_numbers_are_those_of_the_kept_answers(taught, tmp_path):
    run = train(recipe_of(taught, "train.epochs=2"), tmp_path / "run")
    after = run.abilities("same")
    right = np.mean([answer.answer in answer.references for answer in after])
    assert run.forgetting().abilities[0].after == pytest.approx(right)
    losses = [choice_loss(one.log_likelihoods, one.choices.index(one.references[0])) for one in after]
    assert run.forgetting().abilities[1].after == pytest.approx(np.mean(losses))


@pytest.mark.parametrize("method", ["full", "lora", "prompt_tuning"])
def test_measuring_changes_nothing_that_is_learned(taught, tmp_path, method):
    settings = (f"method={method}", "train.epochs=2", "forgetting.max_forgetting=1.0", "forgetting.every=2")
    plain = learn(recipe_of(taught, f"method={method}", "train.epochs=2"), tmp_path / "plain")
    measured = train(recipe_of(taught, *settings), tmp_path / "measured")
    assert [step.loss for step in plain.steps()] == [step.loss for step in measured.steps()]
    assert len(measured.checks()) >= 3


def test_the_gate_keeps_the_best_weights_that_pass(taught, tmp_path):
    run = train(recipe_of(taught, "forgetting.max_forgetting=0.3", "forgetting.every=1"), tmp_path / "run")
    told = run.forgetting()
    assert told.passed
    best = [check for check in told.checks if check.best][-1]
    assert told.step == best.step < run.summary().steps
    assert told.retained == pytest.approx(best.retained)
    assert 1 - told.retained <= 0.3
    passing = [check.validation_loss for check in told.checks if check.passed]
    assert best.validation_loss == min(passing)
    assert any(not check.passed for check in told.checks)
    assert not (run.folder / "checkpoints" / "passing").exists()


def test_the_weights_that_are_kept_are_those_of_that_step(taught, tmp_path):
    gated = recipe_of(taught, "forgetting.max_forgetting=0.3", "forgetting.every=1", "train.schedule=constant")
    run = train(gated, tmp_path / "run")
    step = run.forgetting().step
    # The same steps without a gate, stopped there: checkpoints hold the masters of each step.
    told = {"train.checkpoint_every": 1, "train.schedule": "constant"}
    short = recipe_of(taught, *(f"{key}={value}" for key, value in told.items()))
    seen = {}

    from tunesmith.training import train as module

    real = module.save

    def spy(run, learning, number, begun):
        seen[number] = {name: value.clone() for name, value in learning.optimizer.state().items()}
        real(run, learning, number, begun)

    module.save = spy
    try:
        learn(short, tmp_path / "short")
    finally:
        module.save = real
    kept = load_file(tmp_path / "run" / "checkpoints" / "model" / "model.safetensors")
    masters = seen[step]
    name = "model.layers.0.mlp.up_proj.weight"
    key = next(key for key in masters if name in key and kept[name].shape == masters[key].shape)
    assert (kept[name] - masters[key]).abs().max() == 0


def test_a_training_that_always_forgets_too_much_fails_and_keeps_everything(taught, tmp_path):
    recipe = recipe_of(taught, "forgetting.max_forgetting=0.0", "train.epochs=8")
    with pytest.raises(RunError, match="forgot .* at best, forgetting.max_forgetting is 0.0%"):
        train(recipe, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert not run.done
    assert run.forgetting().passed is False
    assert (run.folder / "checkpoints" / "model" / "model.safetensors").is_file()
    assert [check.passed for check in run.checks()] == [False] * 8


def test_a_gated_run_that_is_stopped_goes_on_to_the_same_end(taught, tmp_path, monkeypatch):
    settings = ("forgetting.max_forgetting=0.3", "forgetting.every=1", "train.checkpoint_every=3")
    whole = train(recipe_of(taught, *settings), tmp_path / "whole")
    real = Run.append

    def dying(self, record):
        real(self, record)
        if getattr(record, "step", 0) == 8 and not hasattr(record, "best"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        train(recipe_of(taught, *settings), tmp_path / "cut")
    monkeypatch.setattr(Run, "append", real)
    resumed = train(recipe_of(taught, *settings), tmp_path / "cut", resume=True)
    assert resumed.forgetting() == whole.forgetting()
    weights = [run.folder / "checkpoints" / "model" / "model.safetensors" for run in (whole, resumed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_less_strength_forgets_less(taught, tmp_path):
    from tunesmith.evaluation.evaluate import evaluate

    base, same, _ = taught
    run = train(recipe_of(taught, "method=lora", "train.learning_rate=1e-2", "train.epochs=12"), tmp_path / "run")
    question = Question(load_task(same))
    scores = [
        evaluate(str(run.folder), question, tmp_path / f"at-{strength}", strength=strength).scores()[0].value
        for strength in (0.0, 0.5, 1.0)
    ]
    assert scores[0] == evaluate(base, question, tmp_path / "base").scores()[0].value
    assert scores[0] >= scores[1] >= scores[2]
    assert scores[0] > scores[2]


def test_rows_replayed_are_forgotten_less(taught, tmp_path):
    """What is replayed is learned too, so it is measured by an evaluation, not by the gauge."""
    from tunesmith.evaluation.evaluate import evaluate

    base, same, other = taught
    told = {"model": base, "dtype": "float32", "length": {"max_tokens": 256}, "task": other, "method": "full"}
    plain = make_recipe({**told, "train": {"epochs": 4, "batch_tokens": 512, "learning_rate": 1e-3}},
                        ("forgetting.tasks=[]", "forgetting.text=false"))  # fmt: skip
    replayed = make_recipe({**plain.model_dump(mode="json"), "replay": {"tasks": [same], "share": 0.5}})
    question = Question(load_task(same))
    values = []
    for name, recipe in (("plain", plain), ("replayed", replayed)):
        run = train(recipe, tmp_path / name)
        values.append(evaluate(str(run.folder), question, tmp_path / f"{name}-eval").scores()[0].value)
    assert run.ledger().tasks[1].rows == 96 * 4
    assert values[0] < values[1]


def test_two_trainings_are_compared_by_what_they_left(taught, tmp_path):
    gentle = train(recipe_of(taught, "train.epochs=1", "train.learning_rate=1e-4"), tmp_path / "gentle")
    rough = train(recipe_of(taught), tmp_path / "rough")
    (found,) = compare(gentle, rough)
    assert (found.task, found.metric, found.verdict()) == ("same", "accuracy", "worse")
    assert found.a == gentle.forgetting().abilities[0].after


@pytest.mark.parametrize("kind", ["chat", "base", "t5", "neox"])
def test_the_general_text_is_scored_token_by_token(model, kind):
    loaded = model(kind)
    found = text_losses(loaded)
    assert all(one.nats > 0 and one.tokens > 10 for one in found)
    texts = dict(general_text())
    one = next(one for one in found)
    text = texts[one.id]
    cut = forgetting._cut(text) if kind == "t5" else ("", text)
    pair = Continuation(*loaded.encoder.pair(*cut))
    assert one.nats == pytest.approx(-loglikelihoods(loaded, [pair])[0].total, rel=1e-4)


def test_passages_without_room_are_left_out(model):
    loaded = model("chat")
    few, many = (len(text_losses(loaded, spare)) for spare in (400, 0))
    assert few < many <= len(general_text())


def answered(right, base, n=40):
    """Answers of which so many are right, with two choices."""
    told = {"question": "q", "prompt": "q", "prompt_tokens": 1, "answer_tokens": 1, "finished": True}
    return tuple(
        Answer(id=str(i), answer="a" if i < right else "b", references=("a",), choices=("a", "b"),
               log_likelihoods=(-1.0, -2.0) if i < right else (-2.0, -1.0), **told)
        for i in range(n)
    )  # fmt: skip


def gauge(colours, n=1):
    tasks = [colours.model_copy(update={"name": f"t{i}", "metrics": ("accuracy",)}) for i in range(n)]
    return AbilityGauge(tuple((Question(task),) for task in tasks), False)


def test_the_share_retained_is_of_what_the_base_has_above_chance(colours):
    told = gauge(colours).compare(Reading((answered(36, 0),), ()), Reading((answered(30, 0),), ()), 7)
    ability = told.abilities[0]
    assert (ability.before, ability.after, ability.chance) == (0.9, 0.75, 0.5)
    assert ability.retained == pytest.approx(0.25 / 0.4)
    assert told.retained == pytest.approx(0.25 / 0.4)
    assert told.tasks_retained == told.retained
    assert told.step == 7


def test_a_base_at_chance_has_nothing_to_forget(colours):
    told = gauge(colours).compare(Reading((answered(22, 0),), ()), Reading((answered(5, 0),), ()), 1)
    assert told.abilities[0].retained is None
    assert told.retained is None
    assert "nothing to forget" in lines(told)[0]
    assert "(the base is at chance)" in lines(told)[1]


def test_tasks_weigh_by_what_the_base_has_above_chance(colours):
    before, after = (answered(36, 0), answered(30, 0)), (answered(18, 0), answered(30, 0))
    told = gauge(colours, 2).compare(Reading(before, ()), Reading(after, ()), 1)
    assert told.tasks_retained == pytest.approx((-0.05 + 0.25) / (0.4 + 0.25))


def test_the_text_counts_one_and_a_task_its_score_above_chance(colours):
    one = AbilityGauge(gauge(colours).questions, True)
    before = Reading((answered(36, 0),), tuple(TextLoss(id=str(i), nats=30.0, tokens=10) for i in range(20)))
    after = Reading((answered(30, 0),), tuple(TextLoss(id=str(i), nats=32.0, tokens=10) for i in range(20)))
    told = one.compare(before, after, 1)
    text = told.abilities[-1]
    assert (text.before, text.after) == (3.0, 3.2)
    assert text.retained == pytest.approx(math.exp(-0.2))
    assert told.retained == pytest.approx((0.25 + math.exp(-0.2)) / (0.4 + 1.0))
    assert told.tasks_retained == pytest.approx(0.25 / 0.4)
    assert told.low < told.retained < told.high


def test_a_task_is_asked_its_test_rows_first_and_at_most_so_many(taught):
    task = load_task(taught[1])
    asked = [(one.split, len(one.prompts())) for one in questions_of(task, 50, 0)]
    assert asked == [("test", 24), ("validation", 16), ("train", 10)]
    assert [one.split for one in questions_of(task, 20, 0)] == ["test"]


def test_a_task_that_is_answered_by_writing_is_asked_a_quarter(colours):
    assert sum(len(one.prompts()) for one in questions_of(colours, 120, 0)) == 30


def test_the_text_alone_is_all_there_is_if_no_task_is_asked():
    told = AbilityGauge((), True).compare(
        Reading((), (TextLoss(id="a", nats=20.0, tokens=10), TextLoss(id="b", nats=40.0, tokens=10))),
        Reading((), (TextLoss(id="a", nats=21.0, tokens=10), TextLoss(id="b", nats=40.0, tokens=10))), 1,
    )  # fmt: skip
    assert told.retained == pytest.approx(math.exp(-0.05))
    assert told.tasks_retained is None


def test_tasks_of_a_learned_cluster_are_not_asked():
    names = {task.name for task in unlearned([load_task("nli")])}
    assert "nli" not in names
    assert {"sentiment", "topic", "commonsense", "acceptability", "paraphrase_zh", "demo"} == names
    assert "demo" not in {task.name for task in unlearned([load_task("demo")])}


def test_a_learned_task_cannot_say_what_is_forgotten(taught, tmp_path):
    with pytest.raises(ConfigError, match="'other' is learned"):
        train(recipe_of(taught, f"forgetting.tasks=[{taught[2]}]"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_forgetting_is_not_measured_where_nothing_is_asked(taught, tmp_path):
    run = train(recipe_of(taught, "forgetting.tasks=[]", "train.epochs=1"), tmp_path / "run")
    assert run.forgetting() is None


def test_an_ability_is_written_and_read_back(taught, tmp_path):
    run = train(recipe_of(taught, "train.epochs=1"), tmp_path / "run")
    raw = json.loads((run.folder / "forgetting.json").read_text())
    assert raw["abilities"][0] == run.forgetting().abilities[0].model_dump()
    assert isinstance(run.forgetting().abilities[0], Ability)


def test_the_general_text_is_sixty_passages_of_our_own():
    ids = [name for name, _ in general_text()]
    assert len(set(ids)) == len(ids) == 60
