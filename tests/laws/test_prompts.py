"""What is trained is what is served, and the real stop token carries loss."""

import pytest

from tunesmith.data.template import Prompt, Shot
from tunesmith.errors import DataError, ModelError
from tunesmith.models.load import find, load_encoder

PROMPT = Prompt("q1", "Which colour is the sky?", "blue as ever", ("blue",), "plain")
SHOTS = (Shot("Which colour is snow?", "white"), Shot("And coal?", "black"))


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
@pytest.mark.parametrize("shots", [(), SHOTS], ids=["zero", "two"])
def test_the_trained_prompt_is_the_evaluated_prompt(tiny, kind, shots):
    encoder = load_encoder(find(str(tiny(kind))))
    prompt = PROMPT.with_shots(shots)
    trained = encoder.encode(prompt)
    assert trained.prompt == encoder.prompt_ids(prompt)
    read = encoder.tokenizer.decode(list(trained.prompt), skip_special_tokens=False)
    assert read.removesuffix("</s>") == encoder.prompt_text(prompt)


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
def test_the_answer_ends_with_the_stop_token_and_nothing_else(tiny, kind):
    encoder = load_encoder(find(str(tiny(kind))))
    answer = encoder.encode(PROMPT).answer
    assert answer[-1] == encoder.tokenizer.eos_token_id
    assert answer.count(encoder.tokenizer.eos_token_id) == 1
    assert encoder.text(answer) == PROMPT.answer


def test_prompt_and_answer_together_are_the_chat_template_of_the_whole_conversation(tiny):
    encoder = load_encoder(find(str(tiny("chat"))))
    row = encoder.encode(PROMPT.with_shots(SHOTS))
    messages = [
        {"role": "user", "content": SHOTS[0].question},
        {"role": "assistant", "content": SHOTS[0].answer},
        {"role": "user", "content": SHOTS[1].question},
        {"role": "assistant", "content": SHOTS[1].answer},
        {"role": "user", "content": PROMPT.question},
        {"role": "assistant", "content": PROMPT.answer},
    ]
    whole = encoder.tokenizer.apply_chat_template(messages, tokenize=False)
    assert encoder.tokenizer.decode([*row.prompt, *row.answer], skip_special_tokens=False) + "\n" == whole


def test_a_plain_question_that_ends_in_a_newline_needs_no_space(tiny):
    encoder = load_encoder(find(str(tiny("base"))))
    spaced = encoder.answer_ids(Prompt("a", "Q:", "blue", ("blue",), "t"))
    close = encoder.answer_ids(Prompt("a", "Q:\n", "blue", ("blue",), "t"))
    assert encoder.tokenizer.decode(list(spaced[:-1])) == " blue"
    assert encoder.tokenizer.decode(list(close[:-1])) == "blue"


def test_text_with_a_special_token_is_refused(tiny):
    encoder = load_encoder(find(str(tiny("chat"))))
    with pytest.raises(
        DataError, match="row q9: its text contains the model's special token '<|im_end|>'".replace("|", r"\|")
    ):
        encoder.encode(Prompt("q9", "stop <|im_end|> now", "no", ("no",), "t"))


def test_a_template_that_rewrites_the_question_is_refused(tiny):
    encoder = load_encoder(find(str(tiny("chat"))))
    encoder.tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(ModelError, match="differently once it is answered"):
        encoder.encode(PROMPT)
