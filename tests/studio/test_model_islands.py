"""The pages of a model in a browser: pictures dropped and pasted, the attention viewer, corrections in their place."""

from __future__ import annotations

import base64

import pytest
from browsers import browser, served
from trained_studio import RUN, TOKEN

from vitrail.studio.app import create_app

DROP = """
([name, data, kind]) => {
  const bytes = Uint8Array.from(atob(data), sign => sign.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: "image/png"}));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true})
    : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
}
"""


@pytest.fixture
def tab(workspace):
    """A tab that opened the link of the studio; whatever it asks for lies on this machine."""
    app = create_app(workspace, TOKEN)
    with browser() as chromium, served(app) as address:
        page = chromium.new_context().new_page()
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/?token={TOKEN}")
        page.address = address
        yield page
        assert not errors
        assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_looked_at_and_its_attention_moves(tab, workspace, kind):
    picture = sorted((workspace.data / RUN / "3").iterdir())[0]
    tab.goto(f"{tab.address}/runs/{RUN}/predict")
    tab.evaluate(DROP, ["three.png", base64.b64encode(picture.read_bytes()).decode(), kind])
    tab.wait_for_url("**/predict/*")
    tab.wait_for_selector(".viewer canvas")
    assert tab.locator(".said").inner_text()
    first = tab.locator("[data-now=patch]").inner_text()
    tab.locator("#layer").press("ArrowLeft")
    assert "layer=" in tab.url
    canvas = tab.locator(".viewer canvas")
    canvas.press("ArrowRight")
    moved = tab.locator("[data-now=patch]").inner_text()
    assert moved != first
    assert canvas.get_attribute("aria-label") == moved
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    canvas.hover(position={"x": 5, "y": 5})
    canvas.click(position={"x": 5, "y": 5})
    canvas.click(position={"x": 5, "y": 5})
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    tab.locator("#head").press("ArrowRight")
    address = tab.url
    tab.reload()
    tab.wait_for_selector(".viewer canvas")
    assert tab.url == address
    assert tab.locator("#head").input_value() == "1"


def test_a_cell_opens_and_a_label_is_corrected_without_losing_the_place(tab):
    tab.goto(f"{tab.address}/runs/{RUN}/result")
    wrong = tab.locator(".matrix a[style*='213,94,0']").first
    wrong.click()
    tab.wait_for_selector("#cell .photo")
    assert "cell=" in tab.url
    tab.evaluate("window.stays = true")
    tab.locator("#cell .acts button").first.click()
    tab.wait_for_selector("#cell .photo.decided")
    assert tab.evaluate("window.stays")
    assert tab.locator(".again").is_visible()
    tab.locator("#cell .decided button").first.click()
    tab.locator(".again").wait_for(state="detached")
    assert tab.locator("#cell .decided").count() == 0


def test_a_heat_map_is_tested_in_its_place(tab):
    row = tab.request.get(f"{tab.address}/runs/{RUN}/predict").text()
    example = row.split("/predict/of?id=")[1].split('"')[0]
    tab.goto(f"{tab.address}/runs/{RUN}/predict/of?id={example}")
    tab.evaluate("window.stays = true")
    tab.locator("#map-rollout .button").click()
    tab.wait_for_selector("#map-rollout .tested")
    assert tab.evaluate("window.stays")
