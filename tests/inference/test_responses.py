"""Kept answers == computed ones; nothing that an answer depends on can change unseen; no fault of the file matters."""

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.inference.test_generate import PROMPTS, sharpen
from tunesmith import methods
from tunesmith.adapters import folder as adapters
from tunesmith.errors import ConfigError, DataError, FitError
from tunesmith.inference import generate as engine
from tunesmith.inference import responses
from tunesmith.inference import score as scorer
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.score import Continuation
from tunesmith.method import BitFit, Bottleneck, Ia3, Layers, Lora, Norms, Prefix, PromptTuning, SparseMask
from tunesmith.models import device
from tunesmith.models.load import find, load, load_encoder
from tunesmith.models.provenance import tokenizer_sha256
from tunesmith.recipe import Recipe

NEW = 6
ASKED = [
    Continuation(context, ids) for context in ((5, 6, 7), (5, 6, 8, 9), (40,)) for ids in ((11,), (11, 12), (90, 3, 7))
]


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """Keep answers in a file of this test's own."""
    path = tmp_path / "kept" / "responses.sqlite"
    monkeypatch.setenv("TUNESMITH_RESPONSES", str(path))
    return path


def asked(model, prompts=PROMPTS, new=NEW, **settings):
    """Ask through the cache; give the answers and how many of them were kept ones."""
    with responses.counted() as count:
        made = responses.generate(model, prompts, new, **settings)
    assert count.asked == len(prompts)
    return made, count.cached


def hits(model, **settings):
    return asked(model, **settings)[1]


def likely(model, which=ASKED):
    with responses.counted() as count:
        found = responses.loglikelihoods(model, which)
    return found, count.cached


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_a_kept_answer_is_the_one_that_was_computed(model, kind):
    loaded = model(kind)
    sharpen(loaded.net)
    plain = engine.generate(loaded, PROMPTS, NEW)
    assert asked(loaded) == (plain, 0)
    assert asked(loaded) == (plain, len(PROMPTS))
    assert asked(loaded, PROMPTS[::-1]) == (plain[::-1], len(PROMPTS))


@pytest.mark.parametrize("kind", ["chat", "t5"])
def test_a_kept_likelihood_is_the_one_that_was_computed(model, kind):
    loaded = model(kind)
    plain = scorer.loglikelihoods(loaded, ASKED)
    assert likely(loaded) == (plain, 0)
    assert likely(loaded, ASKED[::-1]) == (plain[::-1], len(ASKED))


def test_another_process_finds_what_this_one_kept(model, tiny, tmp_path):
    loaded = adapted(model("chat"), tmp_path, Lora(rank=2))
    made, _ = asked(loaded)
    code = f"""
import json
from pathlib import Path
from tests.inference.test_responses import NEW, PROMPTS, asked
from tunesmith.adapters import folder
made, cached = asked(folder.load_trained(folder.read(Path({str(tmp_path)!r}))))
print(json.dumps([[list(one.ids) for one in made], cached]))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # another order of sets
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    ).stdout
    assert json.loads(out) == [[list(one.ids) for one in made], len(PROMPTS)]


def moved(loaded, method, seed=0):
    """Move what learns off its start."""
    methods.prepare(loaded, method, seed=3)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in loaded.net.parameters():
            if p.requires_grad:
                p += 0.5 * torch.randn(p.shape, generator=generator)
    return loaded


def adapted(loaded, folder, method, seed=0):
    """Load a freshly made adapter onto its base."""
    recipe = Recipe(model=loaded.name, method=method, dtype="float32")
    return adapters.load_trained(adapters.save(moved(loaded, method, seed), recipe, folder / "checkpoints"))


METHODS = [
    Lora(rank=2), Lora(rank=2, dora=True), Ia3(), Norms(), BitFit(without="add"), Layers(last=1), Bottleneck(width=2),
    SparseMask(score="magnitude", share=0.05), PromptTuning(tokens=3, init="vocabulary"), Prefix(tokens=2),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_an_adapter_has_answers_of_its_own_by_content_and_not_by_name(model, tmp_path, method):
    base = model("chat")
    asked(base)
    first = adapted(model("chat"), tmp_path / "a", method)
    other = adapted(model("chat"), tmp_path / "b", method, seed=1)
    prompts = [(name, first.encoder.virtual + ids) for name, ids in PROMPTS]
    assert hits(first, prompts=prompts) == 0
    assert hits(other, prompts=prompts) == 0
    assert hits(first, prompts=prompts) == len(PROMPTS)
    again = model("chat")
    adapters.attach(again, adapters.read(tmp_path / "a"), "under-another-name")
    assert asked(again, prompts)[0] == asked(first, prompts)[0]
    assert hits(again, prompts=prompts) == len(PROMPTS)
    again.fits["under-another-name"].switch(0.0)
    assert hits(again) == len(PROMPTS)  # off, it leaves the base
    assert asked(again)[0] == asked(base)[0]


def test_what_an_adapters_weights_do_not_say_counts_too(model, tmp_path):
    made = {}
    for name, method in {
        "a": Lora(rank=2, alpha=4), "b": Lora(rank=2, alpha=8),
        "c": Bottleneck(width=2, activation="relu"), "d": Bottleneck(width=2, activation="gelu"),
    }.items():  # fmt: skip
        made[name] = adapted(model("chat"), tmp_path / name, method)
    sums = {name: next(iter(one.fits.values())).sha256() for name, one in made.items()}
    weights = [next(iter(made[name].fits.values())).weights() for name in "ab"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert len(set(sums.values())) == 4


def test_the_strength_of_an_adapter_and_a_second_one_count(model, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        adapted(model("chat"), tmp_path / name, Lora(rank=2), seed)
    loaded = model("chat")
    one = adapters.attach(loaded, adapters.read(tmp_path / "a"), "a")
    assert hits(loaded) == 0
    one.switch(0.5)
    assert hits(loaded) == 0
    one.switch(1.0)
    assert hits(loaded) == len(PROMPTS)
    adapters.attach(loaded, adapters.read(tmp_path / "b"), "b")
    assert hits(loaded) == 0


def test_rows_asked_of_different_adapters_are_told_apart(model, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        adapted(model("chat"), tmp_path / name, Lora(rank=2), seed)
    loaded = model("chat")
    for name in ("a", "b"):
        adapters.attach(loaded, adapters.read(tmp_path / name), name).switch(0.0)
    same = [("x", PROMPTS[1][1])] * 3
    plain = engine.generate(loaded, same, NEW, adapters=["a", "b", None])
    assert asked(loaded, same, adapters=["a", "b", None]) == (plain, 0)
    assert asked(loaded, same, adapters=["b", None, "a"])[0] == [plain[1], plain[2], plain[0]]
    assert hits(loaded, prompts=same, adapters=["b", None, "a"]) == 3


def test_weights_dtype_tokenizer_configuration_and_settings_count(model, tiny):
    loaded = model("chat")
    assert hits(loaded) == 0
    place = find(str(tiny("chat")))
    for other in (
        load(place, load_encoder(place), "bfloat16"),
        model("base"),
        replace(loaded, sha256="0" * 64),
        replace(loaded, encoder=replace(loaded.encoder, stops=(*loaded.encoder.stops, 7))),
    ):
        assert hits(other) == 0
    for change in ({"new": 7}, {"sampling": Sampling(stop=("a",))}, {"sampling": Sampling(temperature=0.5)}):
        assert hits(loaded, **change) == 0
    loaded.net.config.rms_norm_eps = 0.5
    assert hits(loaded) == 0


def test_another_vocabulary_or_way_back_to_text_is_another_tokenizer(model):
    loaded = model("chat")
    before = tokenizer_sha256(loaded)
    loaded.encoder.tokenizer.add_tokens(["tunesmith"])
    assert tokenizer_sha256(loaded) != before


def test_a_draw_is_kept_under_its_seed_and_id_and_a_greedy_answer_is_not(model):
    loaded, one = model("chat"), [("a", (5, 6))]
    drawn = Sampling(temperature=1.0, seed=1)
    assert hits(loaded, prompts=one, sampling=drawn) == 0
    assert hits(loaded, prompts=one, sampling=drawn) == 1
    assert hits(loaded, prompts=[("b", (5, 6))], sampling=drawn) == 0
    assert hits(loaded, prompts=one, sampling=replace(drawn, seed=2)) == 0
    assert hits(loaded, prompts=one, sampling=replace(drawn, top_p=0.5)) == 0
    assert hits(loaded, prompts=one) == 0
    assert hits(loaded, prompts=[("b", (5, 6))], sampling=Sampling(seed=9)) == 1


def test_each_request_may_have_a_limit_of_its_own(model):
    loaded, prompts = model("chat"), PROMPTS[:3]
    assert asked(loaded, prompts, [3, 4, 5]) == (engine.generate(loaded, prompts, [3, 4, 5]), 0)
    assert asked(loaded, prompts, 4)[1] == 1


def test_several_draws_for_one_request_are_not_kept(model):
    loaded, drawn = model("chat"), Sampling(temperature=1.0, n=3)
    for _ in range(2):
        with responses.counted() as count:
            assert len(responses.generate(loaded, PROMPTS[:2], NEW, sampling=drawn)) == 6
        assert (count.asked, count.cached) == (6, 0)


def test_a_context_and_its_continuation_are_cut_where_they_are_cut(model):
    loaded = model("chat")
    assert likely(loaded, [Continuation((5, 6), (7,))])[1] == 0
    assert likely(loaded, [Continuation((5,), (6, 7))])[1] == 0
    assert hits(loaded, prompts=[("a", (5, 6, 7))]) == 0


def test_a_model_that_learns_or_of_unknown_origin_is_not_kept(model):
    for loaded in (moved(model("chat"), Lora(rank=2)), replace(model("chat"), sha256="unknown")):
        assert hits(loaded) == 0
        assert hits(loaded) == 0


def test_weights_that_were_changed_by_hand_are_other_weights(model):
    loaded = model("chat")
    before, _ = asked(loaded)
    sharpen(loaded.net)
    made, cached = asked(loaded)
    assert (made != before, cached) == (True, 0)


def test_equal_requests_are_computed_once_and_each_is_counted(model):
    loaded, seen = model("chat"), []
    with responses.counted() as count:
        made = responses.generate(loaded, [("a", (5, 6)), ("b", (5, 6)), ("c", (7,))], NEW, seen.append)
    assert made[0] == made[1]
    assert (count.asked, count.cached, sum(seen)) == (3, 0, 3)
    assert count.tokens == 2 + 1 + len(made[0].ids) + len(made[2].ids)


def test_only_computed_tokens_are_counted_and_a_shared_context_once(model):
    loaded = model("chat")
    with responses.counted() as count:
        responses.loglikelihoods(loaded, ASKED)
        assert count.tokens == (3 + 4 + 1) + 3 * (1 + 2 + 3)
        responses.loglikelihoods(loaded, ASKED)
        assert count.tokens == 26
    assert count.cached == len(ASKED)


def test_fresh_computes_and_keeps_and_off_does_neither(model, kept, monkeypatch):
    loaded = model("chat")
    with responses.counted("off") as count:
        responses.generate(loaded, PROMPTS, NEW)
    assert (count.cached, kept.exists()) == (0, False)
    for _ in range(2):
        with responses.counted("fresh") as count:
            responses.generate(loaded, PROMPTS, NEW)
        assert count.cached == 0
    assert hits(loaded) == len(PROMPTS)
    monkeypatch.setenv("TUNESMITH_RESPONSES", "off")
    assert hits(loaded) == 0
    with pytest.raises(ConfigError, match="'of'"), responses.counted("of"):
        pass


def test_without_a_name_the_file_lies_in_the_users_cache(model, tmp_path, monkeypatch):
    monkeypatch.delenv("TUNESMITH_RESPONSES")
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    asked(model("chat"))
    assert (tmp_path / "cache" / "responses.sqlite").is_file()


def test_what_the_engine_refuses_is_refused_and_nothing_asked_is_no_error(model):
    loaded = model("chat")
    with pytest.raises(FitError, match="row r99"):
        responses.generate(loaded, [*PROMPTS, ("r99", tuple([7] * 510))], NEW)
    with pytest.raises(DataError, match="no tokens"):
        responses.loglikelihoods(loaded, [Continuation((), (1,))])
    assert responses.generate(loaded, [], NEW) == []
    assert responses.loglikelihoods(loaded, []) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_what_was_stopped_goes_on_with_the_next_part_in_the_same_batches(model, monkeypatch, stop):
    loaded, real, parts = model("chat"), engine.generate, []
    monkeypatch.setattr(responses, "ANSWERS", 3)

    def counting(model, prompts, *rest):
        parts.append([name for name, _ in prompts])
        if len(parts) == 2 and stop:
            raise stop
        return real(model, prompts, *rest)

    monkeypatch.setattr(responses.generating, "generate", counting)
    with pytest.raises(stop):
        responses.generate(loaded, PROMPTS, NEW)
    stop = None
    made, cached = asked(loaded)
    assert cached == 3
    assert parts[2:] == [parts[1], [name for name, _ in PROMPTS if name not in parts[0] + parts[1]]]
    monkeypatch.setattr(responses.generating, "generate", real)
    assert made == engine.generate(loaded, PROMPTS, NEW)


def test_parts_are_those_of_all_requests_and_small_rests_go_together():
    def parts(*lacking):
        return list(responses._parts(range(10), set(lacking), 4))

    assert parts(*range(10)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert parts(*range(4, 10)) == [[4, 5, 6, 7], [8, 9]]
    assert parts(1, 5, 9) == [[1, 5, 9]]
    assert parts() == []


def test_a_bad_file_is_put_aside_and_the_answers_are_made_anew(model, kept, capsys):
    loaded = model("chat")
    kept.parent.mkdir()
    kept.write_bytes(b"this is no database" * 1000)
    made, cached = asked(loaded)
    assert (made, cached) == (engine.generate(loaded, PROMPTS, NEW), 0)
    said = capsys.readouterr().err
    assert "is damaged; it is put aside as responses.sqlite.damaged" in said
    assert kept.with_name("responses.sqlite.damaged").read_bytes().startswith(b"this is no")
    assert hits(loaded) == len(PROMPTS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_in_the_file_gives_no_wrong_answer(model, kept, seed):
    loaded = model("chat")
    prompts = [(f"r{i}", tuple(range(3 + i, 9 + i))) for i in range(60)]
    made, _ = asked(loaded, prompts)
    content = bytearray(kept.read_bytes())
    generator = torch.Generator().manual_seed(seed)
    for place in torch.randint(0, len(content), (40,), generator=generator).tolist():
        content[place] ^= 1 << (place % 8)
    kept.write_bytes(content[: len(content) if seed % 2 else len(content) // 2])
    assert asked(loaded, prompts)[0] == made
    assert asked(loaded, prompts)[0] == made


def test_one_flipped_bit_in_a_value_is_seen_by_its_seal(model, kept, capsys):
    loaded = model("chat")
    made, _ = asked(loaded)
    with sqlite3.connect(kept) as file:
        file.execute("UPDATE answers SET value = replace(CAST(value AS TEXT), 'true', 'false')")
        changed = file.execute("UPDATE answers SET value = replace(CAST(value AS TEXT), '[', '[1,')").rowcount
    file.close()
    assert changed == len(PROMPTS)
    assert asked(loaded) == (made, 0)
    assert "kept answers are damaged" in capsys.readouterr().err
    assert asked(loaded) == (made, len(PROMPTS))


def test_an_answer_that_moved_to_another_key_is_not_taken_for_its_own(model, kept):
    loaded = model("chat")
    made, _ = asked(loaded)
    with sqlite3.connect(kept) as file:
        rows = file.execute("SELECT key, value, seal FROM answers").fetchall()
        file.execute("DELETE FROM answers")
        for (key, _, _), (_, value, seal) in zip(rows, rows[1:] + rows[:1], strict=True):
            file.execute("INSERT INTO answers VALUES (?, ?, ?)", (key, value, seal))
    file.close()
    assert asked(loaded) == (made, 0)


def test_a_file_that_cannot_be_written_is_said_once_and_does_not_stop_anything(model, kept, monkeypatch, capsys):
    loaded = model("chat")
    kept.mkdir(parents=True)  # a folder in the file's place
    assert asked(loaded) == (engine.generate(loaded, PROMPTS, NEW), 0)
    assert capsys.readouterr().err.count("answers are not kept") == 1
    monkeypatch.setenv("TUNESMITH_RESPONSES", "/dev/null/nothing")
    assert hits(loaded) == 0
    assert capsys.readouterr().err.count("answers are not kept") == 1


def test_the_device_and_the_libraries_are_part_of_an_answers_identity(model, monkeypatch):
    loaded = model("chat")
    asked(loaded)
    monkeypatch.setattr(device, "device_name", lambda: "another processor")
    assert hits(loaded) == 0
