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


class Ability(Record):
    """One thing a model could do before it was trained, and can do after, on the same `n` questions or texts.

    `low` and `high` bound the difference after - before, `p` is its two-sided p-value. `chance` is what the answers
    before score against other questions' references, `chance_after` those after. `retained` is the share of what the
    base had above chance that is left, with its own 95 % interval; None where the base cannot be told from chance.
    """

    task: str
    cluster: str
    metric: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    n: int
    language: str = "en"
    chance: float | None = None
    chance_after: float | None = None
    retained: float | None = None
    retained_low: float | None = None
    retained_high: float | None = None


class TextLoss(Record):
    """How likely a model finds one passage: its loss in nats over all its tokens, and how many those are."""

    id: str
    nats: float
    tokens: int


class Check(Record):
    """One look, while training, at what is forgotten: whether it was little enough, and whether it is the best yet.

    `retained` is the lesser of the shares that the limit judges.
    """

    step: int
    retained: float | None
    validation_loss: float | None
    passed: bool
    best: bool


class Forgetting(Record):
    """What a training made the model forget of tasks it did not learn, after step `step`, whose weights are kept.

    `retained` is the share that is left of all abilities together, each counted by how much of it there was: a task
    by its score above chance, the general text by 1, of which a token's share of its probability is left.
    `tasks_retained` is that of the tasks alone.
    `passed` says whether 1 - `least` stayed within `max_forgetting`, where that was asked.
    """

    step: int
    abilities: tuple[Ability, ...]
    retained: float | None = None
    low: float | None = None
    high: float | None = None
    tasks_retained: float | None = None
    max_forgetting: float | None = None
    passed: bool | None = None
    checks: tuple[Check, ...] = ()

    @property
    def least(self) -> float | None:
        """Give what a limit judges: the lesser of `retained` and of the general text's own share.

        What a task gains by the training, a held-out one above all, must not pay for what the text loses.
        """
        text = [one.retained for one in self.abilities if one.metric == "nats_per_token" and one.retained is not None]
        return min([*text, self.retained]) if self.retained is not None else None


class Answer(Record):
    """One question, what was answered, and what it is marked against.

    `question` is the task's own text, `prompt` all that the model read: shots
    and chat template included. `finished` says whether the model stopped by
    itself within its limit. `answer` is what is marked: where it was extracted,
    `output` holds the whole text, and an empty `answer` says that nothing was
    found. Where it is the likeliest of `choices`, `log_likelihoods` are theirs
    in nats, `confidence` is its share of their likelihood, and `tied` names
    the choices that shared the first place, if several did.
    """

    id: str
    question: str
    prompt: str
    answer: str
    references: tuple[str, ...]
    prompt_tokens: int
    answer_tokens: int
    finished: bool
    output: str | None = None
    choices: tuple[str, ...] = ()
    log_likelihoods: tuple[float, ...] = ()
    confidence: float | None = None
    tied: tuple[str, ...] = ()


class Choice(Record):
    """One question put as a choice, and how likely the model finds each answer.

    `log_likelihoods` are in nats, in the order of the request; `chosen` and
    `right` are places among them, None where the task chooses in another way.
    `marks` are the metrics that have a value for one question. `prompt` is the
    SHA-256 of the texts of its requests.
    """

    id: str
    prompt: str
    log_likelihoods: tuple[float, ...]
    chosen: int | None
    right: int | None
    marks: dict[str, float]


class Protocol(Record):
    """How one task of a benchmark was asked, and what happened to its requests.

    `name` says whose prompts and marking these are; `prompts` is the SHA-256 of
    all prompts in the order of the rows, `first_prompt` the text of the first.
    `of` is how many questions the task has, `shots` how many worked examples
    each prompt shows. `moved`: requests whose answer begins with a token that
    also holds the question's last letters. `cut`: requests whose beginning had
    no room in the model's context.
    """

    task: str
    name: str
    version: str
    shots: int
    questions: int
    of: int
    requests: int
    moved: int
    cut: int
    prompts: str
    first_prompt: str


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
    `requests` went to the engine, one for each choice or text; `cached_answers` of them were kept from before and
    not computed, and only what was computed counts in `tokens_per_second`; `engine_seconds` is what computing all of
    them took, of those that were kept when they were made.
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
    requests: int | None = None
    cached_answers: int | None = None
    engine_seconds: float | None = None
    tied_answers: int | None = None
    stopped_early: bool = False
    stopped_by: str | None = None
    resumes: int = 0
    skipped_steps: int = 0
    own_forward: bool = False
