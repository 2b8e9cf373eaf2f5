"""The page of a server in a browser: an image is tried, a token is asked for, a refusal is said."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from browsers import browser, served
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from PIL import Image
from served_document import DOCUMENT, HOSTILE

from vitrail.serve.api_page import HEADERS, api_page, page_file


def application() -> FastAPI:
    """Return a server below /below with the page, whose answers are fixed and whose labels are hostile."""
    app = FastAPI(openapi_url=None)

    @app.get("/below/")
    def page() -> HTMLResponse:
        return HTMLResponse(api_page(DOCUMENT, HOSTILE, True), headers=HEADERS)

    @app.get("/below/static/{name}")
    def file(name: str) -> Response:
        found = page_file(name)
        assert found is not None
        return Response(found.data, media_type=found.media_type, headers=HEADERS)

    def refused(request: Request) -> JSONResponse | None:
        if request.headers.get("authorization") != "Bearer sesame":
            return JSONResponse({"error": "The token is missing."}, 401)
        if request.headers.get("x-deadline-ms") == "1":
            return JSONResponse({"error": "The queue is full."}, 429, {"Retry-After": "3"})
        return None

    @app.get("/below/card")
    def card(request: Request) -> Response:
        points = [{"point": "154px", "images_per_second": 61.25}, {"point": "96px", "images_per_second": 200}]
        card = {"task": "classify", "labels": [HOSTILE], "points": points, "limits": {"queue": 64}}
        return refused(request) or JSONResponse(card)

    @app.post("/below/predict")
    async def predict(request: Request) -> Response:
        size = len(await request.body())
        top = [{"label": HOSTILE, "probability": 0.75}, {"label": f"{size} bytes", "probability": 0.25}]
        times = {"queue_ms": 1.0, "decode_ms": 2.0, "network_ms": 3.0, "batch": 4}
        point = request.query_params.get("point", "154px")
        answers = [{"top": top, **times, "point": point}]
        return refused(request) or JSONResponse({"answers": answers, "total_ms": 7.5, "late": False})

    return app


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(application()) as address:
        yield f"{address}/below/"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture
def tab(chromium: Any, address: str) -> Iterator[Any]:
    """Return a tab with the page; whatever its script could not do fails the test."""
    with chromium.new_context(viewport={"width": 400, "height": 800}) as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        page.goto(address)
        yield page
        assert wrong == []


def png() -> dict[str, Any]:
    kept = BytesIO()
    Image.new("RGB", (30, 20), "teal").save(kept, "PNG")
    return {"name": f"{HOSTILE}.png", "mimeType": "image/png", "buffer": kept.getvalue()}


def give_token(tab: Any) -> None:
    tab.fill("#token", "sesame")
    tab.keyboard.press("Tab")
    tab.wait_for_selector("#card table")


def test_an_image_is_answered_with_bars_and_times(tab):
    give_token(tab)
    assert "61.3" in tab.inner_text("#card")
    assert "64" in tab.inner_text("#limits")
    image = png()
    tab.set_input_files("#file", [image])
    tab.wait_for_selector("#answer .legend")
    said = tab.inner_text("#answer")
    for part in (
        HOSTILE,
        "75.0 %",
        f"{len(image['buffer'])} bytes",
        "queue 1.0 ms",
        "other 1.5 ms",
        "batch of 4",
    ):
        assert part in said
    assert tab.locator("#shown img").evaluate("image => image.naturalWidth") == 30
    assert tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_line_for_a_terminal_says_what_was_chosen(tab, address):
    give_token(tab)
    tab.select_option("#point", "96px")
    tab.fill("#deadline", "40")
    key = '-H "Authorization: Bearer $VITRAIL_TOKEN" -H "X-Deadline-Ms: 40"'
    assert tab.inner_text("#curl") == f"curl -T photo.jpg {key} '{address}predict?point=96px'"
    tab.set_input_files("#file", [png()])
    tab.wait_for_selector("#answer .legend")
    assert "point 96px" in tab.inner_text("#answer")


def test_a_refusal_is_said_and_a_missing_token_is_asked_for(tab):
    tab.set_input_files("#file", [png()])
    tab.wait_for_selector("#answer .bad")
    assert tab.inner_text("#answer") == "401: The token is missing."
    assert tab.evaluate("document.activeElement.id") == "token"
    give_token(tab)
    tab.fill("#deadline", "1")
    tab.click("#again")
    tab.get_by_text("429: The queue is full. Try again in 3 s.").wait_for()


def test_the_token_stays_in_the_tab_and_out_of_the_address(chromium, address):
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}#token=sesame")
        page.wait_for_selector("#card table")
        assert page.url == address
        page.reload()
        page.wait_for_selector("#card table")
        assert page.input_value("#token") == "sesame"


def test_a_pasted_image_is_predicted(tab):
    give_token(tab)
    tab.evaluate(
        """async () => {
          const canvas = document.createElement("canvas");
          const blob = await new Promise((done) => canvas.toBlob(done));
          const held = new DataTransfer();
          held.items.add(new File([blob], "pasted.png", { type: "image/png" }));
          dispatchEvent(new ClipboardEvent("paste", { clipboardData: held }));
        }"""
    )
    tab.wait_for_selector("#answer .legend")
    assert "pasted.png" in tab.inner_text("#name")


def test_axe_finds_nothing_in_light_or_dark(chromium, address):
    base = pytest.importorskip("axe_playwright_python.base", reason="axe-playwright-python is not installed")
    for scheme in ("light", "dark"):
        with chromium.new_context(color_scheme=scheme) as context:
            page = context.new_page()
            page.goto(f"{address}#token=sesame")
            page.wait_for_selector("#card table")
            page.evaluate(base.AXE_FILE_PATH.read_text(encoding="utf-8"))
            assert page.evaluate("axe.run().then((found) => found.violations.map((one) => one.id))") == []
