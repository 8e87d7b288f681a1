"""What the command line says of a plan, and of a run beside its plan."""

from collections.abc import Sequence

from tunesmith.errors import FitError
from tunesmith.planning.plan import Fix, Outlook, Plan
from tunesmith.reporting.numbers import size
from tunesmith.runs.run import Run

PARTS = ("process", "weights", "mapped", "gradients", "optimizer", "activations", "head", "workspace")


def foreseen_lines(run: Run) -> list[str]:
    """Say what was planned before the first step, beside what was measured."""
    made, facts = run.plan(), run.summary()
    if made is None:
        return []
    off = made.counted_bytes / facts.peak_memory_bytes - 1
    return [
        f"planned: peak memory {gibibytes(made.counted_bytes)} ({off:+.0%} of what was measured), "
        f"{duration(made.outlooks[0].low)} to {duration(made.outlooks[0].high)}"
    ]


def plan_lines(made: Plan, requests: int | None = None) -> list[str]:
    """Say a whole plan: parameters, memory by part, time, money, whether it fits, what requests take."""
    return [
        f"{made.method} on {made.model} in {made.dtype}: {made.trained_parameters:,} of "
        f"{made.total_parameters:,} parameters learn ({made.trained_parameters / made.total_parameters:.2%}), "
        f"saved in {megabytes(made.artifact_bytes)}",
        f"{made.steps:,} steps over {made.tokens:,} tokens, at most {made.batch_tokens:,} at a time; "
        f"longest row {made.longest:,}",
        "",
        *_table(made.outlooks),
        "",
        *_verdict(made),
        *_probed(made),
        *_requests(made, requests),
        *(f"assumed: {one}" for one in made.notes),
    ]


def too_large(name: str, made: Plan, fixes: Sequence[Fix] | None = None) -> FitError:
    """Give the error that a training does not fit by its plan, with the settings that would, or those of `fixes`."""
    told = [fix.told() for fix in (made.fixes if fixes is None else fixes)]
    needed, free = made.outlooks[0].needed, made.outlooks[0].available
    return FitError(
        f"{name} needs {size(needed)} of memory by its plan, {size(free)} are free",
        fix=" or ".join(told) or "use a smaller model, or a machine with more memory",
    )


def _table(outlooks: tuple[Outlook, ...]) -> list[str]:
    """Give memory by part, time and price, a column for each machine."""
    money = any(one.price is not None for one in outlooks)
    rows = [["", *(one.machine for one in outlooks)]]
    shown = [name for name in PARTS if name != "mapped" or any(one.parts.mapped for one in outlooks)]
    rows += [[name, *(gibibytes(getattr(one.parts, name)) for one in outlooks)] for name in shown]
    rows += [["peak of each device", *(gibibytes(one.parts.peak) for one in outlooks)]]
    rows += [["available", *(gibibytes(one.available) for one in outlooks)]]
    rows += [["fits", *("yes" if one.fits else "NO" for one in outlooks)]]
    rows += [["time", *(duration(one.seconds) for one in outlooks)]]
    rows += [["price", *("" if one.price is None else f"{one.price:.2f}" for one in outlooks)]] if money else []
    wide = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        (row[0].ljust(wide[0]) + "".join("  " + cell.rjust(n) for cell, n in zip(row[1:], wide[1:], strict=True)))
        for row in rows
    ]


def _verdict(made: Plan) -> list[str]:
    first = made.outlooks[0]
    peak, free = gibibytes(first.needed), gibibytes(first.available)
    if first.fits:
        span = f"takes {duration(first.low)} to {duration(first.high)}"
        return [f"fits {first.told}: {peak} of {free}; {span}"]
    told = [f"does NOT fit {first.told}: {peak}, and {free} are available"]
    if not made.fixes:
        return [*told, "no change of this recipe that was tried makes it fit: take a smaller model or a larger machine"]
    wide = max(len(one.told()) for one in made.fixes)
    return [
        *told,
        "to fit, add:",
        *(f"  {one.told():<{wide}}  {gibibytes(one.peak_bytes)}, {one.slower:.1f} x the time" for one in made.fixes),
    ]


def _probed(made: Plan) -> list[str]:
    told = made.probed
    if told is None:
        return []
    memory, seconds = told.planned_bytes / told.peak_bytes - 1, told.planned_seconds / told.step_seconds - 1
    passes = f", taken {told.passes} times in each" if told.passes > 1 else ""
    return [
        f"probe, 3 steps of the heaviest batch{passes}: peak {gibibytes(told.peak_bytes)} (planned {memory:+.0%}), "
        f"{told.step_seconds:.2f} s a step (planned {seconds:+.0%}), {told.tokens_per_second:.0f} tokens/s; "
        "the time above is at the speed of six batches of all sizes"
    ]


def _requests(made: Plan, requests: int | None) -> list[str]:
    if not made.rungs:
        return []
    wide = max(len(one.name) for one in made.rungs)
    n = requests or 1000
    told = ["", f"{n:,} requests, by arithmetic:"]
    for one in made.rungs:
        price = "" if one.price is None else f", {one.price * n:.2f}"
        told.append(
            f"  {one.name:<{wide}}  {one.prompt_tokens:6.0f} + {one.answer_tokens:.0f} tokens, "
            f"{duration(one.seconds * n)}{price}"
        )
    pays = made.requests_that_pay()
    return [*told, f"training has paid for itself against few-shot after {pays:,.0f} requests"] if pays else told


def gibibytes(n: int) -> str:
    """Give bytes in GiB."""
    return f"{n / 2**30:.2f} GiB"


def megabytes(n: int) -> str:
    """Give bytes in MB, or GB."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """Give seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
