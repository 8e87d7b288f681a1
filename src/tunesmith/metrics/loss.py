"""Losses as metrics: how surprised a model is by a text, or by the right one of several choices."""

from collections.abc import Sequence

import numpy as np

from tunesmith.metrics.metric import Metric, given

NATS_PER_TOKEN = Metric(
    "nats_per_token",
    given,  # as (nats, tokens) per text
    "nats_per_token|corpus",
    of_sums=lambda sums, _n: sums[:, 0] / sums[:, 1],
)
CHOICE_LOSS = Metric.mean("choice_loss")


def choice_loss(log_likelihoods: Sequence[float], right: int) -> float:
    """Give the cross-entropy, in nats, of the right choice under the choices' likelihoods normalised to 1."""
    scores = np.asarray(log_likelihoods, np.float64)
    return float(np.logaddexp.reduce(scores) - scores[right])
