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
        for width in (360, 768, 1280):
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


FOCUSED = """() => {
  const focused = document.activeElement, style = getComputedStyle(focused);
  const name = focused.getAttribute("aria-label") || focused.textContent.trim() || (focused.labels || [])[0]?.textContent;
  return [focused.tagName + (focused.type || ""), name, style.outlineStyle, parseFloat(style.outlineWidth)];
}"""


def test_all_controls_can_be_reached_by_keyboard(browser: Any, make_run: Make, runs: Path) -> None:
    make_run("first")
    with served(runs) as ask:
        page = browser.new_page()
        page.goto(f"http://localhost:{ask.port}/")  # type: ignore[attr-defined]
        assert [walk(page)[0] for _ in range(6)] == [
            "A",
            "INPUTsearch",
            "SELECTselect-one",
            "BUTTONsubmit",
            "INPUTcheckbox",
            "A",
        ]
        page.keyboard.press("Enter")
        page.wait_for_url("**/run/first")
        while walk(page)[0] != "INPUTrange":
            pass
        last = page.evaluate("document.activeElement.getAttribute('aria-valuetext')")
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") != last
        shown = page.locator(".slides details:not([hidden])")
        assert shown.count() == 1 and shown.get_attribute("open") is not None


def walk(page: Any) -> tuple[str, str]:
    """Goes on to the next control, which must have a name and a ring around it; returns what it is and its name."""
    page.keyboard.press("Tab")
    kind, name, outline, width = page.evaluate(FOCUSED)
    assert kind != "BODY" and name and outline == "solid" and width >= 2
    return kind, name
