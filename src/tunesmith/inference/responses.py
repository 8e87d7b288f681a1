"""Answers that have been made once and are kept: the engine's two functions, with a memory.

An answer is kept under a SHA-256 of everything it depends on: the base's
weights and configuration, the adapters that act on the request, the tokenizer,
the dtype, the device, the engine's own source and its libraries, the prompt's
tokens and the settings. Names are no part of it. What is not kept yet goes to
the engine in large parts, each stored when it is done, so that an evaluation
that was killed goes on with the next part.

$TUNESMITH_RESPONSES names the file, or is `off`; without it the file lies in the user's cache.
"""

import hashlib
import json
import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tunesmith.inference import generate as generating
from tunesmith.inference import score as scoring
from tunesmith.inference.generate import Generated
from tunesmith.inference.identity import identities
from tunesmith.inference.sampling import GREEDY, Sampling
from tunesmith.inference.score import Continuation, LogLikelihood
from tunesmith.models.embedded import cache_folder
from tunesmith.models.load import Model
from tunesmith.models.route import Names
from tunesmith.names import pick
from tunesmith.runs.store import Store, opened

How = Literal["on", "fresh", "off"]
Asked = tuple[str, tuple[int, ...]]
OnBatch = Callable[[int], None] | None
FILE = "responses.sqlite"
ANSWERS = 256  # prompts that the engine is given at once: several full batches, a minute or two of a laptop's work
LIKELIHOODS = 2048


@dataclass
class Count:
    """What was asked in a block: `asked` answers, `cached` of them kept from before, `tokens` computed for the others.

    Equal requests are computed once, and a context that several continuations share is read once: so they count.
    `seconds` is what computing all of them took: now, or when those that are kept were made.
    """

    asked: int = 0
    cached: int = 0
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Block:
    how: How = "on"
    count: Count = field(default_factory=Count)


_BLOCK: ContextVar[_Block | None] = ContextVar("responses", default=None)


@contextmanager
def counted(how: How = "on") -> Iterator[Count]:
    """Count where the block's answers come from.

    "fresh" computes them all and keeps them in place of older ones; "off" neither looks nor keeps, for
    measurements of speed. $TUNESMITH_RESPONSES=off is stronger than either. Raises ConfigError for another word.
    """
    pick(dict.fromkeys(("on", "fresh", "off")), how, "use of kept answers")
    block = _Block(how)
    token = _BLOCK.set(block)
    try:
        yield block.count
    finally:
        _BLOCK.reset(token)


def generate(
    model: Model,
    prompts: Sequence[Asked],
    max_new_tokens: int | Sequence[int],
    on_batch: OnBatch = None,
    adapters: Names = None,
    sampling: Sampling | Sequence[Sampling] = GREEDY,
) -> list[Generated]:
    """Answer (id, token ids) prompts as `inference.generate` does; those that are kept are not computed.

    A drawn answer depends on its request's id and seed, and is kept under them. Several answers for one
    request (`Sampling.n`) are not kept. Raises as `inference.generate`.
    """
    settings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if any(one.n > 1 for one in settings):
        return _several(
            partial(generating.generate, model, prompts, max_new_tokens, on_batch, adapters, sampling), prompts
        )

    def compute(rows: Sequence[int], progress: OnBatch) -> list[Generated]:
        own = [settings[i] for i in rows]
        names = adapters and [adapters[i] for i in rows]
        new = [limits[i] for i in rows]
        return generating.generate(model, [prompts[i] for i in rows], new, progress, names, own)

    ids = [ids for _, ids in prompts]
    packed = [_packed(one) for one in ids]
    told = [_settings(*each) for each in zip(limits, settings, prompts, strict=True)]
    keys = _keys(identities(model, ids, adapters), told, packed) if _where() else None
    # As the engine: what fits least comes first.
    work = _Work(keys, lambda i: (-len(packed[i]), packed[i]), ANSWERS, compute)
    found = _answered(work, len(prompts), _generated, on_batch)
    _count(found, sum(len(ids[i]) + len(found.answers[i].ids) for i in found.computed))
    return found.answers


def _several(compute: Callable[[], list[Generated]], prompts: Sequence[Asked]) -> list[Generated]:
    started = time.perf_counter()
    answers = compute()
    seconds = time.perf_counter() - started
    tokens = sum(len(ids) for _, ids in prompts) + sum(len(one.ids) for one in answers)
    _count(_Found(answers, list(range(len(answers))), seconds), tokens)
    return answers


def loglikelihoods(model: Model, asked: Sequence[Continuation], on_batch: OnBatch = None) -> list[LogLikelihood]:
    """Give the likelihood of each continuation as `inference.score` does; those that are kept are not computed.

    Raises as `inference.score.loglikelihoods`, before anything is computed.
    """
    scoring.check(model, asked)

    def compute(rows: Sequence[int], progress: OnBatch) -> list[LogLikelihood]:
        return scoring.loglikelihoods(model, [asked[i] for i in rows], progress)

    contexts = [one.context for one in asked]
    packed = [_packed(one.context) + _packed(one.ids) for one in asked]
    told: list[list[Any]] = [["likelihood", len(one.context)] for one in asked]
    keys = _keys(identities(model, contexts), told, packed) if _where() else None
    # Requests that begin alike stay together.
    found = _answered(_Work(keys, lambda i: packed[i], LIKELIHOODS, compute), len(asked), _likelihood, on_batch)
    read = {contexts[i] for i in found.computed}
    _count(found, sum(map(len, read)) + sum(len(asked[i].ids) for i in found.computed))
    return found.answers


class _Work(NamedTuple):
    """Requests by their keys (None: nothing is kept), ranked and cut into the parts that the engine gets at once."""

    keys: list[bytes] | None
    rank: Callable[[int], Any]
    part: int
    compute: Callable[[Sequence[int], OnBatch], list[Any]]


class _Found(NamedTuple):
    """The answers in the order asked, which of them the engine has computed, and how many were kept from before.

    `seconds` is what computing took, of those that are kept as well.
    """

    answers: list[Any]
    computed: list[int]
    seconds: float
    cached: int = 0


class _Kept(NamedTuple):
    """An answer that has been made, and its share of the seconds that its batches took."""

    answer: Any
    seconds: float


def _answered(work: _Work, n: int, read: Callable[[dict[str, Any]], Any], on_batch: OnBatch) -> _Found:
    path, keys = _where(), work.keys
    if keys is None or path is None:
        made = _timed(work, range(n), on_batch)
        return _Found([one.answer for one in made], list(range(n)), sum(one.seconds for one in made))
    with opened(path) as store:
        found = {} if _fresh() else _kept(store, keys, read)
        firsts = list({keys[i]: i for i in sorted(range(n), key=work.rank)}.values())  # equal requests, one answer
        computed = [i for i in firsts if keys[i] not in found]
        cached = sum(key in found for key in keys)
        if on_batch and len(computed) < n:
            on_batch(n - len(computed))
        for rows in _parts(firsts, set(computed), work.part):
            new = dict(zip((keys[i] for i in rows), _timed(work, rows, on_batch), strict=True))
            store.put({key: _written(one) for key, one in new.items()})
            found |= new
    seconds = sum(found[keys[i]].seconds for i in firsts)
    return _Found([found[key].answer for key in keys], computed, seconds, cached)


def _timed(work: _Work, rows: Sequence[int], on_batch: OnBatch) -> list[_Kept]:
    """Compute some answers; each has the same share of the time that all of them took."""
    started = time.perf_counter()
    made = work.compute(rows, on_batch)
    each = (time.perf_counter() - started) / max(1, len(rows))
    return [_Kept(answer, each) for answer in made]


def _parts(order: Sequence[int], missing: set[int], size: int) -> Iterator[list[int]]:
    """Cut what is missing into parts of at most `size`.

    The cuts are those of all requests, kept ones included: what goes on after a kill has the batches of what was
    never killed, and so, in bf16 too, its answers.
    """
    waiting: list[int] = []
    for start in range(0, len(order), size):
        new = [i for i in order[start : start + size] if i in missing]
        if waiting and len(waiting) + len(new) > size:
            yield waiting
            waiting = []
        waiting += new
    if waiting:
        yield waiting


def _where() -> Path | None:
    """Name the file that keeps answers here; None if none does."""
    block, named = _BLOCK.get(), os.environ.get("TUNESMITH_RESPONSES")
    if named == "off" or (block and block.how == "off"):
        return None
    return Path(named) if named else cache_folder() / FILE


def _fresh() -> bool:
    block = _BLOCK.get()
    return block is not None and block.how == "fresh"


def _keys(whose: list[bytes] | None, told: list[list[Any]], packed: list[bytes]) -> list[bytes] | None:
    """Give what each request is kept under; None if nothing may be."""
    if whose is None:
        return None
    heads = (json.dumps([*settings, len(tokens)]).encode() for settings, tokens in zip(told, packed, strict=True))
    return [hashlib.sha256(b"".join(parts)).digest() for parts in zip(whose, heads, packed, strict=True)]


def _packed(ids: Sequence[int]) -> bytes:
    return array("i", ids).tobytes()


def _settings(max_new_tokens: int, sampling: Sampling, prompt: Asked) -> list[Any]:
    """Write down what an answer is asked for; what has no say in it, as a greedy one's seed, is left out."""
    drawn = [prompt[0], *(getattr(sampling, name) for name in ("seed", "temperature", "top_p", "top_k"))]
    return ["generate", max_new_tokens, list(sampling.stop), drawn if sampling.temperature else None]


def _kept(store: Store, keys: Sequence[bytes], read: Callable[[dict[str, Any]], Any]) -> dict[bytes, _Kept]:
    told = {key: json.loads(value) for key, value in store.get(keys).items()}
    return {key: _Kept(read(values["answer"]), values["seconds"]) for key, values in told.items()}


def _written(kept: _Kept) -> bytes:
    answer = kept.answer
    values = asdict(answer) if isinstance(answer, Generated) else answer._asdict()
    return json.dumps({"answer": values, "seconds": kept.seconds}).encode()


def _generated(values: dict[str, Any]) -> Generated:
    return Generated(**{**values, "ids": tuple(values["ids"])})


def _likelihood(values: dict[str, Any]) -> LogLikelihood:
    return LogLikelihood(**{**values, "tokens": tuple(values["tokens"])})


def _count(found: _Found, tokens: int) -> None:
    block = _BLOCK.get()
    if block:
        block.count.asked += len(found.answers)
        block.count.cached += found.cached
        block.count.tokens += tokens
        block.count.seconds += found.seconds
