"""How the next token is chosen: greedily, or drawn from the likeliest.

A draw is a function of (seed, the request's id, which of its answers, the
place in the answer): what a request gets does not depend on its neighbours,
its batch or the order in which anything was computed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tunesmith.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """What one request asks for.

    `temperature` 0 takes the likeliest token. `top_k` keeps the k likeliest
    tokens (0: all), `top_p` the fewest whose probabilities sum to at least p
    (Holtzman et al. 2020), of what `top_k` has left. An answer ends before the first of the texts in `stop`.
    `n` answers are given. Raises ConfigError for values that mean nothing.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    n: int = 1

    def __post_init__(self) -> None:
        for wrong, told in (
            (not 0 <= self.temperature < float("inf"), f"temperature {self.temperature} is not 0 or above"),
            (not 0 < self.top_p <= 1, f"top_p {self.top_p} is not above 0 and at most 1"),
            (self.top_k < 0, f"top_k {self.top_k} is below 0"),
            (self.n < 1, f"n {self.n} is below 1"),
            (self.n > 1 and not self.temperature, f"{self.n} greedy answers would all be the same"),
            ("" in self.stop, "a stop text is empty: every answer would be"),
        ):
            if wrong:
                raise ConfigError(told, fix="see tunesmith.Sampling for what each setting means")


GREEDY = Sampling()


def choose(logits: Tensor, settings: Sequence[Sampling], names: Sequence[str], place: Sequence[int]) -> Tensor:
    """Give the next token [rows] of each row of `logits` [rows, vocabulary].

    `names` tell the answers apart (a request's id and which answer it is), `place` is how many tokens each has.
    """
    tokens = logits.argmax(-1)
    for row, (asked, name, n) in enumerate(zip(settings, names, place, strict=True)):
        if asked.temperature:
            tokens[row] = _draw(logits[row].float(), asked, _uniform(asked.seed, f"{name}/{n}"))
    return tokens


def _draw(logits: Tensor, asked: Sampling, uniform: float) -> int:
    """Invert the distribution of the kept tokens, likeliest first, at `uniform` (0 to 1)."""
    k = min(asked.top_k or len(logits), len(logits))
    kept, ids = (logits / asked.temperature).topk(k)
    shares = torch.softmax(kept.double(), -1)
    sums = shares.cumsum(-1)
    if asked.top_p < 1:
        n = int((sums < asked.top_p).sum()) + 1
        sums = sums[:n]
    place = int((sums < uniform * sums[-1]).sum())
    return int(ids[min(place, len(sums) - 1)])


def _uniform(seed: int, name: str) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
