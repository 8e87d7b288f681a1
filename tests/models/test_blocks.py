"""The fast forward pass is used for the families it knows, and left as soon as something would be passed over."""

import pytest
import torch

from tests.laws.test_packing import SHARING, fast_loss, gradients, own_loss
from tunesmith import methods
from tunesmith.method import Lora
from tunesmith.models import blocks
from tunesmith.training import batches
from tunesmith.training.loop import make_batch


def prepared(model):
    loaded = model("chat")
    methods.prepare(loaded, Lora(rank=4), seed=1)
    return loaded, make_batch(loaded, SHARING)


def test_a_llama_goes_through_the_fast_blocks(model, monkeypatch):
    loaded, batch = prepared(model)
    assert blocks.knows(loaded.net, batch.inputs)
    passes = []
    monkeypatch.setattr(loaded.net.model.layers[0], "forward", lambda *_, **__: passes.append("own"))
    assert blocks.kept_states(loaded.net, batch.inputs, batch.keep).shape == (batch.answer_tokens, loaded.width)
    assert not passes


def test_padded_batches_and_other_families_go_through_the_model_itself(model):
    loaded, _ = prepared(model)
    assert not blocks.knows(loaded.net, batches.padded(SHARING, 0, loaded.device).inputs)
    loaded.net.config.model_type = "granite"
    assert not blocks.knows(loaded.net, make_batch(loaded, SHARING).inputs)


@pytest.mark.parametrize("where", ["model.layers.1.mlp", "model.layers.0.self_attn", "model.norm", "model"])
def test_a_hook_on_what_would_be_passed_over_is_obeyed(model, where):
    loaded, batch = prepared(model)
    called = []
    loaded.net.get_submodule(where).register_forward_hook(lambda *_: called.append(where))
    assert not blocks.knows(loaded.net, batch.inputs)
    gradients(loaded, [batch], fast_loss)
    assert called


@pytest.mark.parametrize("where", ["gate_proj", "gate_proj.base_layer"])
def test_a_hook_on_a_projection_is_obeyed(model, where):
    loaded, batch = prepared(model)
    before = fast_loss(loaded.net, batch).item()
    loaded.net.get_submodule(f"model.layers.0.mlp.{where}").register_forward_hook(lambda *parts: parts[-1] * 2)
    changed = gradients(loaded, [batch], fast_loss)[0]
    assert changed == pytest.approx(gradients(loaded, [batch], own_loss)[0], rel=1e-6)
    assert changed != pytest.approx(before, rel=1e-6)


def test_an_adapter_switched_off_is_off(model):
    loaded, batch = prepared(model)
    for name, parameter in loaded.net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    on = fast_loss(loaded.net, batch).item()
    for module in loaded.net.modules():
        if hasattr(module, "lora_A"):
            module.enable_adapters(False)
    off = fast_loss(loaded.net, batch).item()
    assert off != pytest.approx(on, rel=1e-3)
    assert off == pytest.approx(sum(fast_loss(model("chat").net, make_batch(loaded, [r])).item() for r in SHARING))


def nodes(tensor, name):
    """Count the steps of that name in the backward pass of `tensor`."""
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [before for before, _ in node.next_functions]
    return sum(node.name() == name for node in seen)


def test_layers_below_the_first_that_learns_have_no_backward_pass(model):
    loaded = model("chat")
    batch = make_batch(loaded, SHARING)
    layers = loaded.net.config.num_hidden_layers
    assert layers > 1
    loaded.net.requires_grad_(True)
    assert nodes(fast_loss(loaded.net, batch), "_AttendBackward") == layers
    loaded.net.requires_grad_(False)
    loaded.net.model.layers[-1].self_attn.q_proj.weight.requires_grad_(True)
    assert nodes(fast_loss(loaded.net, batch), "_AttendBackward") == 1
