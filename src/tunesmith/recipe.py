"""Recipe: everything asked of one training, and the only home of defaults."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tunesmith.config import Names, Record, override, read_yaml
from tunesmith.data.mixture import Mixture, mixture_values
from tunesmith.method import Lora, Method

Overflow = Literal["error", "drop", "trim_prompt"]
Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]


class Train(Record):
    """How the weights are moved; `batch_tokens` are the real tokens of one forward pass.

    `gradient_checkpointing` keeps one activation per layer and computes the
    others again: less memory, about a third more time, the same numbers.
    `patience` is after how many epochs (or looks, where `forgetting.every` asks for them) without a lower validation
    loss the training ends; the weights with the least are kept. 0 goes through all epochs and keeps the last.
    `bad_steps` is how many steps without a finite loss and gradient are passed over before the run stops.
    """

    epochs: PositiveInt = 1
    patience: NonNegativeInt = 0
    batch_tokens: PositiveInt = 2048
    accumulate: PositiveInt = 1
    learning_rate: PositiveFloat | Literal["auto"] = "auto"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0.0, lt=1.0)
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: PositiveFloat = 1.0
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    gradient_checkpointing: bool = False
    checkpoint_every: NonNegativeInt = 200
    bad_steps: NonNegativeInt = 3


class Length(Record):
    """What happens to a row longer than `max_tokens`, and what share of rows it may happen to."""

    max_tokens: PositiveInt = 1024
    overflow: Overflow = "error"
    budget: float = Field(default=0.02, ge=0.0, le=1.0)


class Limit(Record):
    """The first n rows of a seeded order, of each task; None takes all."""

    train: PositiveInt | None = None
    validation: PositiveInt | None = 100


class Forget(Record):
    """What is measured before and after, on tasks that are not learned and on a small fixed general text.

    `tasks` names them; "auto" takes the embedded tasks that are answered by choice and share no cluster with what is
    learned, and the tasks that are held out. `limit` is how many rows of each. `max_forgetting` is the
    share of the base's ability that may be lost: then it is looked at every `every` steps (0: after each epoch),
    the weights with the least validation loss that pass are kept, and a training none of whose looks passes fails.
    """

    tasks: Literal["auto"] | Names = "auto"
    text: bool = True
    limit: PositiveInt = 120
    max_forgetting: float | None = Field(default=None, ge=0.0, le=1.0)
    every: NonNegativeInt = 0

    @model_validator(mode="after")
    def _looks_for_something(self) -> "Forget":
        if self.every and self.max_forgetting is None:
            raise ValueError("looks every so many steps for nothing: say max_forgetting as well")
        return self


class Replay(Record):
    """Rows of other tasks that are mixed in so that they are not forgotten: `share` of all rows."""

    tasks: Names = Field(min_length=1)
    share: float = Field(default=0.1, gt=0.0, lt=1.0)


class Recipe(Record):
    """One training. Every field has its default here and nowhere else.

    It learns one `task`, or a `mixture` of several; `replay` adds rows of others to one task.
    `template` names the wording of its rows, or "any".
    `leaked` says what happens to training rows that share text with rows of evaluation.
    `track` names where its numbers are shown besides; it changes nothing in what is learned.
    """

    model: str = "smollm2"
    task: str | None = None
    mixture: Mixture | None = None
    replay: Replay | None = None
    template: str = "any"
    prompting: Literal["auto", "chat", "plain"] = "auto"
    method: Method = Lora()
    train: Train = Train()
    length: Length = Length()
    limit: Limit = Limit()
    leaked: Literal["tell", "drop", "error"] = "tell"
    forgetting: Forget = Forget()
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    seed: int = 0
    track: tuple[Tracker, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _task_or_mixture(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("task") is not None:
            return values
        return values if values.get("mixture") is not None else {**values, "task": "demo"}

    @model_validator(mode="after")
    def _one_job(self) -> "Recipe":
        if self.task is not None and self.mixture is not None:
            raise ValueError("names both a 'task' and a 'mixture'; leave one out")
        if self.mixture is not None and self.template != "any":
            raise ValueError("a mixture draws its wordings: leave 'template' out")
        if self.replay is not None and (self.task is None or self.template != "any"):
            raise ValueError("'replay' is for one 'task', in any wording: in a mixture name it among the tasks")
        return self

    def resolved(self, width: int) -> "Recipe":
        """Give the recipe with `auto` replaced by the method's own rate for a model of hidden size `width`."""
        asked = self.train.learning_rate
        rate = self.method.usual_rate(width) if asked == "auto" else asked
        return self.model_copy(update={"train": self.train.model_copy(update={"learning_rate": rate})})


def read_recipe(path: Path, settings: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe file and apply `-s key=value` settings. Raises ConfigError."""
    return make_recipe(read_yaml(path), settings, where=str(path))


def make_recipe(values: dict[str, object], settings: tuple[str, ...] = (), where: str = "recipe") -> Recipe:
    """Build a recipe from plain values and `-s key=value` settings. Raises ConfigError.

    A mixture may be named by its file.
    """
    return Recipe.parse(_named(_read_mixture(override(_read_mixture(values), settings))), where)


def _read_mixture(values: dict[str, object]) -> dict[str, object]:
    named = values.get("mixture")
    return {**values, "mixture": mixture_values(Path(named))} if isinstance(named, str) else values


def _named(values: dict[str, object]) -> dict[str, object]:
    """Let `method: lora` stand for `method: {name: lora}`."""
    method = values.get("method", "lora")
    if isinstance(method, str):
        return {**values, "method": {"name": method}}
    if isinstance(method, dict) and "name" not in method:
        return {**values, "method": {"name": "lora", **method}}
    return values
