"""Memory: whether a rung can be trained on this machine, by its plan; QLoRA stands for a LoRA that does not fit."""

from pathlib import Path

from tunesmith.climb.ladder import Step
from tunesmith.errors import FitError, ModelError, SizesError
from tunesmith.method import packed
from tunesmith.models import quantize
from tunesmith.models.load import find, read_config
from tunesmith.planning.plan import Fix, Plan
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import method_title
from tunesmith.reporting.planned import too_large
from tunesmith.runs.run import Run
from tunesmith.training.here import this_machine
from tunesmith.training.planned import plan
from tunesmith.training.train import check_context


def foreseen(step: Step, folder: Path) -> Plan | FitError | None:
    """Plan the training of a rung before the first rung is taken; None for what trains nothing, or has begun.

    So what would be refused hours later is refused at once: rows that are too long, a method that the model cannot
    take. Only a method that nobody asked for is left to be passed over in its turn, for the error that is given, and
    a model or method whose sizes are not known to be tried. Raises TunesmithError.
    """
    if step.recipe is None or (folder / step.folder / "recipe.yaml").is_file():
        return None
    config = read_config(find(step.model))
    check_context(step.model, getattr(config, "max_position_embeddings", None), step.recipe)
    try:
        return plan(step.recipe, machines=[this_machine(step.recipe)], requests=False)
    except SizesError:
        return None
    except ModelError:
        if step.own:
            raise
        return None
    except FitError as wrong:  # its virtual tokens are too many for a row
        if step.own:
            raise
        return wrong


def fitted(step: Step, folder: Path, made: Plan | FitError | None) -> Step:
    """Give a rung as it fits the memory that is free, under the name of what is then trained. Raises FitError.

    `made` is its plan, if there is one, or why it cannot be.
    """
    if step.recipe is None:
        return step
    if isinstance(made, FitError):
        raise made
    recipe = fitting(step.recipe, folder / step.folder, made)
    return step.renamed(recipe)


def fitting(recipe: Recipe, folder: Path, made: Plan | None) -> Recipe:
    """Give the recipe as it fits the memory that is free by its plan: a LoRA in 4 bits where it must be.

    A training that has begun in `folder` goes on as it began, and what has no plan is tried. Raises FitError for what
    does not fit, with the settings under which it would; another method would be another rung.
    """
    if (folder / "recipe.yaml").is_file():
        asked = {key: value for key, value in Run.open(folder).asked().items() if key != "verb"}
        return recipe.model_copy(update={"method": Recipe.parse(asked, where=str(folder)).method})
    if made is None or made.fits(this_machine(recipe).memory):
        return recipe
    smaller = _packed(recipe)
    if smaller is not None and plan(smaller, machines=[this_machine(smaller)], requests=False).fits():
        return smaller
    raise too_large(method_title(recipe.method.name), made, [one for one in made.fixes if _same_rung(one, recipe)])


def _same_rung(fix: Fix, recipe: Recipe) -> bool:
    """Tell whether settings leave a rung what it is: with another method it would be another, but for a LoRA packed."""
    return packed(recipe.method) is not None or not any(one.startswith("method.name=") for one in fix.settings)


def _packed(recipe: Recipe) -> Recipe | None:
    """Give a LoRA's recipe with its base in 4 bits; None for another method, or without the library for it."""
    method = packed(recipe.method)
    return None if method is None or quantize.lacking() else recipe.model_copy(update={"method": method})
