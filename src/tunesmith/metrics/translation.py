"""BLEU, chrF and TER through `sacrebleu`: its statistics per row, and its scores of their sums, as shares.

The tokeniser follows the language. Where sacrebleu's own choice is wrong it is
mended (rare Han characters in `zh`) or refused (words between spaces in scripts
that have none).
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from tunesmith.errors import ConfigError
from tunesmith.metrics.metric import Metric, Stats
from tunesmith.metrics.words import spread_unspaced
from tunesmith.names import extra

UNSPACED = {"zh", "ja", "th", "lo", "km", "my"}
_BLEU_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab", **dict.fromkeys(("th", "lo", "km", "my"), "char")}


def bleu(language: str, **choices: Any) -> Metric:
    """Make corpus BLEU (Papineni et al. 2002): exp smoothing, orders 1 to 4, unless `choices` say otherwise.

    They are those of `sacrebleu.BLEU`: smooth_method, smooth_value, tokenize,
    lowercase, max_ngram_order. Raises ConfigError without its extra.
    """
    scorer = _bleu(language, **choices)
    mend = _mend(language)
    return Metric("bleu", partial(_rows, scorer, mend), _signature("bleu", scorer, **choices), partial(_of, scorer))


def sentence_bleu(language: str, **choices: Any) -> Metric:
    """Make the mean of sentence BLEU, which stops at the longest order that a sentence has. Choices as for `bleu`."""
    scorer = _bleu(language, effective_order=True, **choices)

    def rows(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Stats:
        return _of(scorer, _rows(scorer, _mend(language), predictions, references), 1)[:, None]

    return Metric("sentence_bleu", rows, _signature("sentence_bleu", scorer, **choices))


def chrf(_language: str, **choices: Any) -> Metric:
    """Make chrF (Popovic 2015): character n-grams of orders 1 to 6, beta 2; right in every script.

    `choices` are those of `sacrebleu.CHRF`: beta, char_order, eps_smoothing, whitespace, lowercase.
    """
    return _chrf("chrf", **choices)


def chrf_plus(language: str, **choices: Any) -> Metric:
    """Make chrF++ (Popovic 2017): chrF and word n-grams of orders 1 and 2. Choices as for `chrf`.

    Raises ConfigError for a language without spaces, whose whole sentence would count as one word.
    """
    if language in UNSPACED:
        raise ConfigError(
            f"chrf++ counts the words between spaces, and '{language}' has none",
            fix="use chrf, which counts characters",
        )
    return _chrf("chrf++", word_order=2, **choices)


def ter(language: str) -> Metric:
    """Make TER (Snover et al. 2006): edits per reference word, lower is better, above 1 if the answer is far too long.

    Chinese and Japanese are edited by character. Raises ConfigError for other languages without spaces.
    """
    if language in UNSPACED - {"zh", "ja"}:
        raise ConfigError(f"TER counts the words between spaces, and '{language}' has none", fix="use chrf")
    asian = language in UNSPACED
    scorer = _library().TER(normalized=asian)
    # sacrebleu's own support of Asian characters leaves kana and rare Han together; spaces do it for all.
    mend = spread_unspaced if asian else str
    signature = _signature("ter", scorer) + ("|chars:unspaced" if asian else "")
    return Metric("ter", partial(_rows, scorer, mend), signature, partial(_of, scorer))


@cache
def _library() -> Any:
    import sacrebleu.metrics

    logging.getLogger("sacrebleu").setLevel(logging.ERROR)  # its advice on tokenised periods, once per run, is not ours
    return sacrebleu.metrics


def _bleu(language: str, **choices: Any) -> Any:
    name = choices.setdefault("tokenize", _BLEU_TOKENIZERS.get(language, "13a"))
    for module, part in {"ja-mecab": (("MeCab", "ja"), ("ipadic", "ja")), "ko-mecab": (("mecab_ko", "ko"),)}.get(
        name, ()
    ):
        extra(module, part)
    return _library().BLEU(**choices)


def _chrf(name: str, **choices: Any) -> Metric:
    scorer = _library().CHRF(**choices)
    return Metric(name, partial(_rows, scorer, str), _signature(name, scorer, **choices), partial(_of, scorer))


def _signature(name: str, scorer: Any, **choices: Any) -> str:
    scorer.num_refs = -1  # the number varies by row; sacrebleu asks for one before it tells the rest
    told = str(scorer.get_signature()).replace("nrefs:var|", "")
    mended = "|han:all" if "tok:zh" in told else ""
    # sacrebleu names some choices itself and others, such as beta, not at all.
    chosen = "".join(f"|{key}:{value}" for key, value in sorted(choices.items()))
    return f"{name}|sacrebleu|{told}{mended}{chosen}|share"


def _mend(language: str) -> Callable[[str], str]:
    return _spread_rare_han if language == "zh" else str


def _rows(
    scorer: Any, mend: Callable[[str], str], predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> Stats:
    most = max(map(len, references))
    streams = [[mend(row[i]) if i < len(row) else None for row in references] for i in range(most)]
    # The same call that sacrebleu's own significance tests make: statistics per row, summed over rows for a score.
    return np.array(scorer._extract_corpus_statistics([mend(text) for text in predictions], streams), dtype=np.float64)


def _of(scorer: Any, sums: Stats, _n: int) -> Stats:
    most = np.inf if isinstance(scorer, _library().TER) else 1.0  # logarithms leave BLEU a hair above 1
    return np.array([min(most, scorer._compute_score_from_stats(row.tolist()).score / 100) for row in sums])


def _spread_rare_han(text: str) -> str:
    r"""Put spaces around the Han characters that sacrebleu's `zh` takes for parts of words.

    Its ranges end at U+9FBB and write Extension B as '\u20000', which is two
    characters (sacrebleu issue 298); Extensions B to H are thereby left together.
    """
    return str(_rare_han().sub(r" \g<0> ", text))


@cache
def _rare_han() -> Any:
    import regex

    known = r"\u3400-\u4db5\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\u2e80-\u2fdf\u3000-\u303f"
    return regex.compile(rf"[\p{{Han}}--[{known}]]", regex.VERSION1)
