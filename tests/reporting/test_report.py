"""The report: what it shows is what the folders hold, and it loads and runs nothing."""

import json
import re
from html.parser import HTMLParser
from typing import get_args
from xml.etree import ElementTree

import pytest

from tests.reporting.made import bare, climbed, evaluated, headings, pair, text, trained
from tunesmith.data.ledger import Ledger
from tunesmith.errors import RunError
from tunesmith.method import Method
from tunesmith.reporting.compare import METHOD_TITLES, compare
from tunesmith.reporting.drawing import digest
from tunesmith.reporting.report import render, write_report
from tunesmith.reporting.terms import METHODS
from tunesmith.runs.records import VirtualToken
from tunesmith.runs.run import Run


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


def test_a_climb_is_told_from_its_parts_and_opens_with_its_verdict(tmp_path):
    page = render([climbed(tmp_path / "climb")])
    assert '<p class="finding">LoRA is good enough.</p>' in page
    assert headings(page) == [
        "The ladder",
        "Why this rung",
        "When the dearer rung pays",
        "What was tried on the way",
        "By every metric",
        "Answers side by side",
        "How the loss moved",
        "What happened to the rows",
        "What was asked",
        "What it cost",
        "Where it comes from",
        "Words on this page",
    ]


def test_no_line_of_the_headline_ends_inside_the_name_of_a_metric(tmp_path):
    page = render([climbed(tmp_path / "climb", sentence="Take <LoRA>: it has ROUGE-1 0.4.")])
    whole = '<span class="whole">ROUGE-1</span>'
    assert f'<p class="finding">Take &lt;LoRA&gt;: it has {whole} 0.4.</p>' in page
    assert f"<dt>{whole}, from zero-shot</dt>" in page


def test_a_run_given_twice_is_told_once(tmp_path):
    runs = pair(tmp_path)
    assert render([*runs, *runs]) == render(runs)


def test_sections_without_facts_are_left_out(tmp_path):
    made = trained(tmp_path / "lora")
    assert headings(render([made])) == [
        "How the loss moved",
        "What happened to the rows",
        "What was asked",
        "What it cost",
        "Where it comes from",
        "Words on this page",
    ]
    alone = evaluated(tmp_path / "base", 3)
    assert headings(render([alone])) == [
        "The scores",
        "Answers",
        "What was asked",
        "What it cost",
        "Where it comes from",
        "Words on this page",
    ]


EVIL = "</script><script>alert(1)</script><!--"


def test_what_a_run_holds_is_text_and_never_markup(tmp_path):
    a, b = evaluated(tmp_path / "a", 3, said=EVIL), evaluated(tmp_path / "b", 9)
    a.write_json("provenance.json", {"command": EVIL, "model": {"name": EVIL}, "platform": EVIL})
    climb = climbed(tmp_path / "climb", sentence=EVIL, reasons=[EVIL])
    for page in (render([a, b]), render([climb])):
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_name_that_closes_a_script_stays_a_name_in_the_charts(tmp_path):
    climb = climbed(tmp_path / "climb")
    rungs = climb.folder / "rungs.json"
    rungs.write_text(rungs.read_text(encoding="utf-8").replace('"1-shot"', json.dumps(EVIL)), encoding="utf-8")
    page = render([climb])
    assert "<script>alert" not in page
    assert "\\u003c/script\\u003e\\u003cscript\\u003ealert(1)" in page
    assert unclosed(page) == []


def test_the_page_loads_nothing_and_runs_its_own_script_only(tmp_path):
    page = render([climbed(tmp_path / "climb")])
    shown = bare(page).replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in shown
    assert "https://" not in shown
    assert not re.search(r"\b(src|srcset)=|url\(|@import|<link", shown)
    assert {target[0] for target in re.findall(r'href="([^"]*)"', shown)} == {"#"}
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 1
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src '{digest(scripts[0])}'" in page


def test_a_page_without_charts_does_not_carry_their_library(tmp_path):
    begun = trained(tmp_path / "lora", steps=0)
    assert len(render([begun])) < 60_000


def test_every_link_within_the_page_has_a_target(tmp_path):
    page = bare(render([climbed(tmp_path / "climb")]))
    names = re.findall(r'\bid="([^"]*)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(names)


def test_every_still_drawing_is_xml_and_every_tag_is_closed(tmp_path):
    page = bare(render([climbed(tmp_path / "climb")]))
    stills = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(stills) == 2 * len(re.findall('class="chart', page)) > 6
    assert all(ElementTree.fromstring(still).get("viewBox") for still in stills)  # noqa: S314 - our own text
    assert page.lstrip().startswith("<!doctype html>")
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


def test_line_breaks_of_a_question_are_kept(tmp_path):
    page = render([evaluated(tmp_path / "a", 3)])
    assert "Summarize:\n\nAna: line 4\nBo: yes</div>" in page


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


def test_the_words_explained_are_those_of_the_page(tmp_path):
    assert "ROUGE-1 How many words" in text(render([evaluated(tmp_path / "base", 3)]))
    said = text(render([trained(tmp_path / "lora")]))
    assert "Low-rank adapters" in said
    assert "Every weight of the model" not in said
    assert "approximate randomisation" not in said


def test_what_virtual_tokens_resemble_is_told_with_white_space_that_can_be_seen(tmp_path):
    soft = trained(tmp_path / "soft", method="prompt_tuning")
    near = [VirtualToken(words=(" do", "\n", " "), cosines=(0.91, 0.5, 0.25))]
    soft.write_lines("virtual_tokens.jsonl", near)
    assert soft.virtual_tokens() == near
    page = render([soft])
    assert "What the virtual tokens resemble" in headings(page)
    assert "do 0.910 \N{RETURN SYMBOL} 0.500 \N{OPEN BOX} 0.250" in text(page)
    assert "What the virtual tokens resemble" not in headings(render([trained(tmp_path / "lora")]))


def test_every_method_has_a_name_and_a_meaning_in_words():
    names = {name for kind in get_args(get_args(Method)[0]) for name in get_args(kind.model_fields["name"].annotation)}
    assert names == METHOD_TITLES.keys() == METHODS.keys()
