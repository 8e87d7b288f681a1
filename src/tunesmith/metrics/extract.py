r"""Extraction: the answer that a generated text holds, or None if it holds none, or more than one.

Each extractor takes the text and the question's choices (empty if it has none). It never guesses: a text that names
two answers has none, unless one of them is said to be the answer. What is not found counts as wrong, and its
share is a score of its own (`unparsed`), so that a low score by extraction is never taken for one of the model.

>>> extract("letter", "A dog is faithful, so the answer is (B).")
'B'
>>> extract("letter", "A dog is faithful.") is None
True
>>> extract("number", "48 + 24 = 72 clips.\n#### 1,072")
'1072'
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from tunesmith.names import pick

Extractor = Callable[[str, Sequence[str]], str | None]

LETTERS = "ABCD"  # where a question names no choices
_SURELY = r"(?:\s+(?:clearly|therefore|thus|definitely|probably|most\s+likely|likely|indeed))?"
# "The answer to this is", "answer:", "option" before "is", and the like.
_SAYS = re.compile(
    rf"""(?ix) \banswer (?:\s+\w+){{0,3}}? \s+ (?:is|would\s+be|should\s+be|must\s+be)\b {_SURELY} \s*:?
      | \banswer \s* [:=]
      | \b(?:option|choice) \s+ is\b \s*:?
      | \bI (?:\s+would|'d|\s+will|'ll)? \s+ (?:choose|pick|select|go\s+with)\b
      | 答案 \s* (?:應該|应该)? \s* (?:是|為|为|選|选)? \s* :?
      | (?:應|应)?[選选](?:擇|择)? \s* :?
    """
)
# A letter, in brackets or not; no word goes on from it.
_LETTER = r"[\s\"'“]*(?:(?i:option|choice)\s+)?(?:[(\[](?P<held>[A-Za-z])[)\]]|(?P<bare>[A-Za-z])(?![^\W_]|['’]\w))"
# Behind a letter without brackets: the end, a stop, or what does not make an article of "A".
_PRAISE = r"is\s+(?:the\s+)?(?:correct|right|best|answer|true)"
_ENDS = rf"""(?:\s*$|\s*\n|\s*[).:,;!?、。\]}}"'’-]|\s+(?:{_PRAISE}|because|since|as|due)\b|\s*[\u3400-\u9fff])"""
_MORE = re.compile(
    r"[)\].]?\s*(?:/|&|,|、|\band\b|\bor\b|和|或|,\s*(?:and|or))\s*(?:[(\[][A-Za-z][)\]]|[A-Z](?![^\W_]))"
)
_MARKED = re.compile(r"\(([A-Za-z])\)|\[([A-Z])\]|\*\*\(?([A-Z])\)?[.:]?\*\*|\b[Oo]ption\s+([A-Z])\b|選項\s*([A-Z])")
_LATIN = r"A-Za-z\u00c0-\u024f\u0370-\u0dff"  # alphabets whose words stand between spaces
_SPACED = rf"0-9{_LATIN}"
# Not inside a word, a version (1.2.3) or a name (GPT-4), and not an exponent.
_NUMBER = re.compile(
    rf"""(?x) (?<![{_SPACED}_.^]) (?<![{_LATIN}]-)
      (?P<sign>[-+]?) \s? [$€£¥₹]? \s? (?P<minus>-?)
      (?P<digits> \d{{1,3}}(?:,\d{{3}})+(?:\.\d+)? | \d+(?:\.\d+)? | \.\d+ )
      (?P<rest> e[-+]?\d+ | \s?/\s?\d+ | \s?% )? (?!\d)
    """,
    re.IGNORECASE,
)
_FINAL = re.compile(r"####\s*(?=[-+]?\s?[$€£¥₹]?\s?-?\.?\d)")  # before the result of GSM8K's solutions
_FRACTION = re.compile(r"\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")
_RAISED = re.compile("[\u00b2\u00b3\u00b9\u2070\u2074-\u207e]+")
# "no idea" is no answer, "no, ..." and "no it is not" are.
_STANDS = r"""(?=\s*(?:$|[.,!?;:)\]}"'-])|\s*\n|\s+(?:it|they|he|she|there|this|that|the|we|you|i)\b)"""
_YES, _NO = rf"(?:\b(?:yes|yeah|yep)\b{_STANDS})", rf"(?:\b(?:no|nope)\b{_STANDS})"
_YES_FIRST = rf"(?:{_YES}|是|[對对]|\byes\b)"
_NO_FIRST = rf"(?:{_NO}|不|否)"


def extract(name: str, text: str, choices: Sequence[str] = ()) -> str | None:
    """Give the answer that the extractor of that name finds. Raises ConfigError for another name."""
    return pick(EXTRACTORS, name, "extractor")(text, choices)


def answer_is(text: str, choices: Sequence[str] = ()) -> str | None:
    """Give what follows the last "answer is" on its line, without a final dot (as BIG-Bench Hard is marked)."""
    found = list(re.finditer(r"(?i:\banswer\s+is\b)|答案(?:是|為|为)", text))
    if not found:
        return None
    line = text[found[-1].end() :].partition("\n")[0].strip().lstrip(":\uff1a").strip()
    return line.removesuffix(".").removesuffix("。").strip() or None


def letter(text: str, choices: Sequence[str] = ()) -> str | None:
    """Give the capital letter of the option that was chosen; letters are those of the choices, or A to D.

    What is boxed comes first, then the last letter that is said to be the answer, then the one that the text begins
    with, then the only one in brackets or bold.
    """
    known = _letters(choices)
    inside, plain = boxed(text), _plain(text)
    if inside is not None:
        return _among(known, [_begins_with(_plain(inside))])
    said = [found for way in _SAYS.finditer(plain) if (found := _letter_at(plain, way.end()))]
    if said:
        return _among(known, said[-1:])
    first = _begins_with(plain)
    if first:
        return _among(known, [first])
    marked = _MARKED.finditer(unicodedata.normalize("NFKC", text))
    return _among(known, [next(filter(None, found.groups())) for found in marked])


def number(text: str, choices: Sequence[str] = ()) -> str | None:
    """Give the last number, or the one after GSM8K's "####".

    Without currency, unit, separators of thousands and a fraction of zeros: "$1,200.00" is "1200". Fractions and
    percentages stay what they are: "3/4", "50%".
    """
    plain = unicodedata.normalize("NFKC", _RAISED.sub(" ", text)).replace("\N{MINUS SIGN}", "-")
    plain = _FRACTION.sub(r"\1/\2", plain.replace("\N{FRACTION SLASH}", "/").replace("\\%", "%").replace("\\$", "$"))
    final = list(_FINAL.finditer(plain))
    found = list(_NUMBER.finditer(plain, final[-1].end() if final else 0))
    if not found:
        return None
    chosen = found[0 if final else -1]
    digits = chosen["digits"].replace(",", "")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    sign = "-" if "-" in (chosen["sign"], chosen["minus"]) else ""
    return f"{sign}{digits or '0'}{(chosen['rest'] or '').replace(' ', '')}"


def choice(text: str, choices: Sequence[str] = ()) -> str | None:
    """Give the one choice whose text occurs, letter case aside; what is part of a longer one does not count.

    >>> choice("I am not sure.", ["sure", "not sure"])
    'not sure'
    """
    left, found = unicodedata.normalize("NFKC", text).casefold(), []
    for one in sorted(filter(str.strip, choices), key=len, reverse=True):
        left, times = re.subn(_whole(unicodedata.normalize("NFKC", one).casefold().strip()), "\0", left)
        found += [one] if times else []
    return found[0] if len(found) == 1 else None


def yes_no(text: str, choices: Sequence[str] = ()) -> str | None:
    """Give "yes" or "no": what is said to be the answer, else what the text begins with, else the only one it has."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("*", "")
    for part in (answer_is(plain), plain):
        first = re.match(rf"\W*(?:(?P<no>{_NO_FIRST})|(?P<yes>{_YES_FIRST}))", part or "")
        if first:
            return str(first.lastgroup)
    found = [name for name, pattern in (("yes", _YES), ("no", _NO)) if re.search(pattern, plain)]
    return found[0] if len(found) == 1 else None


def first_line(text: str, choices: Sequence[str] = ()) -> str | None:
    """Give the first line that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), None)


def boxed(text: str, choices: Sequence[str] = ()) -> str | None:
    r"""Give what stands in the last \boxed{...} that is closed, without the commands for upright text in it."""
    for start in reversed([found.end() for found in re.finditer(r"\\f?boxed\s*\{", text)]):
        depth = 1
        for place in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                return re.sub(r"\\(?:text|math)\w*\s*\{([^{}]*)\}", r"\1", text[start:place]).strip() or None
    return None


EXTRACTORS: dict[str, Extractor] = {
    "answer_is": answer_is,
    "letter": letter,
    "number": number,
    "choice": choice,
    "yes_no": yes_no,
    "first_line": first_line,
    "boxed": boxed,
}


def _plain(text: str) -> str:
    """Give the text in ordinary characters, without marks for bold, code and formulas."""
    return re.sub(r"\*\*|__|[*`$]", "", unicodedata.normalize("NFKC", text)).strip()


def _letters(choices: Sequence[str]) -> str:
    """Give the letters that may be answered: the choices themselves, or as many as there are choices."""
    if choices and all(len(one) == 1 for one in choices):
        return "".join(choices).upper()
    return "".join(chr(ord("A") + i) for i in range(len(choices))) or LETTERS


def _among(known: str, found: Iterable[str | None]) -> str | None:
    letters = {one.upper() for one in found if one}
    return letters.pop() if len(letters) == 1 and letters <= set(known) else None


def _letter_at(text: str, place: int) -> str | None:
    """Give the letter that stands at this place, alone; "?" if it is one of several that are named together."""
    found = re.compile(_LETTER).match(text, place)
    if not found or (found["bare"] and not re.compile(_ENDS).match(text, found.end())):
        return "?" if found and _MORE.match(text, found.end()) else None
    return "?" if _MORE.match(text, found.end()) else found["held"] or found["bare"]


def _begins_with(text: str) -> str | None:
    """Give the letter that a text begins with, unless it goes on with the next one, as a list of the options does."""
    found = _letter_at(text, 0)
    if not found or found == "?":
        return found
    after = chr(ord(found) + 1)
    return "?" if re.search(rf"\s[(\[]?{after}[)\].:]\s", text) else found


def _whole(words: str) -> str:
    """Match these words where no other letter is joined to them; scripts without spaces have no such place."""
    before = rf"(?<![{_SPACED}])" if re.match(rf"[{_SPACED}]", words) else ""
    after = rf"(?![{_SPACED}])" if re.match(rf"[{_SPACED}]", words[-1]) else ""
    return before + re.escape(words) + after
