"""Where a continuation begins: never empty, never inside a token."""

import pytest

from tunesmith.errors import DataError
from tunesmith.models.load import find, load_encoder

TEXTS = [
    ("Which colour is the sky?", " blue"),
    ("Which colour is the sky? ", "blue"),
    ("The answer", ": C"),
    ("re", "d"),
    ("", "blue boxes"),
    ("two\n", "boxes"),
    ("a b c ", " d"),
    ("summ", "ary of it all"),
    ("#", "#"),
]


@pytest.fixture
def encoder(tiny):
    return lambda kind: load_encoder(find(str(tiny(kind))))


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
@pytest.mark.parametrize(("context", "continuation"), TEXTS)
def test_both_have_tokens_and_together_say_the_text(encoder, kind, context, continuation):
    loaded = encoder(kind)
    before, after = loaded.pair(context, continuation)
    assert before
    assert after
    said = [loaded.tokenizer.decode(list(ids), skip_special_tokens=True) for ids in (before, after)]
    assert "".join(said) == (context + continuation)
    if kind != "t5" and context:
        assert (*before, *after) in (
            loaded.whole(context + continuation),
            (loaded.begin, *loaded.whole(context + continuation)),
        )


def test_white_space_belongs_to_the_word_after_it(encoder):
    loaded = encoder("base")
    assert loaded.pair("Which colour? ", "blue") == loaded.pair("Which colour?", " blue")


def test_a_token_that_spans_the_join_is_scored_as_a_whole(encoder):
    loaded = encoder("base")
    (whole,) = loaded.whole("red")
    assert loaded.pair("re", "d") == ((loaded.begin,), (whole,))
    *first, last = loaded.whole("Which colour?")  # its last token is cut in two
    text = loaded.tokenizer.decode(first)
    rest = loaded.tokenizer.decode([last])
    before, after = loaded.pair(text + rest[:-1], rest[-1:]) if len(rest) > 1 else (tuple(first), (last,))
    assert (before, after) == (tuple(first), (last,))


def test_many_pairs_are_those_of_each(encoder):
    for kind in ("chat", "base", "t5"):
        loaded = encoder(kind)
        assert loaded.pairs(TEXTS) == [loaded.pair(*each) for each in TEXTS]


def test_a_text_that_begins_with_the_first_token_gets_no_second(encoder):
    loaded = encoder("chat")
    opening = loaded.tokenizer.decode([loaded.begin])
    before, _ = loaded.pair(f"{opening}user\nhello", " there")
    assert before.count(loaded.begin) == 1


def test_an_empty_continuation_is_refused(encoder):
    with pytest.raises(DataError, match="a continuation is empty"):
        encoder("chat").pair("Which?", "")
