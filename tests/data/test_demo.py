"""The embedded task is what the design asks for."""

import pytest

from tunesmith.data.leakage import find_leaks
from tunesmith.data.task import load_task

TASK = load_task("demo")
ROWS = [(split, row) for split in TASK.splits() for row in TASK.rows(split)]


@pytest.mark.parametrize(("split", "least"), [("train", 240), ("validation", 40), ("test", 60)])
def test_there_are_enough_rows(split, least):
    assert len(TASK.rows(split)) >= least


def assert_apart(texts):
    """Check every pair once: the halves against each other, then each half within itself."""
    if len(texts) > 1:
        middle = len(texts) // 2
        assert find_leaks(texts[:middle], texts[middle:]) == []
        assert_apart(texts[:middle])
        assert_apart(texts[middle:])


def test_no_two_dialogues_are_alike():
    assert_apart([(row.id, row.fields["dialogue"]) for _, row in ROWS])


def test_no_summary_and_no_topic_is_used_twice():
    for field in ("summary", "topic"):
        assert len({row.fields[field].lower() for _, row in ROWS}) == len(ROWS)


def test_lengths_are_those_of_real_talk():
    for _, row in ROWS:
        turns = row.fields["dialogue"].split("\n")
        assert 4 <= len(turns) <= 20, row.id
        assert all(":" in turn for turn in turns), row.id
        assert 10 <= len(row.fields["summary"].split()) <= 60, row.id
    lengths = {len(row.fields["dialogue"].split("\n")) for _, row in ROWS}
    assert lengths >= set(range(4, 19))


def test_summaries_name_people_of_their_dialogue_and_copy_no_turn():
    for _, row in ROWS:
        turns = [turn.partition(":") for turn in row.fields["dialogue"].split("\n")]
        speakers = {name.lower() for name, _, _ in turns}
        summary = row.fields["summary"].lower()
        assert any(word in summary for name in speakers for word in name.split()), row.id
        assert all(text.strip().lower() not in summary for _, _, text in turns if len(text.split()) > 5), row.id


def test_speakers_are_many():
    names = {turn.partition(":")[0] for _, row in ROWS for turn in row.fields["dialogue"].split("\n")}
    assert len(names) > 350
