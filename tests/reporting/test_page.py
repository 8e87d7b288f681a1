"""The page in a browser: charts are drawn, nothing goes wrong or is loaded, and nothing is wider than the screen."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from tests.reporting.made import climbed
from tunesmith.reporting.drawing import digest
from tunesmith.reporting.report import render
from tunesmith.runs.records import Ability, Forgetting
from tunesmith.runs.run import Run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")
SCHEMES = {"dark": 0, "light": 1}

# Counts what goes wrong from the first moment, looks once all charts are drawn or had time, and tells the page around.
PROBE = """
const wrong = [];
addEventListener("error", (event) => wrong.push(event.message));
addEventListener("securitypolicyviolation", (event) => wrong.push(event.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...said) => wrong.push(said.join(" "));
const look = (left) => {
  const root = document.documentElement;
  const all = document.querySelectorAll(".chart").length;
  if (left && document.querySelectorAll(".chart.drawn > .live svg").length < all) {
    setTimeout(look, 500, left - 1);
    return;
  }
  parent.postMessage(JSON.stringify({
    wrong, width: root.clientWidth, needed: root.scrollWidth,
    charts: all,
    drawn: document.querySelectorAll(".chart.drawn > .live svg").length,
    paper: getComputedStyle(document.body).backgroundColor,
    loaded: performance.getEntriesByType("resource").map((one) => one.name),
  }), "*");
};
addEventListener("load", () => setTimeout(look, 4000, 100));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    climb = climbed(tmp_path_factory.mktemp("page") / "climb", sentence="a" * 300)
    fixed = {"before": 0.7, "after": 0.6, "difference": -0.1, "low": -0.2, "high": 0.0, "p": 0.04, "n": 60}
    kept = {"retained": 0.8, "retained_low": 0.6, "retained_high": 1.0}
    ability = Ability(task="topic", cluster="topic", metric="accuracy", **fixed, **kept, chance=0.2, chance_after=0.2)
    told = Forgetting(step=1, abilities=(ability,), retained=0.8, low=0.6, high=1.0)
    for name in ("lora", "prompt_tuning"):
        Run.open(climb.folder / name).write_json("forgetting.json", told.model_dump())
    return render([climb])


def opened(page, folder, width, scheme):
    """Open the page in a frame of this width, as tall as it is long; give what the probe saw."""
    policy = re.search(r"script-src '[^']*'", page).group()
    heard = page.replace(policy, f"{policy} '{digest(PROBE)}'", 1).replace(
        "<style>", f"<script>{PROBE}</script><style>", 1
    )
    (folder / "page.html").write_text(heard, encoding="utf-8")
    listen = "onmessage = (event) => { document.body.dataset.seen = event.data; }"
    frame = f'<iframe src="page.html" style="border:0;width:{width}px;height:40000px"></iframe>'
    (folder / "frame.html").write_text(f"<body><script>{listen}</script>{frame}</body>", encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,40000"]
    options += [f"--user-data-dir={folder / 'user'}", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"]
    options += ["--virtual-time-budget=60000", "--dump-dom"]
    asked = [BROWSER, *options, (folder / "frame.html").as_uri()]
    seen = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True).stdout
    return json.loads(unescape(re.search(r'data-seen="([^"]*)"', seen).group(1)))


@pytest.fixture(scope="module", params=[(390, "dark"), (1280, "light")], ids=["phone-dark", "wide-light"])
def seen(request, page, tmp_path_factory):
    width, scheme = request.param
    return {"asked": width, "scheme": scheme, **opened(page, tmp_path_factory.mktemp("seen"), width, scheme)}


def test_every_chart_is_drawn_and_nothing_goes_wrong_or_is_loaded(seen):
    assert seen["wrong"] == []
    assert seen["loaded"] == []
    assert seen["drawn"] == seen["charts"] >= 8


def test_nothing_is_wider_than_the_screen(seen):
    assert seen["width"] == seen["asked"]
    assert seen["needed"] <= seen["asked"]


def test_the_page_follows_the_readers_scheme(seen):
    assert seen["paper"] == {"dark": "rgb(21, 23, 26)", "light": "rgb(253, 252, 250)"}[seen["scheme"]]
