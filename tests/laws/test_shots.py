"""Shots never leak the question, and depend on (seed, id) alone."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.rows import Row
from tunesmith.data.shots import pick_shots
from tunesmith.errors import DataError

POOL = [Row(f"r{i}", {"n": i}) for i in range(30)]


@given(st.integers(0, 29), st.integers(0, 12), st.integers(0, 5))
def test_the_question_is_never_its_own_shot(i, k, seed):
    shots = pick_shots(POOL, f"r{i}", k, seed)
    assert len({shot.id for shot in shots}) == k
    assert f"r{i}" not in {shot.id for shot in shots}


@given(st.permutations(POOL), st.integers(0, 5))
def test_the_order_of_the_pool_does_not_matter(pool, seed):
    assert pick_shots(pool, "r3", 4, seed) == pick_shots(POOL, "r3", 4, seed)


def test_another_process_draws_the_same_shots():
    code = (
        "from tunesmith.data.rows import Row; from tunesmith.data.shots import pick_shots;"
        "print([s.id for s in pick_shots([Row(f'r{i}', {}) for i in range(30)], 'r3', 4, 7)])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([shot.id for shot in pick_shots(POOL, "r3", 4, 7)])


def test_different_questions_get_different_shots():
    drawn = {tuple(shot.id for shot in pick_shots(POOL, f"q{i}", 3, 0)) for i in range(20)}
    assert len(drawn) > 15


def test_too_small_a_pool_is_an_error():
    with pytest.raises(DataError, match="3 shots asked, 1 rows"):
        pick_shots(POOL[:2], "r0", 3, 0)


def test_a_test_question_gets_shots_from_the_training_split_whatever_the_limit(colours):
    every = {prompt.id: prompt.shots for prompt in colours.prompts("test", shots=3, seed=1)}
    some = {prompt.id: prompt.shots for prompt in colours.prompts("test", shots=3, seed=1, limit=5)}
    assert len(some) == 5
    assert all(every[name] == shots for name, shots in some.items())
