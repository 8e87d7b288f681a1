"""Memory: whether a rung's training fits this machine, by its plan; QLoRA stands for a LoRA that does not."""

from pathlib import Path

from tunesmith.climb.ladder import Step
from tunesmith.errors import ModelError
from tunesmith.method import packed
from tunesmith.models import quantize
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import method_title
from tunesmith.reporting.planned import too_large
from tunesmith.runs.run import Run
from tunesmith.training.here import this_machine
from tunesmith.training.planned import plan


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
    smaller = _packed(recipe)
    if smaller is not None and plan(smaller, machines=[this_machine(smaller)]).fits():
        return smaller
    raise too_large(method_title(recipe.method.name), made)


def _packed(recipe: Recipe) -> Recipe | None:
    """Give a LoRA's recipe with its base in 4 bits; None for another method, or without the library for it."""
    method = packed(recipe.method)
    return None if method is None or quantize.lacking() else recipe.model_copy(update={"method": method})
