"""Fixes: changes of a recipe that make a training fit; each is planned again before it is told."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from tunesmith.config import override
from tunesmith.errors import TunesmithError
from tunesmith.method import Lora, Qlora, packed
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
    for method in ((), *_methods(recipe)):
        for smaller, way in itertools.product(lighter, ways):
            if method or smaller or way:
                yield (*method, *way, *smaller)
    # Rows that are left out for their length may have answers that no shorter row has room for: they stay out.
    overflow = () if recipe.length.overflow == "drop" else ("length.overflow=trim_prompt",)
    half = longest
    while (half := half // 2) >= SMALLEST:
        yield (*again, *_batch(recipe, half), f"length.max_tokens={half}", *overflow, "length.budget=1.0")


def _methods(recipe: Recipe) -> Iterator[tuple[str, ...]]:
    """Give lighter methods; a LoRA in 4 bits keeps what was asked of it.

    A learning rate that was told suits the method that it was told for, and ruins another.
    """
    if isinstance(recipe.method, Lora):
        lighter: list[Lora | None] = [packed(recipe.method)]
    else:
        lighter = [Lora(), Qlora()]
    rate = () if recipe.train.learning_rate == "auto" else ("train.learning_rate=auto",)
    for method in lighter:
        if method is not None:
            kept = method.model_dump(mode="json", exclude_defaults=True)
            fields = (f"method.{key}={_text(value)}" for key, value in kept.items())
            yield (f"method.name={method.name}", *fields, *rate)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


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
