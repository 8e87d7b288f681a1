"""Fixes: changes of a recipe that make a training fit; each is planned again before it is told."""

import itertools
from collections.abc import Callable, Iterator

from tunesmith.config import override
from tunesmith.errors import TunesmithError
from tunesmith.planning.plan import Fix, Plan
from tunesmith.recipe import Recipe

SMALLEST = 128  # tokens of a batch below which nothing is gained but time lost
MOST = 3


def fixes(recipe: Recipe, plan: Plan, replan: Callable[[Recipe], Plan]) -> tuple[Fix, ...]:
    """Give up to three sets of settings under which the recipe fits by `replan`, the mildest first."""
    found: list[Fix] = []
    for settings in _settings(recipe, plan.longest):
        if any(set(one.settings) <= set(settings) for one in found):
            continue
        try:
            again = replan(_changed(recipe, settings))
        except TunesmithError:  # rows that are too long then, a method that does not go with the model
            continue
        if again.fits():
            slower = again.seconds / plan.seconds if plan.seconds else 1.0
            found.append(Fix(settings=settings, peak_bytes=again.peak_bytes, slower=slower))
        if len(found) == MOST:
            break
    return tuple(found)


def _changed(recipe: Recipe, settings: tuple[str, ...]) -> Recipe:
    return Recipe.parse(override(recipe.model_dump(mode="json"), settings), where="a plan")


def _settings(recipe: Recipe, longest: int) -> Iterator[tuple[str, ...]]:
    """Give sets of settings: those that leave what is learned as it is, then other methods, then shorter rows."""
    again = () if recipe.train.gradient_checkpointing else ("train.gradient_checkpointing=true",)
    lighter: list[tuple[str, ...]] = [(), *_smaller(recipe, longest)]
    ways = [(), *([again] if again else [])]
    name: str = recipe.method.name
    methods = {"full": ("lora", "qlora"), "lora": ("qlora",)}.get(name, () if name == "qlora" else ("lora", "qlora"))
    for method in ((), *((f"method.name={one}",) for one in methods)):
        for smaller, way in itertools.product(lighter, ways):
            if method or smaller or way:
                yield (*method, *way, *smaller)
    half = longest
    while (half := half // 2) >= SMALLEST:
        shorter = (f"length.max_tokens={half}", "length.overflow=trim_prompt", "length.budget=1.0")
        yield (*again, *_batch(recipe, half), *shorter)


def _smaller(recipe: Recipe, longest: int) -> Iterator[tuple[str, ...]]:
    """Give smaller batches, as many more of them to a step; none smaller than the longest row."""
    tokens = recipe.train.batch_tokens
    while (tokens := tokens // 2) >= max(SMALLEST, longest // 2):
        yield _batch(recipe, max(tokens, min(longest, recipe.train.batch_tokens)))


def _batch(recipe: Recipe, tokens: int) -> tuple[str, ...]:
    if tokens >= recipe.train.batch_tokens:
        return ()
    times = -(-recipe.train.batch_tokens // tokens)
    return (f"train.batch_tokens={tokens}", f"train.accumulate={recipe.train.accumulate * times}")
