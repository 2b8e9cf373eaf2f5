"""The live camera: one pass for answer and attention, frames over HTTP, and a browser with a film as its camera."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
from browsers import browser, served
from live_looks import same_as_the_last_layer
from PIL import Image
from trained_studio import RUN, TOKEN

from vitrail.explainers.live_attention import LiveAttention
from vitrail.infer.predictor import Predictor
from vitrail.studio.app import create_app

FILM = (160, 120)

SPREAD = """
() => {
  const glow = document.querySelector(".screen canvas");
  const values = [...glow.getContext("2d").getImageData(0, 0, glow.width, glow.height).data];
  const alpha = values.filter((_, place) => place % 4 === 3), red = values.filter((_, place) => place % 4 === 0);
  return [glow.hidden, Math.max(...alpha) - Math.min(...alpha), new Set(red).size];
}
"""
"""Whether nothing glows, between the thinnest and the thickest of the veil, and how many colours it has."""


def film(path: Path, shown: Path) -> Path:
    """Write a film in grey, as YUV4MPEG2: an image for two seconds, then a hand before the camera, and so on."""
    width, height = FILM
    image = np.asarray(Image.open(shown).convert("L").resize((height, height), Image.Resampling.NEAREST))
    open_, covered = np.full((height, width), 16, np.uint8), np.full((height, width), 90, np.uint8)
    open_[:, 20 : 20 + height] = image
    colour = bytes([128]) * (width * height // 2)
    with path.open("wb") as handle:
        handle.write(f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode())
        for frame in [open_] * 20 + [covered] * 20:
            handle.write(b"FRAME\n" + frame.tobytes() + colour)
    return path


@pytest.fixture
def model(workspace) -> Predictor:
    return Predictor(workspace.runs / RUN)


@pytest.fixture
def picture(workspace) -> Path:
    return sorted((workspace.data / RUN / "3").iterdir())[0]


def test_one_pass_gives_the_answer_and_the_attention_of_the_last_layer(model, picture):
    same_as_the_last_layer(model, picture)


def images_in(folder: Path) -> list[Path]:
    return sorted(one for one in folder.rglob("*") if one.suffix in {".png", ".jpg", ".jpeg", ".webp"})


def test_a_frame_is_answered_and_nothing_of_it_is_kept(client, workspace, picture):
    before = images_in(workspace.folder)
    reply = client.post(f"/runs/{RUN}/camera/frame", content=picture.read_bytes())
    answer = reply.json()
    assert answer["bars"][0][0] in "0123"
    assert (
        len(base64.b64decode(answer["looked"]["data"])) == answer["looked"]["rows"] * answer["looked"]["cols"]
    )
    assert images_in(workspace.folder) == before
    torn = client.post(f"/runs/{RUN}/camera/frame", content=b"no image")
    assert torn.status_code == 422
    assert "Traceback" not in torn.text
    huge = client.post(f"/runs/{RUN}/camera/frame", content=b"0" * (5 << 20))
    assert huge.status_code == 422


def test_a_network_without_attention_still_answers(model, picture, monkeypatch):
    monkeypatch.setattr(type(model.network.spec), "shows_attention", False)
    live = LiveAttention(model)
    glance = live(model.decoded(picture))
    assert glance.looked is None
    assert glance.prediction.to_dict() == model.predict([picture])[0].to_dict()


@pytest.fixture
def tab(workspace, picture, tmp_path):
    """A tab of a browser whose camera is a film."""
    flags = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film(tmp_path / 'film.y4m', picture)}",
    )
    app = create_app(workspace, TOKEN)
    with browser(flags=flags) as chromium, served(app) as address:
        page = chromium.new_context(permissions=["camera"]).new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/?token={TOKEN}")
        page.goto(f"{address}/runs/{RUN}/camera")
        yield page
        assert not errors


def test_the_picture_glows_and_a_kept_one_has_its_page(tab):
    tab.click("[data-start]")
    tab.wait_for_selector("[data-live][data-answers]")
    tab.wait_for_function("() => Number(document.querySelector('[data-live]').dataset.answers) > 5")
    assert tab.locator("[data-said]").inner_text() in "0123"
    assert "a second" in tab.locator("[data-speed]").inner_text()
    hidden, spread, colours = tab.evaluate(SPREAD)
    assert not hidden
    assert spread > 20
    assert colours >= 2
    tab.click("[data-pause]")
    assert tab.locator("[data-pause]").inner_text() == "Go on"
    tab.click("[data-pause]")
    tab.click("[data-keep] button")
    tab.wait_for_url("**/predict/*")
    assert tab.locator(".said").inner_text()


def test_a_picture_of_the_camera_becomes_an_image_of_a_class(tab, workspace):
    tab.click("[data-start]")
    tab.wait_for_selector("[data-live][data-answers]")
    tab.select_option("#class", "2")
    tab.click("[data-add] button")
    tab.wait_for_function("() => document.querySelector('[data-status]').textContent.startsWith('Added to')")
    [added] = (workspace.data / RUN / "2").glob("camera-*.jpg")
    with Image.open(added) as image:
        assert image.size == FILM


def test_the_camera_is_let_go_when_the_page_is_hidden(tab):
    tab.click("[data-start]")
    tab.wait_for_selector("[data-live][data-answers]")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    tab.evaluate(f"{hide % 'true'}; document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for_timeout(600)
    count = "Number(document.querySelector('[data-live]').dataset.answers)"
    before = tab.evaluate(count)
    tab.wait_for_timeout(800)
    assert tab.evaluate(count) == before
    tab.evaluate(f"{hide % 'false'}; document.dispatchEvent(new Event('visibilitychange'))")
    tab.wait_for_function(f"() => {count} > {before}")


def test_the_page_without_a_camera_offers_one_picture(client):
    page = client.get(f"/runs/{RUN}/camera").text
    assert 'capture="environment"' in page
