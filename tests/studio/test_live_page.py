"""The page of a run in a browser: it grows while the run trains, and many tabs do not block each other."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from studio_runs import studio, write_run

CHROMIUM = "/usr/bin/chromium"
TABS = 8


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    write_run(folder / "runs", "mine", steps=40)
    with studio(folder) as one:
        yield folder, one.link


@pytest.fixture(scope="module")
def browser(opened):
    """A browser with the key of the studio; every request to another host fails the test."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not shutil.which(CHROMIUM):
        pytest.skip(f"{CHROMIUM} is not here: pages are not looked at in a browser")
    with api.sync_playwright() as playwright:
        program = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        context = program.new_context()
        outside: list[str] = []
        host = opened[1].partition("?")[0]
        context.on("request", lambda request: request.url.startswith(host) or outside.append(request.url))
        context.new_page().goto(opened[1])
        yield context
        assert outside == []
        program.close()


def test_a_page_grows_with_its_run(opened, browser):
    folder, link = opened
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.goto(link.partition("?")[0] + "runs/mine")
    page.wait_for_selector("#curves canvas")
    assert "54.0 %" in page.inner_text("#words")
    score = {
        "event": "score", "step": 50, "epoch": 5.0, "accuracy": 0.71, "loss": 1.0, "main": "accuracy", "best": 0.71,
        "better": True, "seconds": 25.0, "unit": "%",
    }  # fmt: skip
    with (folder / "runs" / "mine" / "history.jsonl").open("a") as history:
        history.write(json.dumps(score) + "\n")
    page.locator("#words", has_text="71.0 %").wait_for()
    page.reload()
    page.wait_for_selector("#curves canvas")
    assert "71.0 %" in page.inner_text("#words")
    assert faults == []
    page.close()


def test_a_ninth_tab_opens_beside_eight(opened, browser):
    """Complaint 16: browsers allow six connections to a host, and streams of events would take them all."""
    address = opened[1].partition("?")[0] + "runs/mine"
    tabs = []
    for _ in range(TABS + 1):
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#curves canvas")
        tabs.append(page)
    assert "accuracy" in tabs[-1].inner_text("#words")
    for page in tabs:
        page.close()


def test_the_first_frame_is_dark_for_who_wants_it(opened, browser):
    """Complaint 12: no white flash, and at 200 % every button is inside the window."""
    page = browser.new_page()
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 640, "height": 480})
    page.goto(opened[1].partition("?")[0] + "runs/mine", wait_until="commit")
    page.wait_for_selector("main")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 25, 32)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()
