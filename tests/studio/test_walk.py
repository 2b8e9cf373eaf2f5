"""The whole way in a browser, against a studio that runs as a user's does: images, check, training, result, export.

One test, because each step needs the one before it. What it asserts is what a person sees on the pages.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from browsers import bound_by_permissions, browser, drop
from studio_runs import end_trainings, studio

SET, RUN = "field trip", "field-trip"
FILES, REFUSED, BROKEN = 257, "three/9.png", "zero/0.png"
SETTINGS = "model=vit_digits_narrow&weights=none&tune=scratch&epochs=6&workers=0&batch=16&micro=16"
LIMIT = 120_000
TABS = 8

CURVES = "() => [...document.querySelectorAll('#curves canvas')].map((one) => one.toDataURL())"
"""What is drawn, to the pixel."""


class Walk:
    """A tab of a browser that went to a studio, and all that it asked for."""

    def __init__(self, tab: Any, folder: Path, address: str) -> None:
        self.tab, self.folder, self.address = tab, folder, address
        self.asked: list[str] = []
        self.errors: list[str] = []
        tab.context.on("request", lambda request: self.asked.append(request.url))
        tab.context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def go(self, path: str) -> None:
        self.tab.goto(f"{self.address}{path}")

    def text(self, selector: str) -> str:
        return self.tab.locator(selector).first.inner_text()

    def sees(self, text: str, limit: float = LIMIT) -> None:
        self.tab.get_by_text(text).first.wait_for(timeout=limit)

    def click(self, name: str) -> None:
        self.tab.get_by_role("button", name=name).first.click()

    def take(self, click: Callable[[], None]) -> Path:
        """Return the file that a click downloads."""
        with self.tab.expect_download(timeout=LIMIT) as waiting:
            click()
        kept = self.folder / "taken" / waiting.value.suggested_filename
        waiting.value.save_as(kept)
        return kept


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, some_digits: Callable[[str, int], Path]) -> Path:
    """Four classes of digits with folders in folders: 257 files, one that nobody may read, and one that is no image."""
    digits = some_digits("0123", 65)
    root = tmp_path_factory.mktemp("home") / SET
    for number, name in enumerate(("zero", "one", "two", "three")):
        for place, file in enumerate(sorted((digits / str(number)).iterdir())[: 65 if number else 62]):
            below = root / name / ("" if place < 20 else "old" if place < 40 else "old/deep")
            below.mkdir(parents=True, exist_ok=True)
            (below / f"{place}.png").write_bytes(file.read_bytes())
    (root / BROKEN).write_bytes(b"a file that is no image")
    (root / REFUSED).chmod(0)
    assert sum(1 for one in root.rglob("*.png")) == FILES
    return root


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    workspace = tmp_path / "workspace"
    with browser(bound_by_permissions(tmp_path)) as chromium, studio(workspace) as opened:
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        tab = context.new_page()
        tab.set_default_timeout(30_000)
        one = Walk(tab, tmp_path, opened.link.partition("?")[0])
        tab.goto(opened.link)
        yield one
        end_trainings(workspace)
        context.close()


def test_from_a_dropped_folder_to_a_model_that_is_taken_along(walk: Walk, images: Path) -> None:
    the_first_page_has_a_finished_sample(walk)
    a_folder_is_dropped_and_what_cannot_be_read_is_named(walk, images)
    a_check_is_decided_about_and_the_decision_taken_back(walk)
    one_click_trains(walk)
    a_reload_shows_the_same_curve_and_the_same_place(walk)
    a_ninth_tab_opens_beside_eight(walk)
    the_result_says_how_right_it_is_and_a_label_is_corrected(walk)
    a_picture_is_answered_and_its_attention_looked_at(walk, images)
    the_model_is_taken_away_with_its_proof(walk)
    the_packed_run_becomes_a_model_again(walk)
    assert walk.errors == []
    assert [url for url in walk.asked if not url.startswith((walk.address, "data:", "blob:"))] == []
    assert len(walk.asked) > 300  # the images of the wall and the pages of the walk were counted


def the_first_page_has_a_finished_sample(walk: Walk) -> None:
    assert "right" in walk.text(".card .clip")
    assert walk.tab.locator(".card", has_text="Open the best model").count() == 1
    assert walk.text("#outside") == "0"


def a_folder_is_dropped_and_what_cannot_be_read_is_named(walk: Walk, images: Path) -> None:
    """Complaint 8."""
    walk.go("data/new")
    drop(walk.tab, "form.drop", [images])
    walk.sees("256 of 257 files have arrived")
    (named,) = walk.tab.locator("[data-trouble] li").all_inner_texts()
    assert named.startswith(f"{REFUSED} could not be read")
    assert len(list((walk.folder / "workspace" / "data" / SET).rglob("*.png"))) == FILES - 1
    walk.tab.get_by_text("See the images").click()
    walk.tab.get_by_role("heading", name=SET).wait_for()
    walk.tab.locator("#wall .tile.at img").first.wait_for()


def a_check_is_decided_about_and_the_decision_taken_back(walk: Walk) -> None:
    walk.tab.get_by_text("Look and decide").click()
    walk.sees("1 thing to look at.")
    assert walk.tab.locator(".finding.see .caption", has_text=BROKEN).count() == 1
    walk.click("Leave 1 out")
    walk.sees("Nothing to do.")
    walk.tab.locator("#done").get_by_role("button", name="Undo").click()
    walk.sees("1 thing to look at.")
    walk.click("Leave 1 out")
    walk.sees("Nothing to do.")
    assert "3" in walk.text("#history h2")


def one_click_trains(walk: Walk) -> None:
    walk.go(f"data/{SET}/train?{SETTINGS}")
    assert "--epochs 6" in walk.text("#commands")
    walk.click("Train")
    walk.tab.wait_for_url(f"**/runs/{RUN}")
    assert "after 3 decisions about its images" in walk.text(".head")
    walk.sees("on images that it does not train on; the best so far")
    assert "epoch" in walk.text("#words")


def a_reload_shows_the_same_curve_and_the_same_place(walk: Walk) -> None:
    """Complaint 2. The training is held in the middle of an epoch, so that there is one truth to compare with."""
    image = walk.tab.locator("#live img[src]")
    image.wait_for(timeout=LIMIT)
    training = the_training(walk)
    training.suspend()
    try:
        before = settled(walk)
        walk.tab.evaluate("scrollTo(0, 200)")
        place = walk.tab.evaluate("scrollY")
        address = walk.tab.url
        begun = time.perf_counter()
        walk.tab.reload()
        walk.tab.wait_for_selector("#curves canvas")
        print(f"reload in mid-epoch: {time.perf_counter() - begun:.2f} s until the curve is there")
        assert settled(walk) == before
        assert walk.tab.url == address
        assert walk.tab.evaluate("scrollY") == place > 0
        assert image.is_visible()
    finally:
        training.resume()


def a_ninth_tab_opens_beside_eight(walk: Walk) -> None:
    """Complaint 16: browsers allow six connections to a host, and streams of events would take them all."""
    tabs = [walk.tab.context.new_page() for _ in range(TABS)]
    for tab in tabs:
        tab.goto(walk.tab.url)
    tabs[-1].wait_for_selector("#curves canvas")
    assert "%" in tabs[-1].inner_text("#words")
    for tab in tabs:
        tab.close()


def the_result_says_how_right_it_is_and_a_label_is_corrected(walk: Walk) -> None:
    walk.tab.get_by_role("link", name="See the result").click(timeout=LIMIT)
    assert "%" in walk.text(".lead .verdict")
    walk.tab.locator(".matrix a[style*='213,94,0']").first.click()
    walk.tab.locator("#cell .photo").first.wait_for()
    walk.tab.locator("#cell .acts button", has_text="It is").first.click()
    walk.tab.locator("#cell .photo.decided").first.wait_for()
    walk.sees("1 image corrected since this training.")
    assert walk.tab.get_by_role("button", name="Train again with them").is_visible()
    lines = (walk.folder / "workspace" / "data" / f"{SET}.vitrail.jsonl").read_text().splitlines()
    assert '"relabel"' in lines[-1]


def a_picture_is_answered_and_its_attention_looked_at(walk: Walk, images: Path) -> None:
    walk.tab.get_by_role("link", name="Try it", exact=True).click()
    drop(walk.tab, "form.drop", [images / "two" / "1.png"])
    walk.tab.wait_for_url("**/predict/*", timeout=LIMIT)
    walk.tab.wait_for_selector(".viewer canvas", timeout=LIMIT)
    assert walk.text(".said") in {"zero", "one", "two", "three"}
    assert walk.tab.locator(".bars .first b").inner_text().endswith("%")
    canvas = walk.tab.locator(".viewer canvas")
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    walk.tab.locator("#layer").press("ArrowLeft")
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    canvas.press("ArrowDown")
    assert "patch" in walk.text("[data-now=patch]")


def the_model_is_taken_away_with_its_proof(walk: Walk) -> None:
    walk.tab.get_by_role("link", name="Take it away").click()
    model = walk.take(walk.tab.get_by_text("Download the model").click)
    assert model.read_bytes() == (walk.folder / "workspace" / "runs" / RUN / "model.safetensors").read_bytes()
    report = walk.take(walk.tab.get_by_role("link", name="The report page").click)
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
    card = walk.tab.locator(".card", has=walk.tab.get_by_role("heading", name="onnx", exact=True))
    card.get_by_role("button", name="Export").click()
    walk.tab.wait_for_url("**/background/*")
    walk.tab.locator("#command .state:not(.running)").wait_for(timeout=LIMIT)
    assert "200 of 200 top answers are the same" in walk.text("#command")
    exported = walk.take(walk.tab.get_by_text("Download all as a zip").click)
    assert f"{RUN}.onnx" in zipfile.ZipFile(exported).namelist()


def the_packed_run_becomes_a_model_again(walk: Walk) -> None:
    walk.go(f"runs/{RUN}/result")
    verdict = walk.text(".lead .verdict")
    walk.tab.get_by_role("link", name="Take it away").first.click()
    packed = walk.take(walk.tab.get_by_text("The whole run as a zip").click)
    names = {Path(one).name for one in zipfile.ZipFile(packed).namelist()}
    assert {one for one in names if one.endswith(".png")} <= {"live.png"}  # no image of the user's
    walk.go("import")
    walk.tab.locator("#run").set_input_files(packed)
    walk.click("Open it")
    walk.tab.wait_for_url(f"**/runs/{RUN}-2/result")
    assert walk.text(".lead .verdict") == verdict


def the_training(walk: Walk) -> psutil.Process:
    """Return the process of the training that runs in the studio of a walk."""
    folder = str(walk.folder / "workspace")
    (found,) = [
        one
        for one in psutil.process_iter(["cmdline", "cwd"])
        if one.info["cwd"] == folder and "train" in (one.info["cmdline"] or [])
    ]
    return found


def settled(walk: Walk) -> list[str]:
    """Return the curves once all that has happened is drawn."""
    drawn: list[str] = []
    while not drawn or drawn != walk.tab.evaluate(CURVES):
        drawn = walk.tab.evaluate(CURVES)
        walk.tab.wait_for_timeout(1500)
    return drawn
