"""The ledger: what happened to every row on its way into training.

Nothing is dropped or cut in silence: each row that did not go in whole is
named here, and when more rows are affected than the budget allows, nothing
runs at all.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tunesmith.config import Record
from tunesmith.data.encode import Encoded
from tunesmith.data.leakage import Leak, normalise
from tunesmith.data.template import Prompt
from tunesmith.errors import DataError, FitError
from tunesmith.recipe import Length


class Share(Record):
    """One task of a mixture: the training rows it has, its share, and what of it all epochs learn from together.

    `epochs` is how often each of its rows is learned from, on average.
    """

    task: str
    cluster: str
    size: int
    rate: float
    rows: int
    tokens: int
    answer_tokens: int
    epochs: float


class Ledger(Record):
    """Counts and row ids of one training set; tokens are those that are trained on in the first epoch.

    `leaked` names the rows that share text with rows of evaluation, `leaks` says with which, `left_out` that they are
    not learned from. `fewer_examples` are the rows with room for fewer worked examples than asked. `tasks` are those of
    a mixture, whose rows are named by it, and `held` its tasks that are not learned.
    """

    rows: int
    kept: int
    tokens: int
    answer_tokens: int
    longest: int
    trimmed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    duplicate: tuple[str, ...] = ()
    leaked: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()
    left_out: bool = False
    fewer_examples: tuple[str, ...] = ()
    tasks: tuple[Share, ...] = ()
    held: tuple[str, ...] = ()
    epochs: int = 1

    def lines(self) -> list[str]:
        """Say in words what happened, most important first."""
        share = self.answer_tokens / self.tokens
        text = [
            f"{self.kept} of {self.rows} rows kept, longest {self.longest} tokens",
            f"{self.tokens} tokens, {self.answer_tokens} of them answer ({share:.0%})",
        ]
        for name in ("trimmed", "dropped", "duplicate", "leaked"):
            ids = getattr(self, name)
            if ids:
                shown = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
                kinds = Counter(leak.kind for leak in self.leaks) if name == "leaked" else {}
                how = f" ({', '.join(f'{n} {kind}' for kind, n in kinds.items())})" if kinds else ""
                out = ", left out" if name == "leaked" and self.left_out else ""
                text.append(f"{len(ids)} {name}{how}{out}: {shown}")
        if self.fewer_examples:
            text.append(f"{len(self.fewer_examples)} with fewer worked examples, for lack of room")
        return text + self.table()

    def table(self) -> list[str]:
        """Give a line for each task of a mixture, under a head; nothing for a single task."""
        if not self.tasks:
            return []
        wide = max(len(share.task) for share in self.tasks)
        head = f"{'task':<{wide}}  {'has':>7}  {'rate':>6}  {'rows':>7}  {'tokens':>9}  {'answer':>8}  epochs"
        title = [f"in {self.epochs} epochs:"] if self.epochs > 1 else []
        held = [f"held out: {', '.join(self.held)}"] if self.held else []
        lines = [
            f"{one.task:<{wide}}  {one.size:>7}  {one.rate:>6.1%}  {one.rows:>7}  {one.tokens:>9}  "
            f"{one.answer_tokens:>8}  {one.epochs:>6.2f}"
            for one in self.tasks
        ]
        return [*title, head, *lines, *held]


def admit(rows: Sequence[Encoded], length: Length) -> tuple[list[Encoded], Ledger]:
    """Apply the length policy and write the ledger.

    `error` refuses rows that are too long, and names the longest, so that what
    it says to do is enough for all; `drop` leaves such rows out; `trim_prompt`
    cuts the prompt's beginning and keeps its end and the whole answer. Raises
    FitError if a row does not fit and may not be changed, or more than
    `length.budget` of the rows were; DataError if none remain.
    """
    kept: list[Encoded] = []
    trimmed: list[str] = []
    dropped: list[str] = []
    if length.overflow == "error":
        _all_fit(rows, length)
    for row in rows:
        if not row.answer:
            raise DataError(f"row {row.id}: has no answer token to learn from", fix="fill or remove that row")
        if row.size <= length.max_tokens:
            kept.append(row)
        elif length.overflow == "drop":
            dropped.append(row.id)
        else:
            kept.append(_trimmed(row, length))
            trimmed.append(row.id)
    _within_budget(len(rows), [*trimmed, *dropped], length)
    if not kept:
        raise DataError("no rows are left to train on", fix="raise length.max_tokens")
    return kept, Ledger(
        rows=len(rows),
        kept=len(kept),
        tokens=sum(row.size for row in kept),
        answer_tokens=sum(len(row.answer) for row in kept),
        longest=max(row.size for row in kept),
        trimmed=tuple(trimmed),
        dropped=tuple(dropped),
    )


def _all_fit(rows: Sequence[Encoded], length: Length) -> None:
    long = [row for row in rows if row.size > length.max_tokens]
    if not long:
        return
    row = max(long, key=lambda one: one.size)
    others = f", the longest of {len(long)} such rows" if len(long) > 1 else ""
    trimmed = "" if any(len(one.answer) >= length.max_tokens for one in long) else " or trim_prompt"
    raise FitError(
        f"row {row.id}: {row.size} tokens ({len(row.answer)} of them answer), "
        f"length.max_tokens is {length.max_tokens}{others}",
        fix=f"-s length.max_tokens={row.size}, or -s length.overflow=drop{trimmed}",
    )


def _trimmed(row: Encoded, length: Length) -> Encoded:
    room = length.max_tokens - len(row.answer)
    if room < 1:
        raise FitError(
            f"row {row.id}: its answer alone is {len(row.answer)} tokens, length.max_tokens is {length.max_tokens}",
            fix=f"-s length.max_tokens={row.size}, or -s length.overflow=drop",
        )
    virtual = tuple(token for token in row.prompt if token < 0)
    return replace(row, prompt=(*virtual, *row.prompt[len(row.prompt) - room + len(virtual) :]))


def _within_budget(rows: int, changed: Sequence[str], length: Length) -> None:
    if len(changed) > length.budget * rows:
        raise FitError(
            f"{len(changed)} of {rows} rows are longer than {length.max_tokens} tokens, "
            f"more than length.budget ({length.budget:.1%}) allows: {', '.join(changed[:5])}",
            fix="raise length.max_tokens, or length.budget if that loss is meant",
        )


def duplicates(prompts: Iterable[Prompt]) -> tuple[str, ...]:
    """Name the rows whose question and answer repeat an earlier row's, letter case and spacing aside."""
    seen: set[str] = set()
    again = []
    for prompt in prompts:
        text = normalise(f"{prompt.question}\n{prompt.answer}")
        if text in seen:
            again.append(prompt.id)
        seen.add(text)
    return tuple(again)
