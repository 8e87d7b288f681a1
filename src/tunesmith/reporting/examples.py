"""Examples: which questions are shown, with the answers before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.errors import ConfigError
from tunesmith.metrics import LOWER_IS_BETTER, Metric, merit, metric
from tunesmith.reporting.compare import language
from tunesmith.reporting.ladders import Ladder, Line
from tunesmith.reporting.marking import Piece, pieces
from tunesmith.runs.records import Answer

REASONS = ("best", "second best", "third best", "from the middle", "from the middle", "worst")
SAME = 1e-9  # what rounding can move a row's value by

Side = Literal["before", "after"]


@dataclass(frozen=True)
class Reply:
    """One run's answer to an example question, and what the main metric gives it."""

    side: Side
    name: str
    answer: Answer
    value: float


@dataclass(frozen=True)
class Example:
    """One question with its answers, the earlier run's first; `why` says what it is an example of."""

    why: str
    replies: tuple[Reply, ...]

    @property
    def asked(self) -> Answer:
        """Give the record that holds the question and its references."""
        return self.replies[0].answer

    def marked(self, reply: Reply) -> list[Piece]:
        """Cut one of the answers where it agrees with a reference, and where it alone does."""
        others = [one.answer.answer for one in self.replies if one is not reply]
        return pieces(reply.answer.answer, self.asked.references, others[0] if others else None)

    @property
    def change(self) -> float:
        """Give how much the value rose; an answer that stands alone rose from 0."""
        return self.replies[-1].value - (self.replies[0].value if len(self.replies) > 1 else 0.0)


@dataclass(frozen=True)
class Examples:
    """The questions shown, and of all questions how many gained and lost by `metric`, which marks single answers."""

    metric: str
    chosen: tuple[Example, ...]
    asked: int
    gained: int
    lost: int

    @property
    def lower_is_better(self) -> bool:
        """Tell whether an answer gained where its value fell."""
        return self.metric in LOWER_IS_BETTER


def examples(ladder: Ladder) -> Examples | None:
    """Choose six questions that both sides answered, spread over what the change did; None if there are no answers.

    Where one run stands alone, its answers are spread over their own values.
    """
    mark = _row_metric(ladder)
    if mark is None:
        return None
    replies = [_replies("before", ladder.before, ladder.task, mark)]
    replies += [_replies("after", ladder.after, ladder.task, mark)] if ladder.after else []
    shared = [row for row in replies[0] if all(row in side for side in replies)]
    every = [Example("", tuple(side[row] for side in replies)) for row in shared]
    if not every:
        return None
    changes = [merit(mark.name, example.change) for example in every]
    chosen = tuple(Example(why, every[i].replies) for i, why in spread(changes))
    gained, lost = (sum(way * change > SAME for change in changes) for way in (1, -1))
    return Examples(mark.name, chosen, len(every), gained, lost)


def _row_metric(ladder: Ladder) -> Metric | None:
    """Give the metric that marks single answers: the main one, or exact match where that needs many rows."""
    try:
        mark = metric(ladder.main, language(ladder.before.run, ladder.task))
    except ConfigError:  # a metric of another program
        return None
    return mark if mark.by_row else metric("exact_match")


def _replies(side: Side, line: Line, task: str, mark: Metric) -> dict[str, Reply]:
    """Give a line's answers by row, each marked alone."""
    answers = line.run.answers(task)
    if not answers:
        return {}
    values = mark.values(mark.stats([x.answer for x in answers], [x.references for x in answers]), 1)
    return {x.id: Reply(side, line.name, x, float(value)) for x, value in zip(answers, values, strict=True)}


def spread(changes: Sequence[float]) -> list[tuple[int, str]]:
    """Choose positions: the three largest, two at the middle, the smallest; all of them if there are six or fewer.

    Ties go to the earlier row, so that the choice never depends on luck.
    """
    order = sorted(range(len(changes)), key=lambda i: (-changes[i], i))
    if len(order) <= len(REASONS):
        return [(i, "") for i in order]
    middle = max(3, len(order) // 2 - 1)
    return list(zip([*order[:3], *order[middle : middle + 2], order[-1]], REASONS, strict=True))
