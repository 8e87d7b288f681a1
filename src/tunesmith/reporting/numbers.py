"""How numbers, and the metrics they are of, are written wherever people read them."""

from tunesmith.runs.records import Forgetting, Score

TITLES = {
    "bleu": "BLEU", "sentence_bleu": "sentence BLEU", "chrf": "chrF", "chrf++": "chrF++", "ter": "TER",
    "squad_em": "SQuAD exact match", "squad_f1": "SQuAD F1", "f1": "F1", "macro_f1": "macro F1",
    "micro_f1": "micro F1", "matthews": "Matthews' correlation", "pearson": "Pearson's r", "spearman": "Spearman's rho",
}  # fmt: skip


def fixed(value: float) -> str:
    """Write a score or loss with three decimals, and a true minus."""
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float) -> str:
    """Write a difference with its sign, a true minus, and three decimals."""
    text = f"{value:+.3f}"
    return "\N{PLUS-MINUS SIGN}0.000" if text[1:] == "0.000" else text.replace("-", "\N{MINUS SIGN}")


def interval(score: Score) -> str:
    """Write the ends of a score's interval."""
    return f"[{fixed(score.low)}, {fixed(score.high)}]"


def p_value(p: float) -> str:
    """Write a p-value with three decimals, and never as zero."""
    return "p < 0.001" if p < 0.001 else f"p = {fixed(p)}"


def whole(amount: float) -> str:
    """Write a count in full: 75,842."""
    return f"{amount:,.0f}"


def percent(share: float) -> str:
    """Write a share: 93.1 %."""
    return f"{100 * share:.1f} %"


def retained(kept: Forgetting) -> str:
    """Write the share that is left of what a base could do, with its interval."""
    low, high = (f"{100 * (end or 0.0):.1f}" for end in (kept.low, kept.high))
    return f"{percent(kept.retained or 0.0)} [{low}, {high}]"


def count(amount: float) -> str:
    """Write a large count short: 4.88 M, 135 M, 1.5 B."""
    for unit, power in (("B", 1e9), ("M", 1e6)):
        if amount >= power:
            return f"{_short(amount / power)} {unit}"
    return whole(amount)


def size(amount: float) -> str:
    """Write bytes in the largest decimal unit that keeps a digit before the point."""
    for unit, power in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= power:
            return f"{_short(amount / power)} {unit}"
    return f"{amount:.0f} B"


def _short(amount: float) -> str:
    return f"{amount:.0f}" if amount >= 99.95 else f"{amount:.3g}"


def duration(seconds: float) -> str:
    """Write seconds the way people say them: 8.2 s, 3 min 12 s, 1 h 04 min."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{rounded} s"
    minutes, rest = divmod(rounded, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def amount(money: float) -> str:
    """Write an amount of money, in the currency of the price: 0.0042, 1.37, 260."""
    return f"{money:,.0f}" if money >= 100 else f"{money:.2f}" if money >= 0.1 else f"{money:.2g}"


def along(value: float, start: float, end: float) -> str:
    """Give how far a value lies from `start` to `end`, as a style has it."""
    return f"{100 * (value - start) / ((end - start) or 1.0):.2f}%"


def metric_title(name: str) -> str:
    """Write a metric the way papers do: ROUGE-1, BLEU, exact match."""
    if name.startswith("rouge"):
        kind, *options = name.removeprefix("rouge").split("+")
        return ", ".join([f"ROUGE-{kind}", *("stemmed" if option == "stem" else option for option in options)])
    if name.startswith("f1:"):
        return f"F1 of {name.removeprefix('f1:')}"
    return TITLES.get(name, name.replace("_", " "))
