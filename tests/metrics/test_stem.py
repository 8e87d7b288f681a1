import re
from pathlib import Path

import pytest
from nltk.stem.porter import PorterStemmer

from tunesmith.metrics import stem

HERE = Path(__file__).parents[2]


def vocabulary():
    """English words: those of the embedded dialogues, the documents, and WordNet's irregular forms and their bases."""
    package = HERE / "src/tunesmith"
    files = [*(package / "tasks").rglob("*.jsonl"), *HERE.glob("*.md"), package / "metrics" / "irregular.txt"]
    text = " ".join(file.read_text(encoding="utf-8") for file in files)
    return sorted({word for word in re.findall(r"[a-z0-9]+", text.lower()) if len(word) > 3})


def made_up():
    """Every suffix of the rules on stems with m = 0, 1 and 2."""
    ends = [*stem._STEP_2, *stem._STEP_3, *stem._STEP_4, "ment", "ent", "sion", "tion", "fulli", "ies", "ied", "sses",
            "eed", "eeds", "ed", "ing", "y", "e", "ll", "lli", "ational", "izing", "bling", "ating", "yed"]  # fmt: skip
    return [
        start + end for start in ("tr", "tro", "trol", "yellow", "sky", "hop", "controll", "troubly") for end in ends
    ]


def test_porter_equals_nltk_on_every_word():
    theirs = PorterStemmer()
    words = [word for word in (*vocabulary(), *made_up()) if len(word) > 3]
    assert len(words) > 8000
    assert [word for word in words if stem.porter(word) != theirs.stem(word)] == []


def test_the_script_differs_from_the_original_rules_only_after_ment_and_ent():
    theirs = PorterStemmer(mode=PorterStemmer.MARTIN_EXTENSIONS)
    for word in [word for word in (*vocabulary(), *made_up()) if len(word) > 3 and word not in stem._wordnet()]:
        if stem.rouge155(word) != theirs.stem(word):
            assert re.search("ment|ent|ion", word), word


@pytest.mark.parametrize(("word", "expected"), [
    ("went", "go"), ("goes", "go"), ("children", "child"), ("gunmen", "gunmen"), ("cities", "citi"),
    ("parliament", "parliam"), ("running", "run"), ("cat", "cat"), ("naïvely", "naïvely"),
])  # fmt: skip
def test_words_as_the_script_stems_them(word, expected):
    assert stem.rouge155(word) == expected


def test_short_and_foreign_words_stay():
    assert [stem.porter(word) for word in ("was", "cafés", "as")] == ["was", "cafés", "as"]
