"""Numbers and names are written the way people write them."""

import pytest

from tunesmith.reporting import numbers


@pytest.mark.parametrize(
    ("write", "value", "shown"),
    [
        (numbers.size, 999, "999 B"),
        (numbers.size, 9_790_000, "9.79 MB"),
        (numbers.size, 999_960, "1000 kB"),
        (numbers.count, 4_884_480, "4.88 M"),
        (numbers.count, 1_200, "1,200"),
        (numbers.duration, 8.24, "8.2 s"),
        (numbers.duration, 59.7, "1 min 00 s"),
        (numbers.duration, 3_840, "1 h 04 min"),
        (numbers.p_value, 0.0001, "p < 0.001"),
        (numbers.p_value, 0.034, "p = 0.034"),
        (numbers.signed, -0.05, "\N{MINUS SIGN}0.050"),
        (numbers.signed, 0.0, "\N{PLUS-MINUS SIGN}0.000"),
        (numbers.metric_title, "rougeL", "ROUGE-L"),
        (numbers.metric_title, "exact_match", "exact match"),
    ],
)
def test_numbers_and_names_are_written_the_way_people_write_them(write, value, shown):
    assert write(value) == shown
