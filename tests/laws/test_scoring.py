"""A log-likelihood is the model's own, whatever shares its batch, its beginning or its position."""

import random

import pytest
import torch

from tests.laws.test_methods import prepared
from tunesmith.errors import DataError, FitError
from tunesmith.inference import padded, score
from tunesmith.inference.score import Continuation, loglikelihoods
from tunesmith.models.load import Model


def own(model: Model, asked: Continuation) -> list[float]:
    """The model's own forward pass over one request, nothing shared, nothing left out."""
    context, ids = torch.tensor([asked.context]), torch.tensor([asked.ids])
    with torch.no_grad():
        if model.kind == "encoder-decoder":
            logits = model.net(input_ids=context, labels=ids).logits[0]
        else:
            logits = model.net(input_ids=torch.cat([context, ids], 1)).logits[0, len(asked.context) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, ids[0, :, None])[:, 0].tolist()


def questions(n: int = 12, shots: int = 40, seed: int = 0) -> list[Continuation]:
    """Requests of a test: examples that all share, a question, then choices of one and of several tokens."""
    draw = random.Random(seed)
    beginning = tuple(draw.choices(range(5, 400), k=shots))
    asked = []
    for _ in range(n):
        question = (*beginning, *draw.choices(range(5, 400), k=draw.randint(1, 30)))
        for length in (1, 1, 1, 2, 5):
            asked.append(Continuation(question, tuple(draw.choices(range(5, 400), k=length))))
    return [*asked, Continuation(beginning[:3], beginning[3:20]), asked[0]]


def assert_equal(found, wanted, tolerance=1e-5):
    for one, other in zip(found, wanted, strict=True):
        assert one.tokens == pytest.approx(other, abs=tolerance)


@pytest.mark.parametrize("kind", ["chat", "base", "neox", "t5"])
def test_every_log_likelihood_is_the_models_own(model, kind):
    loaded, asked = model(kind), questions()
    assert_equal(loglikelihoods(loaded, asked), [own(loaded, one) for one in asked])


@pytest.mark.parametrize("kind", ["chat", "neox", "t5"])
def test_a_score_depends_neither_on_the_batch_nor_on_what_is_shared(model, kind, monkeypatch):
    loaded, asked = model(kind), questions()
    together = loglikelihoods(loaded, asked)
    alone = [loglikelihoods(loaded, [one])[0].tokens for one in asked]
    unshared = [one.tokens for one in loglikelihoods(loaded, asked, share=False)]
    monkeypatch.setattr(score, "PASS_TOKENS", 16)
    monkeypatch.setattr(padded, "BATCH_TOKENS", 100)
    small = [one.tokens for one in loglikelihoods(loaded, asked)]
    for other in (alone, unshared, small):
        assert_equal(together, other)


def test_what_all_questions_begin_with_is_computed_once(model, monkeypatch):
    loaded, asked = model("chat"), questions(shots=200)
    read = []
    monkeypatch.setattr(score, "read_along", lambda *given: read.append(score_plan(*given)) or read[-1])
    loglikelihoods(loaded, asked)
    alone = sum(len(one.context) + len(one.ids) - 1 for one in asked)
    assert read[0].tokens < alone / 10


score_plan = score.read_along


def test_the_likeliest_token_is_greedy_and_others_are_not(model):
    loaded = model("chat")
    context = (7, 8, 9, 10)
    with torch.no_grad():
        best = int(loaded.net(input_ids=torch.tensor([context])).logits[0, -1].argmax())
    found = loglikelihoods(loaded, [Continuation(context, (best,)), Continuation(context, (best + 1,))])
    assert [one.greedy for one in found] == [True, False]
    assert found[0].total > found[1].total


def test_progress_counts_every_request_once(model):
    done: list[int] = []
    loglikelihoods(model("chat"), questions(), done.append)
    assert sum(done) == len(questions())


def test_models_that_cannot_be_packed_are_read_padded(model):
    loaded, asked = model("chat"), questions()
    wanted = [own(loaded, one) for one in asked]
    loaded.net.config.attention_dropout = 0.1  # its own attention only, as sliding windows and soft caps want
    assert_equal(loglikelihoods(loaded, asked), wanted)


@pytest.mark.parametrize("kind", ["chat", "t5"])
@pytest.mark.parametrize("way", ["lora", "prompt_tuning", "p_tuning", "prefix", "ia3", "houlsby", "bitfit", "qlora"])
def test_adapters_and_soft_prompts_score_through_the_same_code(model, kind, way):
    loaded = model(kind)
    torch.manual_seed(0)
    fit = prepared(loaded, way)
    with torch.no_grad():
        for weight in loaded.net.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.1)
    loaded.net.eval()
    asked = [Continuation((*fit.virtual, *one.context), one.ids) for one in questions()]
    together = loglikelihoods(loaded, asked)
    assert_equal(together, [loglikelihoods(loaded, [one], share=False)[0].tokens for one in asked])
    if not fit.virtual:
        assert_equal(together, [own(loaded, one) for one in asked])
    fit.learns = False
    fit.switch(0.0)
    plain = [Continuation(one.context[len(fit.virtual) :], one.ids) for one in asked]
    assert any(abs(a.total - b.total) > 1e-3 for a, b in zip(together, loglikelihoods(loaded, plain), strict=True))


def test_nothing_to_score_is_refused(model):
    with pytest.raises(DataError, match="continuation has no tokens"):
        loglikelihoods(model("chat"), [Continuation((1, 2), ())])
    with pytest.raises(FitError, match="exceed the context of 512"):
        loglikelihoods(model("chat"), [Continuation((5,) * 512, (6, 7))])
    assert loglikelihoods(model("chat"), []) == []
