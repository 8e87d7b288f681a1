from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from tunesmith.metrics import lcs

TOKENS = st.lists(st.sampled_from("abcd"), max_size=40)


def table(a, b):
    cells = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            cells[i + 1][j + 1] = cells[i][j] + 1 if x == y else max(cells[i][j + 1], cells[i + 1][j])
    return cells


def places(mask):
    return [i for i in range(mask.bit_length()) if mask >> i & 1]


@given(TOKENS, TOKENS)
def test_the_bit_parallel_length_equals_the_table(a, b):
    assert lcs.lcs_length(a, b) == table(a, b)[-1][-1]


@given(TOKENS, TOKENS)
def test_the_walk_back_takes_the_places_that_rouge_score_takes(a, b):
    theirs = rouge_scorer._backtrack_norec(rouge_scorer._lcs_table(a, b), a, b)
    assert places(lcs.union_places(a, [b])) == sorted(theirs)


def test_the_place_is_that_of_the_given_example():
    assert places(lcs.union_places([1, 2, 3, 4, 5], [[2, 5, 3, 4]])) == [1, 2, 3]


@given(TOKENS, TOKENS)
def test_with_weight_one_the_weighted_length_counts_matches_on_one_path(a, b):
    assert lcs.weighted(a, b, 1) <= table(a, b)[-1][-1]
    assert lcs.weighted(a, a, 2) == len(a) ** 2


@given(TOKENS, TOKENS, st.sampled_from([1.2, 1.5, 2]))
def test_the_weighted_places_are_common_to_both(a, b, weight):
    kept = iter(b)
    assert all(a[i] in kept for i in places(lcs.weighted_places(a, b, weight)))
