"""The embedded tasks beside `demo`: enough rows, balanced, no two alike, nothing given away from split to split."""

from collections import Counter
from itertools import combinations

import pytest

from tunesmith.data.leakage import find_leaks
from tunesmith.data.task import embedded_tasks, load_task

NAMES = [name for name in embedded_tasks() if name != "demo"]
TASKS = {name: load_task(name) for name in NAMES}
SPLITS = ("train", "validation", "test")


def content(task, row):
    """Give what a row asks, without its answer and the choices that all rows share."""
    names = sorted(frozenset().union(*(one.asks() for one in task.of_kind("direct"))) - {"options", "answer"})
    return "\n".join(str(row.fields[name]) for name in names)


def rows(task):
    return [(f"{split}/{row.id}", content(task, row)) for split in SPLITS for row in task.rows(split)]


def test_they_are_of_many_clusters_and_some_are_in_chinese():
    assert len({task.cluster for task in TASKS.values()} - {"summarization"}) >= 6
    assert sum(task.language == "zh" for task in TASKS.values()) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_each_has_sixty_to_a_hundred_and_twenty_rows_in_three_splits(name):
    sizes = [len(TASKS[name].rows(split)) for split in SPLITS]
    assert 60 <= sum(sizes) <= 120
    assert sizes == [70, 10, 40]


@pytest.mark.parametrize("name", NAMES)
def test_no_two_rows_share_their_text(name):
    texts = rows(TASKS[name])
    ids = [name for name, _ in texts]
    assert len(set(ids)) == len(ids)
    middle = len(texts) // 2
    assert find_leaks(texts[:middle], texts[middle:]) == []


def test_no_task_gives_away_another():
    for one, other in combinations(NAMES, 2):
        assert find_leaks(rows(TASKS[one]), rows(TASKS[other])) == [], (one, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_even(name, split):
    task = TASKS[name]
    answers = Counter(prompt.answer for prompt in task.prompts(split))
    if len(answers) <= 6:
        assert max(answers.values()) - min(answers.values()) <= max(1, len(task.rows(split)) // 20)


def test_the_right_one_of_three_is_in_every_place():
    places = Counter(prompt.choices.index(prompt.answer) for prompt in TASKS["commonsense"].prompts("test"))
    assert min(places.values()) >= 10


def test_answers_to_a_passage_are_words_of_it():
    for split in SPLITS:
        for row in TASKS["reading_zh"].rows(split):
            assert row.fields["answer"] in row.fields["passage"], row.id


def test_every_problem_shows_its_way_to_the_answer():
    for split in SPLITS:
        for row in TASKS["reasoning"].rows(split):
            assert len(row.fields["rationale"].split()) >= 4, row.id
            assert "So the answer is" not in row.fields["rationale"]
