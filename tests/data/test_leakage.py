import json
import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from tunesmith.data.leakage import Index, Leak, find_leaks, normalise
from tunesmith.data.task import load_task

DIALOGUES = [row.fields["dialogue"] for row in load_task("demo").rows("train")][:150]


def numbered(count, name="w"):
    return " ".join(f"{name}{i}" for i in range(count))


def test_a_copy_is_found_byte_for_byte():
    found = find_leaks(
        [("t1", "How do I get to the station?")], [("e1", "Hello."), ("e2", "How do I get to the station?")]
    )
    assert found == [Leak("t1", "e2", "exact", 1.0)]


@pytest.mark.parametrize(
    "text", ["good MORNING doctor", "Good  morning -\n_doctor_!", "Ｇood morning, doctor.", "good mor\u00adning doctor"]
)
def test_a_copy_is_found_whatever_its_case_forms_punctuation_and_spacing(text):
    assert find_leaks([("t1", text)], [("e1", "Good morning, doctor.")]) == [Leak("t1", "e1", "normalised", 1.0)]


def test_case_is_folded_and_not_only_lowered():
    assert normalise("Die Straße, ΟΔΟΣ") == normalise("DIE STRASSE οδος") == "die strasse οδοσ"


def test_a_run_of_thirteen_words_is_found_and_its_share_is_that_of_the_evaluated_words():
    others = [("e1", "Hello there."), ("e2", f"before {numbered(15)}, and four more words")]
    assert find_leaks([("t1", f"quite {numbered(15).upper()} other")], others) == [Leak("t1", "e2", "13-gram", 15 / 20)]
    assert find_leaks([("t1", f"quite {numbered(12)} other")], others) == []


def test_two_runs_count_together_and_their_overlap_once():
    apart = f"{numbered(14, 'a')} x {numbered(13, 'b')} y z"
    found = find_leaks([("t1", f"{numbered(13, 'b')} q {numbered(14, 'a')}")], [("e1", apart)])
    assert found == [Leak("t1", "e1", "13-gram", 27 / 30)]


def test_similar_texts_are_found_with_their_resemblance():
    others = [("e1", "where can I buy a ticket for the night train"), ("e2", "what is the way to the town hall")]
    rows = [
        ("t1", "Where can I buy a ticket for the night bus?"),
        ("t2", "Where can I buy a ticket for a night train?"),
    ]
    # 6 runs of five words each; 5 in common with t1, and only 3 with t2.
    assert find_leaks(rows, others) == [Leak("t1", "e1", "similar", 5 / 7)]


def test_texts_shorter_than_a_shingle_are_compared_by_their_words():
    assert find_leaks([("t1", "is love what")], [("e1", "What is love?")]) == [Leak("t1", "e1", "similar", 1.0)]
    assert find_leaks([("t1", "what is love now")], [("e1", "What is love?")]) == [Leak("t1", "e1", "similar", 3 / 4)]
    assert find_leaks([("t1", "what is life")], [("e1", "What is love?")]) == []


def test_fewer_than_three_words_are_not_similar_but_may_be_the_same():
    others = [("e1", "Thank you"), ("e2", "Yes.")]
    rows = [("t1", "you thank"), ("t2", "yes"), ("t3", "Thank you"), ("t4", "no")]
    assert find_leaks(rows, others) == [Leak("t2", "e2", "normalised", 1.0), Leak("t3", "e1", "exact", 1.0)]


@pytest.mark.parametrize("text", ["", "   ", "?!", "+ - *", "😀😀😀", "\ud800"])
def test_a_text_without_words_never_leaks(text):
    assert find_leaks([("t1", text)], [("e1", text), ("e2", "some words here")]) == []
    assert find_leaks([("t1", "some words here")], [("e1", text)]) == []


def test_nothing_leaks_into_nothing():
    assert find_leaks([("t1", numbered(20))], []) == []
    assert find_leaks([], [("e1", numbered(20))]) == []


def test_the_strongest_kind_wins_over_order_and_share():
    text = numbered(13)
    similar, gram, same, exact = f"{numbered(12)} end", f"{text} {numbered(90, 'x')}", text.upper(), text
    others = [("similar", similar), ("gram", gram), ("same", same), ("exact", exact)]
    assert find_leaks([("t1", text)], others) == [Leak("t1", "exact", "exact", 1.0)]
    assert find_leaks([("t1", text)], others[:3]) == [Leak("t1", "same", "normalised", 1.0)]
    assert find_leaks([("t1", text)], others[:2]) == [Leak("t1", "gram", "13-gram", 13 / 103)]
    assert find_leaks([("t1", text)], others[:1]) == [Leak("t1", "similar", "similar", 8 / 10)]


def test_of_one_kind_the_largest_share_wins_and_then_the_first():
    one, two = numbered(13, "a"), numbered(13, "b")
    row = [("t1", f"{one} {two}")]
    assert find_leaks(row, [("e1", f"{one} x y"), ("e2", f"x {two}")]) == [Leak("t1", "e2", "13-gram", 13 / 14)]
    assert find_leaks(row, [("e1", f"{two} x"), ("e2", f"{one} x")]) == [Leak("t1", "e1", "13-gram", 13 / 14)]
    assert find_leaks([("t1", "yes of course")], [("e1", "Yes, of course"), ("e2", "yes, of course")])[0].other == "e1"


def test_leaks_come_in_the_order_of_the_rows_at_most_one_for_each():
    others = [(f"e{i}", f"{numbered(14, f'v{i}x')} tail") for i in range(5)]
    rows = [(f"t{i}", f"{others[i][1]} {others[(i + 1) % 5][1]}") for i in (3, 0, 4, 1)]
    assert [leak.id for leak in find_leaks(rows, others)] == ["t3", "t0", "t4", "t1"]


def test_wording_that_evaluated_texts_share_is_no_leak():
    for size in (6, 12, 20):
        others = [("h1", f"{numbered(size)} two"), ("h2", f"{numbered(size)} three")]
        assert find_leaks([("a", f"{numbered(size)} one")], others) == []
        assert find_leaks([("a", numbered(size))], others) == []


def test_what_fills_a_shared_wording_is_found():
    others = [(f"e{i}", f"{numbered(20)} {numbered(9, f'v{i}x')}") for i in range(3)]
    assert find_leaks([("t1", f"{numbered(20, 'u')} {numbered(9, 'v1x')}")], others) == []
    # The runs that take in one of the 9 words are that text's own, and together cover 12 words of the wording.
    assert find_leaks([("t1", f"{numbered(20)} {numbered(8, 'v1x')}")], others) == [
        Leak("t1", "e1", "13-gram", 20 / 29)
    ]


def test_a_text_that_is_evaluated_twice_is_no_wording():
    text = numbered(30)
    others = [("dev", text), ("test", f"{text}!")]
    assert find_leaks([("t1", f"{text} and more")], others) == [Leak("t1", "dev", "13-gram", 1.0)]


def test_near_copies_among_many_evaluated_texts_do_not_hide_each_other():
    rest = [(f"r{i}", numbered(20, f"r{i}x")) for i in range(400)]
    copies = [(f"e{i}", f"{numbered(40)} end{i}") for i in range(3)]
    assert find_leaks([("t1", f"{numbered(40)} last")], rest + copies) == [Leak("t1", "e0", "similar", 36 / 38)]


def test_where_punctuation_tells_texts_apart_their_words_do_not():
    frame = "Complete the rest of the sequence, making sure that the parentheses are closed properly. Input:"
    others = [(f"e{i}", f"{frame} {'([{'[i % 3] * (i + 1)}") for i in range(12)]
    assert find_leaks([("t1", f"{frame} {{(["), ("t2", f"{frame} ((((")], others) == [Leak("t2", "e3", "exact", 1.0)]


def test_chinese_texts_are_compared_by_character():
    text = "今天下午三點我們在車站門口見面，別忘了帶雨傘。"
    others = [("e1", "你好，很高興認識你。"), ("e2", text)]
    rows = [
        ("t1", "今天下午三點，我們在車站門口見面；別忘了帶雨傘！"),
        ("t2", "他說今天下午三點我們在車站門口見面，可是沒有來。"),
        ("t3", "啊，你好，很高興認識你。"),
        ("t4", "你好，很高興認識她。"),
        ("t5", "明天早上我要去市場買菜。"),
    ]
    assert find_leaks(rows, others) == [
        Leak("t1", "e2", "normalised", 1.0),
        Leak("t2", "e2", "13-gram", 15 / 21),
        Leak("t3", "e1", "similar", 4 / 5),
    ]


def test_an_index_may_be_asked_again():
    others = [("e1", numbered(20)), ("e2", "where can I buy a ticket for the night train")]
    first, second = [("t1", f"so {numbered(14)}")], [("t2", "where can I buy a ticket for the night bus")]
    index = Index(others)
    answers = [index.leaks(rows) for rows in (first, second, first)]
    assert answers == [find_leaks(first, others), find_leaks(second, others), find_leaks(first, others)]
    assert all(answers)


def changed(text, rate, seed):
    """Put a new word in the place of about `rate` of the words."""
    draw = random.Random(f"{seed}/{rate}/{text}")
    cut = normalise(text).split()
    return " ".join(f"new{draw.randrange(10**9)}" if draw.random() < rate else word for word in cut)


def changed_dialogues():
    """Give rows made from evaluated dialogues, each of which has a twin that takes its runs of 13 words from it."""
    others = [(f"e{i}", text) for i, text in enumerate(DIALOGUES)]
    twins = [(f"twin{i}", f"{text} twin{i}") for i, text in enumerate(DIALOGUES)]
    rates = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05)
    rows = [(f"{name}/{rate}", changed(text, rate, 1)) for name, text in others for rate in rates]
    return rows, others + twins


def five_words(text):
    cut = normalise(text).split()
    return {tuple(cut[i : i + 5]) for i in range(len(cut) - 4)}


def by_brute_force(rows, others):
    """Give the largest resemblance of each row to any of the others, by sets of tuples."""
    sets = [five_words(text) for _, text in others]
    count = Counter(shingle for shingles in sets for shingle in shingles)
    wording = {shingle for shingle, number in count.items() if number > len(others) / 100}
    best = {}
    for name, text in rows:
        own = five_words(text) - wording
        rest = [(other, shingles - wording) for (other, _), shingles in zip(others, sets, strict=True)]
        other, shingles = max(rest, key=lambda pair: len(own & pair[1]) / len(own | pair[1]))
        best[name] = (other, len(own & shingles) / len(own | shingles))
    return best


def test_similar_texts_are_those_that_comparing_every_pair_finds():
    rows, others = changed_dialogues()
    best = by_brute_force(rows, others)
    found = {leak.id: leak for leak in find_leaks(rows, others) if leak.kind == "similar"}
    # Rows in which no word was changed are copies.
    wanted = {name: pair for name, pair in best.items() if pair[1] < 1}
    close, alike = ({name for name, (_, share) in wanted.items() if share >= least} for least in (0.8, 0.7))
    assert len(close) > 200 and len(alike) > len(close) + 100 and len(wanted) > len(alike) + 100
    assert close <= set(found) <= alike
    assert len(found) >= 0.99 * len(alike)
    assert {name: (leak.other, leak.share) for name, leak in found.items()} == {name: best[name] for name in found}


def test_leaks_depend_on_no_order():
    rows, others = changed_dialogues()
    found = set(find_leaks(rows[:300], others))
    assert set(find_leaks(rows[299::-1], others[::-1])) == found
    index = Index(others)
    assert {leak for row in rows[:300] for leak in index.leaks([row])} == found


def test_leaks_are_the_same_in_another_process():
    rows, others = changed_dialogues()
    code = (
        "import json, sys; from dataclasses import astuple; from tunesmith.data.leakage import find_leaks\n"
        "print(json.dumps([astuple(leak) for leak in find_leaks(*json.load(sys.stdin))]))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps([rows[:200], others]),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert [Leak(*fields) for fields in json.loads(said.pop())] == find_leaks(rows[:200], others)
