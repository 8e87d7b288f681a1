import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import DataError, TunesmithError
from tunesmith.metrics import calibration, choice

SURE = [0.95, 0.85, 0.75, 0.65]
RIGHT = [1, 0, 1, 1]
PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30)


def test_each_norm_pays_for_length_in_its_own_unit():
    scores, choices = [-4.0, -6.0], ["no", "喝茶吧"]
    assert choice.normalised(scores, choices) == pytest.approx([-4, -6])
    assert choice.normalised(scores, choices, "chars") == pytest.approx([-2, -2])
    assert choice.normalised(scores, choices, "bytes") == pytest.approx([-2, -6 / 9])
    assert choice.normalised(scores, choices, "mutual_information", [-1.0, -5.0]) == pytest.approx([-3, -1])


def test_tied_choices_share_the_credit():
    assert [choice.credit([1.0, 0.5], right) for right in (0, 1)] == [1, 0]
    assert [choice.credit([1.0, 1.0, 0.0, 1.0], right) for right in range(4)] == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


@pytest.mark.parametrize("arguments", [
    ([-1.0], ["a", "b"]), ([], []), ([-1.0, -1.0], ["a", ""], "chars"), ([-1.0], ["a"], "mutual_information"),
    ([float("nan")], ["a"]),
])  # fmt: skip
def test_choices_that_cannot_be_scored_are_refused(arguments):
    with pytest.raises(DataError):
        choice.normalised(*arguments)


def test_the_error_of_bins_of_equal_width_and_of_equal_mass():
    assert calibration.expected_error(SURE, RIGHT) == pytest.approx(0.375)
    assert calibration.expected_error(SURE, RIGHT, bins=1) == pytest.approx(0.05)
    others = [0.55, 0.58, 0.91, 0.95]
    assert calibration.expected_error(others, RIGHT, bins=2) == pytest.approx(0.0025)
    assert calibration.expected_error(others, RIGHT, bins=2, by="mass") == pytest.approx(0.0675)


def test_brier_scores():
    assert calibration.brier(np.array([[0.7, 0.2, 0.1]]), [0]) == pytest.approx(0.14)
    assert calibration.brier_of_answer(SURE, RIGHT) == pytest.approx(0.2275)
    assert calibration.brier_of_answer(SURE, RIGHT) == pytest.approx(sklearn.metrics.brier_score_loss(RIGHT, SURE))


def test_selective_accuracy_answers_the_surest_rows():
    assert calibration.selective_accuracy(SURE, RIGHT, 0.5) == 0.5
    assert calibration.selective_accuracy(SURE, RIGHT) == 1
    assert calibration.selective_area(SURE, RIGHT) == pytest.approx((1 + 1 / 2 + 2 / 3 + 3 / 4) / 4)
    assert calibration.selective_accuracy([0.5] * 4, RIGHT) == 0.75


def test_a_constant_confidence_equal_to_the_accuracy_is_calibrated():
    for by in ("width", "mass"):
        assert calibration.expected_error([0.5] * 100, [0, 1] * 50, 10, by) == pytest.approx(0)


@pytest.mark.parametrize("wrong", [
    lambda: calibration.expected_error(SURE, RIGHT, by="Mass"), lambda: calibration.expected_error(SURE, RIGHT, bins=0),
    lambda: choice.normalised([-1.0], ["a"], "char"), lambda: choice.credit([float("nan"), 1.0], 1),
    lambda: choice.credit([1.0], 7), lambda: calibration.brier(np.array([[70, 20, 10]]), [0]),
    lambda: calibration.brier(np.array([[0.5, 0.5]]), [-1]), lambda: calibration.brier(np.zeros((0, 2)), []),
    lambda: calibration.brier(np.array([[0.5, 0.5]] * 2), [0]),
    lambda: calibration.expected_error([0.5], [float("nan")]),
])  # fmt: skip
def test_wrong_options_and_numbers_are_refused(wrong):
    with pytest.raises(TunesmithError):
        wrong()


@given(PAIRS, st.randoms(), st.sampled_from(["width", "mass"]))
def test_calibration_does_not_depend_on_the_order_of_rows(pairs, draw, by):
    shuffled = draw.sample(pairs, len(pairs))
    for found in (lambda s, r: calibration.expected_error(s, r, 5, by), calibration.selective_area,
                  calibration.selective_accuracy):  # fmt: skip
        assert found(*zip(*pairs, strict=True)) == pytest.approx(found(*zip(*shuffled, strict=True)))


@given(PAIRS)
def test_the_calibration_error_lies_between_zero_and_one(pairs):
    sure, right = zip(*pairs, strict=True)
    one_bin = abs(np.mean(sure) - np.mean(right))
    assert one_bin - 1e-9 <= calibration.expected_error(sure, right) <= 1


@pytest.mark.parametrize(("sure", "right"), [([], []), ([0.5], [1, 0]), ([1.5], [1]), ([float("nan")], [1])])
def test_confidences_that_are_none_are_refused(sure, right):
    with pytest.raises(DataError):
        calibration.expected_error(sure, right)
