"""A climb as the page tells it: every rung in its place, and the few numbers to remember."""

import re

import pytest

from tests.reporting.made import climbed as made
from tests.reporting.made import climbed_by_two, climbed_one_rung, evaluated, headings, text
from tests.reporting.test_overview import on_two_tasks
from tunesmith.reporting.climbed import climbed, figures, kept_chart, overtaken, price_chart, totals_chart
from tunesmith.reporting.gather import gather
from tunesmith.reporting.ladders import ladders
from tunesmith.reporting.report import render
from tunesmith.runs.records import Forgetting
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import BreakEven, rungs_of


def read(root):
    told = gather([root])
    return climbed(told, ladders(told))


@pytest.fixture
def climb(tmp_path):
    return made(tmp_path / "climb")


def test_every_rung_has_its_place_and_one_passed_over_its_reason(climb):
    found = read(climb)
    assert [(rung.name, step is not None) for rung, step in found.rows] == [
        ("zero-shot", True),
        ("1-shot", True),
        ("4-shot", True),
        ("prompt tuning", True),
        ("LoRA", True),
        ("full fine-tuning", False),
    ]
    told = "full fine-tuning passed over 9.1 GB needed, 4.0 GB free To have it taken: -s train.batch_tokens=512"
    assert told in text(render([climb]))


def test_a_rung_is_set_against_the_one_below_it(climb):
    steps = read(climb).steps
    assert [step.against and step.against.below for step in steps] == [
        None,
        "zero-shot",
        "1-shot",
        "4-shot",
        "prompt tuning",
    ]
    assert "+0.100 [+0.050, +0.150] p = 0.012, corrected" in text(render([climb]))


def test_the_numbers_to_remember_are_those_of_the_recommended_rung(climb):
    found = read(climb)
    shown = {figure.name: figure.value for figure in figures(found)}
    before, after = found.first.score.value, found.chosen.score.value
    assert shown["ROUGE-1, from zero-shot"] == f"{before:.3f} → {after:.3f}"
    assert shown["to make it, once"] == "3 min 18 s"
    assert shown["per 1,000 requests"] == "8 min 20 s"
    assert shown["of its other abilities kept"] == "–"


def test_a_price_turns_costs_into_money(tmp_path):
    found = read(made(tmp_path / "climb", price=3.6))
    assert {figure.name: figure.value for figure in figures(found)}["per 1,000 requests"] == "0.50"
    assert "4.88 M trained parameters, at 3.6 an hour" in {figure.note for figure in figures(found)}
    assert "at 3.6 per hour" in text(render([Run.open(tmp_path / "climb")]))


def test_a_recommended_prompt_has_nothing_to_make_and_forgets_nothing(tmp_path):
    found = read(made(tmp_path / "climb", recommended="zero-shot", good=("zero-shot",)))
    shown = {figure.name: figure.value for figure in figures(found)}
    assert "→" not in shown["ROUGE-1"]
    assert shown["to make it, once"] == "nothing"
    assert shown["of its other abilities kept"] == "all"


def test_what_is_drawn_is_what_the_folders_hold(climb):
    found = read(climb)
    words = price_chart(found).words
    for step in found.steps:
        assert f"{step.rung.name}: ROUGE-1 {step.score.value:.3f}" in words
    assert "LoRA is cheaper than 4-shot from 330 requests on" in totals_chart(found).words


def test_what_is_kept_is_drawn_once_two_rungs_say_it(climb):
    assert kept_chart(read(climb)) is None
    for name, share in (("lora", 0.9), ("prompt_tuning", 0.99)):
        told = Forgetting(step=1, abilities=(), retained=share, low=share - 0.05, high=share + 0.05)
        Run.open(climb.folder / name).write_json("forgetting.json", told.model_dump())
    assert "90.0 % of its other abilities kept" in kept_chart(read(climb)).words


@pytest.mark.parametrize(
    ("metric", "better", "corner", "moved"),
    [
        ("rouge1", "higher up is better", "Best is the upper right", "ROUGE-1 rose on 40 of 40 questions, fell on 0"),
        ("ter", "lower down is better", "Best is the lower right", "TER fell on 40 of 40 questions, rose on 0"),
    ],
)
def test_which_way_is_better_is_said_of_the_metric_that_decides(tmp_path, metric, better, corner, moved):
    climb = made(tmp_path / "climb", metrics=(metric,))
    for name in ("lora", "prompt_tuning"):
        told = Forgetting(step=1, abilities=(), retained=0.9, low=0.8, high=1.0)
        Run.open(climb.folder / name).write_json("forgetting.json", told.model_dump())
    said = text(render([climb]))
    for words in (better, corner, moved):
        assert words in said
    assert f"; {'lower' if metric == 'ter' else 'higher'} is better." in said


def test_the_reasons_begin_with_the_tests_of_the_recommended_rung(tmp_path):
    names = ["zero-shot", "1-shot", "4-shot", "prompt tuning", "LoRA"]
    pairs = [(rung, below) for i, rung in enumerate(names) for below in names[:i]]
    climb = made(tmp_path / "climb", reasons=[f"{rung} is better than {below}" for rung, below in pairs])
    mine, others = read(climb).reasons
    assert mine == [f"LoRA is better than {below}" for below in names[:4]]
    assert len(others) == 6
    assert all("LoRA" in (test.rung, test.below) for test in read(climb).contrasts[:4])
    said = text(render([climb]))
    assert (
        said.index("LoRA is better than zero-shot")
        < said.index("6 more, between")
        < said.index("1-shot is better than zero-shot")
    )


def test_reasons_that_are_no_tests_keep_their_order(tmp_path):
    said = [f"{i}." for i in range(8)]
    assert read(made(tmp_path / "climb", reasons=said)).reasons == (said[:6], said[6:])


def test_a_machine_that_is_free_has_a_report_without_break_evens(tmp_path):
    climb = made(tmp_path / "climb", price=0.0)
    assert totals_chart(read(climb)) is None
    assert "When the dearer rung pays" not in headings(render([climb]))


def again(run, **taken):
    """Let a run have taken something else."""
    run.write_json("summary.json", run.summary().model_copy(update=taken).model_dump())


def test_a_climb_that_was_killed_and_resumed_has_the_page_of_one_that_never_was(climb):
    runs = [Run.open(climb.folder / str(rung.eval)) for rung in rungs_of(climb) if rung.eval]
    for run in runs:
        again(run, seconds=21.0, engine_seconds=20.0, tokens=6000, tokens_per_second=285.7, requests=40)
    page = render([climb])
    for run in runs:
        again(run, seconds=0.3, tokens_per_second=0.0, cached_answers=40)
    again(Run.open(climb.folder / "lora"), resumes=3)
    assert render([climb]) == page
    assert "zero-shot 20 s 6,000 9,000 300" in text(page)
    assert "Together 8 min 16 s" in text(page)  # two trainings of 198.2 s, and five times 20 s of answering


def test_kept_answers_are_warned_of_outside_a_climb_alone(climb, tmp_path):
    alone = evaluated(tmp_path / "alone", 7, shots=9)
    for run in (alone, Run.open(climb.folder / "zero-shot-eval")):
        again(run, seconds=0.3, engine_seconds=20.0, requests=40, cached_answers=30)
    said = text(render([climb, alone]))
    assert "9-shot: 30 of 40 requests were answered before" in said
    assert said.count("were answered before") == 1
    assert said.count("--fresh") == 1


def test_a_break_even_is_said_in_words():
    assert overtaken(BreakEven(rung="LoRA", than="4-shot", requests=330.4)).endswith("from 330 requests on.")
    assert "never" in overtaken(BreakEven(rung="LoRA", than="zero-shot", requests=None))
    close = overtaken(BreakEven(rung="LoRA", than="zero-shot", requests=2300.0, clear=False))
    assert "from 2,300 requests on" in close and "may be chance" in close


def test_the_recommendation_stands_alone_and_its_reasons_below(tmp_path):
    page = render([made(tmp_path / "climb", sentence="Take LoRA: it is good. It has 0.4 on 40 rows. It took 2 min.")])
    assert '<p class="finding">Take LoRA: it is good.</p>' in page
    assert re.search('<p class="because">It has 0.4 on 40 rows. It took 2.min.</p>', page)


def test_the_break_evens_of_the_recommended_rung_come_first(tmp_path):
    pairs = [("4-shot", "zero-shot"), ("LoRA", "zero-shot"), ("prompt tuning", "4-shot"), ("LoRA", "4-shot")]
    told = [BreakEven(rung=rung, than=than, requests=100.0 * i) for i, (rung, than) in enumerate(pairs, 1)]
    climb = made(tmp_path / "climb", break_evens=told)
    mine, others = read(climb).evens
    assert [(one.rung, one.than) for one in mine] == [pairs[1], pairs[3]]
    assert [(one.rung, one.than) for one in others] == [pairs[0], pairs[2]]
    said = text(render([climb])).split("When the dearer rung pays")[-1]
    assert said.index("LoRA is cheaper in all than 4-shot") < said.index("2 more, between") < said.index("4-shot is")


def test_no_p_value_of_a_climb_stands_uncorrected(climb, tmp_path):
    """The ladder's tests are corrected together; beside them a raw one could call significant what they do not."""
    alone = [Run.open(climb.folder / str(rung.eval)) for rung in rungs_of(climb)[:2]]
    assert "below 0.05 the difference counts as significant" in text(render(alone))
    said = text(render([climb]))
    assert "counts as significant" not in said
    assert "is tested by ROUGE-1 alone, above" in said
    shown = said.split("is tested by ROUGE-1 alone")[0].split("By every metric")[-1]
    assert re.search(r"[+−]\d\.\d{3}", shown)
    assert not re.search(r"p [=<] \d", shown)


def test_runs_without_a_climb_have_none(tmp_path):
    told = gather([evaluated(tmp_path / "a", 3)])
    assert climbed(told, ladders(told)) is None


def test_a_climb_keeps_its_ladder_beside_another_task(climb, tmp_path):
    other = on_two_tasks(tmp_path / "other", 7)
    alone = price_chart(read(climb)).words
    for runs in ([climb, other], [other, climb]):
        page = render(runs)
        assert headings(page)[:5] == [
            "The ladder",
            "Why this rung",
            "When the dearer rung pays",
            "What was tried on the way",
            "2 tasks at a glance",
        ]
        assert "full fine-tuning passed over 9.1 GB needed, 4.0 GB free" in text(page)
        told = gather(runs)
        assert price_chart(climbed(told, ladders(told))).words == alone


def test_a_climb_is_decided_by_its_own_metric_and_other_runs_stand_beside_it(climb, tmp_path):
    other = evaluated(tmp_path / "other", 7, shots=9, metrics=("bleu", "rouge1"))
    page = render([other, climb])
    assert "The ladder is decided by ROUGE-1." in text(page)
    assert "9-shot" in text(page)
    shown = {figure.name for figure in figures(climbed(gather([other, climb]), ladders(gather([other, climb]))))}
    assert "ROUGE-1, from zero-shot" in shown


def test_a_climb_beside_a_run_of_the_same_metric_alone_shows_that_run(tmp_path):
    climb = climbed_one_rung(tmp_path / "climb")
    scored = Run.open(climb.folder / "zero-shot-eval")
    scored.write_lines("scores.jsonl", scored.scores()[:1])
    assert "Beside other runs" not in headings(render([climb]))
    other = evaluated(tmp_path / "other", 7, shots=9, metrics=("rouge1",))
    assert "Beside other runs" in headings(render([climb, other]))


@pytest.mark.parametrize(
    ("name", "aside", "short"),
    [
        ("zero-shot (another)", "another", ("zero-shot", "another")),
        ("LoRA (a-model)", "a-model", ("LoRA", "a-model")),
        ("LoRA (some (old) model)", "some (old) model", ("LoRA", "some (old) model")),
        ("LoRA", "", ("LoRA", "runs/a/model")),
    ],
)
def test_a_rungs_model_is_told_from_its_name(tmp_path, name, aside, short):
    climb = climbed_one_rung(tmp_path / "climb", recommended=name, good=(name,))
    rungs = [
        rung.model_copy(update={"name": name, "model": "runs/a/model", "aside": aside}) for rung in rungs_of(climb)[:1]
    ]
    climb.write_json("rungs.json", [rung.model_dump() for rung in rungs])
    step = read(climb).chosen
    assert (step.short, step.model) == short


def test_a_climb_of_two_models_names_each_rung_and_its_model_once(tmp_path):
    climb = climbed_by_two(tmp_path / "climb")
    found = read(climb)
    assert found.models == ["smollm2", "another"]
    assert [step.short for step in found.steps] == ["zero-shot", "LoRA"] * 2
    assert figures(found)[0].name == "ROUGE-1, from zero-shot"
    assert [step.against and step.against.below for step in found.steps] == [
        None,
        "zero-shot (smollm2)",
        None,
        "zero-shot (another)",
    ]
    assert list(gather([climb]).trained.values()) == ["LoRA (smollm2)", "LoRA (another)"]
    page = render([climb])
    assert "full fine-tuning (another) passed over it does not fit" in text(page)
    assert "one for each model" in text(page)
    assert "path/to/another" not in price_chart(found).words


def test_of_two_models_each_has_one_colour_in_all_charts_and_its_name_at_its_points(tmp_path):
    climb = climbed_by_two(tmp_path / "climb")
    for name in ("smollm2/lora", "another/lora"):
        told = Forgetting(step=1, abilities=(), retained=0.9, low=0.8, high=1.0)
        Run.open(climb.folder / name).write_json("forgetting.json", told.model_dump())
    found = read(climb)
    colours = {}
    for chart in (price_chart(found), kept_chart(found)):
        for layer in chart.wide["layer"]:
            for row in layer["data"]["values"] if layer["mark"]["type"] == "point" else ():
                colours.setdefault(row["group"], set()).add(row["colour"])
    assert [len(kept) for kept in colours.values()] == [1, 1]
    assert colours["smollm2"] != colours["another"]
    for name in ("zero-shot (smollm2)", "zero-shot (another)", "LoRA (smollm2)", "LoRA (another)"):
        assert f"{name}: ROUGE-1" in kept_chart(found).words


def test_a_climbs_command_stands_for_those_of_all_its_models(tmp_path):
    climb = climbed_by_two(tmp_path / "climb")
    climb.write_json("provenance.json", {"command": "tunesmith climb demo --model path/to/another --out climb"})
    page = render([climb])
    assert "tunesmith climb demo" in page
    assert "tunesmith eval" not in page


def test_one_rung_taken_of_many_is_told_with_its_price(tmp_path):
    climb = climbed_one_rung(tmp_path / "climb", price=3.6, stopped="LoRA was not tried: there is nothing to learn.")
    page = render([climb])
    assert headings(page)[0] == "The ladder"
    assert "Why this rung" not in headings(page)
    assert "When the dearer rung pays" not in headings(page)
    assert "Holm" not in text(page)
    assert "the other rungs" not in text(page)
    assert "The thin line" not in text(page)
    assert "few-shot passed over the context is full" in text(page)
    assert "LoRA passed over the task has no training rows" in text(page)
    assert {figure.name: figure.value for figure in figures(read(climb))}["per 1,000 requests"] == "0.50"
