"""A climb on DialogSum, and the same climb killed in the middle of its third rung and resumed.

    python benchmarks/climb.py --out runs/dialogsum

1 000 training rows, 200 test rows with three references each. The two climbs take more than half an hour each on two
cores and keep their answers in files of their own, so that neither is answered by the other. What they found must be
equal: rungs, answers, scores, tests; times are the machine's, and differ. `results/climb.json` has the figures of the
one that was never killed, and what differs, if anything.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE / "results" / "climb.json"
TASK = HERE.parent / "tasks" / "dialogsum-local.yaml"
ASKED = [
    *("-s", "limit.train=1000", "-s", "limit.validation=50", "-s", "train.epochs=1", "-s", "length.max_tokens=1280"),
    *("-s", "forgetting.limit=40", "--limit", "200"),
]  # fmt: skip
MIDDLE = 20  # seconds after the third rung has begun; it takes minutes


def main() -> None:
    """Climb twice, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder for both climbs; a second call goes on")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    whole, cut = out / "whole", out / "cut"
    _finish(whole)
    if not cut.exists():
        _kill(cut)
    _finish(cut)
    found, again = facts(whole), facts(cut)
    told = {
        "command": f"tunesmith climb {TASK.name} {' '.join(ASKED)}",
        "equal": found == again,
        "different": [name for name in found if found[name] != again[name]],
        **figures(whole),
        "sentence_of_the_resumed": figures(cut)["sentence"],
    }
    OUT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


def _start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tunesmith", "climb", str(TASK), "--out", str(folder), *ASKED, *more]
    kept = folder.with_name(f"{folder.name}.answers")
    return subprocess.Popen(command, env={**os.environ, "TUNESMITH_RESPONSES": str(kept)})


def _finish(folder: Path) -> None:
    if _start(folder, *(["--resume"] if folder.exists() else [])).wait():
        sys.exit(f"{folder}: the climb failed")


def _kill(folder: Path) -> None:
    climbing = _start(folder)
    while not list(folder.glob("few-shot*")):
        if climbing.poll() is not None:
            sys.exit(f"{folder}: the climb ended before its third rung")
        time.sleep(0.5)
    time.sleep(MIDDLE)
    climbing.send_signal(signal.SIGKILL)
    climbing.wait()
    print(f"killed in its third rung: {sorted(path.name for path in folder.iterdir())}", flush=True)


def facts(folder: Path) -> dict[str, Any]:
    """Give what a climb found, without what it took."""
    from tunesmith.runs.run import Run
    from tunesmith.runs.rungs import rungs_of, verdict_of

    run = Run.open(folder)
    rungs, verdict = rungs_of(run), verdict_of(run)
    evaluated = [Run.open(folder / rung.eval) for rung in rungs if rung.eval]
    return {
        "rungs": [rung.model_dump(exclude={"cost"}) for rung in rungs],
        "tokens": [rung.cost and (rung.cost.prompt_tokens, rung.cost.answer_tokens) for rung in rungs],
        "answers": [[answer.answer for answer in one.answers(str(one.asked()["task"]))] for one in evaluated],
        "scores": [one.scores() for one in evaluated],
        "tests": verdict.contrasts,
        "good": verdict.good,
        "stopped": verdict.stopped,
    }


def figures(folder: Path) -> dict[str, Any]:
    """Give the figures of a climb: of each rung scores and cost, the tests, the recommendation."""
    from tunesmith.runs.run import Run
    from tunesmith.runs.rungs import rungs_of, verdict_of

    run = Run.open(folder)
    verdict = verdict_of(run)
    return {
        "sentence": verdict.sentence,
        "rungs": [
            {
                "name": rung.name,
                "shots": rung.shots,
                "scores": {one.metric: [one.value, one.low, one.high] for one in Run.open(folder / rung.eval).scores()},
                "cost": rung.cost.model_dump() if rung.cost else None,
            }
            if rung.eval
            else {"name": rung.name, "passed_over": rung.passed_over}
            for rung in rungs_of(run)
        ],
        "tests": list(verdict.reasons),
        "machine": {name: value for name, value in run.provenance().items() if name != "command"},
    }


if __name__ == "__main__":
    main()
