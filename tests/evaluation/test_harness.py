"""Our engine answers lm-eval's requests as lm-eval's own model does, in fp32, to 1e-4 per token."""

import math
from dataclasses import replace

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tests.conftest import WORDS
from tunesmith.errors import ConfigError, FitError
from tunesmith.evaluation.harness import Harness
from tunesmith.inference.sampling import Sampling

PAIRS = [
    ("Which colour has the box?\nAnswer:", " red"),
    ("Which colour has the box?\nAnswer:", " green and blue"),
    ("Which colour has the box? ", "black"),
    ("", "A box is red."),
    ("1 boxes: red. 2 boxes: green. 3 boxes:", " blue\n\n"),
]
TEXTS = ["A red box.", " ".join(f"{i} {WORDS[i % 8]} boxes." for i in range(260))]


def requests(kind, arguments):
    return [Instance(kind, {}, args, 0, ("made", i, 1)) for i, args in enumerate(arguments)]


def theirs(model, **options):
    backend = "causal" if model.kind == "decoder" else "seq2seq"
    return HFLM(pretrained=model.net, tokenizer=model.encoder.tokenizer, backend=backend, batch_size=1, **options)


def close(ours, wanted, tokens):
    return all(math.isclose(a, b, abs_tol=1e-4 * n) for a, b, n in zip(ours, wanted, tokens, strict=True))


@pytest.mark.parametrize("kind", ["chat", "base", "t5", "neox"])
def test_likelihoods_are_those_of_lm_evals_own_model(model, kind):
    ours = model(kind)
    asked = requests("loglikelihood", PAIRS)
    found, wanted = Harness(ours).loglikelihood(asked), theirs(ours).loglikelihood(asked)
    assert close([one for one, _ in found], [one for one, _ in wanted], [20] * len(PAIRS))
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
def test_whole_texts_are_read_in_the_same_windows(model, kind):
    ours = model(kind)
    asked = requests("loglikelihood_rolling", [(text,) for text in TEXTS])
    found, wanted = Harness(ours).loglikelihood_rolling(asked), theirs(ours).loglikelihood_rolling(asked)
    sizes = [len(ours.encoder.whole(text)) for text in TEXTS]
    assert sizes[1] > 2 * 512
    assert close(found, wanted, sizes)


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
def test_greedy_answers_are_the_same_text(model, kind):
    ours = model(kind)
    until = {"until": ["\n\n", "e"], "max_gen_toks": 12, "do_sample": False}
    asked = [(context or "A", until) for context, _ in PAIRS] + [(PAIRS[0][0], {"until": [], "max_gen_toks": 5})]
    ours_said = Harness(ours).generate_until(requests("generate_until", asked))
    theirs_said = theirs(ours).generate_until(requests("generate_until", asked))
    if kind == "t5":  # lm-eval adds the length of the encoder's text to the limit of what the decoder writes
        theirs_said = [text[: len(said)] for text, said in zip(theirs_said, ours_said, strict=True)]
    assert ours_said == theirs_said
    assert len(set(ours_said)) > 1


def test_a_context_too_long_is_cut_from_the_left_and_counted(model):
    ours = model("base")
    long = " ".join(TEXTS[1] for _ in range(2))
    asked = requests("loglikelihood", [(long, " red"), ("short", " red")])
    harness = Harness(ours)
    found, wanted = harness.loglikelihood(asked), theirs(ours).loglikelihood(asked)
    assert close([one for one, _ in found], [one for one, _ in wanted], [4, 4])
    assert (harness.counts.cut["made"], harness.counts.requests["made"]) == (1, 2)
    options = {"until": [], "max_gen_toks": 8}
    written = requests("generate_until", [(long, options)])
    assert harness.generate_until(written) == theirs(ours).generate_until(written)
    with pytest.raises(FitError, match="leaves no room"):
        harness.generate_until(requests("generate_until", [("short", {"max_gen_toks": 512})]))


def test_virtual_tokens_come_first_and_are_never_cut(model):
    ours = model("base")
    virtual = replace(ours, encoder=replace(ours.encoder, virtual=(-1, -2)))
    harness = Harness(virtual)
    request = requests("loglikelihood", [(TEXTS[1], " red")])[0]
    pair = harness._fits(request, *virtual.encoder.pair(*request.args))
    assert pair.context[:2] == (-1, -2)
    assert len(pair.context) + len(pair.ids) - 1 == 512
    assert harness.counts.cut["made"] == 1


def test_a_token_that_spans_the_join_is_counted_and_scored(model):
    ours = model("base")
    harness = Harness(ours)
    tokenizer = ours.encoder.tokenizer
    word = next(word for word in WORDS if len(tokenizer(word).input_ids) < len(word))
    cuts = [(word[:i], word[i:]) for i in range(1, len(word))]
    spanned = [cut for cut in cuts if len(tokenizer(word).input_ids) <= len(tokenizer(cut[0]).input_ids)]
    (total, _), *_ = harness.loglikelihood(requests("loglikelihood", spanned))
    assert total < 0
    assert harness.counts.moved["made"] == len(spanned)


def test_a_draw_depends_on_the_seed_and_the_request_alone(model):
    ours = model("base")
    options = {"until": ["."], "max_gen_toks": 8, "do_sample": True, "temperature": 0.7, "top_p": 0.9}
    both = requests("generate_until", [("red", options), ("blue", options)])
    first = Harness(ours, seed=3).generate_until(both)
    assert Harness(ours, seed=3).generate_until(both[1:]) == first[1:]
    assert Harness(ours, seed=3)._sampling(both[0]) == (8, Sampling(0.7, 0.9, 0, 3, (".",)))
    greedy = requests("generate_until", [("red", {"until": "x", "temperature": 0.7, "do_sample": False})])
    assert Harness(ours)._sampling(greedy[0]) == (256, Sampling(stop=("x",)))


def test_what_the_engine_cannot_do_is_refused(model):
    with pytest.raises(ConfigError, match="num_beams"):
        Harness(model("base")).generate_until(requests("generate_until", [("red", {"num_beams": 4})]))
    with pytest.raises(ConfigError, match="no chat template"):
        Harness(model("base")).apply_chat_template([{"role": "user", "content": "red"}])


def test_chat_templates_are_rendered_as_lm_eval_does(model):
    ours = model("chat")
    talk = [{"role": "system", "content": "Say."}, {"role": "user", "content": "red"}]
    assert Harness(ours).apply_chat_template(talk) == theirs(ours).apply_chat_template(talk)
    begun = [*talk, {"role": "assistant", "content": "It"}]
    rendered = Harness(ours).apply_chat_template(begun, add_generation_prompt=False)
    assert rendered == theirs(ours).apply_chat_template(begun, add_generation_prompt=False)
    refuses = "{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    ours.encoder.tokenizer.chat_template = "{% for m in messages %}" + refuses + "{{ m.content }}{% endfor %}"
    assert Harness(ours).apply_chat_template(talk) == "Say.\n\nred"
