"""Two adapters on one base: neither sees the other when that is off, and they come off in any order."""

import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.laws.test_methods import WAYS, logits, trained
from tunesmith.adapters import folder as adapters
from tunesmith.errors import ModelError
from tunesmith.inference.mixed import generate_mixed
from tunesmith.recipe import Recipe

TOGETHER = {
    "chat": (
        *("lora", "dora", "ia3", "loha", "norms", "layers", "bitfit"),
        *("sparse_mask", "pfeiffer", "prompt_tuning", "prefix"),
    ),
    "t5": ("lora", "norms", "pfeiffer", "prompt_tuning", "prefix"),
}
PAIRS = [(kind, x, y) for kind, ways in TOGETHER.items() for x in ways for y in ways]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where what has been saved lies, by model and method; two of each, so that one can meet its like."""
    return tmp_path_factory.mktemp("adapters"), {}


@pytest.fixture
def saved(model, folders):
    def make(kind, way, number=0):
        place, made = folders
        if (kind, way, number) not in made:
            loaded = model(kind)
            fit, _ = trained(loaded, way, 2 + number)
            recipe = Recipe(model=loaded.name, method=WAYS[way], dtype="float32")
            adapter = adapters.save(loaded, recipe, place / f"{kind}-{way}-{number}")
            made[kind, way, number] = adapter, logits(loaded, fit.virtual)
        return made[kind, way, number]

    return make


def same(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "x", "y"), PAIRS)
def test_each_is_itself_while_the_other_is_off_and_the_base_is_left(model, saved, kind, x, y):
    loaded = model(kind)
    before, names = logits(loaded), {name for name, _ in loaded.net.named_parameters()}
    (first, of_first), (second, of_second) = saved(kind, x), saved(kind, y, 1)
    one = adapters.attach(loaded, first, "one")
    one.switch(0.0)
    two = adapters.attach(loaded, second, "two")
    same(logits(loaded, two.virtual), of_second)
    two.switch(0.0)
    assert torch.equal(logits(loaded), before)
    one.switch(1.0)
    same(logits(loaded, one.virtual), of_first)
    two.switch(1.0)
    # They are both on, or stand in the same places: then the first one is off, and says so.
    if not one.strength:
        same(logits(loaded, two.virtual), of_second)
    adapters.detach(loaded, "one")
    same(logits(loaded, two.virtual), of_second)
    adapters.detach(loaded, "two")
    assert torch.equal(logits(loaded), before)
    assert {name for name, _ in loaded.net.named_parameters()} == names


@pytest.mark.parametrize(("kind", "x", "y"), PAIRS)
def test_detached_in_the_other_order_they_leave_the_base_too(model, saved, kind, x, y):
    loaded = model(kind)
    before = logits(loaded)
    (first, of_first), (second, _) = saved(kind, x), saved(kind, y, 1)
    one = adapters.attach(loaded, first, "one")
    adapters.attach(loaded, second, "two")
    was = one.strength
    adapters.detach(loaded, "two")
    assert one.strength == was
    if was:
        same(logits(loaded, one.virtual), of_first)
    else:
        assert torch.equal(logits(loaded), before)
    adapters.detach(loaded, "one")
    assert torch.equal(logits(loaded), before)


def test_with_two_of_a_kind_on_a_row_of_the_base_is_the_bases(model, saved):
    loaded = model("chat")
    (base,) = generate_mixed(loaded, [("x", (5, 6, 7))], [None], 5)
    for way in ("sparse_mask", "norms", "lora"):
        adapters.attach(loaded, saved("chat", way)[0], f"{way}-a")
        adapters.attach(loaded, saved("chat", way, 1)[0], f"{way}-b")
    strengths = {name: fit.strength for name, fit in loaded.fits.items()}
    assert set(strengths.values()) == {0.0, 1.0}
    assert generate_mixed(loaded, [("x", (5, 6, 7))], [None], 5) == [base]
    assert {name: fit.strength for name, fit in loaded.fits.items()} == strengths


def test_a_frozen_adapter_stays_frozen_when_it_is_switched(model, saved):
    loaded = model("chat")
    fit = adapters.attach(loaded, saved("chat", "lora")[0], "one")
    fit.switch(0.0)
    fit.switch(0.5)
    fit.switch(1.0)
    assert loaded.parameters(trainable=True) == 0


def test_a_mixed_batch_takes_the_whole_of_an_adapter_that_was_at_half(model, saved):
    loaded = model("chat")
    fit = adapters.attach(loaded, saved("chat", "lora")[0], "one")
    whole = generate_mixed(loaded, [("x", (5, 6, 7))], ["one"], 6)
    fit.switch(0.5)
    fit.switch(0.0)
    assert {layer.scaling["one"] for layer in fit.own().values()} == {8.0}
    assert generate_mixed(loaded, [("x", (5, 6, 7))], ["one"], 6) == whole


@pytest.mark.parametrize("name", ["", "v1.0", "keys"])
def test_a_name_that_torch_cannot_give_is_refused(model, saved, name):
    with pytest.raises(ModelError, match="cannot be called"):
        adapters.attach(model("chat"), saved("chat", "lora")[0], name)


def without_one(weights):
    weights.popitem()


def with_one_of_the_bases(weights):
    weights["base_model.model.model.norm.weight"] = torch.zeros(48)


def with_one_of_another_shape(weights):
    weights[next(iter(weights))] = torch.zeros(3)


@pytest.mark.parametrize(("way", "file", "change"), [
    ("lora", "adapter_model", without_one), ("lora", "adapter_model", with_one_of_the_bases),
    ("loha", "adapter_model", with_one_of_the_bases), ("prompt_tuning", "adapter_model", without_one),
    ("lora", "adapter_model", with_one_of_another_shape), ("pfeiffer", "weights", with_one_of_another_shape),
    ("norms", "weights", without_one), ("norms", "weights", with_one_of_another_shape),
    ("pfeiffer", "weights", without_one), ("sparse_mask", "sparse", without_one),
])  # fmt: skip
def test_an_adapter_that_is_not_whole_is_refused_and_leaves_nothing_behind(model, saved, tmp_path, way, file, change):
    loaded = model("chat")
    kept = adapters.attach(loaded, saved("chat", "lora", 1)[0], "kept")
    with_it, modules = logits(loaded), [name for name, _ in loaded.net.named_modules()]
    adapter, _ = saved("chat", way)
    place = tmp_path / "adapter"
    shutil.copytree(adapter.folder, place)
    weights = load_file(place / f"{file}.safetensors")
    with safe_open(place / f"{file}.safetensors", "pt") as opened:
        told = opened.metadata()
    change(weights)
    save_file(weights, place / f"{file}.safetensors", told)
    with pytest.raises(ModelError) as wrong:
        adapters.attach(loaded, adapter.model_copy(update={"folder": place}), "broken")
    assert wrong.value.fix
    assert list(loaded.fits) == ["kept"]
    assert kept.strength == 1.0
    assert torch.equal(logits(loaded), with_it)
    assert [name for name, _ in loaded.net.named_modules()] == modules


def test_what_cannot_be_is_refused_and_leaves_the_model_as_it_was(model, saved):
    loaded = model("chat")
    before = logits(loaded)
    fit = adapters.attach(loaded, saved("chat", "prompt_tuning")[0], "soft")
    with pytest.raises(ModelError, match="no strength of 3"):
        fit.switch(3.0)
    gone = fit.virtual
    adapters.detach(loaded, "soft")
    other = adapters.attach(loaded, saved("chat", "prompt_tuning", 1)[0], "other")
    assert logits(loaded, other.virtual).isfinite().all()
    with pytest.raises(ModelError, match="of no prompt on this model"):
        logits(loaded, (gone[0] - 90,))
    adapters.detach(loaded, "other")
    learning = model("chat")
    trained(learning, "lora", 1)
    with pytest.raises(ModelError, match="must be alone"):
        adapters.attach(learning, saved("chat", "norms")[0], "more")
    assert torch.equal(logits(loaded), before)
