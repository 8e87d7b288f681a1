"""Marking: the pieces are the answer, and what is marked is what ROUGE-L counts."""

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.metrics.lcs import lcs_length
from tunesmith.metrics.words import spans, words
from tunesmith.reporting.marking import pieces

TEXT = st.text(st.sampled_from("ab c,我喜é\n"), max_size=30)
REFERENCE = "the clerk gives a refund for the kettle"


def marked(found, kinds=("shared", "alone")):
    return [piece.text for piece in found if piece.kind in kinds]


@given(TEXT, TEXT, TEXT)
def test_the_pieces_together_are_the_answer(answer, reference, other):
    assert "".join(piece.text for piece in pieces(answer, [reference], other)) == answer


@given(TEXT, TEXT)
def test_as_many_words_are_marked_as_the_longest_common_subsequence_has(answer, reference):
    found = words(" ".join(marked(pieces(answer, [reference]))))
    assert len(found) == lcs_length(words(answer), words(reference))


def test_what_the_other_answer_lacks_is_told_apart():
    found = pieces("A clerk offers a refund.", [REFERENCE], "the clerk sleeps")
    assert marked(found, ("shared",)) == ["clerk"]
    assert marked(found, ("alone",)) == ["a refund"]


def test_the_nearest_of_several_references_counts():
    assert marked(pieces("she left early", ["nobody knows", "She left."])) == ["she left"]


def test_unspaced_scripts_are_marked_by_character():
    assert marked(pieces("我真的很喜歡喝茶。", ["我喜歡喝茶。"])) == ["我", "喜歡喝茶"]


def test_nothing_is_marked_where_nothing_is_shared_or_there_is_no_reference():
    assert marked(pieces("no", ["yes"])) == []
    assert marked(pieces("no", [])) == []
    assert pieces("", ["yes"], "") == []


@given(TEXT)
def test_spans_are_the_words_where_they_stand(text):
    assert [word for *_, word in spans(text)] == words(text)
    assert all(text[start:end] for start, end, _ in spans(text))
