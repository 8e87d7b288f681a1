"""Scoring speed here and in rouge_score, side by side, on the same pairs; and the time of a large bootstrap.

    python benchmarks/metrics.py --data dialogsum

Each summary of the development split is scored against the summaries of ten
other rows, by ROUGE-1, 2, L and Lsum with Porter stems, one call per pair;
every process starts with nothing cached, the two alternate, and the table gives
medians. "once" pairs each summary of the training split with one other and meets no
text again, so that texts kept from an earlier pair cannot help. Results go to `results/metrics-<processor>.json`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent
KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
OTHERS = 10


def main() -> None:
    """Measure, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dialogsum"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        split, measure = MEASURED[asked.only]
        print(json.dumps(measure(summaries(asked.data / split))))
        return
    rounds = [{name: alone(name, asked.data) for name in MEASURED} for _ in range(asked.rounds)]
    medians = {name: statistics.median(one[name] for one in rounds) for name in MEASURED}
    report(medians, rounds)


def alone(name: str, data: Path) -> float:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--only", name, "--data", str(data)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def summaries(data: Path) -> list[str]:
    return [json.loads(line)["summary"] for line in data.read_text(encoding="utf-8").splitlines()]


def paired(texts: list[str]) -> list[tuple[str, str]]:
    n = len(texts)
    return [(texts[i], texts[(i + apart) % n]) for apart in range(1, OTHERS + 1) for i in range(n)]


def once(texts: list[str]) -> list[tuple[str, str]]:
    return list(pairwise(texts))[::2]


def ours(pairs: list[tuple[str, str]]) -> float:
    from tunesmith.metrics import rouge

    rouge.score("a", "a", KINDS, stemmer="porter")  # imports are no part of scoring, here or there
    started = time.perf_counter()
    for said, wanted in pairs:
        rouge.score(said, wanted, KINDS, stemmer="porter")
    return len(pairs) / (time.perf_counter() - started)


def theirs(pairs: list[tuple[str, str]]) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(KINDS), use_stemmer=True)
    scorer.score("a", "a")
    started = time.perf_counter()
    for said, wanted in pairs:
        scorer.score(wanted, said)
    return len(pairs) / (time.perf_counter() - started)


def bootstrap_seconds(texts: list[str]) -> float:
    """Give the seconds that intervals of the four kinds take on 10 000 pairs with 1 000 resamples, scoring excluded."""
    from tunesmith.metrics import metric
    from tunesmith.metrics.interval import bootstrap

    pairs = (paired(texts) * 2)[:10_000]
    marks = [metric(f"{kind}+stem") for kind in KINDS]
    stats = [mark.stats([said for said, _ in pairs], [(wanted,) for _, wanted in pairs]) for mark in marks]
    started = time.perf_counter()
    for mark, rows in zip(marks, stats, strict=True):
        bootstrap(mark, rows, resamples=1000)
    return time.perf_counter() - started


MEASURED = {
    "tunesmith pairs/s": ("dev.jsonl", lambda texts: ours(paired(texts))),
    "rouge_score pairs/s": ("dev.jsonl", lambda texts: theirs(paired(texts))),
    "tunesmith once pairs/s": ("train.jsonl", lambda texts: ours(once(texts))),
    "rouge_score once pairs/s": ("train.jsonl", lambda texts: theirs(once(texts))),
    "bootstrap seconds": ("dev.jsonl", bootstrap_seconds),
}


def report(medians: dict[str, float], rounds: list[dict[str, float]]) -> None:
    from tunesmith.runs.machine import describe

    ratios = {
        name: medians[f"tunesmith {name}pairs/s"] / medians[f"rouge_score {name}pairs/s"] for name in ("", "once ")
    }
    for name, ratio in ratios.items():
        here, there = (medians[f"{tool} {name}pairs/s"] for tool in ("tunesmith", "rouge_score"))
        print(f"{name or 'paired ':8} tunesmith {here:9,.0f} pairs/s   rouge_score {there:9,.0f}   {ratio:.1f}x")
    print(f"four intervals of 10 000 rows, 1 000 resamples: {medians['bootstrap seconds']:.2f} s")
    machine = describe()
    hardware = machine["hardware"]
    slug = "-".join([*hardware["processor"].lower().split()[:2], str(hardware["cores"]), "cores"])
    found = {"machine": machine, "ratios": ratios, "medians": medians, "rounds": rounds}
    out = HERE / "results" / f"metrics-{slug}.json"
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
