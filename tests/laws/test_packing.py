"""Packed == padded == one example at a time: loss, gradients, and who sees whom."""

from contextlib import nullcontext

import pytest
import torch

from tunesmith import methods
from tunesmith.data.encode import Encoded
from tunesmith.data.pack import Layout
from tunesmith.errors import ModelError
from tunesmith.method import Full, Lora
from tunesmith.models.attention import PACKED, attending, can_pack, packed_attention
from tunesmith.models.fused import cross_entropy
from tunesmith.models.head import answer_logits, loss_at
from tunesmith.training import batches
from tunesmith.training.loop import make_batch

ROWS = [
    Encoded("a", (5, 6, 7, 8, 9), (10, 11, 1)),
    Encoded("b", (12,), (13, 1)),
    Encoded("c", tuple(range(20, 60)), (61, 62, 63, 64, 1)),
    Encoded("d", (70, 71, 72), (1,)),
]
# All begin with the same two tokens; the prompt of the second ends right after them, its last token being its own.
SHARING = [
    Encoded("e", (2, 3, 4, 5, 6, 7), (8, 9, 1)),
    Encoded("f", (2, 3, 4), (13, 1)),
    Encoded("g", (2, 3, 4, 5, 6, *range(20, 60)), (61, 62, 63, 64, 1)),
    Encoded("h", (2, 3, 30, 31), (1,)),
]


def own_loss(net, batch):
    """The loss through the model's own forward pass and logits."""
    return cross_entropy(answer_logits(net, batch.inputs, batch.keep), batch.targets)[0]


def fast_loss(net, batch):
    """The loss as training takes it."""
    return loss_at(net, batch.inputs, batch.keep, batch.targets)[0]


def gradients(model, batch_list, loss_of=fast_loss):
    """Sum the loss and gradients of several batches, each in packed attention where it is packed."""
    model.net.zero_grad()
    total = 0.0
    for batch in batch_list:
        with attending(model.net, PACKED) if "layout" in batch.inputs else nullcontext():
            loss = loss_of(model.net, batch)
            loss.backward()  # where checkpoints compute attention again
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.net.named_parameters() if p.requires_grad}


def plain_batch(model, row):
    """One row by itself, in the model's own attention, no padding and no packing."""
    if model.kind == "encoder-decoder":
        return batches.encoder_decoder([row], 0, 0, model.device)
    return batches.padded([row], 0, model.device)


@pytest.mark.parametrize("method", [Full(), Lora(rank=4, alpha=8)], ids=lambda m: m.name)
@pytest.mark.parametrize("rows", [ROWS, SHARING], ids=["unlike", "sharing"])
@pytest.mark.parametrize(("kind", "loss_of"), [("chat", own_loss), ("chat", fast_loss), ("t5", fast_loss)])
def test_a_batch_gives_the_loss_and_gradients_of_its_rows_one_by_one(model, kind, loss_of, rows, method):
    loaded = model(kind)
    methods.prepare(loaded, method, seed=1)
    if method.name == "lora":  # B starts at zero, which would hide half of the gradients
        for name, p in loaded.net.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(0))
    together = gradients(loaded, [make_batch(loaded, rows)], loss_of)
    alone = gradients(loaded, [plain_batch(loaded, row) for row in rows], own_loss)
    assert together[0] == pytest.approx(alone[0], rel=1e-6)
    assert together[1].keys() == alone[1].keys()
    for name, grad in alone[1].items():
        torch.testing.assert_close(together[1][name], grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_beginning_that_all_share_is_computed_once(model):
    loaded = model("chat")
    together = batches.packed(SHARING, loaded.device)
    assert together.inputs["layout"].shared == 2
    assert together.inputs["input_ids"].shape[1] == together.tokens - 2 * (len(SHARING) - 1)
    assert together.tokens == sum(row.size for row in SHARING)
    assert batches.packed(SHARING[:1], loaded.device).inputs["layout"] == (0, (SHARING[0].size,))
    assert batches.packed(SHARING, loaded.device, share=False).inputs["layout"].shared == 0


def test_under_dropout_every_row_draws_its_own_beginning(model):
    loaded = model("chat")
    methods.prepare(loaded, Lora(rank=4, dropout=0.5), seed=1)
    loaded.net.train()
    assert make_batch(loaded, SHARING).inputs["layout"].shared == 0
    loaded.net.eval()
    assert make_batch(loaded, SHARING).inputs["layout"].shared == 2


def test_padding_a_decoder_changes_neither_loss_nor_gradients(model):
    loaded = model("chat")
    loaded.net.requires_grad_(True)
    packed = gradients(loaded, [batches.packed(ROWS, loaded.device)])
    padded = gradients(loaded, [batches.padded(ROWS, 0, loaded.device)])
    assert packed[0] == pytest.approx(padded[0], rel=1e-6)
    for name, grad in padded[1].items():
        torch.testing.assert_close(packed[1][name], grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("grad", [True, False], ids=["training", "reading"])
def test_long_documents_in_blocks_equal_the_models_own_attention(model, grad):
    loaded = model("chat")
    torch.nn.init.normal_(
        loaded.net.model.layers[0].self_attn.q_proj.weight, generator=torch.Generator().manual_seed(0)
    )
    row = Encoded("long", tuple(i % 400 + 5 for i in range(1300)), (7, 8, 1))
    with torch.set_grad_enabled(grad):
        with attending(loaded.net, PACKED):
            batch = batches.packed([ROWS[0], row, ROWS[2]], loaded.device)
            ours = answer_logits(loaded.net, batch.inputs, batch.keep)
        padded = batches.padded([ROWS[0], row, ROWS[2]], 0, loaded.device)
        own = answer_logits(loaded.net, padded.inputs, padded.keep)
        torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-5)
    if grad:
        ours_grad, own_grad = (
            torch.autograd.grad(x.square().sum(), loaded.net.model.embed_tokens.weight)[0] for x in (ours, own)
        )
        torch.testing.assert_close(ours_grad, own_grad, rtol=1e-3, atol=1e-3)


def test_no_token_sees_another_document(model):
    loaded = model("chat")

    def hidden(rows):
        batch = batches.packed(rows, loaded.device)
        with attending(loaded.net, PACKED), torch.no_grad():
            return loaded.net(**batch.inputs, use_cache=False).logits[0, : rows[0].size]

    other = Encoded("b", (99, 98, 97, 96), (95, 1))
    torch.testing.assert_close(hidden([ROWS[0], ROWS[1]]), hidden([ROWS[0], other]), rtol=0, atol=0)


def test_the_models_own_attention_is_back_after_packing(model):
    loaded = model("chat")
    before = loaded.net.config._attn_implementation
    with pytest.raises(ZeroDivisionError), attending(loaded.net, PACKED):
        assert loaded.net.config._attn_implementation == "packed"
        raise ZeroDivisionError
    assert loaded.net.config._attn_implementation == before


def test_a_sliding_window_is_not_packed(model):
    loaded = model("chat")
    assert can_pack(loaded.net)
    loaded.net.config.sliding_window = 8
    assert not can_pack(loaded.net)
    assert not can_pack(model("t5").net)


def test_packed_attention_refuses_what_it_would_have_to_ignore():
    q = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ModelError, match="softcap"):
        packed_attention(torch.nn.Identity(), q, q, q, None, layout=Layout(0, (3,)), softcap=30.0)
    with pytest.raises(ModelError, match="where documents begin"):
        packed_attention(torch.nn.Identity(), q, q, q, None)
