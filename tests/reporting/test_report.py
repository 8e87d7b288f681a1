"""The report: what it shows is what the folders hold, and it loads and runs nothing."""

import re
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tunesmith.data.ledger import Ledger
from tunesmith.errors import RunError
from tunesmith.metrics import metric
from tunesmith.metrics.interval import bootstrap
from tunesmith.recipe import Recipe
from tunesmith.reporting import report
from tunesmith.reporting.compare import compare
from tunesmith.reporting.report import examples, gather, ladders, render, spread, write_report
from tunesmith.runs.records import Answer, Score, Step, Summary
from tunesmith.runs.run import Run

REFERENCE = "the clerk offers a refund for the kettle that leaks and she takes the store credit at last"
WORDS = REFERENCE.split()
PROVENANCE = {
    "tunesmith": "0.1.0",
    "created": "2026-11-23T12:00:00+00:00",
    "model": {"name": "SmolLM2-135M-Instruct", "sha256": "ab12" * 16, "parameters": 134515008},
    "data": {"train": {"place": "demo/train.jsonl", "rows": 240, "sha256": "cd34" * 16}},
    "packages": {"torch": "2.13.0"},
}


def evaluated(
    folder, keep, *, rows=40, method=None, shots=0, adapter=None, said=None, metrics=("rouge1", "bleu"), **taken
):
    """Make a real evaluation whose answers keep `keep` words of the reference, and a few more on later rows."""
    asked = {"verb": "eval", "model": "smollm2", "method": method, "adapter": adapter and str(adapter), "task": "demo"}
    run = Run.create(folder, {**asked, "split": "test", "shots": shots, "template": "plain", "limit": None, "seed": 0})
    answers = [
        Answer(
            id=f"test/{i}",
            prompt="An example.\n\n" * shots + f"Summarize:\n\nAna: line {i}\nBo: yes",
            answer=said or " ".join(WORDS[: keep + i % 5]),
            references=(REFERENCE,),
            prompt_tokens=20,
            answer_tokens=9,
            finished=True,
        )
        for i in range(rows)
    ]
    run.write_lines("answers/demo.jsonl", answers)
    run.write_lines("scores.jsonl", [scored(name, answers, shots) for name in metrics])
    run.write_json("provenance.json", {**PROVENANCE, "command": f"tunesmith eval smollm2 --out {folder.name}"})
    run.finish(summary(prompt_tokens=20.0 + 100 * shots, **taken))
    return run


def scored(name, answers, shots):
    mark = metric(name)
    value, low, high = bootstrap(mark, mark.stats([a.answer for a in answers], [a.references for a in answers]))
    fixed = {"task": "demo", "split": "test", "template": "plain", "signature": mark.signature}
    return Score(metric=name, value=value, low=low, high=high, n=len(answers), shots=shots, **fixed)


def trained(folder, steps=20, ledger=None, method="lora", **taken):
    recipe = Recipe.parse({"task": "demo", "method": {"name": method}}, "test").model_dump(mode="json")
    run = Run.create(folder, {**recipe, "verb": "train"})
    log = {"epoch": 0, "learning_rate": 2e-4, "gradient_norm": 1.0, "tokens": 2000, "answer_tokens": 240}
    for i in range(1, steps + 1):
        at = {"step": i, "loss": 2.5 - i / 40, "seconds": 2.0 * i, "validation_loss": 1.987 if i == steps else None}
        run.append(Step(**log, **at))
    run.write_json(
        "ledger.json",
        (ledger or Ledger(rows=240, kept=240, tokens=60000, answer_tokens=9000, longest=600)).model_dump(),
    )
    run.write_json("provenance.json", {**PROVENANCE, "command": f"tunesmith train recipe.yaml {folder.name}"})
    made = {"steps": steps, "planned_steps": 20, "trainable_parameters": 4_884_480, "artifact_bytes": 9_790_000}
    run.finish(summary(**{**made, "first_validation_loss": 2.613, "validation_loss": 1.987, **taken}))
    return run


def summary(**taken):
    whole = {"tokens": 60000, "answer_tokens": 9000, "seconds": 198.2, "tokens_per_second": 302.7}
    return Summary(**{**whole, "peak_memory_bytes": 3_900_000_000, "total_parameters": 134_515_008, **taken})


def climbed(folder, **verdict):
    climb = Run.create(folder, {"verb": "climb", "task": "demo"})
    evaluated(folder / "zero-shot", 3)
    trained(folder / "lora")
    evaluated(folder / "lora-eval", 11, method="lora")
    rungs = [("zero-shot", "zero-shot", None), ("LoRA", "lora-eval", "lora")]
    climb.write_json("rungs.json", [dict(zip(("name", "eval", "train"), rung, strict=True)) for rung in rungs])
    climb.write_json(
        "verdict.json", {"recommended": "LoRA", "sentence": "LoRA is good enough.", "reasons": ["It is."], **verdict}
    )
    return climb


def pair(tmp_path):
    made = trained(tmp_path / "lora")
    return [
        evaluated(tmp_path / "base", 3),
        made,
        evaluated(tmp_path / "tuned", 11, method="lora", adapter=made.folder),
    ]


def text(page):
    """Give the words of a page as a reader sees them."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def headings(page):
    return [unescape(found) for found in re.findall(r"<h2>(.*?)</h2>", page)]


def test_the_scores_shown_are_those_in_the_folder(tmp_path):
    runs = pair(tmp_path)
    said = text(render(runs))
    for run in (runs[0], runs[2]):
        for score in run.scores():
            assert f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" in said


def test_the_differences_shown_are_those_of_compare(tmp_path):
    runs = pair(tmp_path)
    said = text(render(runs))
    for found in compare(runs[0], runs[2]):
        assert f"+{found.difference:.3f}, p < 0.001" in said


def test_the_costs_shown_are_those_in_the_folder(tmp_path):
    said = text(render(pair(tmp_path)))
    for shown in ("3 min 18 s", "4.88 M", "9.79 MB", "3.9 GB", "60,000"):
        assert shown in said


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


def test_a_climb_is_told_from_its_parts_and_opens_with_its_verdict(tmp_path):
    page = render([climbed(tmp_path / "climb")])
    assert '<p class="finding">LoRA is good enough.</p>' in page
    assert headings(page) == [
        "The ladder",
        "What was asked",
        "What happened to the rows",
        "How the loss moved",
        "What it cost",
        "Answers side by side",
        "Where it comes from",
    ]


def test_a_climbs_trainings_belong_to_their_rungs(tmp_path):
    told = gather([climbed(tmp_path / "climb")])
    assert [(rung.name, rung.trained and rung.trained.name) for rung in told.rungs] == [
        ("zero-shot", None),
        ("LoRA", "lora"),
    ]


def test_an_evaluation_finds_the_training_it_names(tmp_path):
    runs = pair(tmp_path)
    assert gather(runs).rungs[1].trained == runs[1]
    assert gather([runs[0], runs[2]]).rungs[1].trained is None


def test_a_run_given_twice_is_told_once(tmp_path):
    runs = pair(tmp_path)
    assert render([*runs, *runs]) == render(runs)


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    runs = [evaluated(tmp_path / "a", 3, method="lora"), evaluated(tmp_path / "b", 9, method="lora")]
    assert [rung.name for rung in gather(runs).rungs] == [f"LoRA ({run.folder})" for run in runs]


def test_sections_without_facts_are_left_out(tmp_path):
    made = trained(tmp_path / "lora")
    assert headings(render([made])) == [
        "What was asked",
        "What happened to the rows",
        "How the loss moved",
        "What it cost",
        "Where it comes from",
    ]
    alone = evaluated(tmp_path / "base", 3)
    assert headings(render([alone])) == [
        "The ladder",
        "What was asked",
        "What it cost",
        "Answers",
        "Where it comes from",
    ]


def test_a_training_alone_says_how_its_loss_moved(tmp_path):
    page = render([trained(tmp_path / "lora")])
    assert "the validation loss went from 2.613 to 1.987 nats per answer token" in text(page)
    assert "validation after step 0: 2.613" in page


def test_a_run_that_only_began_is_told_with_a_warning(tmp_path):
    run = Run.create(tmp_path / "begun", {**Recipe().model_dump(mode="json"), "verb": "train"})
    assert "has not come to its end" in text(render([run]))


def test_what_a_run_holds_is_text_and_never_markup(tmp_path):
    evil = "<script>alert(1)</script>"
    a, b = evaluated(tmp_path / "a", 3, said=evil), evaluated(tmp_path / "b", 9)
    a.write_json("provenance.json", {"command": evil, "model": {"name": evil}, "platform": evil})
    climb = climbed(tmp_path / "climb", sentence=evil, reasons=[evil])
    for page in (render([a, b]), render([climb])):
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_loads_nothing(tmp_path):
    page = render([climbed(tmp_path / "climb")])
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"\b(src|srcset)=|url\(|@import|<link|<script", page)
    assert set(re.findall(r'href="([^"]*)"', page)) <= {"#warnings"}


def test_every_drawing_in_the_page_is_xml_and_every_tag_is_closed(tmp_path):
    page = render([climbed(tmp_path / "climb")])
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(drawings) == 4
    assert all(ElementTree.fromstring(drawing).get("role") == "img" for drawing in drawings)  # noqa: S314 - our own text
    assert page.startswith("<!doctype html>")
    assert unclosed(page) == []


def unclosed(page):
    """Give the tags that are open at the end or closed out of turn."""
    stack = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br"):
                stack.append(tag)

        def handle_endtag(self, tag):
            assert stack.pop() == tag

    Tags().feed(page)
    return stack


def test_the_same_runs_give_the_same_page(tmp_path):
    runs = pair(tmp_path)
    assert render(runs) == render([Run.open(run.folder) for run in runs])


def test_the_ledger_names_its_rows(tmp_path):
    ledger = Ledger(
        rows=240, kept=239, tokens=60000, answer_tokens=9000, longest=600, dropped=("train/88",), leaked=("train/41",)
    )
    said = text(render([trained(tmp_path / "lora", ledger=ledger)]))
    assert "239 of 240 rows" in said
    assert "1 dropped as too long: train/88" in said
    assert "train/41" in said


def test_warnings_are_given_where_they_apply(tmp_path):
    ledger = Ledger(rows=9, kept=9, tokens=900, answer_tokens=90, longest=100, leaked=("train/1", "train/2"))
    made = trained(tmp_path / "lora", ledger=ledger, steps=8, stopped_early=True)
    run = evaluated(tmp_path / "base", 3, rows=12, unfinished_answers=5, empty_answers=2)
    said = text(render([made, run]))
    assert "stopped early after step 8 of 20" in said
    assert "2 of 9 training rows share text with scored rows" in said
    assert "5 of 12 answers cut off by the length limit" in said
    assert "2 of 12 answers empty" in said
    assert "rests on 12 rows only" in said


def test_sound_runs_carry_no_warnings(tmp_path):
    assert "To know about these numbers" not in render(pair(tmp_path))


def test_runs_over_different_rows_are_shown_without_a_difference(tmp_path):
    page = render([evaluated(tmp_path / "a", 3, rows=40), evaluated(tmp_path / "b", 9, rows=30, shots=3)])
    assert "3-shot: no difference can be given." in text(page)
    assert "p &lt; 0.001" not in page


def test_six_examples_are_spread_over_what_the_change_did():
    changes = [0.1 * i for i in range(-10, 50)]
    chosen = spread(changes, paired=True)
    assert [i for i, _ in chosen] == [59, 58, 57, 30, 29, 0]
    assert [why for _, why in chosen] == [
        "largest gain",
        "second largest gain",
        "third largest gain",
        "middle",
        "middle",
        "largest loss",
    ]


@pytest.mark.parametrize("n", range(1, 15))
def test_no_example_is_shown_twice_and_few_are_all_shown(n):
    chosen = [i for i, _ in spread([0.0] * n, paired=True)]
    assert len(set(chosen)) == len(chosen) == min(n, 6)


def test_a_row_that_lost_nothing_is_not_called_a_loss():
    assert spread([0.5] * 7, paired=True)[-1][1] == "smallest gain"


def test_examples_show_the_question_without_shots_and_the_value_of_each_answer(tmp_path):
    runs = [evaluated(tmp_path / "shots", 3, shots=3), evaluated(tmp_path / "tuned", 11, method="lora")]
    shown = examples(ladders(gather(runs))[0])
    mark = metric("rouge1")
    for example in shown.chosen:
        assert "An example" not in example.question
        for reply in example.replies:
            value = mark.row(reply.answer.answer, reply.answer.references)[0]
            assert reply.value == pytest.approx(value)
            assert f"<b>{value:.3f}</b>" in render(runs)
    assert shown.gained + shown.lost <= shown.asked == 40


def test_line_breaks_of_a_question_are_kept(tmp_path):
    page = render([evaluated(tmp_path / "a", 3)])
    assert "Summarize:\n\nAna: line 4\nBo: yes</div>" in page


def test_the_commands_are_given_in_the_order_to_repeat_them(tmp_path):
    page = render(pair(tmp_path))
    order = [page.index(f"tunesmith {command}") for command in ("eval smollm2 --out base", "train recipe.yaml lora")]
    assert order == sorted(order)
    assert page.index("--out tuned") > order[1]


def test_a_climbs_command_stands_for_those_of_its_parts(tmp_path):
    climb = climbed(tmp_path / "climb")
    assert "tunesmith eval smollm2 --out zero-shot" in render([climb])
    climb.write_json("provenance.json", {"command": "tunesmith climb demo --out climb"})
    assert "tunesmith climb demo --out climb" in render([climb])
    assert "tunesmith eval" not in render([climb])


def test_facts_that_runs_share_are_said_once(tmp_path):
    assert report.agree([("a", {"x": "1", "y": "2"}), ("b", {"x": "1", "y": "3"})]) == [
        ("x", (("1", ""),)),
        ("y", (("2", "a"), ("3", "b"))),
    ]


def test_a_report_without_runs_is_refused():
    with pytest.raises(RunError, match="no runs"):
        render([])


def test_a_report_is_written_whole_and_replaces_an_earlier_one(tmp_path):
    runs = pair(tmp_path / "runs")
    path = tmp_path / "new" / "report.html"
    write_report(runs[:1], path)
    write_report(runs, path)
    assert path.read_text(encoding="utf-8") == render(runs)
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]
    with pytest.raises(RunError, match="is a folder"):
        write_report(runs, path.parent)


@pytest.mark.parametrize(
    ("write", "value", "shown"),
    [
        (report.size, 999, "999 B"),
        (report.size, 9_790_000, "9.79 MB"),
        (report.size, 999_960, "1000 kB"),
        (report.count, 4_884_480, "4.88 M"),
        (report.count, 1_200, "1,200"),
        (report.duration, 8.24, "8.2 s"),
        (report.duration, 59.7, "1 min 00 s"),
        (report.duration, 3_840, "1 h 04 min"),
        (report.p_value, 0.0001, "p < 0.001"),
        (report.p_value, 0.034, "p = 0.034"),
        (report.signed, -0.05, "\N{MINUS SIGN}0.050"),
        (report.signed, 0.0, "\N{PLUS-MINUS SIGN}0.000"),
        (report.metric_title, "rougeL", "ROUGE-L"),
        (report.metric_title, "exact_match", "exact match"),
    ],
)
def test_numbers_and_names_are_written_the_way_people_write_them(write, value, shown):
    assert write(value) == shown
