"""Every method at its own defaults on the same 1 000 DialogSum rows: what it learns, what it costs, what is forgotten.

    python benchmarks/methods.py --data ../shared/data/dialogsum          # all methods that have no result yet
    python benchmarks/methods.py --only lora,ia3                          # these again
    python benchmarks/methods.py --speed                                  # tokens per second, alternating with lora

A method is trained for one epoch (the same rows, the same tokens), answers the
first 100 development rows, and reads `general.txt`, which has nothing to do
with the task: how much its loss there rises is a first measure of what was
forgotten. Every method is a process of its own. `--speed` takes a few steps of
each, with LoRA's before and after them, since machines drift: the figure to
trust is the ratio to LoRA's beside it. Results go to `results/methods.json`, one
entry per method, each with the machine that it was measured on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "methods.json"
ROWS, HELD_OUT, STEPS = 1000, 100, 10
WAYS: dict[str, dict[str, Any]] = {
    "full": {"name": "full"},
    "layers": {"name": "layers"},
    "norms": {"name": "norms"},
    "bitfit": {"name": "bitfit", "without": "add"},
    "sparse_mask": {"name": "sparse_mask"},
    "lora": {"name": "lora"},
    "qlora": {"name": "qlora"},
    "dora": {"name": "lora", "dora": True},
    "ia3": {"name": "ia3"},
    "bottleneck": {"name": "bottleneck"},
    "prompt_tuning": {"name": "prompt_tuning"},
    "p_tuning": {"name": "p_tuning"},
    "prefix": {"name": "prefix"},
    "vera": {"name": "vera"},
    "loha": {"name": "loha"},
    "lokr": {"name": "lokr"},
    "oft": {"name": "oft"},
    "hra": {"name": "hra"},
    "miss": {"name": "miss"},
}


def main() -> None:
    """Measure what is asked and has not been measured, and write the results after each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "dialogsum")
    parser.add_argument("--only", type=lambda text: text.split(","), help="these methods, measured or not")
    parser.add_argument("--speed", action="store_true", help="measure speed alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--table", action="store_true", help="print the results as the table of docs/methods.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(MEASURE[asked.one.partition(":")[0]](asked.one.partition(":")[2], asked.data, asked.rows)))
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if asked.table:
        print(table(found))
        return
    measured = "speed" if asked.speed else "scores"
    names = asked.only or [way for way in ["base", *WAYS] if measured not in found.get(way, {})]
    for name, made in (_speeds if asked.speed else _qualities)(names, asked):
        found[name] = {**found.get(name, {}), **made}
        print(name, json.dumps(made), flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _qualities(names: list[str], asked: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        yield name, _apart(f"quality:{name}", asked)


def _speeds(names: list[str], asked: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the speed of each method, beside LoRA's right before and after it."""
    before = _apart("speed:lora", asked)["tokens_per_second"]
    for name in names:
        if name == "base":
            continue
        one = _apart(f"speed:{name}", asked)
        after = _apart("speed:lora", asked)["tokens_per_second"]
        yield name, {"speed": {**one, "of_lora": round(2 * one["tokens_per_second"] / (before + after), 2)}}
        before = after


def _apart(what: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--one", what, "--data", str(asked.data), "--rows", str(asked.rows)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        return {"failed": done.stderr.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def quality(name: str, data: Path, rows: int) -> dict[str, Any]:
    """Train (unless it is the base that is asked), answer the development rows, read the general text."""
    from tunesmith.adapters import folder as adapters
    from tunesmith.evaluation.evaluate import Question, evaluate
    from tunesmith.models.load import find, load, load_encoder
    from tunesmith.training.train import train

    task = _task(data)
    question = Question(task, split="validation", limit=HELD_OUT)
    with tempfile.TemporaryDirectory() as place:
        if name == "base":
            target, facts = "smollm2", {}
            where = find("smollm2")
            model = load(where, load_encoder(where))
        else:
            run = train(_recipe(name, rows), Path(place) / "train", task)
            target, facts = str(run.folder), run.summary().model_dump(exclude_none=True)
            model = adapters.load_trained(adapters.read(run.folder))
        facts["general_loss"] = general_loss(model)
        del model
        answered = evaluate(target, question, Path(place) / "eval", fresh=True)
        scores = {one.metric: [one.value, one.low, one.high] for one in answered.scores()}
        per_request = answered.summary().prompt_tokens
    kept = ("tokens", "trainable_parameters", "total_parameters", "artifact_bytes", "peak_memory_bytes")
    losses = ("first_validation_loss", "validation_loss", "general_loss", "tokens_per_second")
    return {
        **{key: facts[key] for key in (*kept, *losses) if key in facts},
        "prompt_tokens": per_request,
        "scores": scores,
        "machine": _machine(),
    }


def table(found: dict[str, Any]) -> str:
    """Write the results in Markdown, the best ROUGE-L first."""
    base = found["base"]
    titles = ("method", "weights trained", "share", "file, MB", "ROUGE-1", "ROUGE-2", "ROUGE-L")
    titles += ("loss, development", "loss, general text", "tokens/s, of LoRA's", "peak, GiB")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    order = sorted(found, key=lambda name: -found[name].get("scores", {}).get("rougeL", [0])[0])
    for name in order:
        one = found[name]
        if "scores" not in one:
            continue
        marks = [_mark(one["scores"][metric]) for metric in ("rouge1", "rouge2", "rougeL")]
        if name == "base":
            cells = ["0", "", "", *marks, f"{_first(found):.3f}", "", "", ""]
        else:
            share = 100 * one["trainable_parameters"] / one["total_parameters"]
            cells = [
                f"{one['trainable_parameters']:,}",
                f"{share:.3g} %",
                f"{one['artifact_bytes'] / 1e6:.3g}",
                *marks,
                f"{one['validation_loss']:.3f}",
                f"{one['general_loss'] - base['general_loss']:+.3f}",
                f"{one['speed']['of_lora']:.2f}" if "speed" in one else "1" * (name == "lora"),
                f"{one['peak_memory_bytes'] / 2**30:.1f}",
            ]
        lines.append(f"| {'the base, zero-shot' if name == 'base' else f'`{name}`'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mark(score: list[float]) -> str:
    value, low, high = (f"{one:.3f}"[1:] for one in score)
    return f"{value} [{low}, {high}]"


def _first(found: dict[str, Any]) -> float:
    """Give the loss of the base on the development rows, which every training has taken before it began."""
    return float(found["lora"]["first_validation_loss"])


def general_loss(model: Any) -> float:
    """Give the loss per token in nats on the paragraphs of `general.txt`, after the virtual tokens if there are any."""
    from tunesmith.data.encode import Encoded
    from tunesmith.recipe import Recipe
    from tunesmith.training.loop import mean_loss

    rows = []
    for number, paragraph in enumerate((HERE / "general.txt").read_text(encoding="utf-8").strip().split("\n\n")):
        ids = tuple(model.encoder.tokenizer(paragraph, add_special_tokens=False).input_ids)
        rows.append(Encoded(str(number), (*model.encoder.virtual, ids[0]), ids[1:]))
    return float(mean_loss(model, rows, Recipe()))


def speed(name: str, data: Path, n: int) -> dict[str, Any]:
    """Take a few steps; give the tokens per second of all but the first two."""
    from tunesmith import methods
    from tunesmith.methods.evidence import Evidence
    from tunesmith.models.load import find, load
    from tunesmith.training.loop import Past, Plan, gradients, lay_out, steps
    from tunesmith.training.optimizer import MasterAdamW
    from tunesmith.training.prepare import training_encoder

    recipe = _recipe(name, STEPS * 12)
    where = find("smollm2")
    encoder = training_encoder(where, recipe)
    prompts = _task(data).prompts("train", seed=recipe.seed, limit=recipe.limit.train)
    rows = [row for row in map(encoder.encode, prompts) if row.size <= recipe.length.max_tokens]
    model = load(where, encoder, onto=methods.place_of_base(recipe.method))
    recipe = recipe.resolved(model.width)
    whole = lay_out(model, [rows], recipe)
    methods.prepare(model, recipe.method, 0, Evidence((), partial(gradients, model, whole)))
    optimizer = MasterAdamW(model.net.named_parameters(), recipe.train, recipe.method.rate_factor)
    log = list(steps(model, optimizer, Plan((whole.epochs[0][:STEPS],)), [], recipe, Past()))
    rate = (log[-1].tokens - log[1].tokens) / (log[-1].seconds - log[1].seconds)
    return {"tokens_per_second": round(rate), "machine": _machine()}


def _recipe(name: str, rows: int) -> Any:
    from tunesmith.recipe import make_recipe

    return make_recipe(
        {
            "method": WAYS[name],
            "length": {"max_tokens": 1024, "overflow": "drop"},
            "limit": {"train": rows, "validation": HELD_OUT},
        }
    )


def _task(data: Path) -> Any:
    from tunesmith.data.task import Generation, Source, Sources, Task
    from tunesmith.data.template import Template

    source = {split: Source(file=data / f"{name}.jsonl", id="fname") for split, name in SPLITS.items()}
    prompt = "Summarize the following conversation.\n\n{{ dialogue }}\n\nSummary:"
    return Task(
        name="dialogsum",
        source=Sources(**source),
        metrics=("rouge1", "rouge2", "rougeL"),
        generation=Generation(max_new_tokens=96),
        templates=(Template(name="plain", prompt=prompt, answer="{{ summary }}"),),
    )


SPLITS = {"train": "train", "validation": "dev"}
MEASURE = {"quality": quality, "speed": speed}


def _machine() -> str:
    from tunesmith.runs import machine

    return f"{machine.processor()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
