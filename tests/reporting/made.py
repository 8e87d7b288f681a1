"""Real run folders for the tests of the report, and what a reader sees of a page."""

import re
from html import unescape

from tunesmith.data.ledger import Ledger
from tunesmith.metrics import metric
from tunesmith.metrics.interval import bootstrap
from tunesmith.recipe import Recipe
from tunesmith.runs.records import Answer, Score, Step, Summary
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import BreakEven, Contrast, Cost, Rung, Tried, Verdict

REFERENCE = "the clerk offers a refund for the kettle that leaks and she takes the store credit at last"
WORDS = REFERENCE.split()
PROVENANCE = {
    "tunesmith": "0.1.0",
    "created": "2026-11-23T12:00:00+00:00",
    "model": {"name": "SmolLM2-135M-Instruct", "sha256": "ab12" * 16, "parameters": 134515008},
    "data": {"train": {"place": "demo/train.jsonl", "rows": 240, "sha256": "cd34" * 16}},
    "packages": {"torch": "2.13.0"},
}


def evaluated(
    folder, keep, *, rows=40, method=None, shots=0, adapter=None, said=None, metrics=("rouge1", "bleu"), **taken
):
    """Make a real evaluation whose answers keep `keep` words of the reference, and a few more on later rows."""
    asked = {"verb": "eval", "model": "smollm2", "method": method, "adapter": adapter and str(adapter), "task": "demo"}
    run = Run.create(folder, {**asked, "split": "test", "shots": shots, "template": "plain", "limit": None, "seed": 0})
    answers = [
        Answer(
            id=f"test/{i}",
            question=f"Summarize:\n\nAna: line {i}\nBo: yes",
            prompt="An example.\n\n" * shots + f"Summarize:\n\nAna: line {i}\nBo: yes",
            answer=said or " ".join(WORDS[: keep + i % 5]),
            references=(REFERENCE,),
            prompt_tokens=20,
            answer_tokens=9,
            finished=True,
        )
        for i in range(rows)
    ]
    run.write_lines("answers/demo.jsonl", answers)
    run.write_lines("scores.jsonl", [scored(name, answers, shots) for name in metrics])
    run.write_json("provenance.json", {**PROVENANCE, "command": f"tunesmith eval smollm2 --out {folder.name}"})
    run.finish(summary(prompt_tokens=20.0 + 100 * shots, **taken))
    return run


def scored(name, answers, shots):
    mark = metric(name)
    value, low, high = bootstrap(mark, mark.stats([a.answer for a in answers], [a.references for a in answers]))
    fixed = {"task": "demo", "split": "test", "template": "plain", "signature": mark.signature}
    return Score(metric=name, value=value, low=low, high=high, n=len(answers), shots=shots, **fixed)


def trained(folder, steps=20, ledger=None, method="lora", **taken):
    recipe = Recipe.parse({"task": "demo", "method": {"name": method}}, "test").model_dump(mode="json")
    run = Run.create(folder, {**recipe, "verb": "train"})
    log = {"epoch": 0, "learning_rate": 2e-4, "gradient_norm": 1.0, "tokens": 2000, "answer_tokens": 240}
    for i in range(1, steps + 1):
        at = {"step": i, "loss": 2.5 - i / 40, "seconds": 2.0 * i, "validation_loss": 1.987 if i == steps else None}
        run.append(Step(**log, **at))
    run.write_json(
        "ledger.json",
        (ledger or Ledger(rows=240, kept=240, tokens=60000, answer_tokens=9000, longest=600)).model_dump(),
    )
    run.write_json("provenance.json", {**PROVENANCE, "command": f"tunesmith train recipe.yaml {folder.name}"})
    made = {"steps": steps, "planned_steps": 20, "trainable_parameters": 4_884_480, "artifact_bytes": 9_790_000}
    run.finish(summary(**{**made, "first_validation_loss": 2.613, "validation_loss": 1.987, **taken}))
    return run


def summary(**taken):
    whole = {"tokens": 60000, "answer_tokens": 9000, "seconds": 198.2, "tokens_per_second": 302.7}
    return Summary(**{**whole, "peak_memory_bytes": 3_900_000_000, "total_parameters": 134_515_008, **taken})


def climbed(folder, metrics=("rouge1", "bleu"), **verdict):
    """Make a climb of six rungs, one of them passed over; its folders are real, its costs are given."""
    climb = Run.create(folder, {"verb": "climb", "task": "demo", "model": "smollm2", "target": {"rouge1": 0.7}})
    rungs = [
        _rung(folder, "zero-shot", 3, metrics=metrics),
        _rung(folder, "1-shot", 4, shots=1, metrics=metrics),
        _rung(folder, "4-shot", 5, shots=4, metrics=metrics),
        _rung(folder, "prompt tuning", 4, method="prompt_tuning", metrics=metrics),
        _rung(folder, "LoRA", 11, method="lora", metrics=metrics),
        Rung(
            name="full fine-tuning",
            model="smollm2",
            method="full",
            passed_over="9.1 GB needed, 4.0 GB free",
            fix="-s train.batch_tokens=512",
        ),
    ]
    climb.write_json("rungs.json", [rung.model_dump() for rung in rungs])
    given = {"recommended": "LoRA", "sentence": "LoRA is good enough.", "reasons": ("It is.",), "good": ("LoRA",)}
    tests = {"contrasts": _contrasts([rung.name for rung in rungs[:5]]), "break_evens": EVENS}
    climb.write_json("verdict.json", Verdict(**{**given, **tests, **verdict}).model_dump())
    return climb


def climbed_by_two(folder, **verdict):
    """Make a climb of two models, one of them named by its path: each asked, then tuned by LoRA, and not in full."""
    climb = Run.create(folder, {"verb": "climb", "task": "demo", "model": "smollm2", "models": ["path/to/another"]})
    rungs = []
    for model, short in (("smollm2", "smollm2"), ("path/to/another", "another")):
        taken = [_rung(folder / short, "zero-shot", 3), _rung(folder / short, "LoRA", 11, method="lora")]
        passed = Rung(name="full fine-tuning", model=model, passed_over="it does not fit")
        for rung in (*taken, passed):
            places = {key: f"{short}/{place}" for key in ("eval", "train") if (place := getattr(rung, key))}
            named = {"name": f"{rung.name} ({short})", "aside": short, "model": model}
            rungs.append(rung.model_copy(update={**named, **places}))
    climb.write_json("rungs.json", [rung.model_dump() for rung in rungs])
    names = [rung.name for rung in rungs if rung.cost]
    told = {"recommended": "LoRA (another)", "sentence": "Take LoRA (another).", "reasons": (), "good": (names[-1],)}
    climb.write_json("verdict.json", Verdict(**{**told, "contrasts": _contrasts(names), **verdict}).model_dump())
    return climb


def climbed_one_rung(folder, **verdict):
    """Make a climb of which one rung was taken and the others passed over."""
    climb = Run.create(folder, {"verb": "climb", "task": "demo", "model": "smollm2"})
    passed = [Rung(name=name, model="smollm2", passed_over="the context is full") for name in ("one-shot", "few-shot")]
    tuned = Rung(name="LoRA", model="smollm2", method="lora", passed_over="the task has no training rows")
    rungs = [_rung(folder, "zero-shot", 3), *passed, tuned]
    climb.write_json("rungs.json", [rung.model_dump() for rung in rungs])
    told = {"recommended": "zero-shot", "sentence": "Take zero-shot.", "reasons": (), "good": ("zero-shot",)}
    climb.write_json("verdict.json", Verdict(**{**told, **verdict}).model_dump())
    return climb


EVENS = (
    BreakEven(rung="LoRA", than="4-shot", requests=330.0),
    BreakEven(rung="LoRA", than="zero-shot", requests=None),
)


def _rung(folder, name, keep, shots=0, method=None, metrics=("rouge1", "bleu")):
    made = trained(folder / method, method=method).folder.name if method else None
    adapter = folder / method if method else None
    run = evaluated(
        folder / f"{method or name}-eval", keep, shots=shots, method=method, adapter=adapter, metrics=metrics
    )
    tried = tuple(Tried(name=f"{k}-shot", shots=k, metric="rouge1", value=0.3, low=0.2, high=0.4, n=40) for k in (2, 4))
    making = {"making_seconds": 198.2, "trained_parameters": 4_884_480, "artifact_bytes": 9_790_000} if method else {}
    cost = Cost(request_seconds=0.5 + 0.3 * shots, prompt_tokens=20.0 + 100 * shots, answer_tokens=9.0, **making)
    asked = {"method": method, "shots": shots, "tried": tried if shots == 4 else ()}
    return Rung(name=name, model="smollm2", eval=run.folder.name, train=made, cost=cost, **asked)


def _contrasts(names):
    found = {"metric": "rouge1", "difference": 0.1, "low": 0.05, "high": 0.15, "n": 40, "verdict": "better"}
    pairs = [(rung, below) for i, rung in enumerate(names) for below in names[:i]]
    return tuple(Contrast(rung=rung, below=below, p=0.002, corrected=0.012, **found) for rung, below in pairs)


def pair(tmp_path):
    made = trained(tmp_path / "lora")
    return [
        evaluated(tmp_path / "base", 3),
        made,
        evaluated(tmp_path / "tuned", 11, method="lora", adapter=made.folder),
    ]


def bare(page):
    """Give a page without its scripts, which hold a library's markup."""
    return re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)


def text(page):
    """Give the words of a page as a reader sees them."""
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", bare(page), flags=re.DOTALL)
    body = re.sub(r'<span class="whole">(.*?)</span>', r"\1", body)  # it is within a sentence
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def headings(page):
    return [unescape(found) for found in re.findall(r"<h2>(.*?)</h2>", bare(page))]
