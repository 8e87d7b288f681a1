"""Peak memory and speed of one training step, by method, row length and gradient checkpointing.

    python benchmarks/memory.py

Each case is a process of its own: the embedded model, three steps of one batch
of 2 048 tokens, in rows of the given length, an eighth of it answer (or all of it). The
peak is that of the resident memory from the first step on, weights and optimizer
included. Results go to `results/memory-<processor>.json`.
"""

import argparse
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOKENS = 2048
CASES = [
    {"method": method, "length": length, "checkpointing": checkpointing, "answers": 0.125}
    for method in ("lora", "full")
    for length in (256, 1024, 2048)
    for checkpointing in (False, True)
] + [{"method": "lora", "length": 1024, "checkpointing": False, "answers": 0.99}]


def main() -> None:
    """Measure every case, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(measure(**asked.only)))
        return
    from tunesmith.runs import machine

    found = []
    for case in CASES:
        command = [sys.executable, __file__, "--only", json.dumps(case)]
        found.append({**case, **json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)})
        print("  ".join(f"{name} {value}" for name, value in found[-1].items()), flush=True)
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine.processor()}-{machine.cores()}-cores".lower()).strip("-")
    out = HERE / "results" / f"memory-{name}.json"
    out.write_text(json.dumps({"machine": machine.describe(), "cases": found}, indent=1) + "\n", encoding="utf-8")


def measure(method: str, length: int, checkpointing: bool, answers: float) -> dict[str, Any]:
    from tunesmith import methods
    from tunesmith.data.encode import Encoded
    from tunesmith.models import device
    from tunesmith.models.load import find, load, load_encoder
    from tunesmith.recipe import make_recipe
    from tunesmith.training.loop import Past, Plan, steps
    from tunesmith.training.optimizer import MasterAdamW

    draw = random.Random(0)
    place = find("smollm2")
    model = load(place, load_encoder(place))
    recipe = make_recipe({"method": method}).resolved(model.width)
    methods.prepare(model, recipe.method, 0)
    if checkpointing:
        model.net.gradient_checkpointing_enable({"use_reentrant": False})
    rows = []
    for i in range(TOKENS // length):
        ids = tuple(draw.randrange(1000, 40_000) for _ in range(length))
        rows.append(Encoded(str(i), ids[: int(length * (1 - answers)) or 1], ids[int(length * (1 - answers)) or 1 :]))
    optimizer = MasterAdamW(model.net.named_parameters(), recipe.train)
    device.reset_peak()
    log = list(steps(model, optimizer, Plan((((tuple(rows),),) * 3,)), [], recipe, Past()))
    took = log[-1].seconds - log[0].seconds
    return {"peak_gib": round(device.peak_bytes() / 2**30, 2), "tokens_per_second": round(2 * TOKENS / took)}


if __name__ == "__main__":
    main()
