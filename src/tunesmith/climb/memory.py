"""Memory: whether a rung can be trained on this machine, by its plan; QLoRA stands for a LoRA that does not fit."""

import importlib.util
from pathlib import Path

from tunesmith.climb.ladder import Step
from tunesmith.errors import FitError, ModelError, SizesError
from tunesmith.method import Lora, Qlora
from tunesmith.models.load import find, read_config
from tunesmith.planning.plan import Plan
from tunesmith.recipe import Recipe
from tunesmith.reporting.compare import method_title
from tunesmith.reporting.numbers import size
from tunesmith.runs.run import Run
from tunesmith.training.planned import plan, this_machine
from tunesmith.training.train import check_context


def foreseen(step: Step, folder: Path) -> Plan | None:
    """Plan the training of a rung before the first rung is taken; None for what trains nothing, or has begun.

    So what would be refused hours later is refused at once: rows that are too long, a method that the model cannot
    take. Only a method that nobody asked for is left to be passed over in its turn, and a model or method whose sizes
    are not known to be tried. Raises TunesmithError.
    """
    if step.recipe is None or (folder / step.folder / "recipe.yaml").is_file():
        return None
    config = read_config(find(step.model))
    check_context(step.model, getattr(config, "max_position_embeddings", None), step.recipe)
    try:
        return plan(step.recipe, machines=[this_machine(step.recipe)])
    except SizesError:
        return None
    except ModelError:
        if step.kind == "method":
            raise
        return None


def fitted(step: Step, folder: Path, made: Plan | None) -> Step:
    """Give a rung as it fits the memory that is free, under the name of what is then trained. Raises FitError.

    `made` is its plan, if there is one.
    """
    if step.recipe is None:
        return step
    recipe = fitting(step.recipe, folder / step.folder, made)
    title, instead = (method_title(one.method.name) for one in (step.recipe, recipe))
    return step._replace(recipe=recipe, name=step.name.replace(title, instead))


def fitting(recipe: Recipe, folder: Path, made: Plan | None) -> Recipe:
    """Give the recipe as it fits the memory that is free by its plan: a LoRA in 4 bits where it must be.

    A training that has begun in `folder` goes on as it began, and what has no plan is tried. Raises FitError for what
    does not fit, with the settings that would.
    """
    if (folder / "recipe.yaml").is_file():
        asked = {key: value for key, value in Run.open(folder).asked().items() if key != "verb"}
        return recipe.model_copy(update={"method": Recipe.parse(asked, where=str(folder)).method})
    if made is None or made.fits(this_machine(recipe).memory):
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
    free = made.outlooks[0].available
    fixes = " or ".join(fix.line() for fix in made.fixes)
    needed = f"needs {size(made.peak_bytes)} of memory by its plan, {size(free)} are free"
    return FitError(
        f"{method_title(recipe.method.name)} {needed}",
        fix=fixes or "use a smaller model, or a machine with more memory",
    )
