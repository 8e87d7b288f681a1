"""The ladder: the rungs from cheap to expensive, and what each is made by."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveInt

from tunesmith.config import Record
from tunesmith.data.task import Task
from tunesmith.method import Full, Method, PromptTuning
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import method_title

Kind = Literal["zero-shot", "one-shot", "few-shot", "prompt_tuning", "method", "full"]


class Step(NamedTuple):
    """One rung before it is taken. A prompt shows one of `shots` numbers of examples; a tuning has a recipe.

    `folder` is where its runs lie, relative to the climb's.
    """

    name: str
    kind: Kind
    model: str
    folder: str
    shots: tuple[int, ...] = ()
    recipe: Recipe | None = None


class Ladder(Record):
    """What a climb is asked besides the recipe.

    `models` climb besides the recipe's own. `target` is (metric, value) at which a climb ends. `rows` are the test
    rows at most. "Cheapest" is counted over `requests`; `price` is what an hour of this machine costs. `worth` is the
    least difference of the metric that is worth paying for. `shots` are the numbers of examples tried for few-shot.
    """

    models: tuple[str, ...] = ()
    target: tuple[str, float] | None = None
    rows: PositiveInt | None = None
    requests: PositiveInt = 1000
    price: NonNegativeFloat | None = None
    worth: NonNegativeFloat = 0.01
    shots: tuple[Annotated[int, Field(ge=2)], ...] = (2, 4, 8)


def ladder(recipe: Recipe, asked: Ladder, task: Task) -> list[list[Step]]:
    """Lay out the rungs of each model, cheapest first."""
    models = list(dict.fromkeys((recipe.model, *asked.models)))
    return [_rungs(recipe.model_copy(update={"model": model}), asked, task, len(models) > 1) for model in models]


def _rungs(recipe: Recipe, asked: Ladder, task: Task, several: bool) -> list[Step]:
    """Lay out one model's rungs. What is told of a method or its rate in the recipe is told of that rung alone."""
    model = recipe.model
    short = model.rstrip("/").rpartition("/")[2]
    aside = f" ({short})" if several else ""
    inside = f"{short}/" if several else ""
    prompts: list[tuple[Kind, tuple[int, ...]]] = [("zero-shot", (0,)), ("one-shot", (1,)), ("few-shot", asked.shots)]
    steps = [Step(kind + aside, kind, model, inside + kind, shots) for kind, shots in prompts if shots]
    own = recipe.method.name
    tunings: list[tuple[Kind, Method]] = [
        ("prompt_tuning", PromptTuning()),
        ("method", recipe.method),
        ("full", Full()),
    ]
    for kind, method in tunings:
        if kind == "method" and own in ("prompt_tuning", "full"):
            continue
        made = tuned(recipe, recipe.method if method.name == own else method, task)
        steps.append(Step(method_title(method.name) + aside, kind, model, inside + method.name, (), made))
    return steps


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
