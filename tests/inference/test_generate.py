"""Our answers == transformers' own, row by row; neighbours and batch sizes change nothing."""

import pytest
import torch

from tunesmith.errors import ConfigError, DataError, FitError
from tunesmith.inference import decode, slots
from tunesmith.inference.generate import generate
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.slots import SLACK, Slots

PROMPTS = [(f"r{i}", tuple(range(5 + i, 5 + i + n))) for i, n in enumerate([3, 40, 7, 7, 1, 22, 90, 15])]
NEW = 24


def sharpen(net):
    """Random weights give near ties; larger ones make the best token clear and answers stop at different places."""
    torch.manual_seed(5)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape) * 0.25)


def alone(loaded, prompt):
    """One row through transformers' generate, unpadded."""
    stops = list(loaded.encoder.stops)
    ids = torch.tensor([prompt])
    out = loaded.net.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=0,
    )[0].tolist()
    answer = out[1:] if loaded.kind == "encoder-decoder" else out[len(prompt) :]
    return tuple(answer[: answer.index(stops[0])] if stops[0] in answer else answer)


@pytest.mark.parametrize("kind", ["chat", "base", "t5"])
def test_every_row_is_answered_as_if_it_were_alone(model, kind):
    loaded = model(kind)
    sharpen(loaded.net)
    made = generate(loaded, PROMPTS, NEW)
    expected = [alone(loaded, prompt) for _, prompt in PROMPTS]
    assert [answer.ids for answer in made] == expected
    assert len({answer.ids for answer in made}) > 3


def test_rows_that_stop_leave_the_batch_and_the_others_go_on(model):
    loaded = model("chat")
    sharpen(loaded.net)
    every = generate(loaded, PROMPTS, NEW)
    stop = max({token for answer in every for token in answer.ids}, key=[t for a in every for t in a.ids].count)
    object.__setattr__(loaded.encoder, "stops", (*loaded.encoder.stops, stop))
    made = generate(loaded, PROMPTS, NEW)
    assert sum(answer.finished for answer in made) > sum(answer.finished for answer in every)
    for before, after in zip(every, made, strict=True):
        cut = before.ids.index(stop) if stop in before.ids else len(before.ids)
        assert after.ids == before.ids[:cut]
        assert after.finished == (stop in before.ids or before.finished)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_leave_make_room_for_others_and_nothing_changes(model, monkeypatch, rows):
    loaded = model("chat")
    sharpen(loaded.net)
    limits = [NEW - 2 * i for i in range(len(PROMPTS))]
    expected = generate(loaded, PROMPTS, limits)
    present = watched(monkeypatch)
    monkeypatch.setattr(decode, "ROWS", rows)
    seen = []
    assert generate(loaded, PROMPTS, limits, seen.append) == expected
    assert sum(seen) == len(PROMPTS)
    assert max(present) == rows
    assert len(present) < sum(limits) / rows + max(limits)  # slots did not wait for each other


def watched(monkeypatch):
    """Note how many rows are answered at each step."""
    present = []
    step = Slots.step
    monkeypatch.setattr(Slots, "step", lambda self, *given: present.append(len(self)) or step(self, *given))
    return present


def test_the_budget_for_the_cache_cuts_what_is_answered_together(model, monkeypatch):
    loaded = model("chat")
    monkeypatch.setattr(decode, "CACHE_BYTES", 2 * (90 + NEW + SLACK) * decode._token_bytes(loaded))
    present = watched(monkeypatch)
    generate(loaded, PROMPTS, NEW)
    assert max(present) == 2


@pytest.mark.parametrize("kind", ["chat", "neox"])
@pytest.mark.parametrize("pass_tokens", [16, 2048])
def test_what_prompts_begin_with_is_read_once_and_answers_stay_the_same(model, monkeypatch, kind, pass_tokens):
    loaded = model(kind)
    sharpen(loaded.net)
    beginning = tuple(range(7, 107))
    prompts = [(name, beginning + ids) for name, ids in PROMPTS] + [("again", beginning + PROMPTS[3][1])]
    expected = [alone(loaded, ids) for _, ids in prompts]
    monkeypatch.setattr(decode, "READ_TOKENS", pass_tokens)
    monkeypatch.setattr(decode, "ROWS", 4)
    read = []
    plan = decode.read_along
    monkeypatch.setattr(decode, "read_along", lambda *given: read.append(plan(*given)) or read[-1])
    assert [answer.ids for answer in generate(loaded, prompts, NEW)] == expected
    assert sum(one.tokens for one in read) == 100 + sum(len(ids) for _, ids in PROMPTS)
    monkeypatch.setattr(decode, "SHARED", 1000)
    assert [answer.ids for answer in generate(loaded, prompts, NEW)] == expected


def test_a_long_answer_outlives_the_columns_there_is_room_for(model, monkeypatch):
    loaded = model("base")
    sharpen(loaded.net)
    monkeypatch.setattr(slots, "SLACK", 2)
    monkeypatch.setattr(decode, "SLACK", 2)
    monkeypatch.setattr(decode, "ROWS", 2)
    limits = [60, 3, 3, 60, 3, 3, 60, 3]
    made = generate(loaded, PROMPTS, limits)
    expected = [generate(loaded, [prompt], limit)[0] for prompt, limit in zip(PROMPTS, limits, strict=True)]
    assert made == expected


def test_a_prompt_without_room_for_an_answer_is_refused_by_its_id(model):
    long = ("r99", tuple([7] * 500))
    with pytest.raises(FitError, match="row r99: 500 prompt tokens and 24 new ones exceed the context of 512"):
        generate(model("chat"), [*PROMPTS, long], NEW)


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_an_answer_ends_before_its_stop_text(model, kind):
    loaded = model(kind)
    sharpen(loaded.net)
    plain = generate(loaded, PROMPTS, NEW)
    texts = [answer.text for answer in plain]
    stops = [(text[5:7],) if len(text) > 8 else () for text in texts]
    made = generate(loaded, PROMPTS, NEW, sampling=[Sampling(stop=stop) for stop in stops])
    for before, answer, stop in zip(plain, made, stops, strict=True):
        if stop:
            assert answer.text == before.text[: before.text.find(stop[0])]
            assert answer.finished
            assert len(answer.ids) < len(before.ids)
        else:
            assert answer == before
    assert sum(map(bool, stops)) > 3


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_a_drawn_answer_depends_on_its_seed_and_id_alone(model, kind):
    loaded = model(kind)
    drawn = Sampling(temperature=0.9, top_p=0.95, top_k=50, seed=3)
    together = generate(loaded, PROMPTS, NEW, sampling=drawn)
    assert [generate(loaded, [prompt], NEW, sampling=drawn)[0] for prompt in PROMPTS] == together
    assert list(reversed(generate(loaded, PROMPTS[::-1], NEW, sampling=drawn))) == together
    other = Sampling(temperature=0.9, top_p=0.95, top_k=50, seed=4)
    assert generate(loaded, PROMPTS, NEW, sampling=other) != together
    assert generate(loaded, [("x", ids) for _, ids in PROMPTS], NEW, sampling=drawn) != together


def test_several_answers_to_a_prompt_follow_each_other_and_its_tokens_are_read_once(model, monkeypatch):
    loaded = model("chat")
    one, five = (Sampling(temperature=1.0, n=n) for n in (1, 5))
    made = generate(loaded, PROMPTS[:3], NEW, sampling=five)
    assert len(made) == 15
    assert len({answer.ids for answer in made[:5]}) == 5
    assert made[::5] == generate(loaded, PROMPTS[:3], NEW, sampling=one)
    assert generate(loaded, [PROMPTS[1]], NEW, sampling=five) == made[5:10]


def test_draws_follow_the_models_probabilities(model):
    loaded = model("chat")
    sharpen(loaded.net)
    prompt = PROMPTS[2][1]
    with torch.no_grad():
        logits = loaded.net(input_ids=torch.tensor([prompt])).logits[0, -1]
    n = 4000
    for top_k, top_p in ((0, 1.0), (3, 1.0), (0, 0.6)):
        shares = torch.softmax(logits / 2.0, -1)
        order = shares.argsort(descending=True)
        kept = order[: top_k or len(order)]
        kept = kept[: int((shares[kept].cumsum(0) / shares[kept].sum() < top_p).sum()) + 1]
        wanted = torch.zeros_like(shares).index_copy(0, kept, shares[kept] / shares[kept].sum())
        asked = Sampling(temperature=2.0, top_k=top_k, top_p=top_p, n=n)
        tokens = [answer.ids[0] if answer.ids else 1 for answer in generate(loaded, [("p", prompt)], 1, sampling=asked)]
        found = torch.bincount(torch.tensor(tokens), minlength=len(wanted)) / n
        assert float((found - wanted)[order].cumsum(0).abs().max()) < 1.95 / n**0.5  # Kolmogorov-Smirnov, p = 0.001
        assert set(tokens) <= set(kept.tolist())


def test_settings_that_mean_nothing_are_refused(model):
    for wrong in ({"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"n": 0}, {"n": 2}, {"stop": ("",)}):
        with pytest.raises(ConfigError):
            Sampling(**wrong)
    with pytest.raises(DataError, match="row a: its prompt has no tokens"):
        generate(model("chat"), [("a", ())], NEW)
    with pytest.raises(DataError, match="row a: 0 new tokens are asked"):
        generate(model("chat"), [("a", (5,))], 0)
    assert generate(model("chat"), [], NEW) == []
