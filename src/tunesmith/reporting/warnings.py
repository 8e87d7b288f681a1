"""Warnings: everything that makes the numbers of a report say less than they seem to."""

from collections.abc import Sequence
from typing import NamedTuple

from tunesmith.reporting.gather import Gathered
from tunesmith.reporting.ladders import Ladder, Line
from tunesmith.runs.records import Summary
from tunesmith.runs.run import Run

FEW_ROWS = 30  # below this an interval says little
AGAIN = "Run it again in a new folder."
SAME = "Run the same command again: it goes on where it stopped."
GO_ON = "Go on with the same command and --resume, or run it again in a new folder."


class Warn(NamedTuple):
    """Something that a reader of the numbers must know, and what can be done about it."""

    what: str
    fix: str


def warnings(told: Gathered, ladders: Sequence[Ladder]) -> list[Warn]:
    """Give what a reader must be warned of: first about how the runs went, then about what was scored."""
    said = [warn for run, name in told.named().items() for warn in _of_run(name, run, told.taken(run))]
    return said + [warn for ladder in ladders for line in ladder.lines for warn in _of_scores(ladder, line)]


def _of_run(name: str, run: Run, taken: Summary | None) -> list[Warn]:
    if taken is None:
        fix = {"train": GO_ON, "eval": SAME}.get(str(run.asked().get("verb")), AGAIN)
        return [Warn(f"{name}: the run in {run.folder} has not come to its end.", fix)]
    stopped = [_stopped(name, taken)] if taken.stopped_early else []
    return [*stopped, *_of_steps(name, run), *_of_answers(name, run, taken), *_of_rows(name, run)]


def _of_steps(name: str, run: Run) -> list[Warn]:
    """Tell of steps that were skipped and of losses far above the others."""
    told = {"not a number": "could not be taken, as the loss was no number", "spike": "had a loss far above the others"}
    said = []
    for kind, what in told.items():
        found = [str(trouble.step) for trouble in run.troubles() if trouble.kind == kind]
        if found:
            steps = f"step {found[0]}" if len(found) == 1 else f"{len(found)} steps ({', '.join(found[:5])})"
            fix = f"Look at the rows that {run.folder / 'troubles.jsonl'} names."
            said.append(Warn(f"{name}: {steps} {what}.", fix))
    return said


def _stopped(name: str, taken: Summary) -> Warn:
    at = f" after step {taken.steps:,} of {taken.planned_steps:,}" if taken.planned_steps else ""
    return Warn(f"{name}: the run was stopped early{at}; its numbers are those of the shorter run.", GO_ON)


def _of_answers(name: str, run: Run, taken: Summary) -> list[Warn]:
    n = sum(len(run.answers(task)) for task in run.tasks())
    said = []
    if taken.unfinished_answers:
        what = f"{name}: the length limit cut off {taken.unfinished_answers} of {n} answers."
        said.append(Warn(what, "They may score lower for it. The limit is generation.max_new_tokens in the task file."))
    if taken.cached_answers:
        what = f"{name}: {taken.cached_answers} of {taken.requests} requests were answered before, and not in this run."
        said.append(Warn(what, "Its time says nothing of how long answering takes. Measure it with --fresh."))
    if taken.empty_answers:
        what = f"{name}: there is no text in {taken.empty_answers} of {n} answers."
        said.append(Warn(what, f"Such an answer scores 0. All are in {run.folder / 'answers'}."))
    return said


def _of_rows(name: str, run: Run) -> list[Warn]:
    ledger = run.ledger()
    if not ledger or not ledger.leaked or ledger.left_out:
        return []
    what = f"{name}: text of scored rows is in {len(ledger.leaked)} of {ledger.rows} training rows."
    fix = 'Scores on text seen in training are too high. Remove the rows named under "What happened to the rows".'
    return [Warn(what, fix)]


def _of_scores(ladder: Ladder, line: Line) -> list[Warn]:
    said = []
    n = min(score.n for score in line.scores.values())
    if n < FEW_ROWS:
        rows = "1 row" if n == 1 else f"{n} rows"
        what = f"{line.name}: its {ladder.task} score rests on {rows} only."
        said.append(Warn(what, f"Chance weighs heavily in so few. Score at least {FEW_ROWS}."))
    if line.problem:
        said.append(Warn(f"{line.name}: no difference can be given. {line.problem.what}.", f"{line.problem.fix}."))
    return said
