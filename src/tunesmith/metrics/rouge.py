"""ROUGE, the whole family (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").

`rouge1` to `rouge9` count shared runs of words, `rougeL` the longest common
subsequence, `rougeLsum` its union over lines, `rougeS` pairs of words with any
gap (`rougeS4`: at most 4 words between), `rougeSU` those and single words,
`rougeW` the subsequence with consecutive words weighted (`rougeW:1.5`: by
k^1.5; 1.2 if nothing is said).

On ASCII text the scores equal Google's `rouge_score`, with `stemmer="porter"`
those of `use_stemmer=True`. `variant="rouge155"` takes SU and W as the script
ROUGE-1.5.5 computes them, which is not what the paper says.
"""

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from itertools import chain
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import ConfigError, DataError
from tunesmith.metrics.kinds import KINDS, Hits, Kind, Text, Variant, is_kind, kind_named
from tunesmith.metrics.stem import STEMMERS
from tunesmith.metrics.words import cut_by, tokenizer
from tunesmith.names import pick, suggest

__all__ = ["KINDS", "PRF", "Corpus", "Options", "corpus", "is_kind", "score", "signature"]

DEFAULT = ("rouge1", "rouge2", "rougeL")
TEXTS_KEPT = 1024  # texts stay cut, some 10 kB each

Multi = Literal["best", "pooled", "best_recall", "mean"]


class PRF(NamedTuple):
    """Precision, recall and their weighted harmonic mean, each from 0 to 1."""

    precision: float
    recall: float
    f1: float


class Options(TypedDict, total=False):
    """How to count.

    tokenizer: how text becomes words, a name of `words.TOKENIZERS`; "auto" by default.
    stemmer: None, "porter" or "rouge155".
    stopwords: words left out before stemming, in lower case; none by default.
    multi: what several references give: the one with the "best" F1 (default) or "best_recall",
        the "mean" of each, or hits and words "pooled" over all (ROUGE-1.5.5's default).
    variant: "paper" or "rouge155", which differ in SU and W.
    alpha: weight of precision in F, 0 to 1; F = PR / ((1 - alpha) P + alpha R).
    """

    tokenizer: str
    stemmer: Literal["porter", "rouge155"] | None
    stopwords: Collection[str] | None
    multi: Multi
    variant: Variant
    alpha: float


@dataclass(frozen=True)
class Corpus:
    """Scores over a corpus: `mean` per kind, `items[kind]` as [rows, 3] (precision, recall, F1).

    `empty` predictions have no word that counts; they score 0 and are part of the mean.
    """

    mean: dict[str, PRF]
    items: dict[str, NDArray[np.float64]]
    empty: int
    signature: str


def score(
    prediction: str, references: str | Sequence[str], kinds: Sequence[str] = DEFAULT, **options: Unpack[Options]
) -> dict[str, PRF]:
    """Score one prediction against its references, by each kind.

    An empty side scores 0, two empty ones too. Raises ConfigError for an
    unknown kind or option, DataError if there is no reference.
    """
    return _counting(options).score(prediction, references, kinds)


def corpus(
    predictions: Sequence[str],
    references: Sequence[str | Sequence[str]],
    kinds: Sequence[str] = DEFAULT,
    **options: Unpack[Options],
) -> Corpus:
    """Score a corpus: the plain mean of each kind over its rows, and every row's scores.

    Raises ConfigError as `score` does, DataError if there are no rows, a row
    without reference, or more predictions than references.
    """
    if isinstance(predictions, str) or isinstance(references, str):
        raise DataError("ROUGE: one text in place of a list of texts", fix="use rouge.score for one prediction")
    if not predictions:
        raise DataError("ROUGE: there are no predictions to score", fix="give at least one prediction")
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predictions, {len(references)} references", fix="give one for the other")
    counting = _counting(options)
    rows = [counting.score(*pair, kinds) for pair in zip(predictions, references, strict=True)]
    width = len(PRF._fields)
    items = {
        kind: np.fromiter(chain.from_iterable(row[kind] for row in rows), np.float64).reshape(-1, width)
        for kind in kinds
    }
    return Corpus(
        mean={kind: PRF(*map(float, item.mean(0))) for kind, item in items.items()},
        items=items,
        empty=sum(not counting.cut(prediction).tokens for prediction in predictions),
        signature=counting.signature(),
    )


def signature(**options: Unpack[Options]) -> str:
    """Name every choice behind a score, as `sacrebleu` does."""
    return _counting(options).signature()


@dataclass(frozen=True)
class Counting:
    """The options of `Options`, checked and with their defaults."""

    tokenizer: str = "auto"
    stemmer: str | None = None
    stopwords: frozenset[str] | None = None
    multi: Multi = "best"
    variant: Variant = "paper"
    alpha: float = 0.5
    cut: Callable[[str], Text] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options and choose how to cut. Raises ConfigError."""
        pick(_MULTI, self.multi, "way to treat several references")
        pick(dict.fromkeys(("paper", "rouge155")), self.variant, "variant of ROUGE")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha is {self.alpha}", fix="use a number from 0 to 1; 0.5 weighs both sides alike")
        object.__setattr__(self, "cut", self._cutter())

    def _cutter(self) -> Callable[[str], Text]:
        to_words = tokenizer(self.tokenizer)
        stem = pick(STEMMERS, self.stemmer, "stemmer") if self.stemmer is not None else None
        left_out = self.stopwords

        # Several kinds and several systems meet the same texts again.
        @lru_cache(maxsize=TEXTS_KEPT)
        def cut(text: str) -> Text:
            lines = [to_words(line) for line in text.split("\n")] if "\n" in text else [to_words(text)]
            if left_out:
                lines = [[word for word in line if word not in left_out] for line in lines]
            return Text([list(map(stem, line)) for line in lines] if stem else lines)

        return cut

    def score(self, prediction: str, references: str | Sequence[str], kinds: Sequence[str]) -> dict[str, PRF]:
        """Score one prediction; see the function `score`."""
        wanted = [self.cut(text) for text in ((references,) if isinstance(references, str) else references)]
        if not wanted:
            raise DataError("ROUGE needs a reference", fix="give at least one reference per prediction")
        predicted = self.cut(prediction)
        # Of single lines the union is the subsequence itself: counted once where both kinds are asked.
        single = len(predicted.lines) == 1 and all(len(text.lines) == 1 for text in wanted)
        names = {kind: "rougeL" if single and kind == "rougeLsum" else kind for kind in kinds}
        scores = {name: self._score(kind_named(name, self.variant), predicted, wanted) for name in set(names.values())}
        return {kind: scores[name] for kind, name in names.items()}

    def _score(self, kind: Kind, predicted: Text, wanted: Sequence[Text]) -> PRF:
        hits = [kind.count(predicted, one) for one in wanted]
        if len(hits) == 1:
            return self._prf(hits[0], kind.weight)
        return _MULTI[self.multi](hits, lambda one: self._prf(one, kind.weight))

    def _prf(self, hits: Hits, weight: float) -> PRF:
        if not hits.shared:
            return PRF(0.0, 0.0, 0.0)
        precision, recall = hits.shared / hits.predicted, hits.shared / hits.wanted
        if weight != 1:
            precision, recall = precision ** (1 / weight), recall ** (1 / weight)
        return PRF(precision, recall, precision * recall / ((1 - self.alpha) * precision + self.alpha * recall))

    def signature(self) -> str:
        """Name every choice."""
        listed = "\n".join(sorted(self.stopwords or ())).encode()
        stopped = f"{len(self.stopwords)}words-{hashlib.sha256(listed).hexdigest()[:8]}" if self.stopwords else "no"
        return (
            f"tok:{cut_by(self.tokenizer)}|stem:{self.stemmer or 'no'}|stop:{stopped}|multi:{self.multi}"
            f"|variant:{self.variant}|alpha:{self.alpha:g}|version:tunesmith-{version('tunesmith')}"
        )


def _best(hits: Sequence[Hits], prf: Callable[[Hits], PRF]) -> PRF:
    return max(map(prf, hits), key=lambda found: found.f1)


def _best_recall(hits: Sequence[Hits], prf: Callable[[Hits], PRF]) -> PRF:
    return max(map(prf, hits), key=lambda found: found.recall)


def _mean(hits: Sequence[Hits], prf: Callable[[Hits], PRF]) -> PRF:
    return PRF(*(sum(side) / len(hits) for side in zip(*map(prf, hits), strict=True)))


def _pooled(hits: Sequence[Hits], prf: Callable[[Hits], PRF]) -> PRF:
    return prf(Hits(*map(sum, zip(*hits, strict=True))))


_MULTI = {"best": _best, "best_recall": _best_recall, "mean": _mean, "pooled": _pooled}


def _counting(options: Options) -> Counting:
    given: dict[str, Any] = {**options}
    left_out = given.get("stopwords")
    if left_out is not None and not isinstance(left_out, str):
        given["stopwords"] = frozenset(left_out)
    return _made(**given)


@lru_cache(maxsize=4)
def _made(**options: Any) -> Counting:
    unknown = next((name for name in options if name not in Options.__annotations__), None)
    if unknown is not None:
        raise ConfigError(f"ROUGE has no option '{unknown}'", fix=suggest(unknown, Options.__annotations__))
    if isinstance(options.get("stopwords"), str):
        raise ConfigError("the stop words are one text", fix="give a collection of words")
    return Counting(**options)
