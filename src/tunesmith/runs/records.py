"""The records a run folder holds, one line or file each."""

from typing import Literal

from pydantic import Field

from tunesmith.config import Record


class Step(Record):
    """One optimizer step: `loss` is nats per answer token, `tokens` and `seconds` are sums so far;
    `seconds` counts the steps alone, neither validation nor saving. `rows` is how
    many rows of this epoch have been learned from. `task_losses` are the means of
    the tasks in this step, where the training has several.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    answer_tokens: int
    seconds: float
    rows: int = 0
    task_losses: dict[str, float] = Field(default_factory=dict)
    validation_loss: float | None = None


class Trouble(Record):
    """A step that could not be taken or looks wrong, and the ids of the rows it was made of.

    "not a number": the loss or the gradient was infinite or none; the weights
    were left as they were. "spike": the step was taken, with a loss far above the recent ones.
    """

    step: int
    kind: Literal["not a number", "spike"]
    told: str
    rows: tuple[str, ...]


class Answer(Record):
    """One question, what was answered, and what it is marked against.

    `question` is the task's own text, `prompt` all that the model read: shots
    and chat template included. `finished` says whether the model stopped by
    itself within its limit.
    """

    id: str
    question: str
    prompt: str
    answer: str
    references: tuple[str, ...]
    prompt_tokens: int
    answer_tokens: int
    finished: bool


DIMENSIONS = ("accuracy", "calibration", "robustness", "fairness", "bias", "toxicity", "efficiency")


class Score(Record):
    """One metric over `n` answers with its 95 % interval.

    A metric of another dimension than accuracy begins with that: "calibration/ece_10".
    """

    task: str
    split: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    shots: int
    template: str
    signature: str

    @property
    def dimension(self) -> str:
        """The dimension that the metric belongs to: accuracy for a metric of the task itself."""
        head, slash, _ = self.metric.partition("/")
        return head if slash and head in DIMENSIONS else "accuracy"


class VirtualToken(Record):
    """What one trained virtual token is nearest to: words of the vocabulary, with the cosines of their vectors."""

    words: tuple[str, ...]
    cosines: tuple[float, ...]


class Summary(Record):
    """What a run took and made; fields that a verb has no number for stay None.

    Tokens are real ones, never padding. `prompt_tokens` is the mean per request.
    `own_forward`: the fast forward pass did not give this model's logits, and its own was used.
    """

    tokens: int
    answer_tokens: int
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    total_parameters: int
    trainable_parameters: int = 0
    artifact_bytes: int = 0
    steps: int = 0
    planned_steps: int = 0
    first_loss: float | None = None
    final_loss: float | None = None
    first_validation_loss: float | None = None
    validation_loss: float | None = None
    prompt_tokens: float | None = None
    unfinished_answers: int | None = None
    empty_answers: int | None = None
    stopped_early: bool = False
    stopped_by: str | None = None
    resumes: int = 0
    skipped_steps: int = 0
    own_forward: bool = False
