"""The pages as a browser has them: Debian's chromium through Playwright, where both are installed."""

import json
import shutil
import time

import pytest

from nas.candidate import Architecture
from nas.interop.named_architecture import PUBLISHED
from nas.report.comparison import write_comparison
from nas.report.page import write_page
from nas.report.recorded_run import RecordedRun
from nas.signature import Signature
from nas.spaces.darts.space import Darts
from tests.report.conftest import by_epoch, write_curves
from tests.report.test_page import SECTIONS

EPOCHS = 50


def darts_run(folder):
    """A finished DARTS search of 50 epochs of 391 steps: as much as a real one records."""
    space = Darts(signature=Signature((3, 32, 32), 10))
    found: Architecture = space.architecture(PUBLISHED["darts_v2"])
    curves = {}
    for cell in ("normal", "reduce"):
        for node in range(2, 6):
            for source in range(node):
                for place, operation in enumerate(space.operations):
                    values = [1 / 8 + (place - 3.5) * epoch / EPOCHS / 40 for epoch in range(EPOCHS)]
                    curves[f"probability/{cell}.node{node}.from{source}/{operation}"] = by_epoch(values)
                curves[f"entropy/{cell}.node{node}.from{source}"] = by_epoch(
                    [1 - epoch / 99 for epoch in range(EPOCHS)]
                )
    for tag in ("train/loss", "validation/loss", "gradient/weights", "gradient/architecture", "budget/samples"):
        curves[tag] = by_epoch([2 / (1 + epoch) for epoch in range(EPOCHS)])
    curves["train/accuracy"] = curves["validation/accuracy"] = by_epoch(
        [1 - 1 / (2 + epoch) for epoch in range(EPOCHS)]
    )
    steps = range(10, 391 * EPOCHS, 10)
    for tag in (
        "hyperparameters/learning_rate",
        "hyperparameters/dropout",
        "step/training_loss",
        "step/validation_loss",
    ):
        curves[tag] = [(step, step // 391, 1 / (10 + step % 977)) for step in steps]
    write_curves(folder / "metrics.csv", curves)
    candidate = {
        "schema": 1,
        "data": "cifar10",
        "space": space.describe(),
        "architecture": dict(found),
        "hyperparameters": {"learning_rate": 0.025},
        "schedule": "cosine",
        "settled": {},
    }
    (folder / "candidate.json").write_text(json.dumps(candidate))
    return folder


@pytest.mark.slow
def test_the_page_of_a_long_search_takes_less_than_ten_seconds(tmp_path):
    folder = darts_run(tmp_path / "darts")
    began = time.process_time()
    path = write_page(folder)
    assert time.process_time() - began < 10  # of this process, whatever else the machine does
    assert path.stat().st_size < 5_000_000
    assert RecordedRun.read(folder).problems == []


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("kind", ["chain", "cells", "comparison"])
def test_the_page_is_readable_asks_for_nothing_and_complains_of_nothing(browser, run_folder, tmp_path, kind, width):
    folder = darts_run(tmp_path / "darts") if kind == "cells" else run_folder()
    path = write_comparison([folder], tmp_path / "compare.html") if kind == "comparison" else write_page(folder)
    page = browser.new_page(viewport={"width": width, "height": 900})
    complaints, requests = [], []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    if kind != "comparison":
        assert all(page.locator(f"section#{name} h2").is_visible() for name in SECTIONS)
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing makes the page itself scroll
    heights = page.evaluate(
        "[...document.querySelectorAll('main p, td, svg text')].filter(e => e.checkVisibility())"
        ".map(e => e.getBoundingClientRect().height).filter(height => height > 0)"
    )
    assert min(heights) >= 8  # pixels
    colours = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    page.close()
