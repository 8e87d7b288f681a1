"""What a climb writes down: its rungs with what each cost, every paired test, and the verdict."""

import json
from typing import Any

from tunesmith.config import Record
from tunesmith.errors import RunError
from tunesmith.runs.run import Run

RUNGS, VERDICT = "rungs.json", "verdict.json"


class Cost(Record):
    """What a rung took to make, and what it takes per request.

    `making_seconds` are those of choosing on the validation rows and of training, 0 where there was nothing to do.
    `request_seconds` is the engine's mean time for one request of the test split, all asked together on this machine,
    also where an answer was kept from before: then the time it took to compute. Tokens are means per request.
    """

    making_seconds: float = 0.0
    request_seconds: float = 0.0
    prompt_tokens: float = 0.0
    answer_tokens: float = 0.0
    trained_parameters: int = 0
    artifact_bytes: int = 0
    peak_memory_bytes: int = 0

    def seconds(self, requests: float) -> float:
        """Give the seconds of making it once and answering so many requests."""
        return self.making_seconds + requests * self.request_seconds


class Tried(Record):
    """One candidate for a rung, scored on `n` validation rows by the metric that decides."""

    name: str
    shots: int
    metric: str
    value: float
    low: float
    high: float
    n: int


class Rung(Record):
    """One step of a ladder. `eval` and `train` are its folders, relative to the climb's.

    Where several models climb, `aside` is what the climb calls this one's, and the name ends with it in brackets.
    `tried` are the candidates it was chosen from, if there were several. Of a rung that was not taken, `passed_over`
    says why, `fix` what would let it be taken, if anything, and it has neither folder nor cost.
    """

    name: str
    model: str
    aside: str = ""
    method: str | None = None
    shots: int = 0
    eval: str | None = None
    train: str | None = None
    tried: tuple[Tried, ...] = ()
    cost: Cost | None = None
    passed_over: str | None = None
    fix: str | None = None

    @property
    def title(self) -> str:
        """Give its name without its model."""
        return self.name.removesuffix(f" ({self.aside})") if self.aside else self.name


class Contrast(Record):
    """A paired test of `rung` against `below` on the same `n` rows, by the metric that decides.

    `p` is of this test alone, `corrected` by Holm's method for all pairs of the ladder's rungs, taken or not; the
    interval is not corrected.
    """

    rung: str
    below: str
    metric: str
    difference: float
    low: float
    high: float
    p: float
    corrected: float
    n: int
    verdict: str  # better, worse, undecided: at 5 %, by `corrected`


class BreakEven(Record):
    """From how many requests on `rung`, dearer to make, is cheaper in all than `than`; None: a request takes no less.

    Not `clear` where a request takes so little less that the machine's noise may decide.
    """

    rung: str
    than: str
    requests: float | None
    clear: bool = True


class Verdict(Record):
    """Which rung to take, in one sentence, and what it rests on.

    `good` names the rungs that are good enough, `requests` how many requests "cheapest" was counted over, `price` what
    an hour of this machine costs, if that was said. `stopped` says why the climb ended before its last rung. `pairs`
    is how many tests the p-values are corrected for.
    """

    recommended: str
    sentence: str
    reasons: tuple[str, ...]
    good: tuple[str, ...] = ()
    requests: int = 1000
    price: float | None = None
    stopped: str | None = None
    pairs: int = 0
    contrasts: tuple[Contrast, ...] = ()
    break_evens: tuple[BreakEven, ...] = ()


def rungs_of(climb: Run) -> tuple[Rung, ...]:
    """Give a climb's rungs, from its first to its last. Raises RunError if it has not come to its end."""
    values = _read(climb, RUNGS)
    return tuple(Rung.parse(one, where=str(climb.folder / RUNGS)) for one in values)


def verdict_of(climb: Run) -> Verdict:
    """Give a climb's verdict. Raises RunError if it has not come to its end."""
    return Verdict.parse(_read(climb, VERDICT), where=str(climb.folder / VERDICT))


def _read(climb: Run, name: str) -> Any:
    path = climb.folder / name
    if not path.is_file():
        raise RunError(
            f"{climb.folder}: the climb has not come to its end", fix="go on with --resume, or name the runs inside it"
        )
    return json.loads(path.read_text(encoding="utf-8"))
