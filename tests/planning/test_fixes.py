"""What is suggested is what was planned: the method keeps what was asked of it, and no training refuses it."""

import json
import shlex

import pytest

from tests.planning.test_plan import machine_with
from tunesmith import make_recipe, plan
from tunesmith.climb import memory
from tunesmith.errors import FitError
from tunesmith.method import Qlora
from tunesmith.models import quantize
from tunesmith.models.load import find
from tunesmith.planning.fixes import fixes
from tunesmith.planning.plan import Fix
from tunesmith.recipe import Length
from tunesmith.reporting.planned import plan_lines
from tunesmith.training import planned
from tunesmith.training.planned import shortened
from tunesmith.training.prepare import load_work, prepare_rows, training_encoder


def suggested(recipe, made, fitting):
    """Give what is suggested where only recipes fit that are `fitting`."""
    little = made.outlooks[0].model_copy(update={"available": 1})
    enough = made.outlooks[0].model_copy(update={"available": 2**60})

    def replan(changed):
        return made.model_copy(update={"outlooks": (enough if fitting(changed) else little,)})

    return fixes(recipe, made, replan)


def fix_by(method):
    return Fix(settings=(f"method.name={method}",), peak_bytes=1, slower=1.0)


def taken(recipe, fix):
    """Give the recipe with what is suggested, typed into a shell."""
    return make_recipe(recipe.model_dump(mode="json"), tuple(word for word in shlex.split(fix.line()) if word != "-s"))


@pytest.mark.parametrize(("method", "instead"), [("full", "lora"), ("full", "qlora"), ("lora", "qlora")])
def test_another_method_takes_its_own_learning_rate(recipe, method, instead):
    asked = recipe(f"method.name={method}", "train.learning_rate=2e-5")
    (fix, *_) = suggested(asked, plan(asked, machines=[machine_with(2**40)]), lambda one: one.method.name == instead)
    assert taken(asked, fix).train.learning_rate == "auto"
    asked = recipe(f"method.name={method}")
    (fix, *_) = suggested(asked, plan(asked, machines=[machine_with(2**40)]), lambda one: one.method.name == instead)
    assert fix.settings[0] == f"method.name={instead}" and "learning_rate" not in fix.line()


def test_a_lora_in_4_bits_keeps_what_was_asked_of_it(recipe):
    own = {"name": "lora", "rank": 64, "alpha": 128, "targets": ["q_proj", "v_proj"], "ranks": {"q_proj": 8}}
    asked = recipe(method=own)
    made = plan(asked, machines=[machine_with(2**40)])
    (fix, *_) = suggested(asked, made, lambda one: one.method.name == "qlora")
    assert taken(asked, fix).method == Qlora(**{**own, "name": "qlora"})
    dora = recipe(method={"name": "lora", "dora": True})
    assert not suggested(dora, made, lambda one: one.method.name == "qlora")


def test_4_bits_are_suggested_with_what_they_need(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(quantize, "BITSANDBYTES", None)
    asked = recipe("method.name=full")
    lora, packed = (plan(recipe(f"method.name={one}"), machines=[machine_with(1)]) for one in ("lora", "qlora"))
    assert "pip install 'tunesmith[quant]'" in " ".join(packed.notes) and "pip" not in " ".join(lora.notes)
    monkeypatch.setattr(planned, "fixes", lambda *_: tuple(map(fix_by, ("lora", "qlora"))))
    found = plan(asked, machines=[machine_with(1)]).fixes
    assert [one.needs for one in found] == ["", "pip install 'tunesmith[quant]'"]
    fix = found[1]
    made = lora.model_copy(update={"fixes": (fix,)})
    assert "  pip install 'tunesmith[quant]', then -s method.name=qlora" in "\n".join(plan_lines(made))
    with pytest.raises(FitError) as wrong:
        monkeypatch.setattr(memory, "this_machine", lambda _: machine_with(1))
        memory.fitting(recipe(), tmp_path, made)
    assert wrong.value.fix.startswith("pip install")
    with pytest.raises(FitError) as wrong:  # full tuning by LoRA would be another rung, which the climb has already
        memory.fitting(asked, tmp_path, made)
    assert wrong.value.fix == "use a smaller model, or a machine with more memory"


def test_shorter_rows_are_those_that_a_training_takes(recipe, tmp_path):
    """A row whose answer alone has no room is refused, and virtual tokens stay."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "long", "asked": "red " * 150, "said": "blue " * 90}))
    (tmp_path / "long.yaml").write_text(
        "name: long\nsource: {train: {file: rows.jsonl}}\nmetrics: [rouge1]\n"
        'templates: [{name: ask, prompt: "{{ asked }}", answer: "{{ said }}"}]\n'
    )
    asked = recipe("method.name=prompt_tuning", task=str(tmp_path / "long.yaml"))
    encoder = training_encoder(find(asked.model), asked)
    whole = prepare_rows(load_work(asked), asked, encoder)
    answer = len(whole.rows[0].answer)
    with pytest.raises(FitError, match="its answer alone"):
        shortened(whole, Length(max_tokens=answer, overflow="trim_prompt", budget=1.0))
    length = Length(max_tokens=answer + 40, overflow="trim_prompt", budget=1.0)
    trained = prepare_rows(load_work(asked), asked.model_copy(update={"length": length}), encoder)
    assert shortened(whole, length).epochs == trained.epochs


def test_rows_that_are_left_out_for_their_length_stay_out(recipe):
    made = plan(recipe(), machines=[machine_with(2**40)]).model_copy(update={"longest": 600})
    for overflow, expected in (("drop", "drop"), ("error", "trim_prompt")):
        asked = recipe(f"length.overflow={overflow}")
        (fix, *_) = suggested(asked, made, lambda one: one.length.max_tokens == 150)
        assert taken(asked, fix).length == Length(max_tokens=150, overflow=expected, budget=1.0)
