"""Rows asked of different adapters, in one batch or not, are answered as each would be alone."""

import pytest
import torch

from tests.laws.test_packing import ROWS
from tunesmith import methods
from tunesmith.adapters import folder as adapters
from tunesmith.errors import ModelError
from tunesmith.inference.generate import generate
from tunesmith.inference.mixed import generate_mixed
from tunesmith.method import Further, Ia3, Lora, Norms, Prefix, PromptTuning, SparseMask
from tunesmith.recipe import Recipe

WAYS = {
    "one": Lora(rank=4),
    "two": Lora(rank=2, targets="mlp", rslora=True),
    "dora": Lora(rank=4, dora=True),
    "soft": PromptTuning(tokens=5),
    "ia3": Ia3(),
    "loha": Further(name="loha"),
    "norms": Norms(),
    "sparse": SparseMask(share=0.1, score="random"),
    "prefix": Prefix(tokens=4),
}
KINDS = ["chat", "neox", "t5"]


def moved(loaded, method, seed):
    """Put a method onto a model and move its weights at random, so that it answers otherwise."""
    fit = methods.prepare(loaded, method, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in loaded.net.parameters():
            if p.requires_grad:
                p += 0.3 * torch.randn(p.shape, generator=generator)
    return fit


@pytest.fixture
def several(model, tmp_path):
    def load(kind, ways):
        loaded = model(kind)
        for seed, way in enumerate(ways):
            fresh = model(kind)
            moved(fresh, WAYS[way], seed)
            recipe = Recipe(model=fresh.name, method=WAYS[way], dtype="float32")
            saved = adapters.save(fresh, recipe, tmp_path / way)
            methods.load(loaded, saved.method, saved.folder, way).switch(0.0)
        return loaded

    return load


def alone(loaded, prompt, name):
    """Answer one prompt with one adapter switched on."""
    fit = loaded.fits.get(name)
    if fit is None:
        return generate(loaded, [prompt], 6)[0]
    fit.switch(1.0)
    answer = generate(loaded, [(prompt[0], (*fit.virtual, *prompt[1]))], 6)[0]
    fit.switch(0.0)
    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_many_adapters_are_answered_as_each_alone(several, kind):
    loaded = several(kind, WAYS)
    names = [None, *WAYS, None, *reversed(WAYS)]
    prompts = [(f"{i}", ROWS[i % len(ROWS)].prompt) for i in range(len(names))]
    expected = [alone(loaded, prompt, name) for prompt, name in zip(prompts, names, strict=True)]
    assert generate_mixed(loaded, prompts, names, 6) == expected
    same = [alone(loaded, prompts[0], name) for name in (None, *WAYS)]
    assert len({answer.ids for answer in same}) > 4  # the adapters do change the answers


@pytest.mark.parametrize("kind", KINDS)
def test_loras_and_soft_prompts_and_the_base_share_one_batch(several, kind, monkeypatch):
    loaded = several(kind, ["one", "two", "soft"])
    passes = []
    loaded.net.register_forward_hook(lambda *_: passes.append(1))
    prompts = [(f"{i}", ROWS[i % len(ROWS)].prompt) for i in range(4)]
    generate_mixed(loaded, prompts, ["one", None, "two", "soft"], 4)
    assert len(passes) <= 5
    assert [fit.strength for fit in loaded.fits.values()] == [0.0, 0.0, 0.0]


def test_afterwards_every_adapter_is_switched_as_it_was(several):
    loaded = several("chat", ["one", "norms"])
    loaded.fits["one"].switch(0.5)
    before = generate(loaded, [("x", ROWS[0].prompt)], 6)
    generate_mixed(loaded, [("x", ROWS[0].prompt)] * 2, ["norms", None], 3)
    assert generate(loaded, [("x", ROWS[0].prompt)], 6) == before
    assert loaded.fits["one"].strength == 0.5


def test_a_name_that_is_not_loaded_is_refused_with_the_nearest(several):
    loaded = several("chat", ["soft"])
    with pytest.raises(ModelError, match="no adapter 'sotf'") as wrong:
        generate_mixed(loaded, [("x", ROWS[0].prompt)], ["sotf"], 3)
    assert "soft" in wrong.value.fix
