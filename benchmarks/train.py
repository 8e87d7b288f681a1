"""Training speed here and in other tools, side by side: same model, rows, rank, targets, batch, dtype and epochs.

    make bench-peers                                   # environments of their own for the other tools
    python benchmarks/train.py --rows 256 --data dialogsum/train.jsonl
    python benchmarks/train.py --device cuda --shape 8b      # random weights at real sizes, on a GPU, ours alone

Every measurement is a process of its own; the tools alternate for `--rounds`
rounds, and the table gives medians. Real tokens are prompt and answer tokens,
never padding; the time is that of the training loop alone. The floor is the
time of the step's matrix products, run by themselves before and after every
tool, since machines drift: a tool's share is that of the two beside it.
Peers run with the memory settings that Python comes with, and at the best
setting we know for them: there freed memory is kept ("memory kept", `peers/`).
All compute in the dtype that suits the machine, 8 rows a step; ours and "TRL,
one row per pass" take the same rows in the same steps, the others group rows
by length, and their losses are comparable over an epoch.
Results go to `results/train-<processor or GPU>-<dtype>.json`.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROMPT = "Summarize the following conversation.\n\n{{ dialogue }}\n\nSummary:"
SAME_STEPS = "TRL, one row per pass, memory kept"
PEERS = {  # name: environment, script and its own options
    "TRL, 8 padded rows": ("trl", "trl_sft.py", ["--micro-batch", "8", "--order", "length", "--memory", "returned"]),
    SAME_STEPS: ("trl", "trl_sft.py", ["--micro-batch", "1"]),
    "transformers Trainer + peft": ("trl", "hf_trainer.py", ["--memory", "returned"]),
    "LLaMA-Factory": ("llama-factory", "llama_factory.py", ["--memory", "returned"]),
    "LLaMA-Factory, no checkpointing, memory kept": ("llama-factory", "llama_factory.py", ["--no-checkpointing"]),
}
BATCH = 8  # rows per step
SHAPES = {  # as published: layers, width, inner width, heads, key heads, vocabulary
    "135m": (30, 576, 1536, 9, 3, 49_152),
    "1b": (16, 2048, 8192, 32, 8, 128_256),
    "8b": (32, 4096, 14_336, 32, 8, 128_256),
}
PEAK_FLOPS = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}  # dense bf16, makers' sheets; the first name that fits counts


def main() -> None:
    """Measure, print the table and write the results."""
    asked = options()
    if asked.only:
        print(json.dumps({"ours": ours, "floor": floor}[asked.only](asked)))
        return
    if asked.device == "cuda":
        write(random_weights(asked), asked, asked.shape)
        return
    measured: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        model, rows = written(asked, Path(folder))
        for _ in range(asked.rounds):
            for name, command in commands(asked, model, rows):
                print(f"measuring {name} ...", file=sys.stderr, flush=True)
                before, found, after = (result(given) for given in (own(asked, "floor"), command, own(asked, "floor")))
                found["floor_tokens_per_second"] = (before["tokens_per_second"] + after["tokens_per_second"]) / 2
                measured.setdefault(name, []).append(found)
                write({"dtype": computing(), "measured": measured}, asked)
    report(measured, asked)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", default="q_proj,v_proj")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dialogsum/train.jsonl"))
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers"), help="folder of the peers' environments")
    parser.add_argument("--skip", action="append", default=[], help="leave out peers whose name holds this")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="1b", help="of the random weights, with --device cuda")
    parser.add_argument("--only", choices=["ours", "floor"], help=argparse.SUPPRESS)
    return parser.parse_args()


def commands(asked: argparse.Namespace, model: Path, rows: Path) -> list[tuple[str, list[str]]]:
    """List what is measured in one round."""
    found = [("tunesmith", own(asked, "ours"))]
    given = ["--model", str(model), "--rows", str(rows), "--batch", str(BATCH), "--dtype", computing()]
    given += [*adapter(asked), "--alpha", str(2 * asked.rank)]
    for name, (environment, script, more) in PEERS.items():
        python = asked.peers / environment / "bin" / "python"
        if any(part in name for part in asked.skip):
            continue
        if not python.is_file():
            print(f"{python} is not there: {name} is left out; `make bench-peers` makes it", file=sys.stderr)
            continue
        found.append((name, [str(python), str(HERE / "peers" / script), *given, *more]))
    return found


def own(asked: argparse.Namespace, part: str) -> list[str]:
    """Give the command that measures one of our own parts in a process of its own."""
    given = ["--rows", str(asked.rows), "--data", str(asked.data), *adapter(asked)]
    return [sys.executable, str(Path(__file__)), *given, "--only", part]


def adapter(asked: argparse.Namespace) -> list[str]:
    return ["--rank", str(asked.rank), "--targets", asked.targets]


def computing() -> str:
    """Name the dtype in which this machine computes fastest, as the peers' scripts call it."""
    import torch

    from tunesmith.models.device import choose_dtype

    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[choose_dtype().torch]


def result(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stderr[-2000:]}")
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
    """Write the rows as text, and the model in the dtype of this machine: some tools compute in that of the file."""
    from tunesmith.models.load import find, load

    encoder = encoded(asked)[0]
    model = load(find("smollm2"), encoder)
    model.net.save_pretrained(folder / "model")
    encoder.tokenizer.save_pretrained(folder / "model")
    rows = folder / "rows.jsonl"
    texts = encoded(asked)[2]
    rows.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in texts), encoding="utf-8")
    return folder / "model", rows


def ours(asked: argparse.Namespace) -> dict[str, Any]:
    """Train through tunesmith's own loop, 8 rows a step in the order of the file."""
    from tunesmith.models.load import find, load
    from tunesmith.training.loop import Plan

    encoder, prompts, _ = encoded(asked)
    rows = [encoder.encode(p) for p in prompts]
    plan = Plan((tuple((tuple(rows[i : i + BATCH]),) for i in range(0, len(rows), BATCH)),))
    return trained(load(find("smollm2"), encoder), plan, asked)


def trained(model: Any, plan: Any, asked: argparse.Namespace) -> dict[str, Any]:
    from tunesmith import methods
    from tunesmith.models import device
    from tunesmith.recipe import make_recipe
    from tunesmith.runs.records import Step
    from tunesmith.training.loop import Past, steps
    from tunesmith.training.optimizer import MasterAdamW

    method = {"name": "lora", "rank": asked.rank, "alpha": 2 * asked.rank, "targets": asked.targets.split(",")}
    settings = {"learning_rate": 2e-4, "schedule": "linear", "warmup": 0.0}
    recipe = make_recipe({"method": method, "train": settings}).resolved(model.width)
    methods.prepare(model, recipe.method, recipe.seed)
    loading = device.peak_bytes()
    device.reset_peak()
    optimizer = MasterAdamW(model.net.named_parameters(), recipe.train)
    log = [event for event in steps(model, optimizer, plan, [], recipe, Past()) if isinstance(event, Step)]
    last = log[-1]
    return {
        "tool": "tunesmith",
        "real_tokens": last.tokens,
        "trained_tokens": last.answer_tokens,
        "seconds": last.seconds,
        "tokens_per_second": last.tokens / last.seconds,
        "peak_rss_bytes": max(loading, device.peak_bytes()),
        "steps": last.step,
        "losses": [step.loss for step in log],
        "first_loss": log[0].loss,
        "final_loss": last.loss,
    }


def floor(asked: argparse.Namespace) -> dict[str, Any]:
    """Time the products of one step with a frozen base: forward, backward to the input, the head at answer tokens."""
    import torch
    from transformers import AutoConfig

    from tunesmith.models.device import choose_dtype
    from tunesmith.models.load import find

    config, dtype = AutoConfig.from_pretrained(find("smollm2").source), choose_dtype().torch
    tokens, answers, h, i = 2048, 250, config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * config.head_dim
    shapes = [(h, h)] * 2 + [(h, kv)] * 2 + [(h, i)] * 2 + [(i, h)]
    products = [(tokens, a, b) for a, b in shapes * config.num_hidden_layers] + [(answers, h, config.vocab_size)]
    weights = {(a, b): torch.randn(b, a, dtype=dtype) for _, a, b in set(products)}
    inputs = {(n, a): torch.randn(n, a, dtype=dtype) for m, x, y in set(products) for n, a in ((m, x), (m, y))}
    times = []
    for _ in range(4):
        started = time.perf_counter()
        for n, a, b in products:
            torch.nn.functional.linear(inputs[n, a], weights[a, b])
            torch.mm(inputs[n, b], weights[a, b])
        times.append(time.perf_counter() - started)
    seconds = statistics.median(times[1:])
    return {"tool": "floor", "real_tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}


def random_weights(asked: argparse.Namespace) -> dict[str, Any]:
    """Train a Llama of random weights at a published shape; speed, peak memory and model FLOPs utilisation."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tunesmith.data.encode import Encoded
    from tunesmith.models.load import Model, find, load
    from tunesmith.training.loop import Plan

    layers, width, inner, heads, key_heads, words = SHAPES[asked.shape]
    config = LlamaConfig(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=key_heads, vocab_size=words, pad_token_id=0, tie_word_embeddings=False,
    )  # fmt: skip
    device = torch.device(asked.device)
    with device:
        torch.set_default_dtype(torch.bfloat16)
        net = LlamaForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
    like = load(find("smollm2"), encoded(asked)[0])
    model = Model(asked.shape, net, like.encoder, like.kind, like.sha256, like.dtype)
    draw = random.Random(0)
    tokens = tuple(draw.randrange(5, 40_000) for _ in range(512))
    rows = [Encoded(str(i), (i + 5, *tokens[: 447 - i % 32]), tokens[448:]) for i in range(asked.rows)]
    found = trained(model, Plan((tuple((tuple(rows[i : i + 32]),) for i in range(0, len(rows), 32)),)), asked)
    matrices = layers * (2 * width * width + 2 * width * width * key_heads // heads + 3 * width * inner)
    adapters = sum(p.numel() for p in net.parameters() if p.requires_grad)
    attention = 3 * 4 * layers * width * 256  # forward and twice that back; a token sees half of 512 others
    per_token, per_answer = 4 * matrices + 6 * adapters + attention, 4 * width * words
    found["model_flops"] = found["real_tokens"] * per_token + found["trained_tokens"] * per_answer
    name = torch.cuda.get_device_name() if asked.device == "cuda" else ""
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    found["flops_utilisation"] = found["model_flops"] / found["seconds"] / peak if peak else None
    return {**found, "shape": asked.shape, "gpu": name}


def report(measured: dict[str, list[dict[str, Any]]], asked: argparse.Namespace) -> None:
    """Print medians and ratios, and keep every measurement."""
    mine = middle(measured["tunesmith"], share)
    print(f"{'':46} {'tokens/s':>8} {'of floor':>8} {'ours / it':>9} {'peak GB':>8} {'mean loss':>9}")
    for name, runs in measured.items():
        loss, peak = (
            middle(runs, lambda run: statistics.mean(run["losses"])),
            middle(runs, itemgetter("peak_rss_bytes")),
        )
        line = f"{name:46} {middle(runs, itemgetter('tokens_per_second')):8.0f} {middle(runs, share):8.2f}"
        print(f"{line} {mine / middle(runs, share):9.2f} {peak / 1e9:8.1f} {loss:9.4f}")
    if SAME_STEPS in measured:
        pairs = list(zip(measured["tunesmith"][0]["losses"], measured[SAME_STEPS][0]["losses"], strict=True))
        apart = [ours / theirs - 1 for ours, theirs in pairs]
        late = apart[-8:]
        print(
            f"loss against TRL's on the same steps: {statistics.mean(apart):+.2%}, last 8 {statistics.mean(late):+.2%}"
        )


def share(run: dict[str, Any]) -> float:
    """Give a tool's speed as a share of the floor measured beside it."""
    return float(run["tokens_per_second"] / run["floor_tokens_per_second"])


def middle(runs: list[dict[str, Any]], what: Callable[[dict[str, Any]], float]) -> float:
    return statistics.median(map(what, runs))


def write(found: dict[str, Any], asked: argparse.Namespace, more: str = "") -> None:
    """Keep what was measured, with the machine, the versions and what was asked."""
    from tunesmith.runs import machine

    facts = {k: str(v) for k, v in vars(asked).items() if k in ("rows", "rank", "targets", "rounds", "device", "shape")}
    hardware = found.get("gpu") or f"{machine.processor()}-{machine.cores()}-cores-{computing()}"
    name = re.sub(r"[^a-z0-9]+", "-", f"{hardware} {more}".lower()).strip("-")
    path = HERE / "results" / f"train-{name}.json"
    described = {key: value for key, value in machine.describe().items() if key in ("packages", "hardware", "created")}
    path.write_text(json.dumps({**described, "asked": facts, **found}, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
