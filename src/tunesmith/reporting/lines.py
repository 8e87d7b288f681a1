"""What the command line says of a run: lines of text, computed from its folder."""

from pathlib import Path

from tunesmith.reporting.compare import Comparison, compare, label
from tunesmith.reporting.forgotten import lines, task_losses
from tunesmith.reporting.numbers import duration, p_value, retained, signed, whole
from tunesmith.reporting.planned import foreseen_lines
from tunesmith.runs.records import Summary
from tunesmith.runs.run import Run
from tunesmith.runs.rungs import Contrast, Cost, Rung


def train_lines(run: Run) -> list[str]:
    """Say what was learned from, how fast, and how the loss went."""
    facts, ledger = run.summary(), run.ledger()
    before, after = facts.first_validation_loss, facts.validation_loss
    validation = "" if before is None or after is None else f", validation {before:.3f} -> {after:.3f}"
    return [
        *(ledger.lines() if ledger else []),
        f"{facts.steps} steps, {facts.tokens} tokens in {facts.seconds:.0f} s "
        f"({facts.tokens_per_second:.0f} tokens/s), peak memory {facts.peak_memory_bytes / 2**30:.1f} GiB",
        *foreseen_lines(run),
        f"loss {facts.first_loss:.3f} -> {facts.final_loss:.3f}{validation}",
        *_task_lines(run),
        *(lines(told) if (told := run.forgetting()) else []),
    ]


def _task_lines(run: Run) -> list[str]:
    """Say how the loss of each task of a mixture went, over the first and the last fifth of its steps."""
    found = task_losses(run.steps())
    wide = max(map(len, found), default=0)
    return [f"  {task:<{wide}}  {first:.3f} -> {last:.3f}" for task, (first, last) in found.items()]


def eval_lines(run: Run) -> list[str]:
    """Say each score with its interval, and what is to be known of the answers."""
    scores, facts = run.scores(), run.summary()
    several = len({score.task for score in scores}) > 1
    wide = max(len(score.task) for score in scores)
    scored = [
        (f"{score.task:<{wide}}  " if several else "")
        + f"{score.metric:<12} {score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]  n={score.n}"
        for score in scores
    ]
    return [*scored, *_answering(facts)]


def _answering(facts: Summary) -> list[str]:
    speed = f", {facts.tokens_per_second:.0f} tokens/s" if facts.tokens_per_second else ""
    told = {
        f"{facts.prompt_tokens:.0f} prompt tokens per request, {facts.seconds:.0f} s{speed}": True,
        f"{facts.cached_answers} of {facts.requests} requests were answered before; the speed is that of the "
        "others": facts.cached_answers,
        f"{facts.unfinished_answers} answers were cut off at the task's "
        "generation.max_new_tokens": facts.unfinished_answers,
        f"{facts.tied_answers} questions had choices that were equally likely; one of them was "
        "drawn": facts.tied_answers,
    }
    return [line for line, so in told.items() if so]


def rung_line(rung: Rung, run: Run, against: Contrast | None, price: float | None = None) -> str:
    """Say of a rung of a climb how good it is, how it stands to the rung below, what it cost, and what it forgot."""
    cost = rung.cost or Cost()
    scores = "  ".join(f"{one.metric} {one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in run.scores())
    told = [f"{rung.name}{f' ({rung.shots} examples)' if rung.shots > 1 else ''}", scores]
    if against:
        told.append(
            f"{against.verdict} than {against.below}"
            if against.verdict != "undecided"
            else f"not clearly different from {against.below}"
        )
        told[-1] += f", {signed(against.difference)}, {p_value(against.corrected)}"
    lines = ["  ".join(told[:2]), *(f"  {one}" for one in told[2:])]
    thousand = 1000 * cost.request_seconds
    money = f" ({price * thousand / 3600:.2f} at {price:g} an hour)" if price else ""
    made = f"made in {duration(cost.making_seconds)}; " if cost.making_seconds else ""
    lines.append(
        f"  {made}1,000 requests take {duration(thousand)}{money}, {whole(cost.prompt_tokens)} prompt tokens each"
    )
    kept = Run(run.folder.parent / Path(rung.train).name).forgetting() if rung.train else None
    if kept and kept.retained is not None:
        lines[-1] += f"; {retained(kept)} of what the base could do is left"
    return "\n".join(lines)


def compare_lines(first: Run, other: Run) -> list[str]:
    """Say how two runs differ on each metric of each task that both answered."""
    found = compare(first, other)
    wide = max(len(one.task) for one in found)
    several = len({one.task for one in found}) > 1
    head = f"{other.folder} ({label(other)}) against {first.folder} ({label(first)})"
    kept = [run.forgetting() if run.trains else None for run in (first, other)]
    if kept[0] and kept[1] and kept[0].retained is not None and kept[1].retained is not None:
        head += f"\n  after each training; of what the base could do {kept[0].retained:.1%} -> {kept[1].retained:.1%}"
    return [head, *(f"  {one.task:<{wide}}" * several + _difference(one) for one in found)]


def _difference(found: Comparison) -> str:
    return (
        f"  {found.metric:<12} {found.a:.4f} -> {found.b:.4f}  {found.difference:+.4f} "
        f"[{found.low:+.4f}, {found.high:+.4f}]  p={found.p:.4f}  n={found.n}  {found.verdict()}"
    )
