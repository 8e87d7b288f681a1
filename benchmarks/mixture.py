"""Many tasks against one, and what each way of tuning forgets: the runs behind docs/findings.md.

    python benchmarks/mixture.py --out runs/mixture          # from the repository, with the data beside it; an hour
    python benchmarks/mixture.py --out runs/mixture --table  # the tables again, from the runs

Trained on smollm2, each run in a folder of its own (one that is done is not repeated):
    multi-METHOD        the mixture of recipes/mixture.yaml by LoRA, full fine-tuning and prompt tuning
    TASK-METHOD         one task with as many tokens as the whole mixture has
    own-TASK            one task with the very number of rows that the mixture has of it, by LoRA
All are evaluated on the tasks of the mixture and on the cluster it holds out, zero-shot, and measured for what they
forget of the embedded tasks and of the general text. Results go to results/mixture.json.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import tunesmith
from tunesmith import Question, Recipe, Run, evaluate, make_recipe, read_recipe
from tunesmith.data.blend import Blend
from tunesmith.reporting.compare import Comparison, compare
from tunesmith.training.prepare import load_work
from tunesmith.training.preview import preview

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "mixture.yaml"
METHODS = ("lora", "full", "prompt_tuning")
UNLEARNED = ["sentiment", "topic", "commonsense", "paraphrase_zh", "nli"]
LONE = {"dialogsum": METHODS, "cola": ("lora",)}
SEED = 0
CLAIMS = {  # what is said to forget less, and more
    "many tasks forget less than one": [("multi-lora", "dialogsum-lora"), ("multi-lora", "cola-lora"),
                                        ("multi-full", "dialogsum-full"),
                                        ("multi-prompt_tuning", "dialogsum-prompt_tuning")],
    "few weights forget less than all": [("multi-lora", "multi-full"), ("multi-prompt_tuning", "multi-full"),
                                         ("dialogsum-lora", "dialogsum-full"),
                                         ("dialogsum-prompt_tuning", "dialogsum-full")],
}  # fmt: skip


def main() -> None:
    """Train, evaluate, compare; write the results and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/mixture"))
    parser.add_argument("--limit", type=int, default=150, help="test rows of each task")
    parser.add_argument("--summaries", type=int, default=60, help="test rows of DialogSum, which are written out")
    parser.add_argument("--table", action="store_true", help="print the tables of the runs that are there")
    asked = parser.parse_args()
    whole = read_recipe(RECIPE)
    blend = load_work(whole)
    assert isinstance(blend, Blend)
    files = {member.task.name: part.task for member, part in zip(blend.members, _parts(whole, blend), strict=True)}
    plans = _plans(whole, blend, files)
    runs = {"base": _evaluated(asked, "base", "smollm2", blend)}
    for name, recipe in plans.items():
        folder = asked.out / name
        if not asked.table and not (folder / "DONE").is_file():
            print(f"{name}: {preview(recipe, 1).ledger.tokens} tokens", flush=True)
            tunesmith.train(recipe, folder, resume=folder.exists())
        only = name.removeprefix("own-") if name.startswith("own-") else None
        runs[name] = _evaluated(asked, name, str(folder), blend, only)
    found = _results(runs, asked.out, plans)
    (HERE / "results" / "mixture.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(_tables(found)))


def _parts(whole: Recipe, blend: Blend) -> list[Any]:
    assert whole.mixture is not None
    names = {task.name for task in blend.held}
    parts = {tunesmith.load_task(str(part.task)).name: part for part in whole.mixture.tasks}
    return [part for name, part in parts.items() if name not in names]


def _plans(whole: Recipe, blend: Blend, files: dict[str, Any]) -> dict[str, Recipe]:
    """Give the recipe of each run. Equal tokens: the first n rows of a task that have as many as the mixture."""
    told = {**whole.model_dump(mode="json"), "forgetting": {"tasks": UNLEARNED}}
    alone = {key: value for key, value in told.items() if key not in ("mixture", "method")}
    ledger = preview(make_recipe(told), 1).ledger
    plans = {f"multi-{method}": make_recipe({**told, "method": method}) for method in METHODS}
    for task, lone in LONE.items():
        n = _rows_for(make_recipe({**alone, "task": files[task]}), ledger.tokens)
        for method in lone:
            plans[f"{task}-{method}"] = make_recipe(
                {**alone, "task": files[task], "method": method, "limit": {"train": n, "validation": 20}}
            )
    for share in ledger.tasks:
        limit = {"train": share.rows, "validation": 20}
        plans[f"own-{share.task}"] = make_recipe({**alone, "task": files[share.task], "method": "lora", "limit": limit})
    return plans


def _rows_for(recipe: Recipe, tokens: int) -> int:
    """Count the first rows of a task's seeded order that have `tokens` tokens together."""
    some = recipe.model_copy(update={"limit": recipe.limit.model_copy(update={"train": 400})})
    ledger = preview(some, 1).ledger
    return round(tokens * ledger.kept / ledger.tokens)


def _evaluated(asked: argparse.Namespace, name: str, target: str, blend: Blend, only: str | None = None) -> Run:
    folder = asked.out / f"{name}-eval"
    if (folder / "DONE").is_file():
        return Run.open(folder)
    tasks = [task for task in (*(member.task for member in blend.members), *blend.held) if only in (None, task.name)]
    limits = {task.name: asked.summaries if task.name == "dialogsum" else asked.limit for task in tasks}
    return evaluate(target, [Question(task, limit=limits[task.name], seed=SEED) for task in tasks], folder)


def _results(runs: dict[str, Run], out: Path, plans: dict[str, Recipe]) -> dict[str, Any]:
    """Gather every score, its difference to the base's, and what was forgotten."""
    found: dict[str, Any] = {}
    for name, run in runs.items():
        scores = [score.model_dump() for score in run.scores()]
        against = [one.model_dump() for one in compare(runs["base"], run)] if name != "base" else []
        found[name] = {"scores": scores, "against_base": against}
        if name in plans:
            trained = Run.open(out / name)
            told, facts, ledger = trained.forgetting(), trained.summary(), trained.ledger()
            found[name] |= {
                "forgetting": told.model_dump() if told else None,
                "ledger": ledger.model_dump(exclude={"leaks", "leaked", "dropped", "duplicate"}) if ledger else None,
                "summary": facts.model_dump(),
                "rate": plans[name].resolved(576).train.learning_rate,
            }
    lone = {f"{task}-lora" for task in LONE}
    found["multi-lora"]["against_single"] = {
        name: [one.model_dump() for one in compare(runs[name], runs["multi-lora"])]
        for name in runs
        if name.startswith("own-") or name in lone
    }
    found["claims"] = {
        claim: [
            {"less": less, "more": more, "abilities": [one.model_dump() for one in _left(out, more, less)]}
            for less, more in pairs
        ]
        for claim, pairs in CLAIMS.items()
    }
    return found


def _left(out: Path, more: str, less: str) -> list[Comparison]:
    return compare(Run.open(out / more), Run.open(out / less))


def _claims(found: dict[str, Any]) -> list[str]:
    """Write what each claim comes to: how much less is lost, of the general text and of the summed accuracies."""
    lines = [
        "| claim | run | against | general text, nats per token | accuracy, mean of the tasks |",
        "|---|---|---|---|---|",
    ]
    for claim, pairs in found["claims"].items():
        for pair in pairs:
            text = _one(pair["abilities"], "general text", "nats_per_token")
            tasks = [one for one in pair["abilities"] if one["metric"] == "accuracy"]
            mean = statistics.fmean(one["difference"] for one in tasks)
            half = math.sqrt(sum(((one["high"] - one["low"]) / 2) ** 2 for one in tasks)) / len(tasks)
            lines.append(
                f"| {claim} | {pair['less']} | {pair['more']} | {_difference(text)} | "
                f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}] |"
            )
    return lines


def _tables(found: dict[str, Any]) -> list[str]:
    main = {score["task"]: score["metric"] for score in reversed(found["base"]["scores"])}
    lines = [
        "| task | metric | base | single (same rows) | multi | multi - base | multi - single |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, name in reversed(main.items()):
        multi = _one(found["multi-lora"]["against_base"], task, name)
        own = found.get(f"own-{task}")
        single = _score(own, task, name) if own else "-"
        rival = found["multi-lora"]["against_single"].get(f"own-{task}")
        lines.append(
            f"| {task} | {name} | {_score(found['base'], task, name)} | {single} | "
            f"{_score(found['multi-lora'], task, name)} | {_difference(multi)} | "
            f"{_difference(_one(rival, task, name)) if rival else '-'} |"
        )
    lines += [
        "",
        "| run | rate | tokens | trained weights | s | general text, nats per token | kept of it | tasks | all |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for name, one in found.items():
        if name != "claims" and "forgetting" in one and not name.startswith("own-"):
            lines.append(_kept(name, one))
    return [*lines, "", *_claims(found)]


def _kept(name: str, one: dict[str, Any]) -> str:
    told, facts = one["forgetting"], one["summary"]
    text = next(ability for ability in told["abilities"] if ability["metric"] == "nats_per_token")
    tasks = f"{told['tasks_retained']:.1%}" if told["tasks_retained"] is not None else "-"
    return (
        f"| {name} | {one['rate']:.1g} | {facts['tokens']} | {facts['trainable_parameters']} | "
        f"{facts['seconds']:.0f} | "
        f"{text['before']:.3f} -> {text['after']:.3f} | "
        f"{text['retained']:.1%} [{text['retained_low']:.1%}, {text['retained_high']:.1%}] | {tasks} | "
        f"{told['retained']:.1%} [{told['low']:.1%}, {told['high']:.1%}] |"
    )


def _score(one: dict[str, Any], task: str, name: str) -> str:
    score = next(score for score in one["scores"] if (score["task"], score["metric"]) == (task, name))
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _one(found: list[dict[str, Any]], task: str, name: str) -> dict[str, Any]:
    return next(one for one in found if (one["task"], one["metric"]) == (task, name))


def _difference(one: dict[str, Any]) -> str:
    return f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}], p {one['p']:.3f}"


if __name__ == "__main__":
    main()
