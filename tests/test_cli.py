"""The command line as people meet it: each mistake is two lines and exit code 2; each verb works end to end."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from tunesmith import cli
from tunesmith.errors import TunesmithError


def run(*words, cwd=None, **environment):
    command = [sys.executable, "-m", "tunesmith", *map(str, words)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}
    )


def call(monkeypatch, capsys, *words):
    """Run a command in this process; give exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", ["tunesmith", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


@pytest.fixture
def recipe(tiny, colours_file, tmp_path):
    values = {
        "model": str(tiny("chat")),
        "task": str(colours_file),
        "method": {"name": "lora", "rank": 4},
        "train": {"batch_tokens": 512},
        "length": {"max_tokens": 256},
    }

    def write(**changes):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**values, **changes}))
        return path

    return write


def edit_task(path, change):
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def test_help_imports_no_torch():
    code = "import sys\nsys.argv = ['tunesmith', '--help']\nfrom tunesmith.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    out = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert "preview" in out.stdout
    assert out.stdout.strip().endswith("False")


def mistakes(recipe, colours_file, tmp_path):
    """Each mistake a user can make: the words typed, and what error and fix must say."""
    run_folder = tmp_path / "run"
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("mine")
    yield (
        "unknown key",
        ("train", recipe(method={"name": "lora", "rnak": 8}), run_folder),
        "method.lora has no field 'rnak'",
        "'rank'",
    )
    yield "missing recipe", ("train", tmp_path / "none.yaml", run_folder), "none.yaml: no such file", "check the path"
    yield "unknown alias", ("train", recipe(model="smolm2"), run_folder), "there is no model 'smolm2'", "'smollm2'"
    yield "used folder", ("train", recipe(), full), "is not empty", "new folder"
    yield (
        "answer too long",
        ("train", recipe(length={"max_tokens": 4}), run_folder),
        "length.max_tokens is 4",
        "-s length.max_tokens=",
    )
    yield (
        "unknown split",
        ("eval", "smollm2", "--task", colours_file, "--out", run_folder, "--split", "tets"),
        "split 'tets'",
        "'test'",
    )
    yield "unknown task", ("eval", "smollm2", "--task", "dmeo", "--out", run_folder), "no task 'dmeo'", "'demo'"
    yield (
        "too many shots",
        ("eval", "smollm2", "--task", colours_file, "--out", run_folder, "--shots", 97),
        "97 shots asked",
        "at most 96",
    )
    yield "no run", ("report", full, "--out", tmp_path / "r.html"), "is not a run folder", "train, eval or climb"
    yield "one run", ("compare", tmp_path), "at least two runs", "RUN RUN"
    yield (
        "bad target",
        ("climb", colours_file, "--out", run_folder, "--target", "rouge1"),
        "metric=value",
        "rouge1=0.40",
    )
    yield "bad setting", ("preview", "demo", "-s", "train.epochs"), "key=value", "train.epochs=2"
    yield (
        "not a model",
        ("eval", full, "--task", colours_file, "--out", run_folder),
        "holds no config.json",
        "Hugging Face",
    )
    yield (
        "no such path",
        ("eval", "./nothing", "--task", colours_file, "--out", run_folder),
        "no such file or folder",
        "check the path",
    )


def test_each_mistake_is_two_lines_and_exit_code_2(recipe, colours_file, tmp_path, monkeypatch, capsys):
    for name, words, error, fix in mistakes(recipe, colours_file, tmp_path):
        code, _, said = call(monkeypatch, capsys, *words)
        assert code == 2, name
        lines = said.strip().split("\n")
        assert lines[-2].startswith("error: "), name
        assert error in lines[-2], name
        assert lines[-1].startswith("  fix: "), name
        assert fix in lines[-1], name
        assert not (tmp_path / "run").exists(), name


@pytest.mark.parametrize(("change", "error"), [
    (lambda t: t["templates"][0].update(prompt="{{ thign }}"), "uses the field 'thign', which row r300 does not have"),
    (lambda t: t["source"].update(test=None), "task 'colours' has no test split"),
    (lambda t: t.update(metrics=["rogue1"]), "there is no metric 'rogue1'"),
    (lambda t: t["source"]["test"].update(file="gone.jsonl"), "gone.jsonl: no such file"),
])  # fmt: skip
def test_each_mistake_in_a_task_is_refused(tiny, colours_file, tmp_path, monkeypatch, capsys, change, error):
    edit_task(colours_file, change)
    code, _, said = call(monkeypatch, capsys, "eval", tiny("chat"), "--task", colours_file, "--out", tmp_path / "run")
    assert code == 2
    assert error in said
    assert "  fix: " in said
    assert not (tmp_path / "run").exists()


def test_a_malformed_line_is_named_by_its_number(tiny, colours, colours_file, tmp_path, monkeypatch, capsys):
    with colours.source.test.file.open("a") as file:
        file.write('{"id": "x", \n')
    code, _, said = call(monkeypatch, capsys, "eval", tiny("chat"), "--task", colours_file, "--out", tmp_path / "run")
    assert code == 2
    assert "test.jsonl line 25: is not JSON" in said


def test_a_full_disk_is_no_traceback(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "app", full)
    code, _, said = call(monkeypatch, capsys, "train")
    assert code == 2
    assert said.startswith("error: the disk is full")


def test_our_own_bug_keeps_its_traceback(monkeypatch):
    def broken():
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_every_verb_from_recipe_to_report(tiny, recipe, colours_file, tmp_path, monkeypatch, capsys):
    def ok(*words):
        code, out, err = call(monkeypatch, capsys, *words)
        assert code == 0, err
        return out

    path = recipe()
    assert "«" in ok("preview", path, "-n", "1")
    assert "Marked text carries loss" in ok("preview", colours_file, "-s", f"model={tiny('chat')}")
    out = ok("train", path, tmp_path / "run", "-s", "train.epochs=2", "-s", "dtype=float32")
    assert "96 of 96 rows kept" in out
    assert "tokens/s" in out
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["train"]["epochs"] == 2
    ok("eval", tiny("chat"), "--task", colours_file, "--out", tmp_path / "base", "--limit", "8")
    out = ok("eval", tmp_path / "run", "--task", colours_file, "--out", tmp_path / "tuned", "--limit", "8")
    assert "n=8" in out
    ok("eval", tiny("chat"), "--task", colours_file, "--out", tmp_path / "shots", "--limit", "8", "--shots", "2")
    out = ok("compare", tmp_path / "base", tmp_path / "tuned", tmp_path / "shots")
    assert out.count("exact_match") == 2
    out = ok(
        "report",
        tmp_path / "run",
        tmp_path / "base",
        tmp_path / "shots",
        tmp_path / "tuned",
        "--out",
        tmp_path / "r.html",
    )
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>") or "<html" in (
        tmp_path / "r.html"
    ).read_text()
    assert "r.html" in out
    ok("eval", tiny("chat"), "--task", colours_file, "--out", tmp_path / "other", "--limit", "9")
    code, _, said = call(monkeypatch, capsys, "compare", tmp_path / "base", tmp_path / "other")
    assert code == 2
    assert "answered different rows" in said


def test_a_climb_from_the_command_line_ends_with_the_path_of_its_report(tiny, colours_file, tmp_path):
    settings = ["-s", "train.batch_tokens=512", "-s", "length.max_tokens=256", "-s", "limit.train=24"]
    settings += ["-s", "forgetting.limit=8"]
    made = run("climb", colours_file, "--out", tmp_path / "climb", "--model", tiny("chat"), "--limit", "6", *settings)
    assert made.returncode == 0, made.stderr
    last = made.stdout.strip().split("\n")[-1]
    assert last == f"report: {(tmp_path / 'climb' / 'report.html').resolve()}"
    assert json.loads((tmp_path / "climb" / "verdict.json").read_text())["recommended"]


def test_python_has_the_same_verbs():
    import tunesmith

    for name in tunesmith.__all__:
        assert getattr(tunesmith, name) is not None
    assert "train" in dir(tunesmith)
    assert issubclass(tunesmith.DataError, TunesmithError)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = tunesmith.trian
    assert "fix: " in str(TunesmithError("a", "b"))


def test_score_needs_no_model(tmp_path, monkeypatch, capsys):
    for name, lines in (("said", "a cat\n\n"), ("other", "a cat\nthe dog\n"), ("wanted", "a cat\na dog\n")):
        (tmp_path / name).write_text(lines)
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(monkeypatch, capsys, "score", "said", "wanted", "--metrics", "rouge1,bleu,exact_match")
    assert code == 0
    assert out.splitlines()[0] == "rouge1       0.5000  [0.0000, 1.0000]"
    assert "1 of them are empty" in out
    code, out, _ = call(monkeypatch, capsys, "score", "said", "wanted", "--against", "other", "--json")
    assert json.loads(out)["differences"][0]["difference"] == 0.25


@pytest.mark.parametrize(("words", "message"), [
    (("said", "wanted", "--metrics", "rogue1"), "did you mean 'rouge1'?"),
    (("said", "lost"), "lost: no such file"),
    (("said", "wanted", "--lang", "zh", "--metrics", "chrf++"), "use chrf"),
    (("said",), "none of the fields references"),
])  # fmt: skip
def test_scores_mistakes_are_two_lines(words, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "said").write_text("a\n")
    (tmp_path / "wanted").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    code, _, errors = call(monkeypatch, capsys, "score", *words)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 2


def test_merge_and_strength_from_the_command_line(tiny, recipe, colours_file, tmp_path, monkeypatch, capsys):
    def ok(*words):
        code, out, err = call(monkeypatch, capsys, *words)
        assert code == 0, err
        return out

    ok("train", recipe(forgetting={"limit": 8}), tmp_path / "run", "-s", "limit.train=24")
    out = ok("merge", tmp_path / "run", "--out", tmp_path / "merged")
    assert "the same first word at 100.0 % of" in out
    assert "colours's test split" in out
    asked = ["--task", colours_file, "--limit", "6"]
    ok("eval", tmp_path / "merged", *asked, "--out", tmp_path / "one")
    ok("eval", tmp_path / "run", *asked, "--out", tmp_path / "two")
    ok("eval", tmp_path / "run", *asked, "--out", tmp_path / "off", "--strength", "0")
    ok("eval", tiny("chat"), *asked, "--out", tmp_path / "base")

    def answers(name):
        return [json.loads(line)["answer"] for line in (tmp_path / name / "answers" / "colours.jsonl").open()]

    assert len(answers("one")) == 6
    assert answers("off") == answers("base")
    assert yaml.safe_load((tmp_path / "off" / "recipe.yaml").read_text())["strength"] == 0.0
    assert yaml.safe_load((tmp_path / "two" / "recipe.yaml").read_text())["strength"] == 1.0
    out = ok("report", tmp_path / "off", tmp_path / "two", "--out", tmp_path / "r.html")
    assert "LoRA at strength 0" in (tmp_path / "r.html").read_text()
    for words, error, fix in [
        (("merge", tmp_path / "run", "--out", tmp_path / "merged"), "exists already", "new folder"),
        (("merge", tmp_path / "run", "--out", tmp_path / "no", "--weights", "a"), "no list of numbers", "0.5,0.5"),
        (("merge", tmp_path / "run", "--out", tmp_path / "no", "--how", "som"), "how", "correct"),
        (("merge", tmp_path / "base", "--out", tmp_path / "no"), "holds no trained weights", "train it first"),
        (("merge", tiny("chat"), "--out", tmp_path / "no"), "is no training run", "tunesmith train"),
        (("eval", tiny("chat"), *asked, "--out", tmp_path / "no", "--strength", "0.5"), "not an adapter", "leave it"),
    ]:
        code, _, said = call(monkeypatch, capsys, *words)
        lines = said.strip().split("\n")
        assert code == 2, words
        assert error in lines[-2], said
        assert fix in lines[-1], said
        assert not (tmp_path / "no").exists()
