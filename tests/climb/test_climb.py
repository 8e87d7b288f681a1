"""The climb end to end, on real small models: every rung, its rules, killed and resumed."""

import re
import shutil
from types import SimpleNamespace

import pytest

from tests.conftest import colours_in
from tunesmith.climb import climb as module
from tunesmith.climb import memory
from tunesmith.climb import rung as taking
from tunesmith.climb.climb import climb
from tunesmith.climb.ladder import Ladder, ladder, short_names
from tunesmith.data.task import load_task
from tunesmith.errors import ConfigError, DataError, DiskError, FitError, ModelError, RunError
from tunesmith.recipe import make_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import Tried, rungs_of, verdict_of

pytestmark = pytest.mark.no_cover  # many whole trainings: traced, they take a quarter longer

NAMES = ["zero-shot", "one-shot", "few-shot", "prompt tuning", "LoRA", "full fine-tuning"]
QUICK = ("train.batch_tokens=512", "forgetting.tasks=[]", "forgetting.text=false", "limit.validation=8")
ASKED = Ladder(rows=12, shots=(2, 3))


def quiet(_):
    """Say nothing."""


def recipe_for(folder, *settings, **values):
    base = {"model": str(folder), "dtype": "float32", "length": {"max_tokens": 256}, "template": "say", **values}
    return make_recipe(base, (*QUICK, *settings))


def facts(run):
    """Give what a climb found, without what it took."""
    rungs = [rung.model_dump(exclude={"cost"}) for rung in rungs_of(run)]
    tokens = [rung.cost and (rung.cost.prompt_tokens, rung.cost.answer_tokens) for rung in rungs_of(run)]
    verdict = verdict_of(run)
    scores = [Run.open(run.folder / rung.eval).scores() for rung in rungs_of(run) if rung.eval]
    return rungs, tokens, scores, verdict.contrasts, verdict.good, verdict.stopped


@pytest.fixture(scope="module")
def climbed(tiny, tmp_path_factory):
    """A whole climb, for all who only look at it."""
    folder = tmp_path_factory.mktemp("climbed")
    (folder / "colours.yaml").write_text(colours_in(folder).to_yaml(), encoding="utf-8")
    said = []
    recipe = recipe_for(tiny("chat"), "train.epochs=2", "train.patience=1", task=str(folder / "colours.yaml"))
    return climb(recipe, folder / "climb", ASKED, ["tunesmith", "climb"], said.append), recipe, said


def test_a_climb_takes_every_rung_and_says_which(climbed):
    run, _, said = climbed
    rungs, verdict = rungs_of(run), verdict_of(run)
    assert [rung.name for rung in rungs] == NAMES
    taken = [rung for rung in rungs if rung.eval]
    for rung in taken:
        assert Run.open(run.folder / rung.eval).done
        assert rung.cost.request_seconds > 0
    assert len(verdict.contrasts) == len(taken) * (len(taken) - 1) / 2
    assert all(one.corrected >= one.p for one in verdict.contrasts)
    assert said[-1] == verdict.sentence
    assert sum("tokens each" in line for line in said) == len(taken)
    assert (run.folder / "DONE").exists()
    assert verdict.recommended in (run.folder / "report.html").read_text()
    assert run.provenance()["command"] == "tunesmith climb"


def test_examples_are_chosen_on_validation_rows_and_scored_once_on_test(climbed):
    run, _, _ = climbed
    few = rungs_of(run)[2]
    assert {one.n for one in few.tried} == {8}
    best = max(few.tried, key=lambda one: one.value)
    assert few.shots == best.shots
    tested = [path.parent.name for path in run.folder.rglob("scores.jsonl") if '"split":"test"' in path.read_text()]
    assert sorted(tested) == sorted(rung.eval for rung in rungs_of(run) if rung.eval)
    assert few.cost.making_seconds > 0 == rungs_of(run)[0].cost.making_seconds


def test_prompts_of_more_examples_are_longer_and_every_question_sees_the_same(climbed):
    run, _, _ = climbed
    tokens = [rung.cost.prompt_tokens for rung in rungs_of(run)[:3]]
    assert tokens == sorted(tokens) and tokens[0] < tokens[2]
    answers = Run.open(run.folder / "one-shot").answers("colours")
    assert len({answer.prompt.rpartition(answer.question)[0] for answer in answers}) == 1


def test_every_rung_is_asked_as_the_recipe_says(climbed):
    run, _, _ = climbed
    asked = [Run.open(run.folder / rung.eval) for rung in rungs_of(run) if rung.eval]
    assert {one.asked()["template"] for one in asked} == {"say"}
    assert {one.provenance()["dtype"] for one in asked} == {"float32"}


def test_the_cost_of_a_tuned_rung_is_that_of_its_training(climbed):
    run, _, _ = climbed
    lora = rungs_of(run)[4]
    told = Run.open(run.folder / lora.train).summary()
    assert lora.cost.making_seconds == told.seconds
    assert lora.cost.trained_parameters == told.trainable_parameters > 0
    assert lora.cost.prompt_tokens == rungs_of(run)[0].cost.prompt_tokens


@pytest.mark.parametrize("place", ["one-shot", "few-shot-", "lora", "lora-eval", "verdict.json"])
def test_a_climb_killed_anywhere_and_resumed_ends_as_if_it_never_was(climbed, tmp_path, monkeypatch, place):
    whole, recipe, _ = climbed
    real = Run.write_text

    def dying(self, name, text):
        path = self.folder / name
        mine = next((re.sub(r"\d$", "", part) for part in path.relative_to(tmp_path).parts[1:]), "")
        if mine == place and name in ("scores.jsonl", "verdict.json", "summary.json"):
            raise KeyboardInterrupt
        real(self, name, text)

    monkeypatch.setattr(Run, "write_text", dying)
    with pytest.raises(KeyboardInterrupt):
        climb(recipe, tmp_path / "cut", ASKED, say=quiet)
    monkeypatch.setattr(Run, "write_text", real)
    with pytest.raises(RunError, match="not empty"):
        climb(recipe, tmp_path / "cut", ASKED, say=quiet)
    resumed = climb(recipe, tmp_path / "cut", ASKED, say=quiet, resume=True)
    assert facts(resumed) == facts(whole)


def test_a_finished_climb_is_given_back_and_another_one_is_refused(climbed, tmp_path):
    run, recipe, _ = climbed
    before = (run.folder / "verdict.json").read_bytes()
    assert climb(recipe, run.folder, ASKED, say=quiet, resume=True).folder == run.folder
    assert (run.folder / "verdict.json").read_bytes() == before
    with pytest.raises(RunError, match=r"asked something else: rows: 12 then, 5 now\n"):
        climb(recipe, run.folder, ASKED.model_copy(update={"rows": 5}), say=quiet, resume=True)
    copy = tmp_path / "copy"
    shutil.copytree(run.folder, copy)
    (copy / "DONE").unlink()
    with pytest.raises(RunError, match="asked something else"):
        climb(recipe, copy, ASKED.model_copy(update={"rows": 5}), say=quiet, resume=True)


def test_a_climb_stops_at_the_first_rung_that_reaches_the_target(tiny, colours_file, tmp_path):
    recipe = recipe_for(tiny("chat"), task=str(colours_file))
    told = []
    run = climb(recipe, tmp_path / "climb", ASKED.model_copy(update={"target": ("exact_match", 0.0)}), say=told.append)
    rungs, verdict = rungs_of(run), verdict_of(run)
    assert [rung.passed_over is None for rung in rungs] == [True] + [False] * 5
    assert "zero-shot reaches 0" in rungs[1].passed_over
    assert "zero-shot reaches 0" in verdict.stopped
    assert "it reaches 0" in verdict.sentence
    with pytest.raises(ConfigError, match="first metric"):
        climb(recipe, tmp_path / "other", ASKED.model_copy(update={"target": ("rouge1", 0.5)}))
    with pytest.raises(ConfigError, match="goes from 0 to 1") as wrong:
        climb(recipe, tmp_path / "other", ASKED.model_copy(update={"target": ("exact_match", 40)}))
    assert wrong.value.fix == "--target exact_match=0.4"


def test_a_climb_ends_where_nothing_is_left_to_gain(tiny, colours_file, tmp_path):
    recipe = recipe_for(tiny("chat"), task=str(colours_file))
    run = climb(recipe, tmp_path / "climb", ASKED.model_copy(update={"worth": 1.5}), say=quiet)
    assert [rung.passed_over is None for rung in rungs_of(run)] == [True] + [False] * 5
    assert verdict_of(run).stopped.startswith("Not tried: one-shot, few-shot, prompt tuning, LoRA and full fine-tuning")
    assert "is the only rung" in verdict_of(run).sentence


@pytest.mark.parametrize(
    ("settings", "wrong", "says"),
    [
        (("length.max_tokens=20",), FitError, "tokens .* of them answer"),
        (("method=bitfit",), ModelError, "bias"),
        (("length.max_tokens=1024",), FitError, "made for 512 tokens"),
    ],
)
def test_what_no_training_can_take_is_refused_before_the_first_rung(
    tiny, colours_file, tmp_path, settings, wrong, says
):
    with pytest.raises(wrong, match=says):
        climb(recipe_for(tiny("chat"), *settings, task=str(colours_file)), tmp_path / "climb", ASKED, say=print)
    assert not (tmp_path / "climb").exists(), "the corrected command finds its folder free"


def test_a_full_disk_stops_a_climb_and_what_was_passed_over_before_stays_so(tiny, colours_file, tmp_path, monkeypatch):
    recipe = recipe_for(tiny("chat"), "limit.train=8", "length.max_tokens=256", task=str(colours_file))

    def refusing(step, *_):
        wrong = FitError if step.kind == "prompt_tuning" else DiskError
        raise wrong(f"no room for {step.name}", fix="make some")

    with monkeypatch.context() as patched:
        patched.setattr(module, "trained", refusing)
        with pytest.raises(DiskError, match="no room for LoRA"):
            climb(recipe, tmp_path / "climb", ASKED, say=quiet)
    said = []
    run = climb(recipe, tmp_path / "climb", ASKED, say=said.append, resume=True)
    rungs = {rung.name: rung for rung in rungs_of(run)}
    passed = rungs["prompt tuning"]
    assert (passed.passed_over, passed.fix) == ("no room for prompt tuning", "make some")
    assert rungs["LoRA"].eval == "lora-eval"
    assert "prompt tuning: passed over, no room for prompt tuning\n  fix: make some" in said


def test_fewer_examples_are_taken_where_a_test_row_has_no_room_for_the_best(tiny, colours, tmp_path):
    recipe = recipe_for(tiny("chat"))
    shared = taking.Shared(colours, recipe, tmp_path / "climb")
    step = ladder(recipe, Ladder(shots=(4, 2, 4)), colours)[0][2]
    assert step.shots == (2, 4)
    tried = [
        Tried(name=str(shots), shots=shots, metric="rouge1", value=value, low=0, high=1, n=8)
        for shots, value in ((2, 0.1), (4, 0.3), (8, 0.3))
    ]
    assert taking._from_best(tried) == [4, 8, 2]
    for _ in range(2):  # the second time as after a kill
        shots, run = taking._tested(step, shared, [90, 2], lambda: shared.base(recipe.model))
        assert (shots, run.done, run.asked()["shots"]) == (2, True, 2)


def test_fewer_examples_than_the_best_are_still_told_as_such_when_the_climb_goes_on(tiny, colours, tmp_path):
    """A kill between the answers to fewer examples and the note of it must not pass them off as the best number's."""
    shared = taking.Shared(colours, recipe_for(tiny("chat")), tmp_path / "climb")
    step = ladder(shared.recipe, Ladder(shots=(2, 90)), colours)[0][2]
    first, again = (taking.prompted(step, shared) for _ in range(2))
    assert first.rung == again.rung
    assert (first.rung.shots, Run.open(tmp_path / "climb" / first.rung.eval).asked()["shots"]) == (2, 2)


def test_one_number_of_examples_that_helps_less_does_not_end_the_search(tmp_path, monkeypatch):
    """The scores are made up here: 2 and 8 examples are good, 4, 16 and 32 are not."""
    values = {2: 0.3, 4: 0.2, 8: 0.4, 16: 0.35, 32: 0.1, 64: 0.9}

    def answered(_, question, folder):
        told = SimpleNamespace(
            model_dump=lambda include: {"metric": "rouge1", "value": values[question], "low": 0, "high": 1, "n": 8}
        )
        return SimpleNamespace(scores=lambda: [told])

    monkeypatch.setattr(taking, "answered", answered)
    shared = SimpleNamespace(
        question=lambda split, shots, limit: shots,
        recipe=SimpleNamespace(limit=SimpleNamespace(validation=8)),
        folder=tmp_path,
    )
    tried = [one for one, _ in taking._tried(SimpleNamespace(folder="few-shot"), shared, list(values), None)]
    assert [one.shots for one in tried] == [2, 4, 8, 16, 32]
    assert taking._from_best(tried)[0] == 8


def test_models_are_named_by_as_much_of_their_paths_as_tells_them_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "model").mkdir(parents=True)
    assert short_names(["owner/one", "smollm2"]) == {"owner/one": "one", "smollm2": "smollm2"}
    names = short_names(["runs/a/checkpoints/model", "runs/b/checkpoints/model"])
    assert list(names.values()) == ["a-checkpoints-model", "b-checkpoints-model"]
    assert short_names(["a/model", "./a/model/", "b"]) == {"a/model": "model", "b": "b"}
    assert ".." not in "".join(short_names(["../x", "..", "y"]).values())


def test_full_tuning_is_passed_over_where_lora_gains_less_than_is_worth_paying_for(tiny, colours_file, tmp_path):
    recipe = recipe_for(tiny("chat"), "limit.train=8", task=str(colours_file))
    run = climb(recipe, tmp_path / "climb", ASKED.model_copy(update={"worth": 0.9}), say=quiet)
    last = rungs_of(run)[-1]
    assert last.name == "full fine-tuning"
    assert "less than 0.9" in last.passed_over
    assert last.eval is last.cost is None
    assert not (run.folder / "full").exists()


def test_a_rung_that_does_not_fit_is_passed_over_aloud(tiny, colours, tmp_path):
    long = colours.templates[0].model_copy(update={"prompt": "{{ thing }} {{ colour }}? " + "so and so " * 40})
    path = tmp_path / "long.yaml"
    path.write_text(colours.model_copy(update={"templates": (long,)}).to_yaml())
    said = []
    recipe = recipe_for(tiny("chat"), "length.max_tokens=512", "limit.train=8", "template=any", task=str(path))
    run = climb(recipe, tmp_path / "climb", ASKED.model_copy(update={"shots": (3, 4)}), say=said.append)
    assert any(line.startswith("few-shot: passed over") for line in said)
    few = rungs_of(run)[2]
    assert few.passed_over and few.eval is None
    assert [rung.name for rung in rungs_of(run)] == NAMES
    assert "few-shot" in (run.folder / "report.html").read_text()


def test_several_models_climb_side_by_side(tiny, colours_file, tmp_path):
    recipe = recipe_for(tiny("chat"), "limit.train=8", task=str(colours_file))
    other = str(tiny("neox"))
    run = climb(recipe, tmp_path / "climb", ASKED.model_copy(update={"models": (other,)}), say=quiet)
    assert {rung.model for rung in rungs_of(run)} == {str(tiny("chat")), other}
    names = [rung.name for rung in rungs_of(run)]
    assert len(set(names)) == len(names) == 12
    pairs = {(one.rung, one.below) for one in verdict_of(run).contrasts}
    assert any("neox" in rung and "chat" in below for rung, below in pairs)


def test_a_task_without_training_rows_climbs_by_its_prompt_alone(tiny, colours, tmp_path):
    bare = colours.model_copy(update={"source": colours.source.model_copy(update={"train": None, "validation": None})})
    path = tmp_path / "bare.yaml"
    path.write_text(bare.to_yaml())
    run = climb(recipe_for(tiny("chat"), task=str(path)), tmp_path / "climb", ASKED, say=quiet)
    assert [bool(rung.eval) for rung in rungs_of(run)] == [True] + [False] * 5
    assert all("training rows" in rung.passed_over for rung in rungs_of(run)[1:])
    no_test = colours.model_copy(update={"source": colours.source.model_copy(update={"test": None})})
    path.write_text(no_test.to_yaml())
    with pytest.raises(DataError, match="no test rows"):
        climb(recipe_for(tiny("chat"), task=str(path)), tmp_path / "other", ASKED)


def test_what_is_told_of_a_method_is_told_of_its_rung_alone(colours_file):
    recipe = recipe_for("m", "method=full", "train.learning_rate=1e-3", task=str(colours_file))
    (steps,) = ladder(recipe, Ladder(), load_task(str(colours_file)))
    assert [step.name for step in steps] == NAMES
    rates = [step.recipe.train.learning_rate for step in steps if step.recipe]
    assert rates == ["auto", "auto", 1e-3]
    (steps,) = ladder(recipe_for("m", "method=ia3", task=str(colours_file)), Ladder(), load_task(str(colours_file)))
    assert [step.name for step in steps][3:] == ["prompt tuning", "IA3", "full fine-tuning"]


def test_a_training_that_diverges_is_passed_over_and_the_climb_comes_to_its_end(tiny, colours_file, tmp_path):
    settings = ("train.learning_rate=1e30", "train.bad_steps=1", "train.epochs=4", "method=full")
    said = []
    recipe = recipe_for(tiny("chat"), *settings, task=str(colours_file))
    run = climb(recipe, tmp_path / "climb", ASKED.model_copy(update={"worth": 0.0}), say=said.append)
    last = rungs_of(run)[-1]
    assert last.name == "full fine-tuning" and "steps could not be taken" in last.passed_over
    assert "learning_rate" in last.fix
    assert run.done and "full fine-tuning" in (run.folder / "report.html").read_text()


def test_a_test_row_that_one_of_the_models_cannot_read_is_refused_before_the_first_rung(tiny, colours, tmp_path):
    """`</s>` is text to the one model, and the end of a text to the other."""
    (tmp_path / "test.jsonl").write_text('{"id": "odd", "thing": "a </s> box", "colour": "red"}\n')
    path = tmp_path / "odd.yaml"
    path.write_text(colours.to_yaml())
    recipe = recipe_for(tiny("chat"), template="ask", task=str(path))
    with pytest.raises(DataError, match="row odd: .*special token"):
        climb(recipe, tmp_path / "climb", Ladder(models=(str(tiny("base")),)), say=quiet)
    assert not (tmp_path / "climb").exists()


def test_virtual_tokens_that_no_row_has_room_for_pass_prompt_tuning_over(tiny, colours_file, tmp_path):
    task = load_task(str(colours_file))
    recipe = recipe_for(tiny("chat"), "limit.train=8", task=str(colours_file))
    longest = memory.foreseen(ladder(recipe, ASKED, task)[0][4], tmp_path / "none").longest
    tight = recipe_for(tiny("chat"), "limit.train=8", f"length.max_tokens={longest}", task=str(colours_file))
    plans = module._look_ahead(ladder(tight, ASKED, task), taking.Shared(task, tight, tmp_path / "climb"))
    assert plans["lora"].longest == plans["full"].longest == longest
    with pytest.raises(FitError, match=f"{longest + 20} tokens"):
        memory.fitted(ladder(tight, ASKED, task)[0][3], tmp_path / "none", plans["prompt_tuning"])
    mine = recipe_for(
        tiny("chat"), "method=prompt_tuning", "limit.train=8", f"length.max_tokens={longest}", task=str(colours_file)
    )
    with pytest.raises(FitError, match=f"{longest + 20} tokens"):
        climb(mine, tmp_path / "climb", ASKED, say=quiet)


def test_a_method_that_is_asked_for_is_never_left_out_as_not_worth_it(tiny, colours_file, tmp_path):
    recipe = recipe_for(tiny("chat"), "limit.train=8", "method=full", task=str(colours_file))
    run = climb(recipe, tmp_path / "climb", ASKED.model_copy(update={"worth": 0.9}), say=quiet)
    assert [rung.name for rung in rungs_of(run)] == NAMES
    assert rungs_of(run)[-1].eval == "full-eval"


@pytest.mark.parametrize(
    ("file", "told"), [("colours.yaml", "templates.say.prompt: Say {{ colour }} then"), ("test.jsonl", "rows.test: ")]
)
def test_a_task_that_was_changed_meanwhile_is_refused(climbed, tmp_path, monkeypatch, file, told):
    """Half of the rungs would be asked one thing, half another."""
    run, recipe, _ = climbed
    shutil.copytree(run.folder, tmp_path / "climb")
    (tmp_path / "climb" / "DONE").unlink()
    kept = run.folder.parent / file
    before = kept.read_text()
    try:
        kept.write_text(before.replace("Say {{ colour }}", "Tell {{ colour }}").replace("boxes", "bags"))
        with pytest.raises(RunError, match="was begun with another task: " + re.escape(told)):
            climb(recipe, tmp_path / "climb", ASKED, say=quiet, resume=True)
    finally:
        kept.write_text(before)
    assert facts(climb(recipe, tmp_path / "climb", ASKED, say=quiet, resume=True)) == facts(run)


def test_nothing_taken_is_said(tiny, colours_file, tmp_path, monkeypatch):
    def refuse(*_):
        raise FitError("too long", fix="shorten it")

    monkeypatch.setattr(module, "prompted", refuse)
    monkeypatch.setattr(module, "trained", refuse)
    with pytest.raises(FitError, match="no rung could be taken: too long"):
        climb(recipe_for(tiny("chat"), task=str(colours_file)), tmp_path / "climb", ASKED, say=quiet)
    assert not (tmp_path / "climb" / "DONE").exists()


def planned(needed):
    """Give a stand-in for the plan of a training, which needs so many bytes by the method, where 1000 are free."""

    def plan(recipe, machines, requests=False):
        need = needed[recipe.method.name]
        told = SimpleNamespace(available=1000, needed=need)
        return SimpleNamespace(fits=lambda within=0: need <= 1000, peak_bytes=need, outlooks=[told], fixes=())

    return plan


def test_qlora_stands_for_lora_where_memory_asks_for_it_and_full_tuning_is_tried_where_it_fits(
    tiny, colours_file, tmp_path, monkeypatch
):
    """The plan is made up here: no test can count on a machine with so little memory."""
    monkeypatch.setattr(memory, "plan", planned({"prompt_tuning": 10, "lora": 2000, "qlora": 900, "full": 5000}))
    recipe = recipe_for(tiny("chat"), "limit.train=8", task=str(colours_file))
    run = climb(recipe, tmp_path / "climb", ASKED.model_copy(update={"worth": 0.0}), say=quiet)
    names = {rung.name: rung for rung in rungs_of(run)}
    assert list(names)[3:] == ["prompt tuning", "QLoRA", "full fine-tuning"]
    assert Run.open(run.folder / names["QLoRA"].train).asked()["method"]["name"] == "qlora"
    assert "needs 5 kB of memory by its plan, 1 kB are free" in names["full fine-tuning"].passed_over
    assert any(one.rung == "QLoRA" for one in verdict_of(run).contrasts)


def test_a_lora_that_cannot_be_packed_is_passed_over(monkeypatch, tmp_path):
    plan = planned({"lora": 2000, "qlora": 900})
    monkeypatch.setattr(memory, "plan", plan)
    recipe = recipe_for("m", "method.dora=true")
    with pytest.raises(FitError, match="LoRA needs 2 kB"):
        memory.fitting(recipe, tmp_path / "none", plan(recipe, ()))
    assert memory.fitting(recipe_for("m"), tmp_path / "none", plan(recipe, ())).method.name == "qlora"


def test_a_real_plan_lets_a_small_training_through(tiny, colours_file, tmp_path):
    recipe = recipe_for(tiny("chat"), task=str(colours_file))
    _, _, _, _, lora, _ = ladder(recipe, Ladder(), load_task(str(colours_file)))[0]
    made = memory.foreseen(lora, tmp_path / "none")
    assert made is not None
    assert memory.fitting(recipe, tmp_path / "none", made) == recipe
