"""The camera: an answer for each picture, where the network looked, and a live picture in a browser."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from browsers import CHROMIUM, FLAGS, served
from trained_studio import RUN, TOKEN

from vitrail.studio.app import create_app

HIDE = """
hidden => {
  Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}
"""
GLOWS = """
() => document.querySelector(".screen canvas").getContext("2d").getImageData(0, 0, 64, 48).data.some(x => x)
"""


def test_an_answer_has_bars_and_the_attention_of_the_same_forward_pass(client, workspace):
    picture = sorted((workspace.data / RUN / "3").iterdir())[0]
    told = client.post(f"/runs/{RUN}/camera/frame", content=picture.read_bytes()).json()
    from vitrail.infer.predictor import Predictor

    ranked = Predictor(workspace.runs / RUN).predict(picture)[0]
    assert told["bars"][0][0] == ranked.label
    assert abs(told["bars"][0][1] - ranked.probabilities[0]) < 1e-5
    glow = told["attention"]
    values = np.frombuffer(base64.b64decode(glow["values"]), np.uint8)
    assert values.size == glow["width"] * glow["height"]
    assert values.max() == 255


def test_what_is_no_picture_is_refused_with_a_sentence(client):
    answer = client.post(
        f"/runs/{RUN}/camera/frame", content=b"no picture", headers={"Accept": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["sentence"]
    large = client.post(
        f"/runs/{RUN}/camera/frame", content=bytes(5 << 20), headers={"Accept": "application/json"}
    )
    assert "4 MB" in large.json()["sentence"]


@pytest.fixture
def film(tmp_path):
    """A film of four seconds whose bright object is covered after the first half."""
    frames = [b"YUV4MPEG2 W160 H120 F10:1 Ip A1:1 C420jpeg\n"]
    for number in range(40):
        light = np.full((120, 160), 30, np.uint8)
        if number < 20:
            light[30:90, 60:100] = 220
        frames += [b"FRAME\n", light.tobytes(), bytes([128]) * (2 * 60 * 80)]
    path = tmp_path / "film.y4m"
    path.write_bytes(b"".join(frames))
    return path


def test_the_live_picture_is_answered_kept_and_stopped(workspace, film):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM}")
    fake = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )
    app = create_app(workspace, TOKEN)
    with playwright.sync_playwright() as drive, served(app) as address:
        chromium = drive.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS, *fake])
        tab = chromium.new_context().new_page()
        errors = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(f"{address}/?token={TOKEN}")
        tab.goto(f"{address}/runs/{RUN}/camera")
        tab.wait_for_selector("[data-speed][data-value]", state="attached")
        assert tab.locator("[data-bars] dt").count() >= 2
        assert tab.evaluate(GLOWS)
        assert not tab.locator("[data-start]").is_visible()
        tab.evaluate(HIDE, True)
        assert tab.evaluate("document.querySelector('video').srcObject === null")
        tab.evaluate(HIDE, False)
        tab.wait_for_selector("[data-freeze]:enabled")
        tab.locator("[data-freeze]").click()
        tab.wait_for_url("**/predict/*")
        assert tab.locator(".said").inner_text()
        assert not errors
        chromium.close()
