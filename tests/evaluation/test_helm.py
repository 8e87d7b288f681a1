import doctest
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_rows
from tunesmith.data.rows import Source
from tunesmith.data.task import Generation, Sources, Task
from tunesmith.data.template import Template
from tunesmith.errors import ConfigError, RunError
from tunesmith.evaluation.answering import answer
from tunesmith.evaluation.dimensions import answer_confidence, bias, choice_confidence
from tunesmith.evaluation.evaluate import Question, evaluate
from tunesmith.evaluation.helm import PERTURBED, helm
from tunesmith.metrics import metric
from tunesmith.metrics.worst import worst
from tunesmith.recipe import make_recipe
from tunesmith.reporting.compare import compare
from tunesmith.reporting.dimensions import differences, helm_table
from tunesmith.runs.records import DIMENSIONS, Answer
from tunesmith.runs.run import Run
from tunesmith.training.train import train

WAYS = ("lowercase", "names", "gender")
TALKS = [
    {"id": f"t{i}", "talk": f"{who}: I Wait Because {what} is late", "short": f"{who} waits."}
    for i, (who, what) in enumerate([("Emily", "he"), ("Greg", "the bus"), ("Ann", "she"), ("Keisha", "my Father"),
                                     ("Tom", "nobody"), ("Malik", "the Doctor")])
]  # fmt: skip


def talks(tmp_path, **changes):
    template = Template(name="say", prompt="Who Waits? {{ talk }}", answer="{{ short }}", **changes.pop("template", {}))
    values = {
        "name": "talks",
        "source": Sources(test=Source(file=write_rows(tmp_path / "talks.jsonl", TALKS))),
        "metrics": ("rouge1", "ter"),
        "generation": Generation(max_new_tokens=4),
        "templates": (template,),
    }
    return Task(**{**values, **changes})


@pytest.fixture
def made(tiny, tmp_path):
    return helm(str(tiny("chat")), Question(talks(tmp_path)), tmp_path / "run", ["tunesmith"], WAYS)


def values(run, task=None):
    return {score.metric: score for score in run.scores() if score.task == (task or run.asked()["task"])}


def told(run):
    return json.loads((run.folder / "helm.json").read_text(encoding="utf-8"))


def test_every_dimension_has_a_number_or_a_reason(made):
    assert made.done
    shown = {score.dimension for score in made.scores()} | {name.split("/")[0] for name in told(made)["undefined"]}
    assert shown == set(DIMENSIONS)
    assert all(score.low <= score.value <= score.high and score.signature for score in made.scores())
    assert "exact_match" in told(made)["undefined"]["calibration"]
    assert made.summary().peak_memory_bytes >= told(made)["peak_memory_bytes"] > 0


def test_the_first_answers_are_those_of_eval(made, tiny, tmp_path):
    plain = evaluate(str(tiny("chat")), Question(talks(tmp_path)), tmp_path / "eval")
    assert made.answers("talks") == plain.answers("talks")
    assert {name: score for name, score in values(made).items() if "/" not in name} == values(plain)


def test_a_worst_case_is_recomputed_from_the_answers_in_the_folder(made):
    for name in ("rouge1", "ter"):
        one = metric(name)
        ways = [made.answers(task) for task in ("talks", "talks@names", "talks@gender")]
        stats = [one.stats([x.answer for x in way], [x.references for x in way]) for way in ways]
        found = values(made)
        assert found[f"fairness/{name}"].value == pytest.approx(one.value(worst(one, stats)))
        assert found[f"fairness/names/{name}"].value == pytest.approx(one.value(worst(one, stats[:2])))
        sign = -1 if name == "ter" else 1
        assert sign * found[f"fairness/{name}"].value <= sign * found[f"fairness/names/{name}"].value
        assert sign * found[f"fairness/names/{name}"].value <= sign * found[name].value


def test_a_row_that_a_way_leaves_as_it_is_keeps_its_answer(made):
    plain, gendered = made.answers("talks"), made.answers("talks@gender")
    same = [one.prompt == other.prompt for one, other in zip(plain, gendered, strict=True)]
    assert same == [False, True, False, False, True, True]
    assert all(one == other for one, other, kept in zip(plain, gendered, same, strict=True) if kept)
    facts = told(made)["perturbations"]
    assert (facts["gender"]["rows_changed"], facts["gender"]["share_changed"]) == (3, 0.5)
    assert facts["lowercase"]["rows_changed"] == 6
    assert all(answer.question.startswith("Who Waits? ") for answer in made.answers("talks@lowercase"))


def test_a_way_that_changes_nothing_has_a_reason_and_no_number(tiny, tmp_path):
    run = helm(str(tiny("chat")), Question(talks(tmp_path), limit=2), tmp_path / "run", (), ("contractions",))
    reasons = told(run)["undefined"]
    assert reasons["robustness/contractions"] == "it changes no row"
    assert {"robustness", "fairness"} <= set(reasons)
    assert not [name for name in values(run) if name.startswith(("robustness", "fairness"))]


def test_english_words_are_looked_for_in_english_only(tiny, tmp_path):
    task = talks(tmp_path, template={"language": "de"})
    run = helm(str(tiny("base")), Question(task, limit=2), tmp_path / "run", (), ("lowercase", "typos"))
    assert "English" in told(run)["undefined"]["robustness/typos"]
    assert "English" in told(run)["undefined"]["toxicity"]
    assert "robustness/rouge1" in values(run)


def test_the_same_run_twice_gives_the_same_scores(made, tiny, tmp_path):
    again = helm(str(tiny("chat")), Question(talks(tmp_path)), tmp_path / "again", (), WAYS)
    timeless = [[score for score in run.scores() if score.dimension != "efficiency"] for run in (made, again)]
    assert timeless[0] == timeless[1]


def choosing(tmp_path):
    rows = [{"id": f"c{i}", "talk": f"Is {i} Even?", "short": ("no", "yes")[i % 2 == 0]} for i in range(8)]
    source = Sources(test=Source(file=write_rows(tmp_path / "choices.jsonl", rows)))
    return talks(tmp_path, name="even", source=source, metrics=("accuracy", "macro_f1"),
                 template={"choices": ("yes", "no")})  # fmt: skip


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_choices_are_calibrated_by_their_likelihood(tiny, tmp_path, kind):
    run = helm(str(tiny(kind)), Question(choosing(tmp_path)), tmp_path / "run", (), ("lowercase",))
    found, reasons = values(run), told(run)["undefined"]
    assert {"calibration/ece_10", "calibration/ece_10_mass", "calibration/selective_accuracy_10"} <= set(found)
    assert 0.5 <= found["calibration/confidence"].value <= 1
    assert "softmax-over-choices" in found["calibration/ece_10"].signature
    assert "choices" in reasons["bias"] and "choices" in reasons["toxicity"]
    assert "robustness/accuracy" in found and "no value" in reasons["robustness/macro_f1"]


NUMBERS = {"log_likelihoods", "confidence"}


def test_choices_are_answered_as_eval_answers_them(tiny, tmp_path):
    question = Question(choosing(tmp_path))
    run = helm(str(tiny("chat")), question, tmp_path / "run", (), ("lowercase",))
    plain = evaluate(str(tiny("chat")), question, tmp_path / "eval")
    pairs = list(zip(run.answers("even"), plain.answers("even"), strict=True))
    # The last digit may move with the questions that are read beside them.
    assert all(a.log_likelihoods == pytest.approx(b.log_likelihoods, abs=1e-3) for a, b in pairs)
    assert all(a.model_dump(exclude=NUMBERS) == b.model_dump(exclude=NUMBERS) for a, b in pairs)
    assert values(run)["calibration/accuracy"].value == pytest.approx(values(plain)["accuracy"].value)
    mean = np.mean([answer.confidence for answer in plain.answers("even")])
    assert values(run)["calibration/confidence"].value == pytest.approx(mean, abs=1e-3)


def test_tied_choices_share_the_credit(tmp_path):
    prompts = choosing(tmp_path).prompts("test")[:2]
    told = {"question": "", "prompt": "", "references": ("x",), "prompt_tokens": 1, "answer_tokens": 1,
            "finished": True, "confidence": 0.5, "choices": ("yes", "no")}  # fmt: skip
    answers = [Answer(id="c0", answer="no", tied=("yes", "no"), **told), Answer(id="c1", answer="no", **told)]
    assert choice_confidence(prompts, answers).tolist() == [[0.5, 0.5], [0.5, 1.0]]


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
def test_the_confidence_in_an_answer_is_the_mean_probability_of_its_tokens(model, tmp_path, kind):
    one, question = model(kind), Question(talks(tmp_path))
    prompts = question.prompts()
    answers = answer(one, question, prompts, lambda _: None)
    empty = [answers[i].model_copy(update={"answer": "", "finished": bool(i)}) for i in (0, 1)]
    rows = answer_confidence(one, prompts, [*empty, *answers[2:]], np.ones(len(prompts)))
    assert rows.shape == (6, 2)
    assert ((rows[:, 0] > 0) & (rows[:, 0] <= 1)).all()


def test_kept_answers_are_taken_and_counted(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_RESPONSES", str(tmp_path / "kept.sqlite"))
    question = Question(talks(tmp_path))
    first, second = (helm(str(tiny("chat")), question, tmp_path / name, (), WAYS) for name in ("one", "two"))
    assert second.summary().cached_answers == second.summary().requests > 0 == first.summary().cached_answers
    assert first.answers("talks@names") == second.answers("talks@names")


def test_a_task_that_tells_right_from_wrong_is_calibrated_by_its_answers(tiny, colours, tmp_path):
    run = helm(str(tiny("chat")), Question(colours, limit=6), tmp_path / "run", (), ("uppercase",))
    assert values(run)["calibration/ece_10"].signature.count("correct:exact_match") == 1


def test_metrics_without_a_value_by_row_are_refused_before_the_model_is_read(tmp_path):
    task = talks(tmp_path, metrics=("macro_f1",))
    with pytest.raises(ConfigError, match="worst case"):
        helm("no-such-model", Question(task), tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean 'typos'"):
        helm("no-such-model", Question(talks(tmp_path)), tmp_path / "run", (), ("typoes",))


def test_too_few_answers_with_a_word_of_the_lists_give_a_reason():
    found = {one.metric: one for one in bias(["she"] * 4 + ["it"] * 3, ["he"] * 7, 0)}
    assert "only 4 of 7" in found["bias/representation_gender"].why
    assert "none of the words" in found["bias/representation_surnames"].why
    enough = bias(["she"] * 6, ["he and she"] * 6, 0)[0]
    assert (enough.interval.value, enough.notes["references"], enough.notes["words"]) == (0.5, 0.0, 6)


def test_the_table_shows_runs_side_by_side(made, tiny, tmp_path):
    other = helm(str(tiny("base")), Question(talks(tmp_path)), tmp_path / "other", (), WAYS)
    table = helm_table([made, other])
    assert all(part in table for part in DIMENSIONS)
    assert "talks, test, 6 rows, zero-shot" in table
    assert all(f"{run.name} (tiny" in table or str(run.asked()["model"]) in table for run in (made, other))
    assert "change by names, ROUGE-1 (5 rows)" in table
    assert "without a number:" in table and "exact_match or accuracy" in table
    assert helm_table([made]).count("\n") == table.count("\n")


def test_a_difference_between_runs_is_that_of_the_scores_they_show(made, tiny, tmp_path):
    other = helm(str(tiny("base")), Question(talks(tmp_path)), tmp_path / "other", (), WAYS)
    before, after, found = values(made), values(other), differences(made, other)
    for key, name in {("accuracy", "ROUGE-1"): "rouge1", ("fairness", "worst case, ROUGE-1"): "fairness/rouge1",
                      ("robustness", "worst case, TER"): "robustness/ter"}.items():  # fmt: skip
        assert found[key].difference == pytest.approx(after[name].value - before[name].value)
    assert all(one.difference == 0 for one in differences(made, made).values())


def test_runs_that_were_asked_otherwise_do_not_stand_side_by_side(made, tiny, tmp_path):
    other = helm(str(tiny("chat")), Question(talks(tmp_path), limit=2), tmp_path / "other", (), WAYS)
    with pytest.raises(RunError, match="limit is 2"):
        helm_table([made, other])
    with pytest.raises(RunError, match=r"holds no helm\.json"):
        helm_table([evaluate(str(tiny("chat")), Question(talks(tmp_path)), tmp_path / "eval")])


def test_compare_takes_the_metrics_of_each_way_and_not_the_worst_cases(made):
    found = {(one.task, one.metric) for one in compare(made, Run.open(made.folder))}
    assert found == {(task, name) for task in ("talks", "talks@gender", "talks@lowercase", "talks@names")
                     for name in ("rouge1", "ter")}  # fmt: skip


def test_the_ways_asked_by_default_are_of_both_kinds():
    assert {"typos", "lowercase", "spaces", "contractions", "dialect", "gender", "names"} == set(PERTURBED)


def test_the_examples_of_the_page_are_what_the_code_prints():
    found = doctest.testfile(str(Path(__file__).parents[2] / "docs" / "helm.md"), module_relative=False)
    assert found.attempted >= 9
    assert found.failed == 0


@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_what_a_training_made_stands_beside_its_base(tiny, colours, colours_file, tmp_path, method):
    recipe = make_recipe({"model": str(tiny("chat")), "task": str(colours_file), "method": {"name": method}},
                         ("length.max_tokens=128", "train.epochs=1", "limit.train=16"))  # fmt: skip
    made = train(recipe, tmp_path / "made")
    question = Question(colours, limit=4)
    before = helm(str(tiny("chat")), question, tmp_path / "before", (), ("uppercase",))
    after = helm(str(made.folder), question, tmp_path / "after", (), ("uppercase",))
    assert after.asked()["method"] == method
    assert "calibration/ece_10" in values(after)
    assert "after (" in helm_table([before, after])
