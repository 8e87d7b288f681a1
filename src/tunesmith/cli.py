"""The command line: one command per verb, the same words as in Python.

Nothing heavy is imported before a verb needs it, so `--help` answers at once.
"""

import errno
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, get_args

import typer

from tunesmith.errors import ConfigError, DiskError, TunesmithError
from tunesmith.options import Prices, metric_and_value, numbers, prices

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

app = typer.Typer(
    name="tunesmith",
    help="From a task file to a tuned model and an honest report: what was gained, at what cost, and what is enough.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Settings = Annotated[
    list[str] | None, typer.Option("-s", metavar="KEY=VALUE", help="Override a recipe field, e.g. -s train.epochs=2.")
]
Out = Annotated[Path, typer.Option("--out", help="A new folder.")]


@app.command()
def preview(
    what: Annotated[str, typer.Argument(metavar="TASK|RECIPE", help="A task or recipe file, or an embedded task.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many rows to show.")] = 3,
    settings: Settings = None,
) -> None:
    """Show what the model will see: the tokens that carry loss, lengths, and what happens to the rows."""
    from tunesmith.training.preview import preview as make_preview
    from tunesmith.training.preview import print_preview

    print_preview(make_preview(_recipe(what, settings), n))


@app.command()
def plan(  # noqa: PLR0913, PLR0917 - each parameter is an option of the command
    what: Annotated[str, typer.Argument(metavar="TASK|RECIPE", help="A recipe or task file, or an embedded task.")],
    settings: Settings = None,
    probe: Annotated[bool, typer.Option("--probe", help="Take three steps of the heaviest batch, for real.")] = False,
    price: Prices = None,
    machine: Annotated[
        list[str] | None, typer.Option("--machine", help="here, cpu, 1x24, 1x80 or 8x80; may be repeated.")
    ] = None,
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many requests to reckon with.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, bytes and seconds.")] = False,
) -> None:
    """Say what a training will take before it is begun: parameters, memory, time, money, and whether it fits."""
    from tunesmith.reporting.planned import plan_lines
    from tunesmith.training.here import machines_named
    from tunesmith.training.planned import plan as make_plan
    from tunesmith.training.probe import probe as run_probe

    recipe = _recipe(what, settings)
    if probe and machine and machine[0] != "here":
        raise ConfigError("--probe measures this machine", fix="leave --machine out, or begin with --machine here")
    made = make_plan(recipe, machines=machines_named(machine or (), recipe), price=prices("--price", price or ()))
    made = run_probe(recipe, made) if probe else made
    for line in [made.model_dump_json(indent=1)] if as_json else plan_lines(made, requests):
        typer.echo(line)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A new folder, or the one to go on with.")],
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run stopped; start it if it has not begun.")
    ] = False,
) -> None:
    """Train as a recipe says."""
    from tunesmith.evaluation.measured import train as run_training
    from tunesmith.reporting.lines import train_lines

    if resume and (run / "DONE").is_file():
        typer.echo(f"{run} has come to its end: nothing to do")
        return
    made = run_training(_recipe(recipe, settings), run, command=_command(), resume=resume)
    facts = made.summary()
    for line in train_lines(made):
        typer.echo(line)
    if facts.stopped_early:
        typer.echo(
            f"stopped at step {facts.steps} of {facts.planned_steps}; what was learned is saved in {run}/checkpoints\n"
            "go on with the same command and --resume",
            err=True,
        )
        raise typer.Exit(128 + signal.Signals[facts.stopped_by or "SIGINT"])
    typer.echo(f"trained {facts.trainable_parameters} of {facts.total_parameters} parameters: {run}/checkpoints")


@app.command(name="eval")
def evaluate(  # noqa: PLR0913, PLR0917 - each parameter is an option of the command
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN", help="An alias, folder, .gguf file, hub id, or a training run.")
    ],
    task: Annotated[
        list[str],
        typer.Option("--task", help="A task file, embedded task, or mixture (all its tasks); may be repeated."),
    ],
    out: Out,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    shots: Annotated[int, typer.Option("--shots", min=0, help="Worked examples shown before each question.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first n rows of a seeded order.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    template: Annotated[
        str | None, typer.Option("--template", help="A wording of the task; the first by default.")
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", min=0.0, max=1.0, help="How much of an adapter's effect: 0 is the base.")
    ] = 1.0,
    by: Annotated[
        str,
        typer.Option("--by", help="likelihood of the task's choices, generation, or auto: the first if it has any."),
    ] = "auto",
    same_shots: Annotated[
        bool, typer.Option("--same-shots", help="Show every question the same examples: several times faster.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--listed/--unlisted", help="Whether questions list their choices, where a wording can.")
    ] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute every answer, also those kept from before.")] = False,
) -> None:
    """Answer the questions of a split, and score the answers."""
    from tunesmith.data.blend import load_tasks
    from tunesmith.data.task import split_named
    from tunesmith.evaluation.answering import By, Question
    from tunesmith.evaluation.evaluate import evaluate as run_evaluation
    from tunesmith.names import pick
    from tunesmith.reporting.lines import eval_lines

    way = pick({one: one for one in get_args(By)}, by, "way to answer")
    _warn_unfinished(Path(model))
    part = split_named(split)
    tasks = [one for name in task for one in load_tasks(name)]
    lacking = [one.name for one in tasks if part not in one.splits()] if len(tasks) > 1 else []
    if lacking:
        typer.echo(f"without a {part} split, and left out: {', '.join(lacking)}", err=True)
    tasks = [one for one in tasks if one.name not in lacking]
    questions = [Question(one, part, shots, template, limit, seed, way, same_shots, listed) for one in tasks]
    run = run_evaluation(model, questions, out, _command(), strength, fresh)
    for line in eval_lines(run):
        typer.echo(line)
    typer.echo(f"answers and scores: {out}")


@app.command()
def bench(  # noqa: PLR0913, PLR0917 - each parameter is an option of the command
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME... MODEL|RUN",
            help="mmlu, mmlu:original, mmlu:cloze, bbh, bbh_cot, bbh_choice, glue, superglue, any task of lm-eval's; "
            "then the model.",
        ),
    ],
    out: Out,
    shots: Annotated[
        int | None, typer.Option("--shots", min=0, help="Worked examples per question; the benchmark's own by default.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Questions of each benchmark, a seeded draw over its tasks.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder of the authors' files: mmlu/, bbh/, glue/, superglue/.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, ...")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute every answer, also those kept from before.")] = False,
    task: Annotated[str | None, typer.Option("--task", help="For helm: a task file or embedded task.")] = None,
) -> None:
    """Answer whole benchmarks: scores per subject, and averages as the benchmarks' authors define them."""
    from tunesmith.evaluation.benchmarks import Bench, table
    from tunesmith.evaluation.benchmarks import bench as run_bench

    *names, model = words
    if not names:
        raise ConfigError(f"bench {model}: names one thing", fix="tunesmith bench NAME... MODEL --out RUN")
    if names == ["helm"]:
        _helm(model, task, out, (shots or 0, limit, seed), fresh)
        return
    asked = Bench(tuple(names), shots, limit, data, seed, chat, dtype, fresh)
    for line in table(run_bench(model, asked, out, _command())):
        typer.echo(line)
    typer.echo(f"answers and scores: {out}")


@app.command()
def score(  # noqa: PLR0913, PLR0917 - each parameter is an option of the command
    predictions: Annotated[
        Path,
        typer.Argument(metavar="PREDICTIONS", help="Text, one answer per line; or jsonl, json, csv, tsv, parquet."),
    ],
    references: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[REFERENCES]...", help="The same; several files give several references per answer."),
    ] = None,
    metrics: Annotated[str, typer.Option("--metrics", help="Separated by commas.")] = "rouge1,rouge2,rougeL",
    lang: Annotated[str, typer.Option("--lang", help="Language of the answers: en, zh, ja, ko, ...")] = "en",
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="Other predictions, compared row by row.")
    ] = None,
    field: Annotated[str | None, typer.Option("--field", help="The field that holds a prediction.")] = None,
    reference_field: Annotated[str | None, typer.Option("--reference-field", help="The one of its references.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, signatures included.")] = False,
) -> None:
    """Score answers against references: no model, no task, only the marks and their intervals."""
    from tunesmith.evaluation.score_files import read_pairs, score_pairs

    files = references or []
    pairs = read_pairs(predictions, files, field, reference_field)
    other = read_pairs(against, files or [predictions], field, reference_field) if against else None
    scored = score_pairs(pairs, [name.strip() for name in metrics.split(",")], lang, other)
    typer.echo(scored.json() if as_json else scored.table())


@app.command()
def climb(  # noqa: PLR0913, PLR0917 - each parameter is an option of the command
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task file or embedded task.")],
    out: Out,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="An alias, folder, .gguf file or hub id; several climb side by side."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="METRIC=VALUE", help="Climb to the first rung that reaches it."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Test rows, the first of a seeded order.")] = None,
    requests: Annotated[
        int, typer.Option("--requests", min=1, help="How many requests the cheapest rung is chosen for.")
    ] = 1000,
    price: Annotated[float | None, typer.Option("--price", min=0.0, help="What an hour here costs.")] = None,
    shots: Annotated[
        str,
        typer.Option("--shots", metavar="K,K,...", help="Numbers of examples to choose from."),
    ] = "2,4,8,16,32",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a climb that was stopped.")] = False,
    settings: Settings = None,
) -> None:
    """Climb from prompting to full fine-tuning on one task, and say which rung is enough."""
    from tunesmith.climb.climb import climb as run_climb
    from tunesmith.climb.ladder import Ladder
    from tunesmith.recipe import make_recipe

    # Up to three epochs, as many as lower the validation loss.
    values: dict[str, object] = {"task": task, "train": {"epochs": 3, "patience": 1}}
    first, *others = model or [""]
    recipe = make_recipe({**values, **({"model": first} if first else {})}, tuple(settings or ()), where="climb")
    told = {
        "models": tuple(others),
        "target": metric_and_value("--target", target),
        "rows": limit,
        "requests": requests,
        "price": price or None,
    }
    asked = Ladder.parse({**told, "shots": numbers("--shots", shots, int)}, where="climb")
    run = run_climb(recipe, out, asked, _command(), typer.echo, resume)
    typer.echo(f"report: {(run.folder / 'report.html').resolve()}")


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Evaluated runs; each is compared with the first.")
    ],
) -> None:
    """Compare runs on the same questions: paired differences with intervals."""
    from tunesmith.reporting.lines import compare_lines
    from tunesmith.runs.run import Run

    if len(runs) < 2:
        raise ConfigError("compare needs at least two runs", fix="tunesmith compare RUN RUN")
    first, *others = (Run.open(folder) for folder in runs)
    if all(run.asked().get("verb") == "helm" for run in (first, *others)):
        from tunesmith.reporting.dimensions import helm_table

        typer.echo(helm_table([first, *others]))
        return
    for other in others:
        for line in compare_lines(first, other):
            typer.echo(line)


@app.command()
def merge(  # noqa: PLR0913, PLR0917 - each parameter is an option of the command
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Training runs on one base, or adapter folders of peft's.")
    ],
    out: Out,
    how: Annotated[
        str, typer.Option("--how", help="sum, ties and dare make a model; cat and svd a LoRA adapter.")
    ] = "sum",
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="W,W,...", help="How much of each run; 1 by default.")
    ] = None,
    density: Annotated[float, typer.Option("--density", help="The share of numbers that ties and dare keep.")] = 0.5,
    rank: Annotated[int, typer.Option("--rank", help="The rank of the adapter that svd makes.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="Of what dare drops.")] = 0,
    max_kl: Annotated[
        float | None, typer.Option("--max-kl", help="Refuse a result that is further off, in nats per answer token.")
    ] = None,
) -> None:
    """Make adapters part of their base, or one adapter of several, and prove that the result says the same."""
    from tunesmith.adapters.fold import MAX_KL, Merging
    from tunesmith.adapters.fold import merge as run_merge

    given = {"how": how, "weights": numbers("--weights", weights), "density": density, "rank": rank, "seed": seed}
    merging = Merging.parse({**given, "max_kl": MAX_KL if max_kl is None else max_kl}, where="merge")
    merged = run_merge(runs, out, merging)
    for line in merged.lines():
        typer.echo(line)
    typer.echo(f"written and read back: {out}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs of train, eval or climb.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")],
) -> None:
    """Write one self-contained HTML page about some runs."""
    from tunesmith.reporting.report import write_report
    from tunesmith.runs.run import Run

    write_report([Run.open(folder) for folder in runs], out)
    typer.echo(f"report: {out.resolve()}")


def main() -> NoReturn:
    """Run the command line: a user's mistake is two lines and exit code 2, our own keeps its traceback."""
    try:
        app()
    except TunesmithError as wrong:
        _refuse(wrong)
    except OSError as wrong:
        if wrong.errno != errno.ENOSPC:
            raise
        _refuse(DiskError("the disk is full; what was being written is not complete", fix="free some space and go on"))
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(130)
    sys.exit(0)


def _refuse(wrong: TunesmithError) -> NoReturn:
    typer.echo(f"error: {wrong.what}\n  fix: {wrong.fix}", err=True)
    sys.exit(2)


def _recipe(what: str, settings: list[str] | None) -> "Recipe":
    """Read a recipe file; a task file or embedded task stands for a recipe with all defaults."""
    from tunesmith.config import read_yaml
    from tunesmith.recipe import make_recipe, read_recipe

    given = tuple(settings or ())
    path = Path(what)
    if path.suffix in (".yaml", ".yml"):
        values = read_yaml(path)
        if "tasks" in values and "source" not in values:
            return make_recipe({"mixture": what}, given, where=what)
        if "source" not in values:
            return read_recipe(path, given)
    return make_recipe({"task": what}, given, where=what)


def _warn_unfinished(folder: Path) -> None:
    if (folder / "recipe.yaml").is_file() and (folder / "checkpoints").is_dir() and not (folder / "DONE").is_file():
        typer.echo(f"{folder} has not come to its end, or forgot too much: these are its last weights", err=True)


def _command() -> list[str]:
    return ["tunesmith", *sys.argv[1:]]


def _helm(model: str, task: str | None, out: Path, drawn: tuple[int, int | None, int], fresh: bool) -> None:
    from tunesmith.data.task import load_task
    from tunesmith.evaluation.answering import Question
    from tunesmith.evaluation.helm import helm
    from tunesmith.reporting.dimensions import helm_table

    if task is None:
        raise ConfigError("helm measures a model on a task, and none is named", fix="add --task demo, or a task file")
    shots, limit, seed = drawn
    run = helm(model, Question(load_task(task), shots=shots, limit=limit, seed=seed), out, _command(), fresh=fresh)
    typer.echo(helm_table([run]))
    typer.echo(f"answers and scores: {out}")
