"""Training end to end, on real small models that must learn."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from tunesmith.adapters import folder as adapters
from tunesmith.errors import ConfigError, DataError, FitError, RunError
from tunesmith.evaluation.evaluate import Question, evaluate
from tunesmith.models.load import find, load, load_encoder
from tunesmith.recipe import make_recipe
from tunesmith.reporting.compare import compare
from tunesmith.training.loop import Past, lay_out, mean_loss, steps
from tunesmith.training.optimizer import MasterAdamW, learning_rate_at
from tunesmith.training.prepare import prepare_rows
from tunesmith.training.preview import preview
from tunesmith.training.train import train


def recipe_for(folder, *settings, **values):
    base = {"model": str(folder), "dtype": "float32", "length": {"max_tokens": 256}, **values}
    return make_recipe(base, ("train.batch_tokens=512", *settings))


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_a_small_model_learns_the_task_from_scratch(tiny, colours, tmp_path, kind):
    question = Question(colours, template="say")
    before = evaluate(str(tiny(kind)), question, tmp_path / "before")
    recipe = recipe_for(tiny(kind), "method=full", "train.epochs=60", "train.learning_rate=5e-3", "template=say")
    run = train(recipe, tmp_path / "run", colours)
    after = evaluate(str(tmp_path / "run"), question, tmp_path / "after")
    assert before.scores()[0].value < 0.2
    assert after.scores()[0].value > 0.7
    facts = run.summary()
    assert facts.final_loss < 0.5
    assert facts.first_loss > 4.0
    assert facts.validation_loss < facts.first_validation_loss
    found = compare(before, after)[0]
    assert (found.verdict(), found.n) == ("better", 24)
    assert run.done
    assert all(answer.finished for answer in after.answers("colours"))


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_lora_moves_only_its_own_weights(tiny, colours, tmp_path, kind):
    run = train(recipe_for(tiny(kind), "method.rank=4", "limit.train=24"), tmp_path / "run", colours)
    facts = run.summary()
    trained = adapters.load_trained(adapters.read(tmp_path / "run"))
    place = find(str(tiny(kind)))
    base = load(place, load_encoder(place), "float32")
    lora = {name for name, _ in trained.net.named_parameters() if "lora_" in name}
    assert facts.trainable_parameters == sum(p.numel() for name, p in trained.net.named_parameters() if name in lora)
    assert facts.total_parameters == base.parameters() + facts.trainable_parameters
    kept = {name.replace(".base_layer", ""): p for name, p in trained.net.named_parameters() if name not in lora}
    for name, p in base.net.named_parameters():
        assert torch.equal(kept[name], p), name
    moved = [p for name, p in trained.net.named_parameters() if "lora_B" in name]
    assert all(bool((p != 0).any()) for p in moved)


def test_the_run_folder_holds_the_facts(tiny, colours, tmp_path):
    run = train(
        recipe_for(tiny("chat"), "train.epochs=2", "train.accumulate=2"), tmp_path / "run", colours, ["tunesmith", "x"]
    )
    facts, log = run.summary(), run.steps()
    assert [step.step for step in log] == list(range(1, facts.steps + 1))
    assert facts.tokens == log[-1].tokens == 2 * run.ledger().tokens
    assert facts.answer_tokens == 2 * run.ledger().answer_tokens
    assert [step.step for step in log if step.validation_loss is not None] == [facts.steps // 2, facts.steps]
    assert facts.artifact_bytes > 0 < facts.peak_memory_bytes
    told = run.provenance()
    assert told["data"]["train"]["rows"] == 96
    assert told["dtype"] == "float32"
    assert told["model"]["kind"] == "decoder"
    asked = run.asked()
    assert asked["verb"] == "train"
    assert asked["train"]["learning_rate"] == make_recipe({}).method.usual_rate(48)
    assert asked["length"]["overflow"] == "error"


def test_the_same_recipe_gives_the_same_weights(tiny, colours, tmp_path):
    recipe = recipe_for(tiny("chat"), "method.dropout=0.3", "limit.train=32")
    runs = [train(recipe, tmp_path / name, colours) for name in ("one", "two")]
    losses = [[step.loss for step in run.steps()] for run in runs]
    assert losses[0] == losses[1]
    weights = [(run.folder / "checkpoints/adapter/adapter_model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]


def test_validation_changes_nothing_that_is_learned(tiny, colours, tmp_path):
    recipe = recipe_for(tiny("chat"), "method.dropout=0.3", "limit.train=32", "train.epochs=2")
    blind = colours.model_copy(update={"source": colours.source.model_copy(update={"validation": None})})
    with_it, without = train(recipe, tmp_path / "a", colours), train(recipe, tmp_path / "b", blind)
    assert [step.loss for step in with_it.steps()] == [step.loss for step in without.steps()]
    assert without.summary().validation_loss is None


def test_every_row_meets_exactly_one_step_of_an_epoch(tiny, colours, model):
    loaded = model("chat")
    recipe = recipe_for(tiny("chat"))
    prepared = prepare_rows(colours, recipe, loaded.encoder)
    assert prepared.ledger.kept == 96
    plan = lay_out(loaded, prepared.epochs, recipe)
    assert sorted(row.id for epoch in plan.epochs for group in epoch for batch in group for row in batch) == sorted(
        row.id for row in prepared.rows
    )


def test_saves_on_the_way_change_nothing_that_is_learned(tiny, colours, tmp_path):
    recipes = [recipe_for(tiny("chat"), "limit.train=32", f"train.checkpoint_every={n}") for n in (0, 1)]
    runs = [train(recipe, tmp_path / str(i), colours) for i, recipe in enumerate(recipes)]
    weights = [(run.folder / "checkpoints/adapter/adapter_model.safetensors").read_bytes() for run in runs]
    assert runs[0].summary().steps > 1
    assert weights[0] == weights[1]
    assert [path.name for path in (runs[1].folder / "checkpoints").iterdir()] == ["adapter"]


def test_a_loss_that_is_no_number_stops_the_run(tiny, colours, model):
    loaded = model("chat")
    loaded.net.requires_grad_(True)
    with torch.no_grad():
        loaded.net.model.norm.weight.fill_(float("nan"))
    recipe = recipe_for(tiny("chat"), "method=full", "train.bad_steps=1").resolved(loaded.width)
    plan = lay_out(loaded, prepare_rows(colours, recipe, loaded.encoder).epochs, recipe)
    optimizer = MasterAdamW(loaded.net.named_parameters(), recipe.train)
    before = {name: tensor.clone() for name, tensor in optimizer.state().items()}
    events = []
    with pytest.raises(RunError, match="step 2: the loss is nan.*2 steps could not be taken"):
        events.extend(steps(loaded, optimizer, plan, [], recipe, Past()))
    assert all(torch.equal(tensor, optimizer.state()[name]) or tensor.isnan().any() for name, tensor in before.items())


def test_refusals_come_before_anything_is_written(tiny, colours, tmp_path):
    refused = [
        (recipe_for(tiny("chat"), "length.max_tokens=20"), FitError),
        (recipe_for(tiny("chat"), "length.max_tokens=4096"), FitError),
        (recipe_for(tiny("chat"), "template=aks"), ConfigError),
        (recipe_for(tiny("base"), "prompting=chat"), Exception),
    ]
    for recipe, error in refused:
        with pytest.raises(error):
            train(recipe, tmp_path / "run", colours)
        assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="has no train split"):
        train(recipe_for(tiny("chat")), tmp_path / "run", colours.model_copy(update={"source": type(colours.source)()}))


def test_bf16_weights_are_moved_by_updates_too_small_for_bf16():
    recipe = make_recipe({"train": {"learning_rate": 1e-4}})
    weight = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.bfloat16))
    optimizer = MasterAdamW([("weight", weight)], recipe.train)
    for _ in range(100):
        optimizer.collect([torch.ones_like(weight)])
        optimizer.step(1e-4, 100.0, optimizer.norm())
    assert weight[0, 0].item() == pytest.approx(0.99, abs=0.004)


def test_the_learning_rate_warms_up_and_comes_down():
    def rates(schedule):
        settings = make_recipe({"train": {"schedule": schedule, "warmup": 0.2, "learning_rate": 1.0}}).train
        return [learning_rate_at(step, 10, settings) for step in range(1, 11)]

    assert rates("constant") == [0.5, *[1.0] * 9]
    assert rates("linear") == pytest.approx([0.5, 1.0, *(1 - i / 8 for i in range(8))])
    assert rates("cosine")[1:3] == pytest.approx([1.0, 1.0])
    assert all(0 < rate <= 1 for rate in rates("cosine"))
    with pytest.raises(ConfigError, match="still 'auto'"):
        learning_rate_at(1, 10, make_recipe({}).train)


def test_a_preview_shows_what_would_be_trained(tiny, colours):
    shown = preview(recipe_for(tiny("chat"), "template=say"), n=2, task=colours)
    assert len(shown.rows) == 2
    assert shown.rows[0].prompt.endswith("<|im_start|>assistant\n")
    assert shown.rows[0].answer.endswith("<|im_end|>")
    assert shown.ledger.kept == len(shown.lengths) == 96
    assert "median" in shown.length_line()


def test_leaks_between_splits_are_in_the_ledger(tiny, colours, tmp_path, model):
    rows = [json.loads(line) for line in colours.source.test.file.read_text().splitlines()]
    train_file = colours.source.train.file
    train_file.write_text(
        train_file.read_text() + json.dumps({**rows[0], "id": "leak", "thing": "a very own thing"}) + "\n"
    )
    test_file = colours.source.test.file
    test_file.write_text(
        test_file.read_text() + json.dumps({**rows[0], "id": "held", "thing": "A VERY own  thing"}) + "\n"
    )
    prepared = prepare_rows(colours, recipe_for(tiny("chat")), model("chat").encoder)
    assert "leak" in prepared.ledger.leaked


def test_ctrl_c_keeps_what_was_learned(tiny, colours_file, tmp_path):
    recipe = recipe_for(tiny("chat"), "train.epochs=5000", "limit.validation=1", task=str(colours_file))
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "tunesmith", "train", str(path), str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    log = tmp_path / "run" / "steps.jsonl"
    for _ in range(600):
        if log.exists() and log.read_text().count("\n") >= 3:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "stopped at step" in errors
    run_folder = tmp_path / "run"
    assert not (run_folder / "DONE").exists()
    assert json.loads((run_folder / "summary.json").read_text())["stopped_early"]
    trained = adapters.load_trained(adapters.read(run_folder))
    rows = prepare_rows(recipe_task(colours_file), recipe, trained.encoder).validation
    assert mean_loss(trained, rows, recipe) > 0


def recipe_task(path):
    from tunesmith.data.task import read_task

    return read_task(path)


def test_a_model_whose_logits_are_not_ours_is_trained_through_its_own_forward_pass_aloud(
    tiny, colours, tmp_path, capsys
):
    odd = tmp_path / "odd"
    shutil.copytree(tiny("chat"), odd)
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps({**config, "logit_scale": 3.0}))  # which a Llama does not read
    run = train(recipe_for(odd, "limit.train=24"), tmp_path / "odd-run", colours)
    assert run.summary().own_forward
    assert "training goes on through the model's own" in capsys.readouterr().err
    plain = train(recipe_for(tiny("chat"), "limit.train=24"), tmp_path / "run", colours)
    assert not plain.summary().own_forward
    assert [s.loss for s in run.steps()] == pytest.approx([s.loss for s in plain.steps()], rel=1e-5)
