"""Evaluation here and in other tools, side by side: same model, dtype, requests and machine.

    python benchmarks/evaluate.py --data ../shared/data                    # all cases, two rounds
    python benchmarks/evaluate.py --data ../shared/data --only mmlu,bbh --rounds 1

Cases:
    mmlu            MMLU, 5-shot: lm-eval's requests of a few subjects, log-likelihoods of A to D
    bbh             BIG-Bench Hard as choices, 3-shot: log-likelihoods of several tokens
    generate        DialogSum, three examples that all prompts share, at most 96 new tokens, greedy
    generate_drawn  the same, each prompt with three examples of its own

Both sides get the same requests in the same process layout: each measurement is a process of its own that loads the
model, takes its requests, and is timed from the first text to the last answer, tokenising included. lm-eval's HF
backend and transformers' `generate` are tried with several batch sizes on `--few` questions; the best of each counts.
`continuous` is transformers' continuous batching; on a processor it is slow, and gets the few only. Peak memory is the
process's, model and libraries included. Nothing is kept or taken from a cache. Results go to
`results/evaluate-<processor>.json`.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SUBJECTS = ("astronomy", "econometrics", "high_school_european_history", "machine_learning", "nutrition", "virology")
TASKS = ("boolean_expressions", "navigate", "disambiguation_qa", "date_understanding", "snarks")
NEW = 96
ENGINES = {  # case: what is measured, and at which batch sizes
    "mmlu": {"tunesmith": [0], "lm-eval": [1, 8, 16]},
    "bbh": {"tunesmith": [0], "lm-eval": [1, 8, 16]},
    "generate": {"tunesmith": [0], "transformers": [8, 16, 32], "continuous": [2048]},
    "generate_drawn": {"tunesmith": [0], "transformers": [8, 16, 32]},
}


def main() -> None:
    """Measure, write the results and print the table."""
    asked = options()
    if asked.one:
        print(json.dumps(one(asked)))
        return
    name = re.sub(r"[^a-z0-9]+", "-", machine().lower()).strip("-")
    path = HERE / "results" / f"evaluate-{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for case in asked.only.split(","):
        tried: dict[str, Any] = {}
        best: dict[str, int] = {}
        for engine, sizes in ENGINES[case].items():
            for size in sizes if len(sizes) > 1 or engine == "continuous" else []:
                tried.setdefault(engine, {})[size] = measured(asked, case, (engine, size), asked.few)
            best[engine] = min(tried.get(engine, {0: {}}).items(), key=lambda pair: seconds([pair[1]]))[0]
        found[case] = {"batch": best, "tried": tried, "rounds": {engine: [] for engine in best}}
        for _ in range(asked.rounds):
            for engine, size in best.items():
                if engine != "continuous":
                    found[case]["rounds"][engine].append(measured(asked, case, (engine, size), asked.n))
                path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", default=",".join(ENGINES), help="cases, separated by commas")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--n", type=int, default=200, help="questions or prompts")
    parser.add_argument("--few", type=int, default=32, help="of them to find the best batch size, and for continuous")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(asked: argparse.Namespace, case: str, how: tuple[str, int], n: int) -> dict[str, Any]:
    """Run one measurement of `n` questions in a process of its own."""
    engine, size = how
    command = [sys.executable, __file__, "--one", f"{case}/{engine}/{size}", "--data", str(asked.data), "--n", str(n)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(made.stderr[-2000:])
    told = dict(json.loads(made.stdout.splitlines()[-1]))
    print(case, engine, size, f"{told['n']} in {told['seconds']:.1f} s", file=sys.stderr, flush=True)
    return told


def one(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure one engine on one case."""
    case, engine, size = asked.one.split("/")
    if case in ("mmlu", "bbh"):
        return scored(asked, case, engine, int(size))
    return generated(asked, case == "generate_drawn", engine, int(size))


def scored(asked: argparse.Namespace, case: str, engine: str, size: int) -> dict[str, Any]:
    """Score lm-eval's requests; say what came out, so that both can be seen to agree."""
    from tunesmith.evaluation import benching, lmtasks
    from tunesmith.evaluation.benchmarks import Bench
    from tunesmith.evaluation.harness import Harness
    from tunesmith.inference import responses

    tasks = [f"mmlu_{name}" for name in SUBJECTS] if case == "mmlu" else [f"leaderboard_bbh_{name}" for name in TASKS]
    limit = -(-asked.n // len(tasks))
    manager = lmtasks.index()
    plans = [
        benching.plan(manager, name, Bench((name,), 5 if case == "mmlu" else 3, limit, asked.data)) for name in tasks
    ]
    harness: Any = Harness(ours())
    requests = [request for one in plans for task in one.tasks for request in lmtasks.requests_of(task, harness, False)]
    if engine == "lm-eval":
        harness = theirs(size)
    began = time.perf_counter()
    with responses.counted("off"):
        found = harness.loglikelihood(requests)
    took = time.perf_counter() - began
    chosen: dict[tuple[str, int], tuple[float, int]] = {}
    for request, (value, _) in zip(requests, found, strict=True):
        key = (request.task_name, request.doc_id)
        chosen[key] = max(chosen.get(key, (float("-inf"), 0)), (value, request.idx))
    picks = [choice for _, choice in chosen.values()]
    sums = [round(value, 2) for value, _ in found[:8]]
    return {"seconds": took, "n": len(picks), "peak_bytes": peak(), "picks": picks, "first": sums}


def generated(asked: argparse.Namespace, drawn: bool, engine: str, size: int) -> dict[str, Any]:
    """Answer prompts with three examples; all have those of the first, unless they are drawn for each."""
    from tunesmith.inference.generate import generate

    model = ours()
    prompts = dialogues(asked.data).prompts("validation", 3, 0, None, asked.n)
    if not drawn:
        prompts = [prompt.with_shots(prompts[0].shots) for prompt in prompts]
    began = time.perf_counter()
    ids = [(prompt.id, model.encoder.prompt_ids(prompt)) for prompt in prompts]
    if engine == "tunesmith":
        answers = [list(answer.ids) for answer in generate(model, ids, NEW)]
    else:
        answers = {"transformers": plain, "continuous": continuous}[engine](model, [each for _, each in ids], size)
    took = time.perf_counter() - began
    stops = set(model.encoder.stops)
    kept = [[token for token in answer if token not in stops] for answer in answers]
    told = {"read": sum(len(each) for _, each in ids) / len(ids), "written": sum(map(len, kept)) / len(kept)}
    return {
        "seconds": took,
        "n": len(ids),
        "peak_bytes": peak(),
        **told,
        "answers": [answer[:8] for answer in kept[:20]],
    }


def plain(model: Any, prompts: list[tuple[int, ...]], size: int) -> list[list[int]]:
    """Answer through transformers' `generate`: batches in the order given, padded on the left."""
    import torch

    stops, answers = list(model.encoder.stops), []
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        longest = max(map(len, batch))
        ids = torch.tensor([[stops[0]] * (longest - len(row)) + list(row) for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        with torch.no_grad():
            out = model.net.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False,
                eos_token_id=stops, pad_token_id=stops[0],
            )  # fmt: skip
        answers += out[:, longest:].tolist()
    return answers


def continuous(model: Any, prompts: list[tuple[int, ...]], size: int) -> list[list[int]]:
    """Answer through transformers' continuous batching, which shares the blocks of common beginnings."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    stop = model.encoder.stops[0]
    generation = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=stop, pad_token_id=stop)
    batching = ContinuousBatchingConfig(max_batch_tokens=size, max_memory_percent=0.2)
    made = model.net.generate_batch(
        [list(row) for row in prompts], generation_config=generation, continuous_batching_config=batching
    )
    return [list(answer.generated_tokens) for answer in made.values()]


def ours() -> Any:
    from tunesmith.models.load import find, load, load_encoder

    place = find("smollm2")
    return load(place, load_encoder(place))


def theirs(size: int) -> Any:
    """Load lm-eval's own backend, on the same files in the same dtype."""
    from lm_eval.models.huggingface import HFLM

    from tunesmith.models import device
    from tunesmith.models.load import find

    dtype = device.dtype_name(device.choose_dtype().torch)
    return HFLM(pretrained=find("smollm2").source, dtype=dtype, batch_size=size, device=device.current().type)


def dialogues(data: Path) -> Any:
    from tunesmith.data.task import Source, Sources, Task
    from tunesmith.data.template import Template

    files = {"train": "train", "validation": "dev"}
    sources = {split: Source(file=data / "dialogsum" / f"{name}.jsonl", id="fname") for split, name in files.items()}
    prompt = "Summarize the following conversation.\n\n{{ dialogue }}\n\nSummary:"
    wording = Template(name="plain", prompt=prompt, answer="{{ summary }}")
    return Task(name="dialogsum", source=Sources(**sources), templates=(wording,))


def machine() -> str:
    from tunesmith.runs import machine as facts

    return f"{facts.processor()} {facts.cores()} cores"


def peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds(rounds: list[dict[str, Any]]) -> float:
    """Give the median of the seconds per question; 0 where nothing was tried."""
    return statistics.median(one.get("seconds", 0) / one.get("n", 1) for one in rounds)


def table(found: dict[str, Any]) -> str:
    """Write seconds per question, how many times faster ours is, and peak memory."""
    titles = ("case", "engine", "batch", "questions", "seconds each", "tunesmith is faster by", "peak GB")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for case, told in found.items():
        for engine, size in told["batch"].items():
            rounds = told["rounds"][engine] or list(told["tried"][engine].values())
            took, most = seconds(rounds), max(one["peak_bytes"] for one in rounds) / 1e9
            faster = "" if engine == "tunesmith" else f"{took / seconds(told['rounds']['tunesmith']):.1f}"
            cells = (case, engine, str(size or ""), str(rounds[0]["n"]), f"{took:.3f}", faster, f"{most:.1f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
