"""Facts: what the runs were asked, where they come from, and how to repeat them."""

from tests.reporting.made import climbed, pair
from tunesmith.reporting import facts
from tunesmith.reporting.report import render


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


def test_facts_that_runs_share_are_said_once():
    assert facts.agree([("a", {"x": "1", "y": "2"}), ("b", {"x": "1", "y": "3"})]) == [
        ("x", (("1", ""),)),
        ("y", (("2", "a"), ("3", "b"))),
    ]
