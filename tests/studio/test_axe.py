"""Every page of the studio for everybody: axe-core, 200 % zoom, and darkness from the first frame."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from browsers import browser
from every_page import ADDRESSES, PARTS, EveryPage, page_routes
from image_studio import TOKEN
from PIL import Image

GRAVE = {"serious", "critical"}

COVERED = """() => {
  const shown = (one) => one.checkVisibility({ visibilityProperty: true }) && one.getClientRects().length;
  const faults = [];
  for (const one of document.querySelectorAll("main button, main a.button, main select, main summary, nav a")) {
    if (!shown(one) || one.disabled || one.matches(".skip")) continue;
    one.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
    const box = one.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
    const hit = document.elementFromPoint(x, y);
    if (!hit || !(one.contains(hit) || hit.contains(one) && hit.matches("label"))) {
      faults.push(`${one.outerHTML.slice(0, 160)} is covered by ${hit?.outerHTML.slice(0, 120)} at ${x}, ${y}`);
    }
  }
  return faults;
}"""
"""Return the controls that a click does not reach after they were scrolled to."""


@pytest.fixture(scope="module")
def tab(pages: EveryPage) -> Iterator[Any]:
    """A tab that opened the link of the studio."""
    with browser() as chromium:
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        opened = context.new_page()
        opened.set_default_timeout(60_000)
        opened.goto(f"{pages.address}/?token={TOKEN}")
        yield opened
        context.close()


def test_no_page_is_left_out() -> None:
    assert page_routes() == set(ADDRESSES) | PARTS


def test_axe_finds_nothing_serious_on_any_page(tab: Any, pages: EveryPage) -> None:
    """Every page in English and light, and in Chinese and dark."""
    package = pytest.importorskip(
        "axe_playwright_python.base", reason="axe-playwright-python is not installed"
    )
    faults = []
    for language, scheme in (("en", "light"), ("zh-CN", "dark")):
        tab.context.set_extra_http_headers({"accept-language": language})
        tab.emulate_media(color_scheme=scheme)
        for page in pages.pages:
            tab.goto(f"{pages.address}{page}")
            assert tab.evaluate("document.documentElement.lang").partition("-")[0] == language[:2]
            tab.evaluate(package.AXE_SCRIPT)
            found = tab.evaluate("axe.run({resultTypes: ['violations']})")
            assert found["passes"], page  # it looked
            faults += [
                f"{page} ({language}, {scheme}): {one['id']}: {one['help']}: {node['html'][:200]}"
                for one in found["violations"]
                if one["impact"] in GRAVE
                for node in one["nodes"]
            ]
    tab.context.set_extra_http_headers({})
    tab.emulate_media(color_scheme="light")
    assert not faults, "\n".join(faults)


def test_every_button_is_reached_at_200_per_cent(tab: Any, pages: EveryPage) -> None:
    """Complaint 12: a window of half the size is what a zoom of 200 % leaves; nothing is cut off or covered."""
    tab.set_viewport_size({"width": 640, "height": 450})
    faults = []
    for page in pages.pages:
        tab.goto(f"{pages.address}{page}")
        faults += [f"{page}: {one}" for one in tab.evaluate(COVERED)]
        if tab.evaluate("document.documentElement.scrollWidth > innerWidth"):
            faults.append(f"{page} is wider than the window")
    tab.set_viewport_size({"width": 1280, "height": 900})
    assert not faults, "\n".join(faults)


def test_the_first_frame_is_dark_before_any_style_has_come(tab: Any, pages: EveryPage) -> None:
    """Complaint 12: what a browser draws while it waits for the style is dark, and so is the page behind it."""
    for blocked in (True, False):
        tab.emulate_media(color_scheme="dark")
        if blocked:
            tab.route("**/*.css", lambda route: route.abort())
        tab.goto(f"{pages.address}/")
        drawn = np.asarray(Image.open(BytesIO(tab.screenshot())).convert("L"))
        assert np.median(drawn) < 60
        tab.unroute("**/*.css")
    tab.emulate_media(color_scheme="light")
    tab.reload()
    assert np.median(np.asarray(Image.open(BytesIO(tab.screenshot())).convert("L"))) > 200
