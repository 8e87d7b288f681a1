"""Whole benchmarks: lm-eval's prompts and marks, the authors' averages, from files and without a network."""

import json
import math
import random
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("lm_eval")

from lm_eval.api import metrics as theirs
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.models.huggingface import HFLM

from tests.conftest import SHARED, needs_shared
from tests.evaluation.upstream_files import BBH, SUBJECTS, write_bbh, write_glue, write_mmlu, write_superglue
from tests.test_cli import call
from tunesmith.errors import ConfigError, DataError, RunError
from tunesmith.evaluation import lmtasks
from tunesmith.evaluation.benching import plan
from tunesmith.evaluation.benchmarks import SUITES, Bench, bench, read_direct, table
from tunesmith.evaluation.harness import Harness
from tunesmith.evaluation.lmtasks import Asked, limited
from tunesmith.evaluation.tally import average, averaged, marks_of, shares
from tunesmith.metrics.interval import Interval, combined, mcnemar, wilson
from tunesmith.models.load import find, load, load_encoder
from tunesmith.recipe import make_recipe
from tunesmith.reporting.compare import compare
from tunesmith.runs.run import Run
from tunesmith.training.train import train


@pytest.fixture(scope="session")
def manager():
    return lmtasks.index()


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "data"
    write_mmlu(folder)
    write_bbh(folder)
    write_glue(folder)
    write_superglue(folder)
    return folder


def right(*values):
    return marks_of("acc", values, theirs.mean, 0)


# How benchmarks' authors make one number of many


def test_mmlu_counts_every_question_alike():
    tasks = {"mmlu_anatomy": {"acc": right(1, 1, 1, 0)}, "mmlu_virology": {"acc": right(0, 0)}}
    found = average(SUITES["mmlu"].averages[0], tasks)
    assert found.interval == wilson(3, 6)
    assert found.n == 6


def test_bbh_is_a_mean_of_23_tasks_made_of_27_files(manager):
    names = lmtasks.leaves(manager.task_index, "bbh_fewshot")
    assert len(names) == 27
    triples = SUITES["bbh"].averages[0].groups
    assert {name for triple in triples for name in triple} < set(names)
    weights = shares(triples, names)
    assert math.isclose(sum(weights.values()), 1)
    assert math.isclose(weights["bbh_fewshot_navigate"], 1 / 23)
    assert math.isclose(weights["bbh_fewshot_tracking_shuffled_objects_five_objects"], 1 / 69)
    marks = {name: {"accuracy": right(*[1] * 8, *[0] * 2)} for name in names}
    for name in triples[0]:
        marks[name] = {"accuracy": right(0, 0, 0, 0)}
    assert math.isclose(average(SUITES["bbh"].averages[0], marks).interval.value, 22 * 0.8 / 23)
    assert len(lmtasks.leaves(manager.task_index, "leaderboard_bbh")) == 24


def test_glue_averages_the_two_metrics_of_a_task_first():
    pairs = [(1, 1), (1, 0), (0, 0), (0, 1), (1, 1)]
    two = {"acc": right(1, 0, 1, 0, 1), "f1": marks_of("f1", pairs, theirs.f1_score, 0)}
    tasks = {
        "mrpc": two,
        "mnli": {"acc": right(1, 1)},
        "mnli_mismatch": {"acc": right(0, 0)},
        "cola": {"mcc": marks_of("mcc", pairs, theirs.matthews_corrcoef, 0)},
    }
    f1, mcc = 2 / 3, 1 / 6
    found = average(SUITES["glue"].averages[0], tasks)
    assert math.isclose(found.interval.value, ((0.6 + f1) / 2 + 0.5 + mcc) / 3)
    assert average(SUITES["glue"].averages[0], {"stsb": {}}) is None


def test_marks_have_the_values_that_lm_eval_gives():
    draw = random.Random(0)
    pairs = [(draw.randint(0, 1), draw.randint(0, 1)) for _ in range(40)]
    for aggregate in (theirs.f1_score, theirs.matthews_corrcoef):
        found = marks_of("any", pairs, aggregate, 0).interval
        assert math.isclose(found.value, aggregate(pairs))
        assert found.low < found.value < found.high
    items = [(-2.0, 3), (-1.0, 4), (-9.0, 5)]
    assert math.isclose(marks_of("p", items, theirs.weighted_perplexity, 0).interval.value, math.exp(1))
    assert marks_of("bypass", [1, 2], lambda _: None, 0) is None
    numbers = marks_of("x", [0.5, 1.0, 0.0], theirs.mean, 0)
    assert (numbers.interval.value, numbers.interval_name) == (0.5, "percentile-bootstrap-2000-seed0")


def test_metrics_of_one_task_are_resampled_together():
    one, other = right(1, 0, 1, 0), right(0, 1, 0, 1)
    both = averaged([one, other]).interval
    assert both == Interval(0.5, 0.5, 0.5)  # what one gains the other loses, in every resample
    median = marks_of("median", [1.0, 2.0, 3.0], theirs.median, 0)
    assert averaged([median, right(1, 1, 1)]).interval.value == 1.5


def test_a_combined_interval_is_the_bootstraps_where_that_can_be_trusted_and_wider_where_not():
    random_ = np.random.default_rng(0)
    rows = [random_.random(400) < share for share in (0.3, 0.5, 0.8)]
    found = combined([(wilson(int(one.sum()), 400), 1 / 3) for one in rows])
    means = [random_.binomial(400, one.mean(), 4000) / 400 for one in rows]
    low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
    assert np.allclose((found.low, found.high), (low, high), atol=3e-3)
    certain = combined([(wilson(4, 4), 0.5), (wilson(3, 3), 0.5)])
    assert certain.value == certain.high == 1
    assert certain.low < 0.7
    with pytest.raises(DataError):
        combined([])


def test_answers_are_read_as_the_authors_of_bbh_do():
    assert read_direct(" (A)\n") == "(A)"
    assert read_direct(" \n") is None
    assert SUITES["bbh_cot"].read("So the answer is True. No, the answer is (B).\nQ:") == "(B)"
    assert SUITES["bbh_cot"].read("It is (B).") is None


# Which questions


def made(name, n):
    return Asked(name, None, tuple(f"{name}{i}" for i in range(n)))


def test_a_limit_draws_in_proportion_with_one_of_each_and_smaller_limits_are_nested():
    tasks = [made("big", 90), made("small", 10), made("one", 1)]
    chosen = {n: {(one.name, one.ids[i]) for one in limited(tasks, n, 0) for i in one.chosen} for n in range(3, 101, 7)}
    sizes = [len(one.chosen) for one in limited(tasks, 21, 0)]
    assert sizes == [18, 2, 1]
    numbers = sorted(chosen)
    assert all(chosen[a] < chosen[b] for a, b in pairwise(numbers))
    assert limited(tasks, 101, 0)[0].chosen is None
    assert {one.name: len(one.chosen) for one in limited(tasks, 3, 0)} == {"big": 1, "small": 1, "one": 1}
    assert limited(tasks, 21, 1)[0].chosen != limited(tasks, 21, 0)[0].chosen
    with pytest.raises(ConfigError, match="fewer questions than the 3 tasks"):
        limited(tasks, 2, 0)


def test_the_questions_of_a_limit_do_not_depend_on_the_order_of_the_rows(manager, files, tmp_path):
    write_mmlu(tmp_path / "turned")
    path = tmp_path / "turned/mmlu/test/anatomy_test.csv"
    path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")

    def questions(folder):
        planned = plan(manager, "mmlu", Bench(("mmlu",), limit=7, data=folder))
        return {(one.name, one.ids[i]) for one in planned.tasks for i in one.chosen}

    assert questions(files) == questions(tmp_path / "turned")


def test_random_shots_are_the_same_for_every_question_and_limit(manager, files):
    prompts = {}
    for limit in (9, None):
        planned = plan(manager, "glue", Bench(("glue",), shots=1, limit=limit, data=files, seed=5))
        task = next(one for one in planned.tasks if one.name == "mnli")
        lmtasks.requests_of(task, None, chat=False)
        prompts[limit] = {request.args[0].split("\n\n")[0] for request in task.task.instances}
    assert len(prompts[None]) == 1
    assert prompts[9] == prompts[None]


# lm-eval's own evaluator with its own model, on the same files


@pytest.mark.parametrize(
    ("kind", "name"), [("base", "mmlu"), ("t5", "mmlu"), ("chat", "mmlu:cloze"), ("base", "superglue")]
)
def test_scores_and_likelihoods_are_those_of_lm_eval(tiny, model, files, tmp_path, manager, kind, name):
    asked = Bench((name,), shots=1, data=files, dtype="float32")
    run = bench(str(tiny(kind)), asked, tmp_path / "run")
    ours = model(kind)
    tasks = {one.name: one.task for one in plan(manager, name, asked).tasks}
    backend = "causal" if ours.kind == "decoder" else "seq2seq"
    lm = HFLM(pretrained=ours.net, tokenizer=ours.encoder.tokenizer, backend=backend, batch_size=4)
    wanted = lm_evaluate(lm, {"tasks": tasks}, bootstrap_iters=0)
    scores = {(score.task, score.metric): score.value for score in run.scores()}
    for task, values in wanted["results"].items():
        for metric in ("acc", "f1", "em"):
            if f"{metric},none" in values:
                assert math.isclose(scores[task, metric], values[f"{metric},none"], abs_tol=1e-9), (task, metric)
        likelihoods = [[float(one[0][0]) for one in sample["resps"]] for sample in wanted["samples"][task]]
        found = [choice.log_likelihoods for choice in run.choices(task)]
        assert np.allclose(np.concatenate(found), np.concatenate(likelihoods), atol=1e-3)


@pytest.mark.parametrize("kind", ["base", "t5"])
def test_written_answers_are_those_of_lm_eval(tiny, model, files, tmp_path, manager, kind):
    ours = model(kind)
    tasks = {one.name: one.task for one in plan(manager, "bbh", Bench(("bbh",), data=files)).tasks}
    for task in tasks.values():
        task.set_config("generation_kwargs", {"until": ["\n", "a"], "max_gen_toks": 6, "do_sample": False})
    wanted = lm_evaluate(Harness(ours), {"tasks": tasks}, bootstrap_iters=0)
    by_hand = HFLM(pretrained=ours.net, tokenizer=ours.encoder.tokenizer, batch_size=1, max_length=512,
                   backend="causal" if kind == "base" else "seq2seq")  # fmt: skip
    for task, samples in wanted["samples"].items():
        said = [sample["resps"][0][0] for sample in samples]
        other = by_hand.generate_until(list(tasks[task].instances))
        assert said == [text[: len(mine)] for text, mine in zip(other, said, strict=True)]


# The run


def test_a_run_holds_averages_first_and_says_how_it_asked(tiny, files, tmp_path):
    run = bench(
        str(tiny("base")), Bench(("mmlu", "bbh", "glue", "superglue"), shots=5, limit=30, data=files), tmp_path / "run"
    )
    scores = run.scores()
    names = [score.task for score in scores]
    assert names[0] == "mmlu"
    assert [score.n for score in scores[:1]] == [13]
    assert {"mmlu/stem", "mmlu/other", "mmlu/humanities", "bbh", "bbh/by_size", "glue", "superglue"} < set(names)
    assert "mmlu/social_sciences" not in names
    by_name = {(score.task, score.metric): score for score in scores}
    total = sum(by_name[f"mmlu_{subject}", "acc"].value * by_name[f"mmlu_{subject}", "acc"].n for subject in SUBJECTS)
    assert math.isclose(by_name["mmlu", "acc"].value, total / 13)
    parts = [by_name[f"bbh_fewshot_{task}", "accuracy"].value for task in BBH]
    assert math.isclose(by_name["bbh", "accuracy"].value, sum(parts) / 3)
    assert by_name["bbh", "unparsed"].n == 9
    assert {by_name["mmlu", "acc"].shots, by_name["bbh", "accuracy"].shots} == {5, 3}
    assert by_name["mmlu", "acc"].template == "lm-eval mmlu"
    for word in ("prompts:", "lm-eval:0.4", "dtype:", "plain"):
        assert word in by_name["mmlu_anatomy", "acc"].signature
    first = run.protocols()[0]
    assert (first.questions, first.of, first.requests, first.shots) == (6, 6, 24, 5)
    assert first.first_prompt.startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
    )
    choice = run.choices("mmlu_anatomy")[0]
    assert choice.chosen == choice.log_likelihoods.index(max(choice.log_likelihoods))
    assert (choice.right, choice.marks["acc"]) == (0, float(choice.chosen == 0))
    assert run.answers("bbh_fewshot_navigate")[0].references == ("Yes",)
    told = "\n".join(table(run))
    assert "mmlu: 3 of 57 tasks; no files for mmlu_abstract_algebra" in told
    assert "bbh: 3 tasks show 3 worked examples, not 5" in told
    assert run.done


def test_the_authors_own_wording_of_mmlu_differs_in_two_places(tiny, files, tmp_path):
    run = bench(str(tiny("base")), Bench(("mmlu:original", "mmlu"), limit=5, data=files), tmp_path / "run")
    prompts = {one.task: one.first_prompt for one in run.protocols()}
    original = prompts["mmlu_anatomy_original"]
    assert original.startswith("The following are multiple choice questions (with answers) about  anatomy.\n\nWhich")
    assert '"dev" of anatomy? \nA. red' in original
    assert original.count("Answer:") == 6
    assert '"dev" of anatomy?\nA. red' in prompts["mmlu_anatomy"]
    assert {score.template for score in run.scores()} == {"hendrycks mmlu", "lm-eval mmlu"}


def test_a_chat_model_can_be_asked_through_its_template(tiny, files, tmp_path):
    run = bench(str(tiny("chat")), Bench(("mmlu",), shots=1, limit=3, data=files, chat=True), tmp_path / "run")
    assert run.protocols()[0].first_prompt.endswith("Answer:<|im_end|>\n<|im_start|>assistant\n")
    assert "|chat|" in run.scores()[0].signature


def test_an_interrupted_run_goes_on_and_a_finished_one_is_not_overwritten(tiny, files, tmp_path, monkeypatch):
    asked = Bench(("rte", "wnli"), data=files)
    run = bench(str(tiny("base")), asked, tmp_path / "run")
    scores = (run.folder / "scores.jsonl").read_text()
    with pytest.raises(RunError, match="is not empty"):
        bench(str(tiny("base")), asked, tmp_path / "run")
    (run.folder / "DONE").unlink()
    (run.folder / "scores.jsonl").unlink()
    with pytest.raises(RunError, match="asked something else"):
        bench(str(tiny("base")), Bench(("rte",), data=files), tmp_path / "run")
    monkeypatch.setenv("TUNESMITH_RESPONSES", str(tmp_path / "kept.sqlite"))
    assert bench(str(tiny("base")), asked, tmp_path / "run").done
    (run.folder / "DONE").unlink()
    again = bench(str(tiny("base")), asked, tmp_path / "run").summary()
    assert again.requests == again.cached_answers == 8
    assert (run.folder / "scores.jsonl").read_text() == scores


@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_what_a_training_made_is_asked_with_its_adapter(tiny, colours_file, files, tmp_path, method):
    values = {"model": str(tiny("base")), "task": str(colours_file), "method": {"name": method}, "dtype": "float32"}
    recipe = make_recipe(values, ("length.max_tokens=128", "limit.train=16", "train.learning_rate=0.5"))
    train(recipe, tmp_path / "made")
    run = bench(str(tmp_path / "made"), Bench(("rte", "bbh"), data=files), tmp_path / "run")
    base = bench(str(tiny("base")), Bench(("rte",), data=files, dtype="float32"), tmp_path / "base")
    assert (run.asked()["method"], run.asked()["model"]) == (method, str(tiny("base")))
    assert run.choices("rte")[0].log_likelihoods != base.choices("rte")[0].log_likelihoods
    assert run.choices("rte")[0].prompt == base.choices("rte")[0].prompt


def test_what_tuning_changed_is_told_question_by_question(tiny, files, tmp_path, monkeypatch, capsys):
    for name, kind in (("before", "base"), ("after", "neox")):
        bench(str(tiny(kind)), Bench(("mmlu",), shots=1, data=files), tmp_path / name)
    before, after = (Run.open(tmp_path / name) for name in ("before", "after"))
    (found,) = compare(before, after)
    right = [
        [one.marks["acc"] for task in run.protocols() for one in run.choices(task.task)] for run in (before, after)
    ]
    assert (found.a, found.b, found.n) == (*map(np.mean, right), len(right[0]))
    assert found.p == mcnemar(*(np.array(side) > 0 for side in right))
    code, out, _ = call(monkeypatch, capsys, "compare", tmp_path / "before", tmp_path / "after")
    assert code == 0
    assert "accuracy" in out
    bench(str(tiny("base")), Bench(("mmlu",), shots=0, data=files), tmp_path / "other")
    with pytest.raises(RunError, match="differently"):
        compare(before, Run.open(tmp_path / "other"))


def mistakes(files):
    yield "unknown name", ("mmlo", "base"), "no benchmark 'mmlo'", "'mmlu'"
    yield "no name", ("base",), "names one thing", "NAME... MODEL"
    yield "no file", ("mrpc", "base", "--data", files), "MRPC/dev.tsv: no such file", "train.tsv"
    yield "no format", ("hellaswag", "base", "--data", files), "files of 'hellaswag'", "leave --data out"
    yield "no network", ("wnli", "base"), "data of wnli cannot be loaded", "--data"
    yield "too few", ("mmlu", "base", "--data", files, "--limit", 2), "fewer questions than the 3 tasks", "--limit 3"
    yield "twice", ("glue", "rte", "base", "--data", files), "'rte' is asked twice", "once"
    yield "no template", ("rte", "base", "--chat", "--data", files), "no chat template", "leave --chat out"


@pytest.mark.parametrize("which", range(8))
def test_mistakes_are_two_lines(tiny, files, tmp_path, monkeypatch, capsys, which):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    (files / "glue/MRPC/dev.tsv").unlink()
    _, words, what, fix = list(mistakes(files))[which]
    typed = [str(tiny("base")) if word == "base" else word for word in words]
    code, _, err = call(monkeypatch, capsys, "bench", *typed, "--out", tmp_path / "run")
    error, *_, told = [line for line in err.splitlines() if line.startswith(("error", "  fix"))]
    assert code == 2
    assert what in error
    assert fix in told


def test_the_command_prints_a_table(tiny, files, tmp_path, monkeypatch, capsys):
    words = ("bench", "rte", "bbh_cot", tiny("t5"), "--out", tmp_path / "run", "--data", files, "--limit", 4)
    code, out, _ = call(monkeypatch, capsys, *words)
    assert code == 0
    assert "bbh_cot " in out
    assert "accuracy 0.0000" in out
    assert "unparsed 1.0000" in out
    assert out.splitlines()[-1] == f"answers and scores: {tmp_path / 'run'}"
    assert json.loads((tmp_path / "run/provenance.json").read_text())["lm_eval"]


def test_without_lm_eval_the_command_that_installs_it_is_named(tiny, files, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(ConfigError, match="lm_eval") as wrong:
        bench(str(tiny("base")), Bench(("rte",), data=files), tmp_path / "run")
    assert wrong.value.fix == "pip install 'tunesmith[bench]'"


@needs_shared("mmlu")
@pytest.mark.smollm2
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_embedded_model_gets_on_real_files_what_lm_eval_gives_it(manager, dtype):
    place = find("smollm2")
    ours = load(place, load_encoder(place), dtype)
    names = [f"mmlu_{subject}" for subject in ("anatomy", "marketing", "world_religions")]
    names += [f"leaderboard_bbh_{task}" for task in ("snarks", "navigate", "hyperbaton")]
    tasks = {}
    for name in names:
        (one,) = plan(manager, name, Bench((name,), shots=5, limit=1 + ("bbh" in name), data=SHARED)).tasks
        tasks[name] = one
    harness = Harness(ours)
    requests = [request for one in tasks.values() for request in lmtasks.requests_of(one, harness, chat=False)]
    found = harness.loglikelihood(requests)
    lm = HFLM(pretrained=ours.net, tokenizer=ours.encoder.tokenizer, batch_size=1)
    wanted = lm.loglikelihood(requests, disable_tqdm=True)
    tokens = [len(ours.encoder.pair(*request.args)[1]) for request in requests]
    apart = [abs(a - b) / n for (a, _), (b, _), n in zip(found, wanted, tokens, strict=True)]
    picks = [[max(each)[1] for each in by_question(requests, values)] for values in (found, wanted)]
    if dtype == "float32":
        assert max(apart) < 1e-4
        assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
        assert picks[0] == picks[1]
        return
    # lm-eval's logits are bf16, 1/16 apart at 16 and 1/8 above 16; what lies closer has no order there.
    assert max(apart) < 0.5
    for mine, other, each in zip(*picks, by_question(requests, wanted), strict=True):
        values = {number: value for value, number in each}
        assert mine == other or values[other] - values[mine] <= 0.25


def by_question(requests, values):
    """Give for each question the (log-likelihood, number) of its choices."""
    questions = {}
    for request, (value, _) in zip(requests, values, strict=True):
        questions.setdefault((request.task_name, request.doc_id), []).append((value, request.idx))
    return list(questions.values())
