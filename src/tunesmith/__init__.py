"""tunesmith: from a task file to a tuned model and an honest report.

The verbs of the command line, under the same words: `preview`, `plan`, `train`,
`evaluate` (on the command line `eval`), `bench`, `score`, `compare`, `merge`, `report`, `climb`. Each
is imported when it is first used.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

from tunesmith.errors import ConfigError, DataError, FitError, ModelError, RunError, TunesmithError

__version__ = version("tunesmith")

_HOMES = {
    "preview": "tunesmith.training.preview",
    "plan": "tunesmith.training.planned",
    "this_machine": "tunesmith.training.here",
    "MACHINES": "tunesmith.planning.machines",
    "probe": "tunesmith.training.probe",
    "train": "tunesmith.evaluation.measured",
    "evaluate": "tunesmith.evaluation.evaluate",
    "Question": "tunesmith.evaluation.evaluate",
    "bench": "tunesmith.evaluation.benchmarks",
    "Bench": "tunesmith.evaluation.benchmarks",
    "helm": "tunesmith.evaluation.helm",
    "helm_table": "tunesmith.reporting.dimensions",
    "score": "tunesmith.metrics.score",
    "Mark": "tunesmith.metrics.score",
    "compare": "tunesmith.reporting.compare",
    "merge": "tunesmith.adapters.fold",
    "Merging": "tunesmith.adapters.fold",
    "render": "tunesmith.reporting.report",
    "write_report": "tunesmith.reporting.report",
    "climb": "tunesmith.climb.climb",
    "Ladder": "tunesmith.climb.ladder",
    "Recipe": "tunesmith.recipe",
    "read_recipe": "tunesmith.recipe",
    "make_recipe": "tunesmith.recipe",
    "Task": "tunesmith.data.task",
    "load_task": "tunesmith.data.task",
    "Mixture": "tunesmith.data.mixture",
    "load_mixture": "tunesmith.data.mixture",
    "load_tasks": "tunesmith.data.blend",
    "Template": "tunesmith.data.template",
    "Run": "tunesmith.runs.run",
    "Score": "tunesmith.runs.records",
    "Adapter": "tunesmith.adapters.folder",
    "trained": "tunesmith.adapters.folder",
    "load_trained": "tunesmith.adapters.folder",
    "attach": "tunesmith.adapters.folder",
    "detach": "tunesmith.adapters.folder",
    "generate": "tunesmith.inference.generate",
    "Sampling": "tunesmith.inference.sampling",
    "loglikelihoods": "tunesmith.inference.score",
    "Continuation": "tunesmith.inference.score",
    "generate_mixed": "tunesmith.inference.mixed",
}

__all__ = [  # noqa: PLE0604 - the keys of _HOMES are strings
    "ConfigError",
    "DataError",
    "FitError",
    "ModelError",
    "RunError",
    "TunesmithError",
    "__version__",
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tunesmith' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
