"""Plans beside what trainings take: peak memory and time, by method, length of rows and checkpointing.

    python benchmarks/plan.py --memory
    python benchmarks/plan.py --time
    python benchmarks/plan.py --published

Each case is a process of its own: three steps of a training, through `train` itself, of the embedded model or of a
T5 of random weights. What was planned before the first step is set beside `summary.json`. `--time` probes, and
then trains a dozen steps on rows of mixed lengths; run it on a quiet machine. `--published` plans models of which
only the config is at hand, beside figures from papers. Cases that `results/plan.json` has already are left out;
`--again` takes them anew. A machine may be a third slower from one minute to the next, so times are taken in several
`--rounds`, each through all cases; a case's error is the median of its rounds, which are all kept.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE / "results" / "plan.json"
WORDS = tuple("time people water house music green river stone paper light table small garden window".split())  # noqa: SIM905
MEMORY = [
    *(
        {"model": "smollm2", "method": "lora", "length": n, "checkpointing": c}
        for n in (128, 512) for c in (False, True)
    ),
    {"model": "smollm2", "method": "lora", "length": 900, "checkpointing": False},
    {"model": "smollm2", "method": "full", "length": 256, "checkpointing": False},
    {"model": "smollm2", "method": "full", "length": 256, "checkpointing": True},
    {"model": "smollm2", "method": "qlora", "length": 256, "checkpointing": False},
    {"model": "smollm2", "method": "ia3", "length": 256, "checkpointing": False},
    {"model": "smollm2", "method": "prefix", "length": 256, "checkpointing": False},
    {"model": "smollm2", "method": "prompt_tuning", "length": 512, "checkpointing": True},
    {"model": "smollm2", "method": "layers", "length": 256, "checkpointing": False},
    *({"model": "t5", "method": "lora", "length": n, "checkpointing": c} for n in (128, 512) for c in (False, True)),
    {"model": "t5", "method": "full", "length": 128, "checkpointing": False},
    {"model": "t5", "method": "full", "length": 512, "checkpointing": True},
]  # fmt: skip
TIME = [one for one in MEMORY if one["model"] == "smollm2" and one["method"] in ("lora", "full", "ia3")]
TOKENS = 1024
# The configs of models that are not at hand, as their public config.json has them.
LLAMA2_70B = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_65B = {**LLAMA2_70B, "intermediate_size": 22016, "num_key_value_heads": 64, "max_position_embeddings": 2048}
T5_11B = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 1024, "d_ff": 65536, "d_kv": 128,
    "num_heads": 128, "num_layers": 24, "num_decoder_layers": 24, "vocab_size": 32128, "feed_forward_proj": "relu",
    "relative_attention_num_buckets": 32, "tie_word_embeddings": True, "dropout_rate": 0.1,
}  # fmt: skip
# What QLoRA takes of a weight is derived: 4 bits, 8 of a magnitude for 64 weights, 32 of one for 256 of those, which is
# 4 + 8 / 64 + 32 / (64 * 256) = 4.127; the paper gives the 0.127 (arXiv:2305.14314, section 3). The bounds are derived
# too: below, what is held without any pass; above, room for a pass of 512 tokens and what an allocator loses.
SMALL = ["train.gradient_checkpointing=true", "train.batch_tokens=512", "length.max_tokens=512"]
PUBLISHED = [
    {
        "name": "65B, QLoRA", "config": LLAMA_65B, "settings": ["method.name=qlora", *SMALL],
        "within_gib": [35, 40],
        "says": "finetuning a 65B model fits one 48 GB GPU (Dettmers et al. 2023, arXiv:2305.14314, abstract). "
        "Derived: 4.127 bits of 64.8 billion weights, 2 bytes of 0.5 and 18 of 0.2 that learn are 35.4 GiB",
    },
    {
        "name": "65B, full, 16 bit", "config": LLAMA_65B, "settings": ["method.name=full", *SMALL],
        "within_gib": [1094, 1277],
        "says": "regular 16-bit finetuning of 65B takes more than 780 GB (arXiv:2305.14314, section 1): 12 bytes a "
        "weight. Ours sums gradients and keeps masters in fp32. Derived: 2 + 4 + 4 + 8 = 18 bytes a weight between "
        "passes, 2 more of a pass's gradients, up to 1 for the rest of it",
    },
    {
        "name": "70B, QLoRA", "config": LLAMA2_70B, "settings": ["method.name=qlora", *SMALL],
        "within_gib": [37, 42],
        "says": "derived as for 65B: 4.127 bits of 68.5 billion weights, 2 bytes of 0.5 and 18 of 0.2 are 37.3 GiB",
    },
    {
        "name": "T5-11B, full", "config": T5_11B, "settings": ["method.name=full", *SMALL],
        "within_gib": [189, 222],
        "says": "mixed-precision Adam holds 16 bytes a weight (Rajbhandari et al. 2020, arXiv:1910.02054, section "
        "3.1): 169 GiB for 11.3 billion, before activations. Derived for ours, as for 65B: 18 to 21 bytes a weight",
    },
]  # fmt: skip


def main() -> None:
    """Take the cases that are asked for, print and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("memory", "time", "published", "again"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(measure(**json.loads(asked.only))))
        return
    known: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    for kind, cases in (("memory", MEMORY), ("time", TIME)):
        if getattr(asked, kind):
            _take(known, kind, cases, asked.again, asked.rounds)
    if asked.published:
        known["published"] = [published(one) for one in PUBLISHED]
        print(*known["published"], sep="\n")
        _write(known)
    for kind in ("memory", "time"):
        if known.get(kind):
            off = [abs(one["error"]) for one in known[kind]]
            known[f"{kind}_errors"] = {"cases": len(off), "median": statistics.median(off), "worst": max(off)}
            print(kind, known[f"{kind}_errors"])
    _write(known)


def _take(known: dict[str, Any], kind: str, cases: list[dict[str, Any]], again: bool, rounds: int) -> None:
    had = {json.dumps(one["case"]): one["rounds"] for one in known.get(kind, ()) if not again}
    for number in range(rounds):
        for case in cases:
            taken = had.setdefault(json.dumps(case), [])
            if len(taken) > number:
                continue
            command = [sys.executable, __file__, "--only", json.dumps({**case, "timed": kind == "time"})]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            taken.append(json.loads(done.splitlines()[-1]))
            print(case, taken[-1], flush=True)
            known[kind] = [_told(one, had[json.dumps(one)]) for one in cases if had.get(json.dumps(one))]
            _write(known)


def _told(case: dict[str, Any], rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Give a case with the median error of its rounds, and all of them."""
    return {"case": case, "error": statistics.median(one["error"] for one in rounds), "rounds": rounds}


def _write(known: dict[str, Any]) -> None:
    from tunesmith.runs import machine

    OUT.write_text(json.dumps({**known, "machine": machine.describe()}, indent=1) + "\n", encoding="utf-8")


def measure(model: str, method: str, length: int, checkpointing: bool, timed: bool) -> dict[str, Any]:
    """Train three steps and set what they took beside the plan; `timed`: twelve, beside what a probe plans."""
    from tunesmith.recipe import make_recipe
    from tunesmith.training.planned import plan
    from tunesmith.training.probe import probe
    from tunesmith.training.train import train

    with tempfile.TemporaryDirectory() as folder:
        values = {
            "task": str(_task(Path(folder), length, timed)),
            "model": model if model == "smollm2" else str(_t5(Path(folder, "t5"))),
            "method": method,
            "prompting": "plain",
            "train": {"batch_tokens": TOKENS, "gradient_checkpointing": checkpointing, "checkpoint_every": 0},
            "forgetting": {"tasks": [], "text": False},
            "leaked": "tell",
        }
        recipe = make_recipe(values)
        probed = probe(recipe, plan(recipe)) if timed else None
        run = train(recipe, Path(folder, "run"))
        facts, planned = run.summary(), run.plan()
        assert planned is not None
        if probed is None:
            told = {"planned": planned.counted_bytes, "measured": facts.peak_memory_bytes}
            return {
                **told,
                "error": planned.counted_bytes / facts.peak_memory_bytes - 1,
                "parts": planned.outlooks[0].parts.model_dump(),
            }
        steps = run.steps()
        measured = steps[-1].seconds
        return {
            "planned": probed.seconds,
            "unprobed": planned.seconds,
            "measured": measured,
            "error": probed.seconds / measured - 1,
        }


def _task(folder: Path, length: int, timed: bool) -> Path:
    """Write a task whose rows have about `length` tokens, an eighth of them answer: enough for three steps.

    `timed`: for twelve, of rows of every length from a quarter of it.
    """
    draw, rows = random.Random(0), []
    left = (12 if timed else 3) * TOKENS
    while left >= length or len(rows) < 3:
        tokens = draw.randint(length // 4, length) if timed else length
        asked, said = (" ".join(draw.choices(WORDS, k=max(1, int(tokens * share) - 8))) for share in (0.875, 0.125))
        rows.append({"id": f"r{len(rows)}", "asked": f"{len(rows)} {asked}", "said": said})
        left -= tokens
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = folder / "words.yaml"
    task.write_text(
        "name: words\nsource: {train: {file: rows.jsonl}}\nmetrics: [rouge1]\n"
        'templates: [{name: ask, prompt: "{{ asked }}", answer: "{{ said }}"}]\n',
        encoding="utf-8",
    )
    return task


def _t5(folder: Path) -> Path:
    """Write a T5 of random weights, with the embedded model's tokenizer."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from tunesmith.models.load import find, load_encoder

    tokenizer: Any = load_encoder(find("smollm2")).tokenizer
    config = T5Config(
        vocab_size=len(tokenizer), d_model=256, d_kv=32, d_ff=1024, num_layers=6, num_heads=8, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def published(case: dict[str, Any], room: int | None = None) -> dict[str, Any]:
    """Plan a model of which only the config is at hand for one 80 GB GPU, beside what a paper says of it.

    With `room` bytes for it there, nothing is sought that makes it fit.
    """
    from tunesmith.planning.machines import MACHINES
    from tunesmith.recipe import make_recipe
    from tunesmith.training.planned import plan

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(case["config"]), encoding="utf-8")
        recipe = make_recipe({"model": folder, "dtype": "bfloat16"}, tuple(case["settings"]))
        one, eight = MACHINES["1x80"], MACHINES["8x80"]
        made = plan(recipe, machines=[one.model_copy(update={"memory": room or one.memory}), eight])
    low, high = case["within_gib"]
    peak = made.peak_bytes / 2**30
    return {
        "name": case["name"],
        "says": case["says"],
        "parameters": made.total_parameters,
        "peak_gib": round(peak, 1),
        "parts_gib": {name: round(size / 2**30, 2) for name, size in made.outlooks[0].parts.model_dump().items()},
        "peak_of_each_of_eight_gib": round(made.outlooks[1].parts.peak / 2**30, 1),
        "expected_gib": [low, high],
        "sane": low <= peak <= high,
        "fixes": [one.line() for one in made.fixes],
    }


if __name__ == "__main__":
    main()
