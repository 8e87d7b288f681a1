"""How the next token is chosen: greedily, or drawn from the likeliest.

A draw is a function of (seed, the request's id, which of its answers, the
place in the answer): what a request gets does not depend on its neighbours,
its batch or the order in which anything was computed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunesmith.data.encode import Encoder
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


@dataclass(eq=False)
class Answering:
    """One answer in the making: what it is asked for, and its tokens so far.

    `name` tells it from all others (a request's id, and which of its answers); `adapter` is whom it is asked of.
    """

    name: str
    prompt: tuple[int, ...]
    new: int
    sampling: Sampling
    adapter: str | None = None
    ids: list[int] = field(default_factory=list)
    done: bool = False

    def take(self, token: int, encoder: Encoder) -> None:
        """Add a token; the answer is done if that stops it, ends a stop text, or is the last one allowed."""
        self.ids.append(token)
        self.done = token in encoder.stops or len(self.ids) == self.new or self._has_stop_text(encoder)

    def _has_stop_text(self, encoder: Encoder) -> bool:
        """Tell whether a stop text is in the last tokens: it spans at most as many as it has bytes."""
        if not self.sampling.stop:
            return False
        span = max(len(text.encode()) for text in self.sampling.stop) + 4
        tail = str(encoder.tokenizer.decode(self.ids[-span:], skip_special_tokens=True))
        return any(text in tail for text in self.sampling.stop)


def choose(logits: Tensor, rows: Sequence[Answering]) -> list[int]:
    """Give the next token of each row, from `logits` [rows, vocabulary]."""
    tokens = [int(token) for token in logits.argmax(-1).tolist()]
    for i, one in enumerate(rows):
        if one.sampling.temperature:
            uniform = _uniform(one.sampling.seed, f"{one.name}/{len(one.ids)}")
            tokens[i] = _draw(logits[i].float(), one.sampling, uniform)
    return tokens


def _draw(logits: Tensor, asked: Sampling, uniform: float) -> int:
    """Invert the distribution of the kept tokens, likeliest first, at `uniform` (0 to 1)."""
    k = min(asked.top_k or len(logits), len(logits))
    kept, ids = (logits / asked.temperature).topk(k)
    shares = torch.softmax(kept.double(), -1)
    sums = shares.cumsum(-1)
    if asked.top_p < 1:
        sums = sums[: int((sums < asked.top_p).sum()) + 1]
    place = int((sums < uniform * sums[-1]).sum())
    return int(ids[min(place, len(sums) - 1)])


def _uniform(seed: int, name: str) -> float:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)
