"""Remedies against forgetting, side by side, on one embedded task: the runs behind docs/findings.md.

    python benchmarks/remedies.py --out runs/remedies          # nothing is downloaded; a quarter of an hour
    python benchmarks/remedies.py --out runs/remedies --table  # the table again, from the runs

Each run learns `topic` from its 70 training rows; it is scored on its 40 test rows and on 30 of `demo`, whose summaries
show whether the model can still write. Results go to results/remedies.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import tunesmith
from tunesmith import Question, Recipe, Run, evaluate, load_task, make_recipe
from tunesmith.adapters.folder import load_trained, trained
from tunesmith.evaluation.forgetting import gauge_of
from tunesmith.models.load import find, load, load_encoder
from tunesmith.runs.records import Forgetting
from tunesmith.training.prepare import load_work

HERE = Path(__file__).parent
BASE: dict[str, Any] = {"model": "smollm2", "task": "topic", "method": "lora", "train": {"epochs": 6}}
RATE = make_recipe({"method": "lora"}).method.usual_rate(576)
PLANS: dict[str, dict[str, Any]] = {
    "LoRA, 6 epochs": {},
    "full fine-tuning instead": {"method": "full"},
    "prompt tuning instead": {"method": "prompt_tuning"},
    "IA3 instead": {"method": "ia3"},
    "2 epochs": {"train": {"epochs": 2}},
    "a quarter of the rate": {"train": {"epochs": 6, "learning_rate": RATE / 4}},
    "replay, 20 % of the rows": {"replay": {"tasks": ["reading_zh", "reasoning"], "share": 0.2}},
    "at most 10 % forgotten": {"forgetting": {"max_forgetting": 0.1, "every": 4}},
}
STRENGTHS = (0.5, 0.25)


def main() -> None:
    """Train, evaluate, measure; write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/remedies"))
    parser.add_argument("--table", action="store_true", help="print the table of the runs that are there")
    asked = parser.parse_args()
    path = HERE / "results" / "remedies.json"
    found = json.loads(path.read_text(encoding="utf-8")) if asked.table else {"rows": rows(asked.out)}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(found["rows"])))


def rows(out: Path) -> dict[str, Any]:
    """Give the scores and the forgetting of the base, of each training, and of the first at less strength."""
    found: dict[str, Any] = {"base": {"scores": scores("smollm2", out / "base")}}
    for name, told in PLANS.items():
        folder = out / name.replace(" ", "-").replace(",", "").replace("%", "percent")
        recipe = make_recipe({**BASE, **told})
        if not (folder / "DONE").is_file():
            try:
                tunesmith.train(recipe, folder, resume=folder.exists())
            except tunesmith.RunError as failed:
                found[name] = {"failed": failed.what}
                continue
        run = Run.open(folder)
        lost = run.forgetting()
        told_of = {"forgetting": lost.model_dump() if lost else None, "summary": run.summary().model_dump()}
        found[name] = {"scores": scores(str(folder), folder.with_name(folder.name + "-eval")), **told_of}
        if not told:
            for strength in STRENGTHS:
                found[f"{strength:g} of its strength"] = weakened(recipe, folder, strength)
    return found


def weakened(recipe: Recipe, folder: Path, strength: float) -> dict[str, Any]:
    """Give the scores and the forgetting of a trained adapter of which only a part is taken."""
    gauge = gauge_of(recipe, load_work(recipe))
    adapter = trained(folder)
    assert gauge is not None
    assert adapter is not None
    place = find(str(recipe.model))
    before = gauge.take(load(place, load_encoder(place)), kept=True)
    lost: Forgetting = gauge.compare(before, gauge.take(load_trained(adapter, strength=strength), kept=True), 0)
    name = folder.with_name(f"{folder.name}-at-{strength:g}")
    return {"scores": scores(str(folder), name, strength), "forgetting": lost.model_dump()}


def scores(target: str, folder: Path, strength: float = 1.0) -> list[dict[str, Any]]:
    """Score a model on the task and on summaries it has not learned."""
    if not (folder / "DONE").is_file():
        questions = [Question(load_task("topic"), listed=False), Question(load_task("demo"), limit=30)]
        evaluate(target, questions, folder, strength=strength)
    return [score.model_dump() for score in Run.open(folder).scores()]


def table(found: dict[str, Any]) -> list[str]:
    """Write the rows as a table."""
    lines = ["| | topic, accuracy | demo, ROUGE-1 | general text, nats per token | kept of it | kept of all |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, one in found.items():
        if "failed" in one:
            lines.append(f"| {name} | {one['failed']} | | | | |")
            continue
        marks = {(score["task"], score["metric"]): score for score in one["scores"]}
        told = [_interval(marks["topic", "accuracy"]), _interval(marks["demo", "rouge1"])]
        lost = one.get("forgetting")
        if lost is None:
            lines.append(f"| {name} | {' | '.join(told)} | | | |")
            continue
        text = next(ability for ability in lost["abilities"] if ability["metric"] == "nats_per_token")
        told.append(f"{text['before']:.3f} -> {text['after']:.3f}")
        told.append(f"{text['retained']:.1%} [{text['retained_low']:.1%}, {text['retained_high']:.1%}]")
        told.append(f"{lost['retained']:.1%} [{lost['low']:.1%}, {lost['high']:.1%}]")
        lines.append(f"| {name} | {' | '.join(told)} |")
    return lines


def _interval(score: dict[str, Any]) -> str:
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


if __name__ == "__main__":
    main()
