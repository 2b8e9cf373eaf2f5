"""From the gallery to another studio, in English and in Chinese, in studios that run as a user's do.

A network is saved under a name of one's own, trained, looked at through a camera (a film), asked which is better, and
taken into a second studio with a sample. Labelling by keyboard alone is in `test_image_islands.py`.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from browsers import browser
from studio_runs import end_trainings, studio
from test_camera import film
from trained_studio import RUN

SETTINGS = "&weights=none&tune=scratch&epochs=1&workers=0&batch=16&micro=16"
MINE = "my own 网络"
LIMIT = 120.0


def base_of(link: str) -> str:
    return link.partition("?")[0]


def until(what: Any, why: str) -> None:
    limit = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < limit, why
        time.sleep(0.1)


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_from_the_gallery_to_another_studio(workspace, tmp_path, language):
    shown = sorted((workspace.data / RUN / "3").iterdir())[0]
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film(tmp_path / 'film.y4m', shown)}",
    )
    with browser(flags=flags) as chromium, studio(workspace.folder) as first:
        context = chromium.new_context(locale=language, accept_downloads=True, permissions=["camera"])
        tab = context.new_page()
        tab.set_default_timeout(1000 * LIMIT)
        errors: list[str] = []
        context.on("weberror", lambda error: errors.append(str(error.error)))
        tab.goto(first.link)
        assert tab.evaluate("() => document.documentElement.lang").startswith(language[:2])
        run = a_network_is_saved_and_trained(tab, base_of(first.link), workspace.runs)
        the_camera_answers(tab, base_of(first.link), run)
        the_duel_has_one_button(tab, base_of(first.link))
        packed = it_is_packed_with_a_sample(tab, base_of(first.link), run, tmp_path)
        end_trainings(workspace.folder)
        with studio(tmp_path / "second") as second:
            tab.goto(second.link)
            it_opens_in_another_studio(tab, base_of(second.link), run, packed)
        assert errors == []
        context.close()


def a_network_is_saved_and_trained(tab: Any, address: str, runs: Path) -> str:
    tab.goto(f"{address}gallery?words=vit_digits_narrow")
    tab.locator(".networks a[href$='of/vit_digits_narrow']").click()
    tab.locator(".steps li").first.wait_for()
    tab.fill("form[action$='gallery/save'] input[name=name]", MINE)
    tab.click("form[action$='gallery/save'] button")
    tab.wait_for_url("**/gallery/mine/*")
    link = tab.locator(f"a[href*='data/{RUN}/train?']").get_attribute("href")
    before = {one.name for one in runs.iterdir()}
    tab.goto(f"{tab.url.rpartition('/')[0]}/{link}{SETTINGS}")
    assert "models/" in tab.locator("#commands").inner_text()
    tab.locator("form[action$='/train'] button.large").click()
    tab.wait_for_url("**/runs/*")
    run = tab.url.rpartition("/")[2]
    assert run not in before
    until((runs / run / "result.json").is_file, "the training ends")
    return run


def the_camera_answers(tab: Any, address: str, run: str) -> None:
    tab.goto(f"{address}runs/{run}/camera")
    tab.click("[data-start]")
    tab.wait_for_function("() => Number(document.querySelector('[data-live]').dataset.answers) > 3")
    print("camera:", tab.locator("[data-speed]").inner_text())
    assert tab.locator("[data-said]").inner_text() in "0123"


def the_duel_has_one_button(tab: Any, address: str) -> None:
    tab.goto(f"{address}studies/duel/{RUN}")
    assert "vitrail compare" in tab.content()
    assert tab.locator("main form[method=post] button").count() == 1


def it_is_packed_with_a_sample(tab: Any, address: str, run: str, folder: Path) -> Path:
    tab.goto(f"{address}runs/{run}/export")
    tab.locator("details:has(input[name=sample]) summary").click()
    tab.locator("input[name=sample]").first.check()
    with tab.expect_download() as waiting:
        tab.locator("form[action$='run.zip'] button").click()
    kept = folder / "run.zip"
    waiting.value.save_as(kept)
    return kept


def it_opens_in_another_studio(tab: Any, address: str, run: str, packed: Path) -> None:
    tab.goto(f"{address}import")
    tab.set_input_files("form[enctype] input[type=file]", packed)
    tab.locator("form[enctype] button").click()
    tab.wait_for_url("**/result")
    assert re.search(r"\d", tab.locator(".verdict").first.inner_text())
    tab.goto(f"{address}runs/{run}/predict")
    tab.locator("form[action*='/samples/'] button").first.click()
    tab.wait_for_url("**/predict/*")
    assert tab.locator(".said").inner_text()
