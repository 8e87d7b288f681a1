"""Forgetting, on a small model that has really learned something before it is taught something else."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.conftest import WORDS, colour_rows, write_rows
from tunesmith.data.task import load_task
from tunesmith.data.unlearned import unlearned
from tunesmith.errors import ConfigError, RunError, TunesmithError
from tunesmith.evaluation import forgetting
from tunesmith.evaluation.answering import Question
from tunesmith.evaluation.forgetting import AbilityGauge, Reading, general_text, questions_of, text_losses
from tunesmith.evaluation.measured import train
from tunesmith.inference.score import Continuation, loglikelihoods
from tunesmith.metrics.loss import choice_loss
from tunesmith.recipe import make_recipe
from tunesmith.reporting.compare import compare
from tunesmith.reporting.forgotten import lines
from tunesmith.runs.records import Ability, Answer, TextLoss
from tunesmith.runs.run import Run
from tunesmith.training.train import train as learn

pytestmark = pytest.mark.no_cover  # many whole trainings: traced, they take a quarter longer

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
        (f"forgetting.tasks=[{same}]", "forgetting.text=false", "forgetting.limit=48", *settings),
    )


def test_what_was_known_and_is_contradicted_is_forgotten(taught, tmp_path):
    run = train(recipe_of(taught, "forgetting.limit=120"), tmp_path / "run")
    told = run.forgetting()
    (accuracy, loss) = told.abilities
    assert (accuracy.task, accuracy.metric, accuracy.n) == ("same", "accuracy", 120)
    assert accuracy.chance == pytest.approx(1 / len(WORDS), abs=0.04)
    assert accuracy.before > 0.7
    assert accuracy.after < 0.5
    assert accuracy.high < 0
    assert accuracy.p < 0.001
    had, has = accuracy.before - accuracy.chance, accuracy.after - accuracy.chance_after
    assert told.retained == pytest.approx(has / had)
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
    settings = ("forgetting.max_forgetting=0.3", "forgetting.every=2", "train.checkpoint_every=3")
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


def answered(right, n=40, says=None):
    """Answers to questions whose right one is a and b in turn; so many are right, or all say the same."""
    told = {"question": "q", "prompt": "q", "prompt_tokens": 1, "answer_tokens": 1, "finished": True}
    found = []
    for i in range(n):
        wanted, other = ("a", "b") if i % 2 else ("b", "a")
        answer = says or (wanted if i < right else other)
        likely = (-1.0, -2.0) if answer == "a" else (-2.0, -1.0)
        one = Answer(id=str(i), answer=answer, references=(wanted,), choices=("a", "b"), log_likelihoods=likely, **told)
        found.append(one)
    return tuple(found)


def gauge(colours, n=1):
    tasks = [colours.model_copy(update={"name": f"t{i}", "metrics": ("accuracy",)}) for i in range(n)]
    return AbilityGauge(tuple((Question(task),) for task in tasks), False)


def test_the_share_retained_is_of_what_the_base_has_above_chance(colours):
    told = gauge(colours).compare(Reading((answered(36),), ()), Reading((answered(30),), ()), 7)
    ability = told.abilities[0]
    assert (ability.before, ability.after) == (0.9, 0.75)
    assert (ability.chance, ability.chance_after) == (pytest.approx(0.5, abs=0.03), pytest.approx(0.5, abs=0.03))
    had, has = ability.before - ability.chance, ability.after - ability.chance_after
    assert ability.retained == pytest.approx(has / had)
    assert told.retained == told.tasks_retained == pytest.approx(has / had)
    assert 0.3 < told.low < told.retained < told.high < 1.0
    assert told.step == 7


def test_a_model_that_always_says_the_same_is_at_chance(colours):
    one_sided = tuple(one.model_copy(update={"references": ("a",)}) if i < 30 else one
                      for i, one in enumerate(answered(0, says="a")))  # fmt: skip
    told = gauge(colours).compare(Reading((one_sided,), ()), Reading((one_sided,), ()), 1)
    ability = told.abilities[0]
    assert ability.before > 0.8
    assert ability.chance == pytest.approx(ability.before, abs=0.02)
    assert ability.retained is None
    lost = gauge(colours).compare(Reading((answered(36),), ()), Reading((answered(0, says="a"),), ()), 1)
    assert lost.abilities[0].after == 0.5
    assert lost.retained == pytest.approx(0.0, abs=0.06)


def test_questions_with_choices_of_their_own_are_guessed_among_them(colours):
    told = {"question": "q", "prompt": "q", "prompt_tokens": 1, "answer_tokens": 1, "finished": True}
    said = []
    for i in range(60):
        choices = tuple(f"{i}-{j}" for j in range(2 + i % 3))
        answer = choices[0] if i % 5 else choices[1]
        said.append(Answer(id=str(i), answer=answer, references=(choices[0],), choices=choices,
                           log_likelihoods=(-1.0,) * len(choices), **told))  # fmt: skip
    ability = gauge(colours).compare(Reading((tuple(said),), ()), Reading((tuple(said),), ()), 1).abilities[0]
    assert ability.before == pytest.approx(0.8)
    assert ability.chance == ability.chance_after == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert ability.retained == pytest.approx(1.0)


def test_a_correlation_has_a_chance_of_its_own(colours):
    tasks = [colours.model_copy(update={"name": "t", "metrics": ("matthews",)})]
    one = AbilityGauge(tuple((Question(task),) for task in tasks), False)
    told = one.compare(Reading((answered(36),), ()), Reading((answered(20),), ()), 1)
    ability = told.abilities[0]
    assert ability.chance == pytest.approx(0.0, abs=0.06)
    assert ability.retained < 0.2


def test_a_summary_of_something_else_is_worth_nothing(colours):
    from tunesmith.evaluation.forgetting import abilities

    rows = load_task("demo").prompts("test", limit=30)
    told = {"question": "q", "prompt": "q", "prompt_tokens": 1, "answer_tokens": 1, "finished": True}
    right = [Answer(id=one.id, answer=one.answer, references=one.references, **told) for one in rows]
    wrong = [one.model_copy(update={"answer": right[i - 1].answer}) for i, one in enumerate(right)]
    (found,) = abilities(Question(load_task("demo")), right, wrong)
    assert found.ability.after > 0.1
    assert found.ability.retained == pytest.approx(0.0, abs=0.08)


def test_a_base_at_chance_has_nothing_to_forget(colours):
    told = gauge(colours).compare(Reading((answered(20),), ()), Reading((answered(5),), ()), 1)
    assert told.abilities[0].retained is None
    assert told.retained is None
    assert "nothing to forget" in lines(told)[0]
    assert "(the base is at chance)" in lines(told)[1]


def test_nothing_forgotten_is_told_so_however_near_to_chance_the_base_is(colours):
    """Redrawn answers of the same skill: the mean share over many draws is 1, and few are told to have lost."""
    random = np.random.default_rng(5)
    shares = []
    for _ in range(20):
        pairs = []
        for _ in range(5):
            was = random.random(120) < 0.58
            now = np.where(random.random(120) < 0.4, random.random(120) < 0.58, was)
            pairs.append([marked(was), marked(now)])
        before, after = (Reading(tuple(pair[i] for pair in pairs), ()) for i in (0, 1))
        told = AbilityGauge(gauge(colours, 5).questions, False).compare(before, after, 1)
        shares.append(told.retained)
    assert all(share is not None for share in shares)
    assert np.mean(shares) == pytest.approx(1.0, abs=0.2)


def marked(right):
    said = answered(len(right), len(right))
    return tuple(one if yes else one.model_copy(update={"answer": "a" if one.answer == "b" else "b"})
                 for one, yes in zip(said, right, strict=True))  # fmt: skip


def test_tasks_weigh_by_what_the_base_has_above_chance(colours):
    before, after = (answered(36), answered(32)), (answered(24), answered(36))
    told = gauge(colours, 2).compare(Reading(before, ()), Reading(after, ()), 1)
    had = [one.before - one.chance for one in told.abilities if one.metric == "accuracy"]
    has = [one.after - one.chance_after for one in told.abilities if one.metric == "accuracy"]
    assert told.tasks_retained == pytest.approx(sum(has) / sum(had))


def test_the_text_counts_one_and_a_task_its_score_above_chance(colours):
    one = AbilityGauge(gauge(colours).questions, True)
    before = Reading((answered(36),), tuple(TextLoss(id=str(i), nats=30.0, tokens=10) for i in range(20)))
    after = Reading((answered(30),), tuple(TextLoss(id=str(i), nats=32.0, tokens=10) for i in range(20)))
    told = one.compare(before, after, 1)
    text, task = told.abilities[-1], told.abilities[0]
    assert (text.before, text.after) == (3.0, 3.2)
    assert text.retained == pytest.approx(math.exp(-0.2))
    had, has = task.before - task.chance, task.after - task.chance_after
    assert told.retained == pytest.approx((has + math.exp(-0.2)) / (had + 1.0))
    assert told.low < told.retained < told.high


def test_a_task_is_asked_its_test_rows_first_and_at_most_so_many(taught):
    task = load_task(taught[1])
    asked = [(one.split, len(one.prompts())) for one in questions_of(task, 50, 0)]
    assert asked == [("test", 24), ("validation", 16), ("train", 10)]
    assert [one.split for one in questions_of(task, 20, 0)] == ["test"]


def test_a_task_that_is_answered_by_writing_is_asked_a_quarter(colours):
    assert sum(len(one.prompts()) for one in questions_of(colours, 120, 0)) == 30


def test_a_task_that_could_not_be_marked_is_refused_before_anything_is_spent(taught, tmp_path):
    told = json.loads(Path(taught[1]).read_text())
    folder = tmp_path / "tasks"
    folder.mkdir()
    for split in told["source"].values():
        split["file"] = str(Path(taught[1]).parent / split["file"])
    for name, change, said in (
        ("mark", {"metrics": ["rogue1"]}, "there is no metric 'rogue1'"),
        ("odd", {"references": ["thing"]}, "none of its references is one of its choices"),
    ):
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps({**told, **change}))
        with pytest.raises(TunesmithError, match=said):
            train(recipe_of(taught, f"forgetting.tasks=[{path}]"), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_training_compared_with_itself_differs_in_nothing(taught, tmp_path):
    run = train(recipe_of(taught, "train.epochs=1"), tmp_path / "run")
    (found,) = compare(run, run)
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert found.a == run.forgetting().abilities[0].after


def test_a_last_step_that_is_passed_over_is_looked_at_all_the_same(taught, tmp_path, monkeypatch):
    from tunesmith.training.optimizer import MasterAdamW

    real, calls = MasterAdamW.norm, []

    def norm(self):
        calls.append(1)
        return real(self) if len(calls) < 4 else float("nan")

    monkeypatch.setattr(MasterAdamW, "norm", norm)
    run = train(recipe_of(taught, "train.epochs=1", "forgetting.max_forgetting=1.0"), tmp_path / "run")
    assert run.summary().skipped_steps == 1
    assert [check.step for check in run.checks()] == [3]
    assert run.forgetting().passed


@pytest.mark.parametrize(
    ("kind", "method"), [("t5", "full"), ("t5", "lora"), ("chat", "lora"), ("base", "prompt_tuning")]
)
def test_the_gate_works_for_every_architecture(tiny, tmp_path, kind, method):
    task = task_file(tmp_path, "one", "{{ colour }}")
    other = task_file(tmp_path, "two", "{{ colour }}", "Which colour: {{ colour }}?")
    told = {"model": str(tiny(kind)), "dtype": "float32", "length": {"max_tokens": 256}, "task": task, "method": method}
    settings = ("train.epochs=2", "train.batch_tokens=512", "forgetting.every=3", "forgetting.max_forgetting=1.0")
    run = train(make_recipe(told, (f"forgetting.tasks=[{other}]", *settings)), tmp_path / "run")
    lost = run.forgetting()
    assert {one.metric for one in lost.abilities} == {"accuracy", "choice_loss", "nats_per_token"}
    best = min(run.checks(), key=lambda check: check.validation_loss)
    assert (lost.passed, lost.step) == (True, best.step)
    assert lost.least == pytest.approx(best.retained, rel=1e-3)
    assert run.summary().validation_loss == pytest.approx(best.validation_loss)


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
