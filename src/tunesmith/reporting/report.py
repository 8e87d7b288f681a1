"""The report: one self-contained HTML page, computed from run folders and nothing else.

The modules beside this one compute what each section shows; the templates in
`page/` word and arrange it. A section without facts is left out. The same runs give
the same page, byte for byte.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from tunesmith.data.ledger import Ledger
from tunesmith.errors import RunError
from tunesmith.recipe import Recipe
from tunesmith.reporting import charts, climbed, drawing, facts, numbers
from tunesmith.reporting.compare import method_title
from tunesmith.reporting.drawing import Chart
from tunesmith.reporting.examples import examples
from tunesmith.reporting.finding import finding
from tunesmith.reporting.forgotten import Forgotten, forgotten, task_losses
from tunesmith.reporting.gather import gather, summary
from tunesmith.reporting.ladders import ladders
from tunesmith.reporting.overview import overview
from tunesmith.reporting.terms import terms
from tunesmith.reporting.warnings import warnings
from tunesmith.runs.records import VirtualToken
from tunesmith.runs.run import Run


@dataclass(frozen=True)
class Training:
    """One training as the page tells it; `window` steps are averaged for the curve's bold line."""

    name: str
    asked: Recipe
    options: Mapping[str, str]
    rows: Mapping[str, int]
    ledger: Ledger | None
    curve: Chart | None
    window: int
    validated: bool
    virtual_tokens: Sequence[VirtualToken]
    task_losses: Mapping[str, tuple[float, float]]
    forgotten: Forgotten | None


def render(runs: Sequence[Run]) -> str:
    """Give the report of `runs` as one HTML page that loads nothing. Raises RunError if there are none."""
    if not runs:
        raise RunError("there are no runs to report on", fix="name at least one run folder")
    told = gather(runs)
    found, named = ladders(told), told.named()
    return _page().render(
        **facts.heading(told, [ladder.task for ladder in found]),
        finding=finding(told, found),
        climb=climbed.climbed(told, found),
        overview=overview(found),
        ladders=found,
        trainings=[_training(name, run) for run, name in told.trained.items()],
        evaluations=facts.agree((one.name, facts.asked(one.run)) for one in told.evaluated),
        recipes=[(name, run.folder, _recipe(run)) for run, name in named.items()],
        costs=[(name, taken) for run, name in named.items() if (taken := told.taken(run))],
        examples=[(ladder, shown) for ladder in found if (shown := examples(ladder))],
        warnings=warnings(told, found),
        provenance=facts.agree((name, facts.origin(run)) for run, name in named.items()),
        within=bool(told.inside),
        commands=facts.commands(told),
        terms=terms(told, found),
    )


def write_report(runs: Sequence[Run], path: Path) -> None:
    """Write the report of `runs` to `path`, in the place of an earlier one. Raises RunError if it cannot be a file."""
    if path.is_dir():
        raise RunError(f"{path}: is a folder", fix=f"name a file, such as {path / 'report.html'}")
    page = render(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(page, encoding="utf-8")
    aside.replace(path)


def _recipe(run: Run) -> str:
    return (run.folder / "recipe.yaml").read_text(encoding="utf-8")


def _training(name: str, run: Run) -> Training:
    values = {key: value for key, value in run.asked().items() if key != "verb"}
    asked = Recipe.parse(values, where=f"{run.folder}/recipe.yaml")
    losses, validated = _losses(run)
    window = len(losses) // 10 | 1  # odd, so that the mean is centred on a step
    curve = charts.loss(losses, validated, window) if losses else None
    told = (_options(asked), facts.data_rows(run), run.ledger())
    lost = forgotten(name, run)
    by_task = task_losses(run.steps())
    return Training(name, asked, *told, curve, window, bool(validated), run.virtual_tokens(), by_task, lost)


def _losses(run: Run) -> tuple[list[charts.Point], list[charts.Point]]:
    """Give (step, loss) of every step, and of every validation; the one before training is at step 0."""
    steps, taken = run.steps(), summary(run)
    validated = [(float(step.step), step.validation_loss) for step in steps if step.validation_loss is not None]
    if taken and taken.first_validation_loss is not None:
        validated.insert(0, (0.0, taken.first_validation_loss))
    return [(float(step.step), step.loss) for step in steps], validated


def _options(asked: Recipe) -> dict[str, str]:
    """Give what the method was asked beside its name, in words."""
    values = asked.method.model_dump(mode="json", exclude={"name"})
    return {
        name.replace("_", " ").capitalize(): _said(value) for name, value in values.items() if value not in ({}, [])
    }


def _said(value: object) -> str:
    """Write a recipe's value: lists with commas, numbers without idle zeros."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _visible(word: str) -> str:
    """Write a word of the vocabulary so that white space can be seen."""
    return (
        word.strip(" ").replace("\n", "\N{RETURN SYMBOL}").replace("\t", "\N{RIGHTWARDS ARROW TO BAR}")
        or "\N{OPEN BOX}"
    )


def _unbroken(text: str) -> Markup:
    """Write a text so that no line ends inside a name such as ROUGE-1."""
    whole = re.sub(r"[A-Z]+-\w+", r'<span class="whole">\g<0></span>', str(escape(text)))
    return Markup(whole)  # noqa: S704 - escaped before


def _contents(body: str) -> list[tuple[str, str]]:
    """Give the anchor and the title of each section of the page."""
    found = re.findall(r'<section id="([^"]*)">\s*<h2>(.*?)</h2>', body, flags=re.DOTALL)
    return [(anchor, unescape(title)) for anchor, title in found]


def _page() -> jinja2.Template:
    """Load the template; whatever a run holds is escaped, and a name it lacks is an error rather than a blank."""
    folder = jinja2.PackageLoader("tunesmith.reporting", "page")
    page = jinja2.Environment(
        loader=folder, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters |= {
        "method": method_title,
        "metric": numbers.metric_title,
        "fixed": numbers.fixed,
        "signed": numbers.signed,
        "interval": numbers.interval,
        "p": numbers.p_value,
        "whole": numbers.whole,
        "percent": numbers.percent,
        "count": numbers.count,
        "size": numbers.size,
        "along": numbers.along,
        "contents": _contents,
        "unbroken": _unbroken,
        "overtaken": climbed.overtaken,
        "time": numbers.duration,
        "said": _said,
        "visible": _visible,
    }
    page.globals |= {
        "script": drawing.script,
        "page_script": drawing.page_script,
        "figures": climbed.figures,
        "digest": drawing.digest,
        "price_chart": climbed.price_chart,
        "kept_chart": climbed.kept_chart,
        "totals_chart": climbed.totals_chart,
        "tried_chart": climbed.tried_chart,
    }
    return page.get_template("report.html.jinja")
