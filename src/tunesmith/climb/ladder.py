"""The ladder: the rungs from cheap to expensive, and what each is made by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from tunesmith.config import Record
from tunesmith.data.task import Task
from tunesmith.method import Full, Lora, Method, PromptTuning
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import method_title

Kind = Literal["zero-shot", "one-shot", "few-shot", "prompt_tuning", "method", "full"]


class Step(NamedTuple):
    """One rung before it is taken. A prompt shows one of `shots` numbers of examples; a tuning has a recipe.

    `own` says that the tuning is the recipe's own method. `folder` is where its runs lie, relative to the climb's;
    `aside` is what the climb calls the model, where there are several: the name ends with it.
    """

    name: str
    kind: Kind
    model: str
    folder: str
    shots: tuple[int, ...] = ()
    recipe: Recipe | None = None
    own: bool = False
    aside: str = ""

    def renamed(self, recipe: Recipe) -> "Step":
        """Give the rung with another recipe, under the name of what is then trained."""
        return self._replace(recipe=recipe, name=_named(method_title(recipe.method.name), self.aside))


class Ladder(Record):
    """What a climb is asked besides the recipe.

    `models` climb besides the recipe's own. `target` is (metric, value) at which a climb ends. `rows` are the test
    rows at most. "Cheapest" is counted over `requests`; `price` is what an hour of this machine costs. `worth` is the
    least difference of the metric that is worth paying for. `shots` are the numbers of examples tried for few-shot, as
    far as they fit and help.
    """

    models: tuple[str, ...] = ()
    target: tuple[str, float] | None = None
    rows: PositiveInt | None = None
    requests: PositiveInt = 1000
    price: PositiveFloat | None = None
    worth: NonNegativeFloat = 0.01
    shots: tuple[Annotated[int, Field(ge=2)], ...] = (2, 4, 8, 16, 32)

    @field_validator("shots")
    @classmethod
    def _rising(cls, shots: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(shots)))


def ladder(recipe: Recipe, asked: Ladder, task: Task) -> list[list[Step]]:
    """Lay out the rungs of each model, cheapest first."""
    models = short_names((recipe.model, *asked.models))
    return [
        _rungs(recipe.model_copy(update={"model": model}), asked, task, short if len(models) > 1 else "")
        for model, short in models.items()
    ]


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Name each model by as few of its last path parts as tell it from the others; one that is named twice, once."""
    parts = {model: _parts(model) for model in dict.fromkeys(models)}
    for wide in range(1, max(map(len, parts.values())) + 1):
        names = {model: "-".join(words[-wide:]) for model, words in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    first = {words: model for model, words in reversed(parts.items())}  # another spelling of the same folder
    return short_names([model for model in parts if first[parts[model]] == model])


def _parts(model: str) -> tuple[str, ...]:
    path = Path(model)
    return tuple(part for part in (path.resolve() if path.exists() else path).parts if part not in ("/", "..", "."))


def _rungs(recipe: Recipe, asked: Ladder, task: Task, short: str) -> list[Step]:
    """Lay out one model's rungs, with its `short` name where there are several.

    What is told of a method or its rate in the recipe is told of that rung alone. LoRA stands for the recipe's own
    method where that has another rung.
    """
    model = recipe.model
    inside = f"{short}/" if short else ""
    prompts: list[tuple[Kind, tuple[int, ...]]] = [("zero-shot", (0,)), ("one-shot", (1,)), ("few-shot", asked.shots)]
    steps = [
        Step(_named(kind, short), kind, model, inside + kind, shots, aside=short) for kind, shots in prompts if shots
    ]
    own = recipe.method
    tunings: list[tuple[Kind, Method]] = [
        ("prompt_tuning", PromptTuning()),
        ("method", Lora() if own.name in ("prompt_tuning", "full") else own),
        ("full", Full()),
    ]
    for kind, method in tunings:
        mine = method.name == own.name
        made = tuned(recipe, own if mine else method, task)
        name = _named(method_title(method.name), short)
        steps.append(Step(name, kind, model, inside + method.name, (), made, mine, short))
    return steps


def _named(title: str, aside: str) -> str:
    return f"{title} ({aside})" if aside else title


def tuned(recipe: Recipe, method: Method, task: Task) -> Recipe:
    """Give the recipe of one tuning: its own rate unless the recipe's is that of this method, patience if it can be."""
    train = recipe.train
    if method.name != recipe.method.name:
        train = train.model_copy(update={"learning_rate": "auto"})
    if "validation" not in task.splits():
        train = train.model_copy(update={"patience": 0})
    return recipe.model_copy(update={"method": method, "train": train})


def below(names: Sequence[str], steps: Sequence[Step], step: Step) -> str | None:
    """Name the rung of the same model that was taken before this one."""
    same = [one.name for one in steps if one.model == step.model and one.name in names and one.name != step.name]
    return same[-1] if same else None
