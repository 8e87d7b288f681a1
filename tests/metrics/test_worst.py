import numpy as np
import pytest

from tunesmith.errors import ConfigError
from tunesmith.metrics import metric
from tunesmith.metrics.worst import worst

SAID, OTHER, WANTED = ["a b c d e", "x y"], ["a b c d z", "a b c d e"], [("a b c d e",)] * 2


@pytest.mark.parametrize("name", ["rouge1", "exact_match", "bleu", "chrf", "ter"])
def test_the_worst_case_is_worst_in_the_metrics_own_direction(name):
    one = metric(name)
    a, b = one.stats(SAID, WANTED), one.stats(OTHER, WANTED)
    chosen = worst(one, [a, b])
    assert np.array_equal(chosen, np.stack([b[0], a[1]]))
    sign = -1 if name == "ter" else 1
    assert sign * one.value(chosen) <= min(sign * one.value(a), sign * one.value(b))


def test_nothing_changed_has_the_same_worst_case():
    for name in ("rouge1", "bleu", "ter"):
        one = metric(name)
        stats = one.stats(SAID, WANTED)
        assert np.array_equal(worst(one, [stats, stats]), stats)


def test_a_metric_without_a_value_by_row_has_no_worst_case():
    with pytest.raises(ConfigError, match="macro_f1 has no value for one row"):
        worst(metric("macro_f1"), [])
