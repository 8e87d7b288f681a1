"""Our answers == transformers' own, row by row; neighbours and batch sizes change nothing."""

import pytest
import torch

from tunesmith.errors import FitError
from tunesmith.inference import generate as module
from tunesmith.inference.generate import generate

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
def test_the_batch_size_changes_nothing(model, monkeypatch, rows):
    loaded = model("chat")
    sharpen(loaded.net)
    expected = generate(loaded, PROMPTS, NEW)
    monkeypatch.setattr(module, "BATCH_ROWS", rows)
    seen = []
    assert generate(loaded, PROMPTS, NEW, seen.append) == expected
    assert sum(seen) == len(PROMPTS)
    assert max(seen) <= rows


def test_the_cache_budget_cuts_batches(model, monkeypatch):
    loaded = model("chat")
    monkeypatch.setattr(module, "CACHE_BYTES", 150 * module._token_bytes(loaded))
    seen = []
    generate(loaded, PROMPTS, NEW, seen.append)
    assert seen[0] == 1  # the longest prompt comes first, and fills the budget
    assert sum(seen) == len(PROMPTS)


def test_a_prompt_without_room_for_an_answer_is_refused_by_its_id(model):
    long = ("r99", tuple([7] * 500))
    with pytest.raises(FitError, match="row r99: 500 prompt tokens and 24 new ones exceed the context of 512"):
        generate(model("chat"), [*PROMPTS, long], NEW)
