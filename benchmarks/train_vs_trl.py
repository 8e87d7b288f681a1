"""Training speed here and in TRL's SFTTrainer, side by side: same model, rows, rank, targets, dtype and epochs.

    python benchmarks/train_vs_trl.py --rows 64 --data dialogsum/train.jsonl --peer .venv-peers/bin/python

Every measurement is a process of its own; the tools alternate for `--rounds`
rounds, and the table gives medians. Real tokens are prompt and answer tokens,
never padding; the time is that of the training loop alone. The floor is the
time of the step's matrix products, run by themselves in the same sitting.
Results go to `results/train-<processor>.json`.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROMPT = "Summarize the following conversation.\n\n{{ dialogue }}\n\nSummary:"
PEERS = {
    "TRL 1.16, best measured settings": ["--micro-batch", "1"],
    "TRL 1.16, batches of 8 padded rows": ["--micro-batch", "8", "--order", "length"],
}


def main() -> None:
    """Measure, print the table and write the results."""
    asked = options()
    if asked.only:
        print(json.dumps({"ours": ours, "floor": floor}[asked.only](asked)))
        return
    measured: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model, rows = written(asked, Path(folder))
        for _ in range(asked.rounds):
            for name, command in commands(asked, model, rows):
                print(f"measuring {name} ...", file=sys.stderr, flush=True)
                measured.setdefault(name, []).append(result(command))
    report(measured, asked)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", default="q_proj,v_proj")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dialogsum/train.jsonl"))
    parser.add_argument("--peer", type=Path, default=Path(".venv-peers/bin/python"))
    parser.add_argument("--only", choices=["ours", "floor"], help=argparse.SUPPRESS)
    return parser.parse_args()


def commands(asked: argparse.Namespace, model: Path, rows: Path) -> list[tuple[str, list[str]]]:
    """List what is measured in one round."""
    shared = ["--rank", str(asked.rank), "--targets", asked.targets]
    me = [sys.executable, str(Path(__file__)), "--rows", str(asked.rows), "--data", str(asked.data), *shared]
    trl = [str(asked.peer), str(HERE / "peers" / "trl_sft.py"), "--model", str(model), "--rows", str(rows), *shared]
    found = [("tunesmith", [*me, "--only", "ours"]), ("floor: the products alone", [*me, "--only", "floor"])]
    if not asked.peer.is_file():
        print(f"{asked.peer} is not there: TRL is left out; see benchmarks/peers/README.md", file=sys.stderr)
        return found
    return [*found, *((name, [*trl, "--alpha", str(2 * asked.rank), *more]) for name, more in PEERS.items())]


def result(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.strip().split("\n")[-1]))


def encoded(asked: argparse.Namespace) -> tuple[Any, list[Any], list[tuple[str, str]]]:
    """Give the model's encoder, the rows' prompts and their texts (prompt, completion)."""
    from tunesmith.data.rows import Row
    from tunesmith.data.template import Template
    from tunesmith.models.load import find, load_encoder

    encoder = load_encoder(find("smollm2"))
    template = Template(name="plain", prompt=PROMPT, answer="{{ summary }}")
    lines = asked.data.read_text(encoding="utf-8").split("\n")[: asked.rows]
    prompts = [template.render(Row(str(i), json.loads(line))) for i, line in enumerate(lines)]
    texts = [(encoder.prompt_text(p), p.answer + encoder.tokenizer.eos_token) for p in prompts]
    return encoder, prompts, texts


def written(asked: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """Write the rows as text for the peer, and name the model's folder."""
    from tunesmith.models.load import find

    rows = folder / "rows.jsonl"
    texts = encoded(asked)[2]
    rows.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in texts), encoding="utf-8")
    return Path(find("smollm2").source), rows


def ours(asked: argparse.Namespace) -> dict[str, Any]:
    """Train through tunesmith's own loop, batches of about 8 rows like the peer's."""
    from tunesmith import methods
    from tunesmith.models import device
    from tunesmith.models.load import find, load
    from tunesmith.recipe import make_recipe
    from tunesmith.training.loop import Past, lay_out, steps
    from tunesmith.training.optimizer import MasterAdamW

    encoder, prompts, _ = encoded(asked)
    method = {"name": "lora", "rank": asked.rank, "alpha": 2 * asked.rank, "targets": asked.targets.split(",")}
    settings = {"batch_tokens": 2240, "learning_rate": 2e-4, "schedule": "linear", "warmup": 0.0}
    model = load(find("smollm2"), encoder)
    recipe = make_recipe({"method": method, "train": settings, "length": {"max_tokens": 2048}}).resolved(model.width)
    methods.prepare(model.net, recipe.method, recipe.seed)
    device.reset_peak()
    optimizer = MasterAdamW(model.net.named_parameters(), recipe.train)
    plan = lay_out(model, [encoder.encode(p) for p in prompts], recipe)
    log = list(steps(model, optimizer, plan, [], recipe, Past()))
    last = log[-1]
    return {
        "tool": "tunesmith",
        "real_tokens": last.tokens,
        "trained_tokens": last.answer_tokens,
        "seconds": last.seconds,
        "tokens_per_second": last.tokens / last.seconds,
        "peak_rss_bytes": device.peak_bytes(),
        "steps": last.step,
        "first_loss": log[0].loss,
        "final_loss": last.loss,
    }


def floor(asked: argparse.Namespace) -> dict[str, Any]:
    """Time the products of one step with a frozen base: forward, backward to the input, the head at answer tokens."""
    import torch
    from transformers import AutoConfig

    from tunesmith.models.load import find

    config = AutoConfig.from_pretrained(find("smollm2").source)
    tokens, answers, h, i = 2048, 250, config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * config.head_dim
    shapes = [(h, h)] * 2 + [(h, kv)] * 2 + [(h, i)] * 2 + [(i, h)]
    products = [(tokens, a, b) for a, b in shapes * config.num_hidden_layers] + [(answers, h, config.vocab_size)]
    weights = {(a, b): torch.randn(b, a, dtype=torch.bfloat16) for _, a, b in set(products)}
    inputs = {(n, a): torch.randn(n, a, dtype=torch.bfloat16) for m, x, y in set(products) for n, a in ((m, x), (m, y))}
    times = []
    for _ in range(4):
        started = time.perf_counter()
        for n, a, b in products:
            torch.nn.functional.linear(inputs[n, a], weights[a, b])
            torch.mm(inputs[n, b], weights[a, b])
        times.append(time.perf_counter() - started)
    seconds = statistics.median(times[1:])
    return {"tool": "floor", "real_tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}


def report(measured: dict[str, list[dict[str, Any]]], asked: argparse.Namespace) -> None:
    """Print medians and ratios, and keep every measurement."""
    from tunesmith.runs import machine

    speed = {name: statistics.median(r["tokens_per_second"] for r in runs) for name, runs in measured.items()}
    print(f"{'':38} {'tokens/s':>9} {'ours / it':>9} {'peak GB':>8}  loss first -> final")
    for name, runs in measured.items():
        peak = statistics.median(r.get("peak_rss_bytes", 0) for r in runs) / 1e9
        losses = f"{runs[0]['first_loss']:.3f} -> {runs[0]['final_loss']:.3f}" if "final_loss" in runs[0] else ""
        print(f"{name:38} {speed[name]:9.0f} {speed['tunesmith'] / speed[name]:9.2f} {peak:8.1f}  {losses}")
    facts = {"asked": {k: str(v) for k, v in vars(asked).items() if k in ("rows", "rank", "targets", "rounds")}}
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine.processor()}-{machine.cores()}-cores".lower()).strip("-")
    path = HERE / "results" / f"train-{name}.json"
    described = {key: value for key, value in machine.describe().items() if key in ("packages", "hardware", "created")}
    path.write_text(json.dumps({**described, **facts, "measured": measured}, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
