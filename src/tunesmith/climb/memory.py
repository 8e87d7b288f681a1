"""Memory: whether a rung's training fits this machine, by its plan; QLoRA stands for a LoRA that does not."""

import importlib.util
from pathlib import Path

from tunesmith.climb.ladder import Step
from tunesmith.errors import FitError, ModelError
from tunesmith.method import Lora, Qlora
from tunesmith.planning.plan import Plan
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import method_title
from tunesmith.reporting.numbers import size
from tunesmith.runs.run import Run
from tunesmith.training.planned import plan, this_machine


def fitted(step: Step, folder: Path) -> Step:
    """Give a rung as it fits the memory that is free, under the name of what is then trained. Raises FitError."""
    if step.recipe is None:
        return step
    recipe = fitting(step.recipe, folder / step.folder)
    title, instead = (method_title(one.method.name) for one in (step.recipe, recipe))
    return step._replace(recipe=recipe, name=step.name.replace(title, instead))


def fitting(recipe: Recipe, folder: Path) -> Recipe:
    """Give the recipe as it fits the memory that is free: a LoRA in 4 bits where it must be.

    A training that has begun in `folder` goes on as it began, and a model whose sizes are not known is tried. Raises
    FitError for what does not fit, with the settings that would.
    """
    if (folder / "recipe.yaml").is_file():
        asked = {key: value for key, value in Run.open(folder).asked().items() if key != "verb"}
        return recipe.model_copy(update={"method": Recipe.parse(asked, where=str(folder)).method})
    try:
        made = plan(recipe, machines=[this_machine(recipe)])
    except ModelError:
        return recipe
    if made.fits():
        return recipe
    packed = _packed(recipe)
    if packed is not None and plan(packed, machines=[this_machine(packed)]).fits():
        return packed
    raise _too_large(recipe, made)


def _packed(recipe: Recipe) -> Recipe | None:
    """Give a LoRA's recipe with its base in 4 bits; None for another method, or without the library for it."""
    lora = recipe.method
    if (
        type(lora) is not Lora
        or lora.dora
        or lora.init != "default"
        or importlib.util.find_spec("bitsandbytes") is None
    ):
        return None
    return recipe.model_copy(update={"method": Qlora(**{**lora.model_dump(), "name": "qlora"})})


def _too_large(recipe: Recipe, made: Plan) -> FitError:
    needs, free = made.outlooks[0].needed, made.outlooks[0].available
    fixes = " or ".join(fix.line() for fix in made.fixes)
    needed = f"needs {size(needs)} of memory by its plan, {size(free)} are free"
    return FitError(
        f"{method_title(recipe.method.name)} {needed}",
        fix=fixes or "use a smaller model, or a machine with more memory",
    )
