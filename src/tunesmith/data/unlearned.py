"""Tasks that a training does not learn, by which it is measured what the model forgets."""

from collections.abc import Sequence

from tunesmith.data.blend import load_tasks
from tunesmith.data.task import Task, embedded_tasks, load_task
from tunesmith.errors import ConfigError
from tunesmith.recipe import Forget

WRITTEN = "demo"  # summaries: a small base model writes fair ones


def measured(asked: Forget, learned: Sequence[Task], held: Sequence[Task] = ()) -> list[Task]:
    """Give the tasks by which forgetting is measured. Raises ConfigError for one that is learned, or named twice."""
    if asked.tasks == "auto":
        return unlearned(learned, held)
    tasks = [task for name in asked.tasks for task in load_tasks(name)]
    names = [task.name for task in tasks]
    both = set(names) & {task.name for task in learned}
    if both:
        told = f"forgetting.tasks: '{min(both)}' is learned, and cannot say what is forgotten"
        raise ConfigError(told, fix="leave it out")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"forgetting.tasks: names '{twice}' twice", fix="name each task once")
    return tasks


def unlearned(learned: Sequence[Task], held: Sequence[Task] = ()) -> list[Task]:
    """Give the tasks held out, and embedded ones that share no cluster with those learned.

    Of these, those that are answered by choice, and one that is answered by writing: a model that has been tuned to
    choose may no longer write, and no choice would show it.
    """
    clusters = {task.cluster for task in learned} | {task.name for task in held}
    embedded = [load_task(name) for name in embedded_tasks()]
    asked = [task for task in embedded if task.name == WRITTEN or by_choice(task)]
    return [*held, *(task for task in asked if not {task.cluster, task.name} & clusters)]


def by_choice(task: Task) -> bool:
    """Tell whether a task's questions are answered by choice."""
    return all(prompt.choices for prompt in task.prompts(task.splits()[-1], limit=1))
