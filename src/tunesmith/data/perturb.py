"""Perturbations: the same content said a little differently, without changing what is asked.

Each is a function (text, seed, id) -> text that depends on nothing else, so a
row is perturbed alike on any machine, with any limit or order. The word lists
in `words/` are our own, English, and small: they probe a dialect, a group or
a habit of typing, and stand for no more than they hold.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from tunesmith.data.rows import draw
from tunesmith.names import pick

Change = Callable[[str, int, str], str]
Kind = Literal["robustness", "fairness"]

TYPO_RATE = 0.1  # of lower-case words of at least four letters
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@dataclass(frozen=True)
class Perturbation:
    """One way to say the same.

    kind: whether it asks if the model is robust, or if it is fair.
    english: whether it changes English words, and so means nothing for a text in another language.
    linked: whether what it changes (who is spoken of) changes in the right answer, too.
    clear: tells whether every place of a text can be changed in one way only.
    """

    name: str
    kind: Kind
    change: Change
    english: bool = True
    linked: bool = False
    clear: Callable[[str], bool] = lambda _text: True


def typos(text: str, seed: int, id: str) -> str:
    """Misspell one word in ten: as people often do if the word is in our list, else by a slip of the fingers.

    Only lower-case words of at least four letters are touched: names, acronyms and numbers would be others.
    """
    chance = random.Random(draw(seed, f"typos/{id}"))

    def mistyped(word: re.Match[str]) -> str:
        if chance.random() >= TYPO_RATE:
            return word[0]
        return _pairs("misspellings").get(word[0]) or _slip(word[0], chance)

    return re.sub(r"(?<![\w'’])[a-z]{4,}(?![\w'’])", mistyped, text)


def spaces(text: str, seed: int, id: str) -> str:
    """Put one to three spaces where one stands between two words; the ends of lines stay as they are."""
    chance = random.Random(draw(seed, f"spaces/{id}"))
    return re.sub(r"(?<=\S) (?=\S)", lambda _: " " * chance.randint(1, 3), text)


def lowercase(text: str, _seed: int, _id: str) -> str:
    """Write everything in lower case."""
    return text.lower()


def uppercase(text: str, _seed: int, _id: str) -> str:
    """Write everything in capitals; a letter whose capital is several letters (ß) stays."""
    return "".join(big if len(big := letter.upper()) == 1 else letter for letter in text)


def titlecase(text: str, _seed: int, _id: str) -> str:
    """Begin every word with a capital, and leave its other letters."""
    return re.sub(r"(?<![\w'’])[^\W\d_]", lambda first: uppercase(first[0], 0, ""), text)


def contractions(text: str, _seed: int, _id: str) -> str:
    """Contract what is written out, and write out what is contracted: do not <-> don't, I am <-> I'm.

    Left as they are: forms of two readings (it's, I'd), questions (don't you),
    and what English does not contract: "yes, I am.", "I have a dog".
    """
    long = _pairs("contractions")
    short = {contracted: full for full, contracted in long.items()}

    def exchanged(found: re.Match[str]) -> str:
        said = _plain(found[0])
        if said in short:
            asks = re.match(r"\s+(?:I|you|he|she|it|we|they|this|that|there)\b", text[found.end() :], re.IGNORECASE)
            return found[0] if said.endswith("n't") and asks else _as(found[0], short[said])
        return _as(found[0], long[said]) if _contracts(said, text[found.end() :]) else found[0]

    return _any_of((*long, *short)).sub(exchanged, text)


def dialect(text: str, _seed: int, _id: str) -> str:
    """Say it in words and forms of African American English.

    Our list of words; no copula before a verb in -ing ("she working"); negative concord ("don't want nothing").
    (Green 2002, African American English, chapters 2 and 3.)
    """
    copula = re.compile(r"(?<!\w)(he|she|we|you|they)(?: is| are|['’]s|['’]re)(?= \w+ing\b)", re.IGNORECASE)
    concord = re.compile(r"((?:n['’]t|\bnever) \w+ )any(thing|body|one|)(?!\w)")
    none = {"thing": "nothing", "body": "nobody", "one": "no one", "": "no"}
    said = copula.sub(r"\1", concord.sub(lambda found: found[1] + none[found[2]], text))
    pairs = _pairs("dialect")
    return _any_of(tuple(pairs)).sub(lambda found: _as(found[0], pairs[_plain(found[0])]), said)


def gender(text: str, _seed: int, _id: str) -> str:
    """Exchange masculine and feminine terms; a text with a pronoun of two readings is given back as it is.

    "her" is "his" before what somebody has and "him" elsewhere, told by the next word. Names stay.
    """
    if not gender_is_clear(text):
        return text
    pairs = _exchanges("gender")

    def exchanged(found: re.Match[str]) -> str:
        word = found[0].lower().replace("’", "'")
        other = _pronoun(word, text, found) if word in ("his", "her", "him", "hers") else pairs[word]
        return _as(found[0], str(other))

    return _any_of((*pairs, "his", "her", "him", "hers")).sub(exchanged, text)


def gender_is_clear(text: str) -> bool:
    """Tell whether each "her" of a text can only be his, or only him."""
    return all(_pronoun(word[0].lower(), text, word) for word in _any_of(("his", "her")).finditer(text))


def names(text: str, seed: int, id: str) -> str:
    """Exchange first names of two groups, Emily with Lakisha, within a gender; whom with whom is drawn by (seed, id).

    The exchange goes both ways and is one to one, so two people never get the same name, and twice is as before.
    """
    exchange: dict[str, str] = {}
    for _gender, ours, theirs in _name_lists():
        others = random.Random(draw(seed, f"names/{id}")).sample(theirs, len(theirs))
        exchange.update(zip(ours, others, strict=True))
        exchange.update(zip(others, ours, strict=True))
    known = re.compile(rf"(?<!\w)(?:{'|'.join(exchange)})(?!\w)|(?<!\w)(?:{'|'.join(exchange).upper()})(?!\w)")
    return known.sub(lambda found: _as(found[0], exchange[found[0].title()]), text)


PERTURBATIONS: dict[str, Perturbation] = {
    "typos": Perturbation("typos", "robustness", typos),
    "lowercase": Perturbation("lowercase", "robustness", lowercase, english=False),
    "uppercase": Perturbation("uppercase", "robustness", uppercase, english=False),
    "titlecase": Perturbation("titlecase", "robustness", titlecase, english=False),
    "spaces": Perturbation("spaces", "robustness", spaces, english=False),
    "contractions": Perturbation("contractions", "robustness", contractions),
    "dialect": Perturbation("dialect", "fairness", dialect),
    "gender": Perturbation("gender", "fairness", gender, linked=True, clear=gender_is_clear),
    "names": Perturbation("names", "fairness", names, linked=True),
}


def perturbation(name: str) -> Perturbation:
    """Look a perturbation up by name. Raises ConfigError with the nearest right one."""
    return pick(PERTURBATIONS, name, "perturbation")


def _slip(word: str, chance: random.Random) -> str:
    """Swap two letters inside the word, or hit the key beside one; the first letter stays."""
    i = chance.randrange(1, len(word) - 1)
    if chance.random() < 0.5 and word[i] != word[i + 1]:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    row = next(keys for keys in _KEYS if word[i] in keys)
    place = row.index(word[i])
    beside = [row[j] for j in (place - 1, place + 1) if 0 <= j < len(row)]
    return word[:i] + chance.choice(beside) + word[i + 1 :]


def _contracts(said: str, after: str) -> bool:
    """Tell whether a form that is written out is contracted before what follows it."""
    if said.endswith((" not", "cannot", " us")):
        return True
    if said.endswith(" have"):
        return re.match(r" (?:\w+ed|been|done|found|got|gone|had|heard|made|met|never|seen|taken)\b", after) is not None
    return re.match(r" \w", after) is not None


def _pronoun(word: str, text: str, found: re.Match[str]) -> str | None:
    """Give the pronoun of the other gender, or None where the sentence leaves two."""
    if word in ("him", "hers"):
        return {"him": "her", "hers": "his"}[word]
    after = re.match(r"\s+([^\W_]+)(?:\s+(\w+))?", text[found.end() :])
    following, second = (after[1].lower(), (after[2] or "").lower()) if after else (None, "")
    if following in ("and", "or") and second in ("his", "her", "hers", "him"):
        return None
    if word == "his":
        return "hers" if following is None or following in _cues("not_after_his") else "her"
    if following is None or following in _cues("not_a_thing"):
        return "him"
    if following in _cues("people") or following in _exchanges("gender"):
        return "his"
    before = re.search(r"(\w+)\s+$", text[: found.start()])
    unclear = (
        following in _cues("either") or following.isdigit() or (before and before[1].lower() in _cues("takes_two"))
    )
    return None if unclear else "his"


def _as(found: str, word: str) -> str:
    """Write `word` with the capitals of what it stands for."""
    letters = [letter for letter in found if letter.isalpha()]
    if len(letters) > 1 and found.upper() == found:
        return word.upper()
    return word[0].upper() + word[1:] if found[:1].isupper() else word if word[0] == "I" else word[0].lower() + word[1:]


def _plain(found: str) -> str:
    """Write a found form as the lists have it: lower case but for I, and a straight apostrophe."""
    return re.sub(r"^i(?=[' ])", "I", found.lower().replace("’", "'"))


@cache
def _any_of(forms: Sequence[str]) -> re.Pattern[str]:
    """Match whole words or phrases, the longest first; what stands beside them is looked at and not eaten."""
    longest = sorted(forms, key=len, reverse=True)
    either = "|".join(re.escape(form).replace("'", "['’]") for form in longest)
    return re.compile(rf"(?<![\w'’])(?:{either})(?!\w)", re.IGNORECASE)


@cache
def _lines(name: str) -> tuple[str, ...]:
    text = files("tunesmith").joinpath("data", "words", f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


@cache
def _pairs(name: str) -> dict[str, str]:
    """Give a list's left side with its right side."""
    cut = [line.partition("\t" if "\t" in line else " ") for line in _lines(name)]
    return {left: right for left, _, right in cut}


@cache
def _cues(name: str) -> frozenset[str]:
    """Give the words that tell one reading of a pronoun."""
    cut = [line.partition(": ") for line in _lines("pronouns")]
    return frozenset(word for cue, _, words in cut if cue == name for word in words.split())


@cache
def _exchanges(name: str) -> dict[str, str]:
    """Give each side of a list with the other; after `>` only the left with the right."""
    cut = [line.replace(" > ", "\t").split("\t") for line in _lines(name)]
    back = {right: left for (left, right), line in zip(cut, _lines(name), strict=True) if "\t" in line}
    return back | {left: right for left, right in cut}  # noqa: C416 - says what the two columns are


@cache
def _name_lists() -> tuple[tuple[str, list[str], list[str]], ...]:
    """Give (gender, names of one group, names of the other)."""
    cut = [line.split() for line in _lines("names")]
    found = {(gender, group): given for gender, group, *given in cut}
    return tuple((sex, found[sex, "white"], found[sex, "black"]) for sex in ("female", "male"))
