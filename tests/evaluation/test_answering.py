"""A choice is answered by its likelihood, a text is marked by what is found in it; both are told in the run folder."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import WORDS, write_rows
from tests.test_cli import call
from tunesmith.data.rows import Source
from tunesmith.data.task import Generation, Sources, Task, read_task
from tunesmith.data.template import Template
from tunesmith.errors import ConfigError, DataError
from tunesmith.evaluation import answering
from tunesmith.evaluation.answering import Question, answer
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.inference import responses
from tunesmith.inference.generate import Generated
from tunesmith.inference.score import Continuation, LogLikelihood, loglikelihoods
from tunesmith.metrics.choice import normalised
from tunesmith.reporting.compare import compare
from tunesmith.reporting.report import render
from tunesmith.runs.run import Run


def task(tmp_path, **changes):
    """Which colour is named, among all colours or among three of the row's own."""
    rows = [
        {"id": f"r{i}", "colour": WORDS[i % 8], "some": [WORDS[i % 8], WORDS[(i + 3) % 8], f"{WORDS[i % 8]} and grey"]}
        for i in range(20)
    ]
    source = Source(file=write_rows(tmp_path / "rows.jsonl", rows))
    ask = {"prompt": "Paint it {{ colour }}. Which colour?", "answer": "{{ colour }}"}
    values = {
        "name": "paint", "source": Sources(train=source, test=source), "metrics": ("accuracy", "macro_f1"),
        "generation": Generation(max_new_tokens=6),
        "templates": (
            Template(name="all", choices=WORDS, **ask),
            Template(name="some", choices="{{ some }}", **ask),
            Template(name="free", **ask),
        ),
    }  # fmt: skip
    return Task(**{**values, **changes})


def silent(_):
    pass


def asked(model, question):
    return answer(model, question, question.prompts(), silent)


@pytest.fixture
def saying(monkeypatch):
    """Let the engine answer with given texts, in turn."""

    def say(model, *texts):
        def generate(_model, prompts, *_):
            chosen = [texts[i % len(texts)] for i in range(len(prompts))]
            return [Generated(tuple(model.encoder._ids(text)), finished=True, text=text) for text in chosen]

        monkeypatch.setattr(responses.generating, "generate", generate)

    return say


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
@pytest.mark.parametrize("template", ["all", "some"])
def test_the_likeliest_choice_is_that_of_the_answer_as_it_is_trained(model, tmp_path, kind, template):
    loaded = model(kind)
    question = Question(task(tmp_path), template=template, limit=6)
    for prompt, made in zip(question.prompts(), asked(loaded, question), strict=True):
        trained = [loaded.encoder.encode(replace(prompt, answer=one)) for one in prompt.choices]
        assert all(one.answer[-1] in loaded.encoder.stops for one in trained)
        found = [one.total for one in loglikelihoods(loaded, [Continuation(one.prompt, one.answer) for one in trained])]
        assert made.log_likelihoods == pytest.approx(found, rel=1e-5)
        assert made.answer == made.choices[int(np.argmax(found))]
        assert made.confidence == pytest.approx(math.exp(max(found)) / sum(map(math.exp, found)), rel=1e-3)
        assert made.answer_tokens == len(trained[int(np.argmax(found))].answer)
        assert (made.output, made.tied, made.finished) == (None, (), True)


def test_a_choice_that_another_one_begins_with_is_not_likelier_for_it(model, tmp_path):
    loaded, question = model("chat"), Question(task(tmp_path), template="some", limit=8)
    for made in asked(loaded, question):
        short, long = made.choices[0], made.choices[2]
        assert long.startswith(short)
        plain = len(loaded.encoder._ids(short))
        prompt = next(prompt for prompt in question.prompts() if prompt.id == made.id)
        ids = loaded.encoder.answer_ids(replace(prompt, answer=short))
        assert len(ids) == plain + 1  # the stop token has a say, which a prefix alone would not have


def test_length_is_paid_for_as_the_task_says(model, tmp_path):
    loaded = model("chat")
    by = {norm: asked(loaded, Question(task(tmp_path, norm=norm), template="some")) for norm in ("none", "chars")}
    for plain, paid in zip(by["none"], by["chars"], strict=True):
        assert plain.log_likelihoods == paid.log_likelihoods
        scores = normalised(paid.log_likelihoods, paid.choices, "chars")
        assert paid.answer == paid.choices[int(scores.argmax())]
    assert [one.answer for one in by["none"]] != [one.answer for one in by["chars"]]


def test_ties_are_drawn_by_row_and_told(model, tmp_path, monkeypatch):
    loaded = model("chat")
    values = {0: -3.0, 1: -3.0 - 1e-7, 2: -5.0}
    monkeypatch.setattr(
        answering.responses, "loglikelihoods",
        lambda _model, each, _report: [LogLikelihood((values[i % 3],), greedy=False) for i in range(len(each))],
    )  # fmt: skip
    made = asked(loaded, Question(task(tmp_path), template="some"))
    assert all(one.tied == one.choices[:2] for one in made)
    assert {one.choices.index(one.answer) for one in made} == {0, 1}
    assert made == asked(loaded, Question(task(tmp_path), template="some"))
    assert made != asked(loaded, Question(task(tmp_path), template="some", seed=1))
    assert made[0].confidence == pytest.approx(1 / (2 + math.exp(-2)), rel=1e-4)


def test_a_choice_task_from_the_command_line_to_the_report(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "paint.yaml").write_text(task(tmp_path).to_yaml())

    def run(name, *more):
        words = ["eval", tiny("chat"), "--task", tmp_path / "paint.yaml", "--out", tmp_path / name, *more]
        code, out, errors = call(monkeypatch, capsys, *words)
        assert code == 0, errors
        return Run.open(tmp_path / name), out

    first, out = run("a")
    assert "accuracy" in out
    assert "unparsed" not in out
    again, _ = run("b")
    assert first.scores() == again.scores()
    assert first.answers("paint") == again.answers("paint")
    assert all("|by:likelihood|stop:counted|norm:none" in one.signature for one in first.scores())
    assert {one.answer for one in first.answers("paint")} <= set(WORDS)
    written, _ = run("c", "--by", "generation")
    assert all("likelihood" not in one.signature for one in written.scores())
    assert not any(one.choices for one in written.answers("paint"))
    assert [one.metric for one in compare(first, written)] == ["accuracy", "macro_f1"]
    assert "accuracy" in render([first, written])


def test_run_twice_with_kept_answers_the_scores_are_the_same(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_RESPONSES", str(tmp_path / "kept.sqlite"))
    runs = [evaluate(str(tiny("base")), Question(task(tmp_path)), tmp_path / name) for name in "ab"]
    assert [run.summary().cached_answers for run in runs] == [0, 20 * 8]
    assert runs[0].scores() == runs[1].scores()
    assert runs[0].answers("paint") == runs[1].answers("paint")
    assert runs[1].summary().tokens_per_second == 0


def test_wordings_with_choices_and_without_go_together(model, tmp_path):
    question = Question(task(tmp_path), template="any")
    made = asked(model("chat"), question)
    prompts = question.prompts()
    assert [one.id for one in made] == [prompt.id for prompt in prompts]
    assert [bool(one.choices) for one in made] == [bool(prompt.choices) for prompt in prompts]
    assert {bool(one.choices) for one in made} == {True, False}
    assert answering.requests(prompts, "auto") == sum(len(prompt.choices) or 1 for prompt in prompts)


def test_what_is_found_in_a_text_is_marked_and_what_is_not_counts_as_wrong(tiny, model, tmp_path, saying):
    saying(model("chat"), "I would say red.", "red or blue, who knows", "no colour")
    asking = Question(task(tmp_path, extract="choice"), by="generation", limit=18)
    run = evaluate(str(tiny("chat")), asking, tmp_path / "run")
    scores = {one.metric: one for one in run.scores()}
    assert list(scores) == ["accuracy", "macro_f1", "unparsed"]
    assert scores["unparsed"].value == pytest.approx(2 / 3)
    assert 0.4 < scores["unparsed"].low < scores["unparsed"].high < 0.9
    assert all("|extract:choice" in one.signature for one in scores.values())
    made = run.answers("paint")
    assert made[0].answer == "red"
    assert made[1].answer == ""
    assert "red or blue" in made[1].output
    assert run.summary().empty_answers == 0
    right = sum(one.answer == one.references[0] for one in made) / len(made)
    assert scores["accuracy"].value == pytest.approx(right)
    other = evaluate(str(tiny("chat")), asking, tmp_path / "other")
    assert [one.metric for one in compare(run, other)] == list(scores)
    assert "unparsed" in render([run])


def test_the_command_prints_the_share_of_unparsed_answers(tiny, tmp_path, monkeypatch, capsys):
    (tmp_path / "paint.yaml").write_text(task(tmp_path, extract="letter").to_yaml())
    words = ["eval", tiny("chat"), "--task", tmp_path / "paint.yaml", "--out", tmp_path / "run", "--by", "generation"]
    code, out, errors = call(monkeypatch, capsys, *words)
    assert code == 0, errors
    assert "unparsed     " in out


@pytest.mark.parametrize(("changes", "asking", "error", "fix"), [
    ({"extract": "leter"}, {}, "no extractor 'leter'", "'letter'"),
    ({}, {"template": "free", "by": "likelihood"}, "'free' has no choices", "leave --by out"),
    ({"extract": "choice"}, {"template": "free"}, "'free' has no choices", "another extractor"),
    ({}, {"by": "guess"}, "no way to answer 'guess'", "auto"),
])  # fmt: skip
def test_what_cannot_be_answered_as_asked_is_refused_before_a_model_is_read(tmp_path, changes, asking, error, fix):
    with pytest.raises(ConfigError) as wrong:
        evaluate("no-such-model", Question(task(tmp_path, **changes), **asking), tmp_path / "run")
    assert error in wrong.value.what
    assert fix in wrong.value.fix
    assert not (tmp_path / "run").exists()


def test_a_choice_with_a_special_token_is_refused(model, tmp_path):
    odd = Template(name="odd", prompt="x {{ colour }}", answer="red", choices=("red", "<|im_end|>"))
    with pytest.raises(DataError, match="special token"):
        asked(model("chat"), Question(task(tmp_path, templates=(odd,)), limit=1))


def test_a_task_with_choices_of_each_row_is_saved_and_read(tmp_path):
    made = task(tmp_path, extract="letter", norm="bytes")
    (tmp_path / "paint.yaml").write_text(made.to_yaml())
    assert read_task(tmp_path / "paint.yaml") == made
    assert made.prompts("test", template="some")[1].choices == ("green", "white", "green and grey")
