"""Plans: parts add up, more tokens take more, checkpointing less, and what is suggested fits."""

import json

import pytest
from transformers import LlamaConfig, T5Config

from tests.test_cli import call
from tunesmith import plan
from tunesmith.errors import ConfigError, ModelError
from tunesmith.method import Full, Lora
from tunesmith.models.load import find, read_config
from tunesmith.planning.fixes import fixes
from tunesmith.planning.loads import Length, load_of, worst_rows
from tunesmith.planning.machines import MACHINES, Machine
from tunesmith.planning.memory import Place, Sizes, Traced, choosing_parts, pass_of, step_parts
from tunesmith.planning.shape import shape_of
from tunesmith.planning.work import forward_flops, step_flops

TRACED = Traced(
    blocks=((30.0, 200.0, 18.0, 0, 0, 0, 0),), rest=(2.0, 0, 0, 0, 0, 0, 0), forward=(4.0, 0, 8.0, 0, 0, 0, 0),
    backward=(8.0, 0, 16.0, 0, 0, 0, 0), block=256, piece=512, room=1 << 22,
)  # fmt: skip
SIZES = Sizes(width=64, depths=(4,), vocabulary=1000, itemsize=2, weights=10**6, trained=10**5)


@pytest.mark.parametrize(
    ("lengths", "laying", "expected"),
    [
        ([(6, 2), (3, 1)], "packed", (12, 64 + 16, 3, 3, 12, 64)),
        ([(6, 2), (3, 1)], "padded", (16, 128, 3, 3, 12, 128)),
        ([(6, 2), (3, 1)], "encoder-decoder", (4, 32, 3, 4, 12, 32, 12, 72)),
    ],
)
def test_a_load_counts_what_is_computed(lengths, laying, expected):
    assert load_of([Length(*one) for one in lengths], laying, 256)[: len(expected)] == expected


def test_long_documents_attend_in_blocks_and_a_shared_beginning_stands_once():
    assert load_of([Length(300, 100)], "packed", 256).scores == 256 * 256 + 144 * 400
    shared = load_of([Length(20, 4), Length(30, 6)], "packed", 256, shared=10)
    assert (shared.tokens, shared.scores, shared.real) == (10 + 14 + 26, 100 + 14 * 24 + 26 * 36, 60)


def test_parts_sum_to_the_peak_and_grow_with_the_batch():
    place = Place(process=1000, lanes=2, heap=1.2)
    peaks = []
    for tokens in (128, 256, 512, 1024):
        load = load_of(worst_rows(tokens, 128, 0.25), "packed", 256)
        parts = step_parts([[load, load]], TRACED, SIZES, place)
        assert parts.peak == sum(parts.model_dump().values())
        told = pass_of(load, TRACED, SIZES)
        held = 2 * told.total * 1.2 + SIZES.weights + SIZES.trained * (4 + 4 + 8) + 1000
        assert parts.peak == pytest.approx(held, abs=8)
        peaks.append(parts.peak)
    assert peaks == sorted(set(peaks))


def test_passes_that_go_one_after_the_other_take_the_memory_of_the_largest():
    small, large = (load_of([Length(n, 8)], "packed", 256) for n in (40, 80))
    alone = step_parts([[small, large]], TRACED, SIZES, Place(process=0))
    assert alone == step_parts([[large]], TRACED, SIZES, Place(process=0))
    assert step_parts([[small, large]], TRACED, SIZES, Place(process=0, lanes=2)).peak > alone.peak


def test_shards_share_weights_gradients_and_state_but_no_activations():
    load = load_of([Length(80, 8)], "packed", 256)
    one, eight = (step_parts([[load]], TRACED, SIZES, Place(process=0, shards=n)) for n in (1, 8))
    assert eight.activations == one.activations
    for name in ("weights", "gradients", "optimizer"):
        assert getattr(eight, name) == pytest.approx(getattr(one, name) / 8, abs=2)


def test_many_answers_are_projected_in_pieces():
    few, many = (load_of([Length(10, n)], "packed", 256) for n in (512, 2048))
    logits = [pass_of(load, TRACED, SIZES.model_copy(update={"vocabulary": 10**6})).head for load in (few, many)]
    assert logits[0] == logits[1]


def test_full_tuning_shows_what_activations_leave_beside_gradients_that_take_memory_of_their_own():
    """So checkpointing helps it as well, where the allocator gives the table's gradients memory of their own."""
    load, place = load_of([Length(900, 100)], "packed", 256), Place(process=0)
    whole = SIZES.model_copy(update={"trained": 10**6, "table": 128_000, "twice": 256_000, "apart": 384_000})
    again = TRACED.model_copy(update={"blocks": ((3.0, 0, 0, 0, 0, 0, 0),)})
    told, less = (step_parts([[load]], traced, whole, place) for traced in (TRACED, again))
    assert less.peak < told.peak
    assert told.activations > 0
    assert told.gradients == 384_000 + 4 * 10**6


def test_choosing_entries_holds_two_sums_and_one_set_of_gradients_of_all_of_them():
    load = load_of([Length(80, 8)], "packed", 256)
    few = SIZES.model_copy(update={"trained": 1000})
    step = step_parts([[load, load]], TRACED, few, Place(process=0, lanes=2))
    parts = choosing_parts([[load, load]], TRACED, few, Place(process=0, lanes=2), 10**7)
    assert parts.gradients == (4 + 4 + 2) * 10**7
    assert (parts.optimizer, parts.weights) == (0, step.weights)
    assert parts.peak > step.peak


@pytest.mark.parametrize(("score", "chooses"), [("gradient", True), ("fisher", True), ("magnitude", False)])
def test_a_sparse_mask_that_is_chosen_by_gradients_is_planned_with_them(recipe, score, chooses):
    asked = recipe("method.name=sparse_mask", f"method.score={score}", "train.batch_tokens=64", "length.max_tokens=64")
    made = plan(asked, machines=[machine_with(10**9)])
    shape = shape_of(read_config(find(asked.model)).to_dict())
    entries = sum(layer.inputs * layer.outputs for layer in shape.layers)
    parts = made.outlooks[0].parts
    assert (parts.gradients >= 8 * entries) == (parts.optimizer == 0) == chooses


BILLIONS = {"num_hidden_layers": 40, "hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40}


@pytest.mark.parametrize(("dtype", "stored", "fits"), [("bfloat16", "bfloat16", True), ("float32", "bfloat16", False)])
def test_qlora_fits_a_processor_that_lora_does_not_where_the_weights_lie_in_their_file(
    recipe, tmp_path, dtype, stored, fits
):
    """Their pages are dropped where memory is short; weights of another dtype must all be in memory once."""
    (tmp_path / "config.json").write_text(json.dumps(LlamaConfig(**BILLIONS, dtype=stored).to_dict()))
    lora, qlora = (
        plan(
            recipe(
                f"method.name={name}",
                "train.batch_tokens=512",
                "length.max_tokens=512",
                model=str(tmp_path),
                dtype=dtype,
            ),
            machines=[MACHINES["cpu"].model_copy(update={"memory": 16 * 2**30})],
        )
        for name in ("lora", "qlora")
    )
    assert not lora.fits()
    assert qlora.fits() == fits
    assert qlora.fits(16 * 2**30) == fits
    parts = qlora.outlooks[0].parts
    assert parts.peak == parts.needed + parts.mapped
    assert (parts.mapped > 2 * parts.weights) == fits
    assert qlora.outlooks[0].loading >= lora.outlooks[0].parts.weights or fits
    assert ("dropped" in qlora.notes[-1]) == fits


def test_rows_that_could_not_be_read_are_cut_as_those_of_a_training_are(recipe, tmp_path):
    """Of three rows one core takes two at the most, and so does one of two cores."""
    (tmp_path / "config.json").write_text(json.dumps(LlamaConfig().to_dict()))
    parts = {}
    for rows in (1, 2, 3):
        asked = recipe(f"train.batch_tokens={rows * 256}", "length.max_tokens=256", model=str(tmp_path))
        for lanes in (1, 2):
            machine = MACHINES["cpu"].model_copy(update={"lanes": lanes})
            parts[rows, lanes] = plan(asked, machines=[machine]).outlooks[0].parts.activations
    assert parts[1, 1] == parts[1, 2] == parts[2, 1]
    assert parts[2, 2] == pytest.approx(2 * parts[2, 1])
    assert parts[3, 1] > 1.9 * parts[1, 1]
    assert parts[3, 2] > 2.9 * parts[1, 1]


def test_full_tuning_takes_two_products_back_and_an_adapter_one():
    shape = shape_of(LlamaConfig().to_dict())
    load = load_of([Length(900, 100)], "packed", 256)
    forward = forward_flops(shape, load)
    assert step_flops(shape, load, Full(), shape.total, False) == pytest.approx(3 * forward, rel=1e-6)
    assert step_flops(shape, load, Lora(), 0, False) == pytest.approx(2 * forward, rel=0.03)
    assert step_flops(shape, load, Full(), shape.total, True) < 4 * forward


@pytest.mark.parametrize("kind", ["chat", "t5", "neox"])
@pytest.mark.parametrize("method", ["lora", "full", "prefix", "prompt_tuning", "ia3", "bottleneck"])
def test_a_plan_counts_the_weights_steps_and_tokens_of_the_training(recipe, kind, method):
    made = plan(recipe(f"method.name={method}", "limit.train=24", kind=kind))
    assert [one.machine for one in made.outlooks] == ["here", *MACHINES]
    assert all(one.parts.peak == sum(one.parts.model_dump().values()) for one in made.outlooks)
    assert made.fits() and made.fits(MACHINES["1x80"]) and not made.fits(1000)
    assert made.steps >= 1 and made.tokens > 24 * 10 and made.seconds > 0
    assert min(made.outlooks[0].parts.model_dump().values()) >= 0


def test_checkpointing_and_smaller_batches_take_less_memory_and_checkpointing_more_time(recipe):
    machine = [MACHINES["cpu"]]
    whole = plan(recipe(), machines=machine)
    again = plan(recipe("train.gradient_checkpointing=true"), machines=machine)
    smaller = plan(recipe("train.batch_tokens=256", "train.accumulate=8"), machines=machine)
    assert again.peak_bytes < whole.peak_bytes > smaller.peak_bytes
    assert again.seconds > whole.seconds
    assert smaller.tokens == whole.tokens


def machine_with(room):
    return Machine(name="small", told="a small one", memory=room, flops=1e12, share=0.5, process=0, kind="cpu")


def test_what_is_suggested_fits_when_it_is_planned(recipe):
    asked = recipe("method.name=lora", "train.batch_tokens=2048")
    room = int(plan(asked, machines=[machine_with(1)]).peak_bytes * 0.7)
    made = plan(asked, machines=[machine_with(room)])
    assert not made.fits()
    assert made.fixes
    for fix in made.fixes:
        settings = fix.line().removeprefix("-s ").split(" -s ")
        then = plan(recipe("method.name=lora", "train.batch_tokens=2048", *settings), machines=[machine_with(room)])
        assert then.fits()
        assert then.peak_bytes == fix.peak_bytes


def test_nothing_is_suggested_where_nothing_fits(recipe):
    asked = recipe()
    made = plan(asked, machines=[machine_with(1)])
    assert made.fixes == ()
    assert fixes(asked, made, lambda changed: made) == ()


@pytest.mark.parametrize(
    "config", [LlamaConfig(num_key_value_heads=8), T5Config(d_kv=64, num_heads=32, d_ff=4096)], ids=["llama", "t5"]
)
def test_a_config_alone_is_enough_for_a_plan(config, recipe, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    made = plan(recipe("length.max_tokens=512", model=str(tmp_path)), machines=[MACHINES["1x80"]])
    assert made.tokens == 96 * 512
    assert "no tokenizer" in made.notes[0]
    assert made.outlooks[0].parts.weights > shape_of(config.to_dict()).total * 4


def test_a_family_whose_sizes_are_not_known_is_refused(recipe, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ModelError, match="sizes of a mamba model are not known"):
        plan(recipe(model=str(tmp_path)))


def test_the_command_prints_parts_verdict_and_requests(recipe, tmp_path, monkeypatch, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe("limit.train=24").to_yaml())
    code, out, _ = call(
        monkeypatch, capsys, "plan", str(path), "--price", "2", "--machine", "1x24", "--machine", "8x80"
    )
    assert code == 0
    for said in ("parameters learn", "activations", "peak of each device", "fits one 24 GB GPU", "few-shot 3", "price"):
        assert said in out
    code, out, _ = call(monkeypatch, capsys, "plan", str(path), "--json", "--machine", "cpu")
    assert json.loads(out)["outlooks"][0]["machine"] == "cpu"
    code, _, errors = call(monkeypatch, capsys, "plan", str(path), "--machine", "1x42")
    assert (code, "machine '1x42' does not exist" in errors or "1x42" in errors) == (2, True)
    code, _, errors = call(monkeypatch, capsys, "plan", str(path), "--probe", "--machine", "cpu")
    assert code == 2 and "measures this machine" in errors


@pytest.mark.parametrize(("rows", "names"), [(1, []), (3, ["few-shot 2"]), (5, ["few-shot 3"])])
def test_no_more_examples_are_planned_than_there_are_rows(recipe, tmp_path, rows, names):
    lines = [json.dumps({"id": i, "messages": turns("red", "blue")}) + "\n" for i in range(rows)]
    (tmp_path / "few.jsonl").write_text("".join(lines))
    made = plan(recipe(task=str(tmp_path / "few.jsonl")))
    assert [one.name for one in made.rungs] == ["zero-shot", *names, "tuned (lora)"]


def test_examples_that_a_model_has_no_room_for_are_not_planned(recipe, tmp_path):
    lines = [json.dumps({"id": i, "messages": turns("red " * 120, "blue")}) + "\n" for i in range(12)]
    (tmp_path / "long.jsonl").write_text("".join(lines))
    made = plan(recipe(task=str(tmp_path / "long.jsonl")), machines=[machine_with(2**40)])
    assert [one.name for one in made.rungs] == ["zero-shot", "tuned (lora)"]
    assert "no request has 3 examples" in made.notes[-1] and made.notes[-1].endswith("the model was made for 512")


def turns(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_a_probe_says_what_three_steps_took(recipe, tmp_path, monkeypatch, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe("limit.train=24").to_yaml())
    code, out, _ = call(monkeypatch, capsys, "plan", str(path), "--probe", "--machine", "here")
    assert code == 0
    assert "probe, 3 steps of the heaviest batch" in out


def test_an_unknown_machine_is_refused(recipe):
    from tunesmith.training.here import machines_named

    with pytest.raises(ConfigError, match="1x42"):
        machines_named(["1x42"], recipe())
