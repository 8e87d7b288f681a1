"""The verb `train` as people mean it: training, and what the model forgot by it."""

from collections.abc import Sequence
from pathlib import Path

from tunesmith.data.task import Task
from tunesmith.evaluation.forgetting import gauge_of
from tunesmith.recipe import Recipe
from tunesmith.runs.run import Run
from tunesmith.training.prepare import load_work
from tunesmith.training.train import train as learn


def train(
    recipe: Recipe, folder: Path, task: Task | None = None, command: Sequence[str] = (), resume: bool = False
) -> Run:
    """Train as the recipe says, into the run folder `folder`, and measure before and after what is forgotten.

    `forgetting.json` says it; `recipe.forgetting` says of what, and how much may be lost. The rest is as in
    `training.train`. Raises TunesmithError; RunError if more was forgotten than may be.
    """
    if resume and Run(folder).done:
        return Run.open(folder)
    work = task or load_work(recipe)
    return learn(recipe, folder, work, command, resume, gauge_of(recipe, work))
