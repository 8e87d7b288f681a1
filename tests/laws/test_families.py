"""Every family's own arithmetic is kept: caps, scales, windows, norms, biases, tied heads; packed where proven."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GraniteConfig,
    MistralConfig,
    OlmoConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from tests.laws.test_packing import ROWS, SHARING, fast_loss, gradients, own_loss
from tunesmith.data.pack import pack_padded
from tunesmith.models import head
from tunesmith.models.attention import can_pack
from tunesmith.models.fused import cross_entropy
from tunesmith.models.head import answer_logits
from tunesmith.models.load import Model
from tunesmith.training import batches
from tunesmith.training.loop import make_batch

SIZES = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
WINDOW = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES = {
    "qwen2, biases, tied head": (Qwen2Config(**SIZES, tie_word_embeddings=True), True),
    "qwen3, norms on queries and keys": (Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True), True),
    "granite, scaled residuals, scores and logits": (
        GraniteConfig(**SIZES, logits_scaling=4.0, attention_multiplier=0.3, residual_multiplier=0.5,
                      embedding_multiplier=3.0), True),
    "cohere, scaled logits, parallel blocks": (CohereConfig(**SIZES, logit_scale=0.25), True),
    "olmo, clipped": (OlmoConfig(**SIZES, clip_qkv=0.5), True),
    "phi3, fused projections": (Phi3Config(**SIZES), True),
    "mistral, no window": (MistralConfig(**SIZES, sliding_window=None), True),
    "mistral, window": (MistralConfig(**SIZES, sliding_window=8), False),
    "gemma2, soft caps and windows": (
        Gemma2Config(**SIZES, head_dim=8, **WINDOW, attn_logit_softcapping=2.0, final_logit_softcapping=3.0), False),
    "gemma3, windows": (Gemma3TextConfig(**SIZES, head_dim=8, **WINDOW), False),
    "gpt2, learned positions": (
        GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=4, n_positions=256, pad_token_id=0, eos_token_id=1,
                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), True),
}  # fmt: skip


@pytest.fixture(params=FAMILIES, ids=lambda name: name)
def family(request, model):
    """A small model of a family, with random weights large enough for its quirks to count."""
    config, packs = FAMILIES[request.param]
    torch.manual_seed(0)
    net = AutoModelForCausalLM.from_config(config)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    other = model("base")
    return Model("family", net.eval(), other.encoder, other.kind, other.sha256, other.dtype), packs


@pytest.mark.parametrize("rows", [ROWS, SHARING], ids=["unlike", "sharing"])
@pytest.mark.parametrize("loss_of", [own_loss, fast_loss])
def test_the_loss_and_gradients_are_those_of_the_model_itself_one_row_at_a_time(family, loss_of, rows):
    loaded, packs = family
    assert can_pack(loaded.net) == packs
    together = gradients(loaded, [make_batch(loaded, rows)], loss_of)
    loaded.net.zero_grad()
    total = 0.0
    for row in rows:  # the model's own loss, attention and labels
        ids = torch.tensor([[*row.prompt, *row.answer]])
        labels = torch.tensor([[-100] * len(row.prompt) + list(row.answer)])
        loss = loaded.net(input_ids=ids, labels=labels, use_cache=False).loss * len(row.answer)
        loss.backward()
        total += loss.item()
    assert together[0] == pytest.approx(total, rel=1e-6)
    for name, parameter in loaded.net.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(together[1][name] / scale, expected / scale, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_projection_in_pieces_gives_the_same_loss_and_gradients(family, monkeypatch, smoothing):
    loaded, _ = family
    batch = batches.padded([ROWS[0], ROWS[2], ROWS[3]], 0, loaded.device)
    logits = answer_logits(loaded.net, batch.inputs, batch.keep)
    whole, expected_each = cross_entropy(logits, batch.targets, smoothing)
    expected = torch.autograd.grad(whole, list(loaded.net.parameters()), allow_unused=True)
    monkeypatch.setattr(head, "PIECE", 4)
    pieces, each = head.loss_at(loaded.net, batch.inputs, batch.keep, batch.targets, smoothing)
    assert head._PROVEN[loaded.net]
    assert pieces.item() == pytest.approx(whole.item(), rel=1e-6)
    torch.testing.assert_close(each, expected_each)
    for ours, own in zip(
        torch.autograd.grad(pieces, list(loaded.net.parameters()), allow_unused=True), expected, strict=True
    ):
        if own is not None:
            scale = max(1.0, own.abs().max().item())
            torch.testing.assert_close(ours / scale, own / scale, rtol=1e-5, atol=1e-5)


def test_a_head_that_cannot_be_proven_is_left_to_the_model(model, monkeypatch):
    loaded = model("chat")
    batch = batches.padded(ROWS, 0, loaded.device)
    whole, _ = cross_entropy(answer_logits(loaded.net, batch.inputs, batch.keep), batch.targets)
    monkeypatch.setattr(head, "PIECE", 2)
    loaded.net.config.logit_scale = 3.0  # which a Llama does not read
    pieces, _ = head.loss_at(loaded.net, batch.inputs, batch.keep, batch.targets)
    assert not head._PROVEN[loaded.net]
    assert pieces.item() == whole.item()


def test_the_quirks_are_large_enough_to_be_seen():
    """The rows outgrow the windows, and caps and scales move the loss: else the law above would prove nothing."""
    assert max(row.size for row in ROWS) > 2 * WINDOW["sliding_window"]
    torch.manual_seed(0)
    config, _ = FAMILIES["gemma2, soft caps and windows"]
    net = AutoModelForCausalLM.from_config(config).eval()
    batch = batches.padded(ROWS, 0, net.device)
    torch.nn.init.normal_(net.model.embed_tokens.weight, std=0.5)
    with torch.no_grad():
        capped, _ = cross_entropy(answer_logits(net, batch.inputs, batch.keep), batch.targets)
        net.config.final_logit_softcapping = None
        plain, _ = cross_entropy(answer_logits(net, batch.inputs, batch.keep), batch.targets)
    assert abs(capped - plain) > 0.1


def test_batches_of_models_that_cannot_pack_are_padded_within_the_budget():
    made = pack_padded([*ROWS] * 5, 128, seed=0)
    assert sorted(row.id for batch in made for row in batch) == sorted(row.id for row in [*ROWS] * 5)
    for batch in made:
        longest = max(len(row.prompt) for row in batch) + max(len(row.answer) for row in batch)
        assert len(batch) * longest <= 128
