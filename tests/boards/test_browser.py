"""The board in a real browser, where playwright and Chromium are at hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import EVIL, Make, put
from .test_app import served

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow


@pytest.fixture
def browser() -> Iterator[Any]:
    """A browser without a window."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as playing:
        browser = playing.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


def test_it_follows_a_run_without_being_reloaded(browser: Any, make_run: Make, runs: Path) -> None:
    run = make_run("first", **{"search/cells.svg": None})
    make_run(EVIL.replace("/", "-"), **{"search/environment.json": {"notes": [EVIL], "device": EVIL, "attempts": [{}]}})
    said: list[str] = []
    with served(runs) as ask:
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append("dialog"))
        for width in (360, 800, 1400):
            page.set_viewport_size({"width": width, "height": 800})
            for path in ("/", "/run/first", "/compare?run=first"):
                page.goto(f"http://localhost:{ask.port}{path}")  # type: ignore[attr-defined]
                page.wait_for_selector("#live:has-text('follows')")
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
        page.goto(f"http://localhost:{ask.port}/run/first")  # type: ignore[attr-defined]
        page.evaluate("window.mark = 1")
        page.locator("summary:has-text('As text')").first.click()
        page.evaluate("s = document.querySelector('.slides input'); s.value = 0; s.dispatchEvent(new Event('input'))")
        rows = [json.loads(line) for line in (run / "search/metrics.jsonl").read_text().splitlines()]
        put(run / "search/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, rows[-1] | {"epoch": 77}]))
        page.wait_for_selector("[data-part=state]:has-text('78')", timeout=30_000)
        assert page.evaluate("window.mark") == 1 and page.input_value(".slides input") == "0"
        assert page.evaluate("document.querySelector('[data-part=cell] details').open")
        page.goto(f"http://localhost:{ask.port}/")  # type: ignore[attr-defined]
        page.fill("input[type=search]", "first")
        page.wait_for_selector("text=1 of 2 runs", timeout=30_000)
        assert page.url.endswith("?q=first")
    assert said == []
