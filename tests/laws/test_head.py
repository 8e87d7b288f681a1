"""Projecting the vocabulary at answer tokens only == projecting it everywhere."""

import pytest
import torch

from tests.laws.test_packing import ROWS
from tunesmith.models.fused import cross_entropy
from tunesmith.models.head import answer_logits, loss_at
from tunesmith.training import batches
from tunesmith.training.loop import make_batch


def test_answer_only_head_equals_full_logits(model):
    net = model("chat").net
    batch = batches.padded(ROWS, 0, net.device)
    full = net(**batch.inputs).logits
    labels = torch.full(batch.inputs["input_ids"].shape, -100)
    for i, row in enumerate(ROWS):
        labels[i, len(row.prompt) : row.size] = torch.tensor(row.answer)
    expected = torch.nn.functional.cross_entropy(
        full[:, :-1].reshape(-1, full.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100, reduction="sum"
    )
    logits = answer_logits(net, batch.inputs, batch.keep)
    assert logits.shape == (sum(len(row.answer) for row in ROWS), full.shape[-1])
    assert cross_entropy(logits, batch.targets)[0].item() == pytest.approx(expected.item(), rel=1e-6)


def test_encoder_decoder_loss_equals_transformers_own(model):
    loaded = model("t5")
    row = ROWS[2]
    batch = batches.encoder_decoder([row], 0, 0, loaded.device)
    own = loaded.net(input_ids=torch.tensor([row.prompt]), labels=torch.tensor([row.answer])).loss
    ours = cross_entropy(answer_logits(loaded.net, batch.inputs, batch.keep), batch.targets)[0] / len(row.answer)
    assert ours.item() == pytest.approx(own.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_smoothing_is_the_mean_with_a_uniform_target(model, kind):
    loaded = model(kind)
    batch = make_batch(loaded, ROWS) if kind == "t5" else batches.padded(ROWS, 0, loaded.device)
    logits = answer_logits(loaded.net, batch.inputs, batch.keep)
    uniform = -torch.log_softmax(logits, -1).mean(-1).sum()
    expected = 0.9 * cross_entropy(logits, batch.targets)[0] + 0.1 * uniform
    smoothed, each = loss_at(loaded.net, batch.inputs, batch.keep, batch.targets, 0.1)
    assert smoothed.item() == pytest.approx(expected.item(), rel=1e-6)
    assert each.sum().item() == pytest.approx(smoothed.item(), rel=1e-6)
