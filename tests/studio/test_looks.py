"""The switch of language and of light and dark: kept in the browser, right from the first byte, reached by keys."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from browsers import browser
from data.pictures import folders
from fastapi.testclient import TestClient
from image_studio import TOKEN, served, studio
from PIL import Image

from vitrail.studio.language import PSEUDO


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, str]]:
    root = tmp_path_factory.mktemp("looks")
    folders(root / "photos", {"fern": 3, "moss": 3}, (16, 16))
    with studio(root / "ws") as client:
        client.post("/data/new", data={"path": str(root / "photos")})
        with served(client.app) as address:
            yield client, address


def head_of(client: TestClient, path: str = "/", **headers: str) -> str:
    return client.get(path, headers=headers).text.partition("</head>")[0]


def test_the_first_bytes_name_language_and_theme(tmp_path: Path) -> None:
    with studio(tmp_path / "ws") as client:
        plain = head_of(client)
        assert '<html lang="en" class="studio">' in plain
        assert '<meta name="color-scheme" content="light dark">' in plain
        assert '<html lang="zh-Hans"' in head_of(client, **{"accept-language": "zh-CN,en;q=0.5"})
        assert '<html lang="en"' in head_of(client, **{"accept-language": PSEUDO})
        answer = client.post(
            "/looks", data={"language": "zh", "back": "/data?deleted="}, follow_redirects=False
        )
        assert answer.headers["location"] == "./data?deleted="
        assert "vitrail-language=zh" in answer.headers["set-cookie"]
        client.post("/looks", data={"theme": "dark"})
        chosen = head_of(client, **{"accept-language": "en"})
        assert '<html lang="zh-Hans" class="studio" data-theme="dark">' in chosen
        assert chosen.index('<meta name="color-scheme" content="dark">') < chosen.index("<link")
        assert "<title>首页 · vitrail</title>" in chosen
        client.post("/looks", data={"theme": "system", "language": "tlh"})
        assert '<html lang="en" class="studio">' in head_of(client)


@pytest.mark.parametrize(
    "back", ["//evil.example/x", "https://evil.example", "/\\evil.example", "\\\\evil.example"]
)
def test_the_switch_leads_to_no_other_place(tmp_path: Path, back: str) -> None:
    with studio(tmp_path / "ws") as client:
        answer = client.post("/looks", data={"theme": "dark", "back": back}, follow_redirects=False)
        assert answer.headers["location"].startswith("./")
        assert answer.next_request.url.host == "127.0.0.1"


def test_behind_a_prefix_the_choice_belongs_to_it(tmp_path: Path) -> None:
    with studio(tmp_path / "ws") as client:
        behind = TestClient(client.app, base_url="http://127.0.0.1", root_path="/lab", cookies=client.cookies)
        answer = behind.post("/looks", data={"theme": "dark", "back": "/queue"}, follow_redirects=False)
        assert "Path=/lab" in answer.headers["set-cookie"]
        assert answer.headers["location"] == "./queue"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as one:
        yield one


def page_of(chromium: Any, address: str, **context: Any) -> Any:
    tab = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **context}).new_page()
    tab.set_default_timeout(20_000)
    tab.goto(f"{address}?token={TOKEN}")
    return tab


def brightness(tab: Any) -> float:
    return float(np.median(np.asarray(Image.open(BytesIO(tab.screenshot())).convert("L"))))


def test_a_chosen_theme_stands_against_the_system_from_the_first_frame(chromium: Any, opened: Any) -> None:
    _, address = opened
    for system, theme, dark in (("light", "dark", True), ("dark", "light", False)):
        tab = page_of(chromium, address, color_scheme=system)
        tab.context.add_cookies([{"name": "vitrail-theme", "value": theme, "url": address}])
        tab.route("**/*.css", lambda route: route.abort())
        tab.goto(f"{address}data")
        assert (brightness(tab) < 60) == dark  # before any style has come
        tab.unroute("**/*.css")
        tab.goto(f"{address}data")
        assert (brightness(tab) < 60) == dark
        assert tab.evaluate("() => getComputedStyle(document.body).colorScheme") == theme
        tab.context.close()


def test_language_and_theme_are_chosen_by_keys_alone(chromium: Any, opened: Any) -> None:
    _, address = opened
    tab = page_of(chromium, address, locale="en-GB")
    tab.goto(f"{address}data/photos?q=fern")
    order = []
    for _ in range(9):
        tab.keyboard.press("Tab")
        order.append(
            tab.evaluate("() => document.activeElement.innerText.trim() || document.activeElement.ariaLabel")
        )
        if tab.evaluate("() => document.activeElement.matches('.looks summary')"):
            break
    assert [one.partition("\n")[0] for one in order[:6]] == [
        "To the content", "vitrail", "Home", "Images", "Models", "Queue"]  # fmt: skip
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    assert tab.evaluate("() => document.activeElement.innerText") == "中文"
    tab.keyboard.press("Enter")
    tab.wait_for_function("() => document.documentElement.lang === 'zh-Hans'")
    assert tab.url == f"{address}data/photos?q=fern"  # the same page
    tab.get_by_placeholder("名称、类别").wait_for()
    tab.locator(".looks summary").click()
    tab.get_by_role("button", name="深色").click()
    tab.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    assert tab.get_by_role("button", name="深色", include_hidden=True).get_attribute("aria-pressed") == "true"
    tab.context.close()


def test_a_phone_in_chinese_has_every_control_in_its_width(chromium: Any, opened: Any) -> None:
    _, address = opened
    tab = page_of(
        chromium, address, viewport={"width": 390, "height": 844}, locale="zh-CN", color_scheme="dark"
    )
    for path in (
        "",
        "data",
        "data/new",
        "data/photos",
        "data/photos/check",
        "data/photos/train",
        "runs",
        "connections",
    ):
        tab.goto(f"{address}{path}")
        assert tab.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), path
        tab.locator(".looks summary").click()
        box = tab.locator(".looks form").bounding_box()
        assert box["x"] >= 0, path
        assert box["x"] + box["width"] <= 390, path
    tab.context.close()


def test_what_is_chosen_shows_in_forced_colours(chromium: Any, opened: Any) -> None:
    _, address = opened
    tab = page_of(chromium, address, forced_colors="active")
    tab.goto(f"{address}data")
    tab.locator(".looks summary").click()
    buttons = "[...document.querySelectorAll('.looks button')]"
    styles = tab.evaluate(
        f"() => {buttons}.map((one) => [one.ariaPressed, getComputedStyle(one).outlineStyle])"
    )
    assert {style for pressed, style in styles if pressed == "true"} == {"solid"}
    assert {style for pressed, style in styles if pressed == "false"} == {"none"}
    tab.context.close()
