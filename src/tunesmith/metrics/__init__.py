"""Metrics: marks for answers.

A metric reduces every row to a vector of statistics and turns their sum over
rows into the value. That is all that intervals and paired tests need, so a
mean (ROUGE) and a corpus score (BLEU) share the same code. Values are shares:
ROUGE, BLEU and chrF from 0 to 1, correlations from -1 to 1, TER from 0 up.
"""

import re
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np

from tunesmith.errors import ConfigError
from tunesmith.metrics import labels, rouge, text, translation
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.names import suggest

__all__ = ["CORRELATIONS", "LOWER_IS_BETTER", "METRICS", "UNPARSED", "Metric", "Stats", "merit", "metric"]

UNPARSED = "unparsed"
LOWER_IS_BETTER = frozenset({"ter", UNPARSED, "nats_per_token", "choice_loss"})
CORRELATIONS = frozenset({"matthews", "pearson", "spearman"})
LANGUAGES = {
    **dict.fromkeys(("zho", "chi", "cmn", "yue", "wuu", "lzh"), "zh"), "jpn": "ja", "kor": "ko", "tha": "th",
    "lao": "lo", "khm": "km", "mya": "my", "bur": "my",
}  # fmt: skip
COUNTRIES = {"jp": "ja", "cn": "zh", "tw": "zh", "kr": "ko"}
_WORDS = f"words:auto|version:tunesmith-{version('tunesmith')}"


def _rouge(name: str) -> Metric:
    """Make the mean F1 of a kind of ROUGE; after each "+" the name says what is not the default."""
    kind, *asked = name.split("+")
    options: rouge.Options = {}
    for word in asked:
        if word == "stem":
            options["stemmer"] = "porter"
        elif "tokenizer" in options:
            raise ConfigError(f"'{name}' names two tokenizers", fix=f"use '{kind}+{word}'")
        else:
            options["tokenizer"] = word
    # A wrong weight or a missing library is said now, not after the answers are made.
    rouge.score("a", "a", (kind,), **options)

    def rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        scored = zip(predictions, references, strict=True)
        return np.array([[rouge.score(said, wanted, (kind,), **options)[kind].f1] for said, wanted in scored])

    return Metric(name, rows, f"{kind}|f1|{rouge.signature(**options)}")


def _labelled(name: str, of_counts: Callable[[Stats, Stats, Stats], Stats]) -> Callable[[str], Metric]:
    return lambda _language: labels.label_metric(name, of_counts)


def _unparsed(_language: str) -> Metric:
    """Make the share of answers that are empty, as one is in which an extractor has found nothing."""
    return text.by_row(UNPARSED, lambda said, _: float(not said.strip()), f"{UNPARSED}|empty", proportion=True)


def _by_row(name: str, mark: Callable[[str, Sequence[str]], float], signature: str) -> Callable[[str], Metric]:
    share = name != "squad_f1"
    return lambda _language: text.by_row(name, mark, signature, proportion=share)


METRICS: dict[str, Callable[[str], Metric]] = {
    "bleu": translation.bleu,
    "sentence_bleu": translation.sentence_bleu,
    "chrf": translation.chrf,
    "chrf++": translation.chrf_plus,
    "ter": translation.ter,
    "exact_match": _by_row("exact_match", text.exact_match, f"exact_match|any|{_WORDS}"),
    "verbatim": _by_row("verbatim", text.verbatim, f"verbatim|any|version:tunesmith-{version('tunesmith')}"),
    "squad_em": _by_row(
        "squad_em", text.squad_exact, f"squad_em|any|words:squad-1.1+unspaced|version:tunesmith-{version('tunesmith')}"
    ),
    "squad_f1": _by_row(
        "squad_f1", text.squad_f1, f"squad_f1|best|words:squad-1.1+unspaced|version:tunesmith-{version('tunesmith')}"
    ),
    "accuracy": lambda _language: labels.accuracy(),
    "macro_f1": _labelled("macro_f1", labels.macro_f1),
    "micro_f1": _labelled("micro_f1", labels.micro_f1),
    "matthews": _labelled("matthews", labels.matthews),
    "pearson": lambda _language: labels.pearson(),
    "spearman": lambda _language: labels.spearman(),
    UNPARSED: _unparsed,
}


def _code(language: str) -> str:
    """Give the two or three letters of a language code without its region. Raises ConfigError."""
    code = re.split("[-_]", language.lower())[0]
    if code in COUNTRIES:
        raise ConfigError(f"'{language}' is a country, not a language", fix=f"did you mean '{COUNTRIES[code]}'?")
    if not re.fullmatch("[a-z]{2,3}", code):
        raise ConfigError(f"'{language}' is no language code", fix="use one such as en, de, zh, ja, ko, th (ISO 639)")
    return LANGUAGES.get(code, code)


def metric(name: str, language: str = "en") -> Metric:
    """Look a metric up by name: one of `METRICS`, a kind of ROUGE, or `f1:LABEL`.

    `rouge1+stem` takes Porter's stems, `rouge1+zh` a tokeniser of `words.TOKENIZERS`.

    `language`, a code such as en or zh-TW, chooses how BLEU and TER cut words.
    Raises ConfigError with the nearest right name, for a language that is no code or
    that the metric is wrong for, or with the command that installs a tokeniser.
    """
    language = _code(language)
    if rouge.is_kind(name.partition("+")[0]):
        return _rouge(name)
    if name.startswith("f1:") and name != "f1:":
        return labels.f1_of(name.removeprefix("f1:"))
    if name not in METRICS:
        raise ConfigError(f"there is no metric '{name}'", fix=suggest(name, [*METRICS, *rouge.KINDS]))
    return METRICS[name](language)


def merit(name: str, value: float) -> float:
    """Give a value or a difference so that more of it is better: turned round where the metric counts errors."""
    return -value if name in LOWER_IS_BETTER else value
