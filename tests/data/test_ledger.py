import pytest

from tunesmith.data.encode import Encoded
from tunesmith.data.ledger import admit, duplicates
from tunesmith.data.template import Prompt
from tunesmith.errors import DataError, FitError
from tunesmith.recipe import Length


def rows(*sizes):
    return [Encoded(f"r{i}", tuple(range(size - 3)), (7, 8, 9)) for i, size in enumerate(sizes)]


def test_a_row_that_is_too_long_stops_the_run_by_default():
    with pytest.raises(FitError) as error:
        admit(rows(10, 21), Length(max_tokens=20))
    assert error.value.what == "row r1: 21 tokens (3 of them answer), length.max_tokens is 20"
    assert "length.max_tokens=21" in error.value.fix


def test_of_several_rows_that_are_too_long_the_longest_is_named_so_that_the_fix_is_enough_for_all():
    with pytest.raises(FitError) as error:
        admit(rows(21, 25, 10, 22), Length(max_tokens=20))
    assert error.value.what == (
        "row r1: 25 tokens (3 of them answer), length.max_tokens is 20, the longest of 3 such rows"
    )
    assert len(admit(rows(21, 25, 10, 22), Length(max_tokens=25))[0]) == 4


def test_dropped_rows_are_named_and_counted():
    kept, ledger = admit(rows(10, 21, 12), Length(max_tokens=20, overflow="drop", budget=0.5))
    assert [row.id for row in kept] == ["r0", "r2"]
    assert (ledger.rows, ledger.kept, ledger.dropped, ledger.tokens, ledger.longest) == (3, 2, ("r1",), 22, 12)


def test_trimming_keeps_the_whole_answer_and_the_prompts_end():
    kept, ledger = admit(rows(10, 25), Length(max_tokens=20, overflow="trim_prompt", budget=0.5))
    assert kept[1].answer == (7, 8, 9)
    assert kept[1].prompt == tuple(range(22))[-17:]
    assert ledger.trimmed == ("r1",)


def test_an_answer_is_never_cut():
    long = [Encoded("r0", (1, 2), tuple(range(30)))]
    with pytest.raises(FitError, match="its answer alone is 30 tokens"):
        admit(long, Length(max_tokens=20, overflow="trim_prompt", budget=1.0))
    with pytest.raises(FitError) as error:  # what would not help is not told to be done
        admit(long, Length(max_tokens=20))
    assert error.value.fix == "-s length.max_tokens=32, or -s length.overflow=drop"


def test_more_losses_than_the_budget_stop_the_run():
    with pytest.raises(FitError, match=r"2 of 4 rows are longer than 20 tokens.*10.0%.*r1, r2"):
        admit(rows(10, 21, 22, 9), Length(max_tokens=20, overflow="drop", budget=0.1))


def test_a_row_without_answer_is_never_trained_on():
    with pytest.raises(DataError, match="row r0: has no answer token"):
        admit([Encoded("r0", (1, 2), ())], Length())


def test_dropping_everything_is_an_error():
    with pytest.raises(DataError, match="no rows are left"):
        admit(rows(30), Length(max_tokens=20, overflow="drop", budget=1.0))


def test_the_ledger_speaks():
    _, ledger = admit(rows(10, 21, 12), Length(max_tokens=20, overflow="drop", budget=0.5))
    assert ledger.lines() == [
        "2 of 3 rows kept, longest 12 tokens",
        "22 tokens, 6 of them answer (27%)",
        "1 dropped: r1",
    ]


def test_duplicates_are_found_whatever_their_case_and_spacing():
    texts = [("Hi there", "A"), ("hi  there!", "a"), ("hi", "a")]
    prompts = [Prompt(f"r{i}", question, answer, (answer,), "t") for i, (question, answer) in enumerate(texts)]
    assert duplicates(prompts) == ("r1",)
