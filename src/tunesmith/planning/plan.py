"""Plan: what a training will take on some machines, whether it fits, and what using it will cost."""

import shlex

from pydantic import Field

from tunesmith.config import Record
from tunesmith.planning.machines import Machine
from tunesmith.planning.memory import Parts


class Outlook(Record):
    """A training on one machine: memory of each device by part, and seconds, which lie between `low` and `high`.

    `fits` compares what is needed with the bytes that are `available` there. `loading` is the most that is held
    as the weights are read, where they are not used as they lie in their file. `rate` is in floating point operations
    per second. `price` is in the user's own money. `counted` is what of the peak a GPU's own counter counts: tensors,
    but neither the context nor what the allocator loses. None: a processor's counts all of it.
    """

    machine: str
    told: str
    parts: Parts
    available: int
    rate: float
    seconds: float
    low: float
    high: float
    price: float | None = None
    counted: int | None = None
    loading: int = 0

    @property
    def needed(self) -> int:
        """Give the bytes of memory without which it cannot be done."""
        return max(self.parts.needed, self.loading)

    @property
    def fits(self) -> bool:
        """Tell whether what is needed is available."""
        return self.needed <= self.available


class Rung(Record):
    """What one request takes after: the prompt's tokens, those of its answer, and seconds by their arithmetic."""

    name: str
    prompt_tokens: float
    answer_tokens: float
    seconds: float
    price: float | None = None


class Probed(Record):
    """What three steps of the heaviest batch took, each of so many `passes`, beside what was planned for them."""

    peak_bytes: int
    planned_bytes: int
    step_seconds: float
    planned_seconds: float
    tokens_per_second: float
    passes: int = 1


class Fix(Record):
    """Settings under which the training fits, the peak then, and how many times as long it takes.

    `needs` is the command without which they are refused here; empty if there is none.
    """

    settings: tuple[str, ...]
    peak_bytes: int
    slower: float
    needs: str = ""

    def line(self) -> str:
        """Give the settings as they are typed."""
        return " ".join(f"-s {shlex.quote(one)}" for one in self.settings)

    def told(self) -> str:
        """Give the settings, after the command that they need."""
        return f"{self.needs}, then {self.line()}" if self.needs else self.line()


class Plan(Record):
    """What a training will take.

    `outlooks` are by machine, the first is the one that was asked for, or this one. `artifact_bytes` is what is saved.
    `tokens` are those of all steps. `fixes` are for the first machine, if it does not fit there.
    `notes` say what was assumed.
    """

    model: str
    method: str
    total_parameters: int
    trained_parameters: int
    dtype: str
    steps: int
    tokens: int
    batch_tokens: int
    longest: int
    artifact_bytes: int
    outlooks: tuple[Outlook, ...] = Field(min_length=1)
    fixes: tuple[Fix, ...] = ()
    rungs: tuple[Rung, ...] = ()
    probed: Probed | None = None
    notes: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """Give the most memory it takes, on the first machine."""
        return self.outlooks[0].parts.peak

    @property
    def counted_bytes(self) -> int:
        """Give what of that peak is counted when it is measured."""
        first = self.outlooks[0]
        return first.parts.peak if first.counted is None else first.counted

    @property
    def seconds(self) -> float:
        """Give how long it takes there."""
        return self.outlooks[0].seconds

    def fits(self, within: Machine | int | None = None) -> bool:
        """Tell whether it fits the first machine, another that was planned for, or this many bytes.

        Raises KeyError for a machine that was not planned for.
        """
        if isinstance(within, int):
            return self.outlooks[0].needed <= within
        if within is None:
            return self.outlooks[0].fits
        return {one.machine: one for one in self.outlooks}[within.name].fits

    def requests_that_pay(self) -> float | None:
        """Count the requests after which training has cost less time than the examples in few-shot prompts.

        None if a tuned request saves nothing.
        """
        by_name = {one.name.split(" ")[0]: one for one in self.rungs}
        if not {"few-shot", "tuned"} <= set(by_name):
            return None
        saved = by_name["few-shot"].seconds - by_name["tuned"].seconds
        return self.seconds / saved if saved > 0 else None
