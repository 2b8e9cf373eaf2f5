"""The drop zone and the wall in a browser: folders of any depth, a wall of any height, keys."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from data.pictures import encode, folders, put, scene
from image_studio import TOKEN, images_of, served, studio

CHROMIUM = "/usr/bin/chromium"

DROP = """async ([count, broken]) => {
  const bytes = Uint8Array.from(atob(document.body.dataset.png), (sign) => sign.charCodeAt(0));
  const opened = (name) => new File([bytes, new TextEncoder().encode(name)], name, { lastModified: 1700000000000 });
  const refused = new DOMException("no", "NotReadableError");
  const file = (name) => ({
    isDirectory: false, name, file: (yes, no) => (name === broken ? no(refused) : yes(opened(name))),
  });
  const reader = (left) => ({ readEntries: (yes) => setTimeout(() => yes(left.splice(0, 100))) });
  const folder = (name, children) => ({ isDirectory: true, name, createReader: () => reader([...children]) });
  const some = (from, to) => Array.from({ length: to - from }, (_, i) => file(`${from + i}.png`));
  const deep = folder("old", [folder("deep", some(130, 140))]);
  const fern = folder("fern", [...some(140, count), file(".DS_Store")]);
  const tree = folder("field trip", [folder("moss", [...some(0, 130), deep]), fern]);
  const event = new Event("drop", { bubbles: true, cancelable: true });
  event.dataTransfer = { items: [{ kind: "file", webkitGetAsEntry: () => tree }] };
  document.querySelector("form.drop").dispatchEvent(event);
}"""
"""Drop a folder as browsers hand it over: readEntries tells a hundred at a time, one file cannot be read."""


SIZES = """async () => {
  const { layout, between, place_of } = await import("../static/islands/wall.js?alone");
  return [[1000000, 360], [100000, 1280], [7, 50], [1, 300]].map(([count, width]) => {
    const third = Math.floor(count / 3), plan = layout([["a", third], ["b", count - third]], width, 360);
    const last = between(plan, plan.height - 10, plan.height).at(-1)?.[1];
    const seen = [];
    for (let y = 0; y < Math.min(plan.height, 40000); y += 900) {
      for (const [a, b] of between(plan, y, y + 899)) for (let i = a; i < b; i += 1) seen.push(i);
    }
    const bottom = place_of(plan, count - 1).y + plan.step;
    return [plan.height, last, bottom, new Set(seen).size, Math.max(...seen) + 1];
  });
}"""
"""Lay out walls of several sizes and widths, and return their heights and what is seen while scrolling."""

WIDE = """() => [...document.querySelectorAll("main button, main a.button, main input")]
  .filter((one) => one.getClientRects().length && !one.closest(".columns, .scroll"))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)"""
"""Return the controls that lie beyond the right edge."""


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not here: no browser to test with")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder of 450 tiny images, and an empty studio."""
    root = tmp_path_factory.mktemp("islands")
    folders(root / "photos", {"fern": 225, "moss": 225}, (8, 8))
    return root


@pytest.fixture(scope="module")
def opened(workspace):
    with studio(workspace / "ws") as client:
        client.post("/data/new", data={"path": str(workspace / "photos")})
        with served(client.app) as address:
            yield client, address


@pytest.fixture
def page(browser, opened):
    """A page that has the key, and asks no other host for anything."""
    _, address = opened
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    asked, errors = [], []
    tab.on(
        "request",
        lambda one: asked.append(one.url) if not one.url.startswith((address, "blob:", "data:")) else None,
    )
    tab.on("pageerror", lambda one: errors.append(str(one)))
    tab.goto(f"{address}?token={TOKEN.replace(' ', '%20')}")
    yield tab
    context.close()
    assert [one for one in asked if not one.startswith((address, "blob:", "data:"))] == []
    assert errors == []


def test_a_folder_that_is_dropped_anywhere_on_the_first_page_leads_to_its_images(page, opened, workspace):
    _, address = opened
    page.goto(address)
    png = base64.b64encode(encode(scene(2, (8, 8)))).decode()
    page.evaluate("(png) => { document.body.dataset.png = png; }", png)
    page.evaluate(DROP.replace("form.drop", "main"), [141, ""])
    page.wait_for_url("**/data/field%20trip")
    page.locator("#wall .tile img").first.wait_for()
    assert len(list((workspace / "ws" / "data" / "field trip").rglob("*.png"))) == 141
    page.locator("summary", has_text="Decisions, reading, delete").click()
    page.get_by_role("button", name="Move to the bin").click()
    page.get_by_text("Moved to the bin").wait_for()


def test_the_first_page_takes_files_without_script(opened):
    client, _ = opened
    text = client.get("/").text
    assert 'action="./data/new" enctype="multipart/form-data"' in text
    assert "<noscript><p><button>Send what was chosen" in text
    assert 'href="./data/new"' in text
    assert 'data-into="photos"' in client.get("/", params={"into": "photos"}).text
    assert "data-into" not in client.get("/", params={"into": "gone"}).text


def test_a_dropped_folder_arrives_whole_and_what_cannot_be_read_is_named(page, opened, workspace):
    _, address = opened
    page.goto(f"{address}data/new")
    png = base64.b64encode(encode(scene(1, (8, 8)))).decode()
    page.evaluate("(png) => { document.body.dataset.png = png; }", png)
    page.evaluate(DROP, [257, "77.png"])
    page.get_by_text("All 256 files have arrived.").wait_for()
    (named,) = page.locator("[data-trouble] li").all_text_contents()
    assert "field trip/moss/77.png could not be read" in named
    stored = workspace / "ws" / "data" / "field trip"
    assert len(list(stored.rglob("*.png"))) == 256
    assert (stored / "moss" / "old" / "deep" / "135.png").is_file()
    assert not list(stored.rglob(".*"))
    assert (
        page.locator("[data-preview] h3").count() == 3
    )  # the user's own images, before the first had arrived
    page.get_by_text("See the images").click()
    page.get_by_role("heading", name="field trip").wait_for()
    page.goto(f"{address}data/new?into=field%20trip")  # the same folder again: nothing is sent twice
    before = {one.name: one.stat().st_mtime_ns for one in stored.rglob("*.png")}
    page.evaluate("(png) => { document.body.dataset.png = png; }", png)
    page.evaluate(DROP, [257, ""])
    page.wait_for_url(f"{address}data/field%20trip")
    after = {one.name: one.stat().st_mtime_ns for one in stored.rglob("*.png")}
    assert len(after) == 257
    assert {name: after[name] for name in before} == before


def test_single_images_are_asked_for_their_class(page, opened, workspace):
    _, address = opened
    page.goto(f"{address}data/new")
    files = [put(workspace / "loose" / f"{i}.png", encode(scene(i, (8, 8)))) for i in range(2)]
    page.locator("[data-files]").set_input_files([str(one) for one in files])
    page.locator("[data-class]").fill("fern / young")
    page.locator("[data-go]").click()
    page.wait_for_url(f"{address}data/images")
    assert len(list((workspace / "ws" / "data" / "images" / "fern - young").iterdir())) == 2


def tiles(page) -> int:
    return page.locator("#wall .tile").count()


def test_the_wall_holds_few_tiles_and_reaches_the_last_image(page, opened):
    _, address = opened
    page.goto(f"{address}data/photos")
    page.locator("#wall .tile.at img").first.wait_for()
    assert tiles(page) < 300
    page.evaluate(
        "() => scrollTo(0, document.querySelector('#wall').getBoundingClientRect().bottom + scrollY)"
    )
    last = page.locator('#wall .tile[data-index="449"] img')
    last.wait_for()
    assert last.get_attribute("alt") == "moss moss/224.png"
    assert tiles(page) < 300
    page.wait_for_url("**#at-*")
    page.reload()  # and stays where it was
    page.locator('#wall .tile[data-index="440"] img').wait_for()


def test_a_wall_of_any_size_ends_at_its_last_image(page, opened):
    """One column of a million images is 360 million pixels tall: over every browser's limit."""
    _, address = opened
    page.goto(f"{address}data/photos")
    seen = page.evaluate(SIZES)
    for (height, last, bottom, distinct, upto), count in zip(seen, (1_000_000, 100_000, 7, 1), strict=True):
        assert last == count
        assert bottom == pytest.approx(height)
        assert distinct == upto  # none is left out on the way


def test_the_wall_shows_what_the_check_found_when_it_is_over(page, opened, workspace):
    client, address = opened
    root = folders(workspace / "planted", {"fern": 6, "moss": 6}, (8, 8), seed=9)
    put(root / "fern" / "0.png", b"no image")
    client.post("/data/new", data={"path": str(root)})
    page.goto(f"{address}data/planted")
    page.locator('#wall .tile.quarantined[data-index="0"]').wait_for()
    page.get_by_text("1 thing to look at").wait_for()
    page.get_by_text("Look and decide").click()
    page.get_by_role("button", name="Leave 1 out").click()
    page.get_by_text("Nothing to do.").wait_for()  # in its place, without another page
    assert page.url == f"{address}data/planted/check"
    page.locator("#done").get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Leave 1 out").wait_for()


def test_keys_decide_and_take_back_but_not_in_a_text_field(page, opened):
    client, address = opened
    datasets = images_of(client).datasets
    page.goto(f"{address}data/photos")
    page.locator('#wall .tile.at[data-index="1"] img').wait_for()
    start = datasets.revision(datasets.get("photos"))
    page.locator("input[type=search]").press_sequentially("1xz")
    assert datasets.revision(datasets.get("photos")) == start
    page.locator('#wall .tile[data-index="0"]').focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.locator('#wall .tile.dropped[data-index="1"]').wait_for()
    assert page.evaluate("() => document.activeElement.dataset.index") == "2"  # it goes on by itself
    page.keyboard.press("2")  # fern becomes moss
    page.get_by_text("New label: moss").wait_for()
    page.wait_for_function("() => document.querySelector('#wall').wall.known.groups[1][1] === 226")
    decided = datasets.history(datasets.get("photos")).decisions[start:]
    assert [(one.what, one.ids, one.value) for one in decided] == [
        ("drop", ("fern/1.png",), ""), ("relabel", ("fern/2.png",), "moss")]  # fmt: skip
    page.locator("#toasts button").click()
    page.wait_for_function("() => document.querySelector('#wall').wall.known.groups[1][1] === 225")
    page.keyboard.press("z")
    page.wait_for_function(f"() => document.querySelector('#wall').wall.known.revision >= {start + 4}")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.locator('#wall .tile[data-index="3"]').focus()
    page.keyboard.press(" ")
    page.locator("#zoom img").wait_for()
    assert "fern/3.png" in page.locator("#zoom").inner_text()
    page.keyboard.press("ArrowRight")
    page.get_by_text("fern/4.png").first.wait_for()


def test_a_wider_text_leaves_every_control_reachable(page, opened):
    _, address = opened
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("data", "data/new", "data/photos", "data/photos/check"):
        page.goto(f"{address}{name}")
        page.evaluate("() => { document.documentElement.style.fontSize = '200%'; }")
        wide = page.evaluate(WIDE)
        assert wide == [], name


def test_several_images_are_chosen_and_decided_about_at_once(page, opened):
    client, address = opened
    datasets = images_of(client).datasets
    photos = datasets.get("photos")
    page.goto(f"{address}data/photos?group=moss")
    tile = '#wall .tile.at[data-index="%d"]'
    page.locator(f"{tile % 1} img").wait_for()
    page.wait_for_function("() => document.querySelector('#check-line[data-over]')")
    start = datasets.revision(photos)
    page.locator(tile % 1).click()
    page.go_back()  # a plain click still opens the image
    page.locator(f"{tile % 1} img").wait_for()
    page.locator(tile % 1).click(modifiers=["Control"])
    page.locator(tile % 4).click(modifiers=["Shift"])
    page.get_by_text("4 chosen").wait_for()
    page.locator(tile % 2).click(modifiers=["Control"])
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("s")
    page.keyboard.press("Shift+ArrowRight")
    page.get_by_text("5 chosen").wait_for()  # 1, 3, 4, 5, 6
    page.wait_for_function("() => document.querySelectorAll('#wall .tile.chosen').length === 5")
    page.keyboard.press("x")
    page.get_by_text("5 images · Left out").wait_for()
    page.locator("#wall .tile.dropped").nth(4).wait_for()
    (made,) = datasets.history(photos).decisions[start:]
    assert (made.what, len(made.ids)) == ("drop", 5)
    page.locator("#toasts").get_by_role("button", name="Undo").click()
    page.locator("#toasts").get_by_text("Taken back").wait_for()
    page.wait_for_function("() => !document.querySelector('#wall .tile.dropped')")
    page.keyboard.press("Control+a")
    page.get_by_role("button", name="Choose none").click()
    assert not page.locator("#chosen").is_visible()
    page.get_by_role("button", name="Choose several").click()
    page.locator(tile % 0).click()
    page.locator(tile % 1).click()
    page.get_by_label("New label of the chosen images").fill("lichen")
    page.get_by_role("button", name="Set the label").click()
    page.get_by_text("2 images · New label: lichen").wait_for()
    last = datasets.history(photos).decisions[-1]
    assert (last.what, last.value, len(last.ids)) == ("relabel", "lichen", 2)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """An open studio with a wall of 100,000 images: hard links of 40 small ones, in 20 classes."""
    root = tmp_path_factory.mktemp("hundred")
    seeds = [put(root / "seeds" / f"{i}.png", encode(scene(i, (8, 8)))) for i in range(40)]
    for kind in range(20):
        place = root / "many" / f"class {kind:02d}"
        place.mkdir(parents=True)
        for i in range(5000):
            os.link(seeds[2 * kind + i % 2], place / f"{i:04d}.png")
    with studio(root / "ws") as client:
        client.post("/data/new", data={"path": str(root / "many")}, follow_redirects=False)
        with served(client.app) as address:
            yield client, address
            images_of(client).checks.close()


def test_a_hundred_thousand_images_in_one_column_end_at_the_last(browser, hundred):
    """On a fine screen a column of them is taller than a browser can draw: the wall maps its height onto less."""
    _, address = hundred
    context = browser.new_context(viewport={"width": 236, "height": 700}, device_scale_factor=2)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.route("**/check/progress*", lambda route: route.abort())  # the check is not what is looked at here
    page.goto(f"{address}?token={TOKEN}")
    page.goto(f"{address}data/many")
    page.locator("#wall .tile.at img").first.wait_for()
    plan = page.evaluate(
        "() => { const { plan, tall } = document.getElementById('wall').wall; return [plan, tall]; }"
    )
    assert plan[0]["columns"] == 1
    assert plan[0]["total"] == 100_000
    assert plan[0]["height"] > plan[1]  # too tall to be as it is
    page.evaluate("() => scrollTo(0, document.documentElement.scrollHeight / 2)")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#wall .tile.at[data-id]')].some((one) => one.title.includes('class 10'))"
    )
    page.evaluate(
        "() => scrollTo(0, document.getElementById('wall').getBoundingClientRect().bottom + scrollY - innerHeight)"
    )
    last = page.locator('#wall .tile[data-index="99999"] img')
    last.wait_for()
    assert last.get_attribute("alt") == "class 19 class 19/4999.png"
    box = last.bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 701
    assert tiles(page) < 60
    page.locator('#wall .tile[data-index="99999"]').focus()
    page.keyboard.press("Home")
    page.wait_for_function("() => document.activeElement.dataset.index === '0'")
    page.keyboard.press("End")
    page.wait_for_function("() => document.activeElement.dataset.index === '99999'")
    page.wait_for_function(  # an earlier place may still stand in the address
        "() => { const at = document.getElementById('wall').wall.top_index();"
        " return at > 99_990 && location.hash === `#at-${at}`; }"
    )
    page.reload()
    page.locator('#wall .tile[data-index="99998"] img').wait_for()
    context.close()


def test_a_decision_among_a_hundred_thousand_changes_one_image(hundred):
    client, _ = hundred
    before = client.get("/data/many/wall.json").json()
    client.post("/data/many/decide", data={"what": "relabel", "id": "class 00/0002.png", "value": "class 19"})
    client.post("/data/many/decide", data={"what": "drop", "id": "class 00/0003.png"})
    after = client.get("/data/many/wall.json").json()
    assert [n for _, n in before["groups"]] == [5000] * 20
    assert [n for _, n in after["groups"]] == [4999, *[5000] * 18, 5001]
    anchors = after["anchors"]
    assert len(anchors) == 500
    tail = client.get("/data/many/tiles", params={"group": "class 19"}).json()
    assert tail[0]["id"] == "class 00/0002.png"  # the order of the names goes on inside the group
    head = client.get("/data/many/tiles").json()
    assert [one["state"] for one in head[:3]] == ["kept", "kept", "dropped"]
    assert client.get("/data/many/wall.json", params={"q": "/4999"}).json()["total"] == 20


def test_twenty_labels_by_keyboard_alone(page, opened):
    client, address = opened
    datasets = images_of(client).datasets
    photos = datasets.get("photos")
    page.goto(f"{address}data/photos?group=fern")
    page.wait_for_function("() => document.querySelector('#check-line[data-over]')")
    page.locator('#wall .tile.at[data-index="24"] img').wait_for()
    start = datasets.revision(photos)
    page.locator("h1").evaluate("(one) => { one.tabIndex = -1; one.focus(); }")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("() => !!document.activeElement.closest('.tile')"):
            break
    shown = page.evaluate(
        "async () => (await document.getElementById('wall').wall.page(0)).map((one) => one.id)"
    )
    first, second = page.evaluate("() => document.getElementById('wall').wall.known.classes")[:2]
    at = page.evaluate("() => Number(document.activeElement.dataset.index)")
    keys = ["2", "x", "k", "1"] * 5
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_function(f"() => document.querySelector('#wall').wall.known.revision >= {start + 20}")
    made = datasets.history(photos).decisions[start:]
    what = {"2": ("relabel", second), "1": ("relabel", first), "x": ("drop", ""), "k": ("keep", "")}
    assert [(one.ids, one.what, one.value) for one in made] == [
        ((shown[at + i],), *what[key]) for i, key in enumerate(keys)
    ]
    assert page.evaluate("() => !!document.activeElement.closest('.tile')")


def test_shift_chooses_again_from_its_anchor_and_escape_ends(page, opened):
    _, address = opened
    page.goto(f"{address}data/photos?group=moss")
    page.wait_for_function("() => document.querySelector('#check-line[data-over]')")
    tile = '#wall .tile.at[data-index="%d"]'
    page.locator(f"{tile % 9} img").wait_for()
    chosen = "[...document.querySelectorAll('#wall .tile.chosen')].map((one) => one.dataset.index).join()"

    def wait(which: str) -> None:
        page.wait_for_function(f"() => {chosen} === '{which}'")

    page.locator(tile % 3).focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    wait("3,4,5,6")
    page.keyboard.press("Shift+ArrowLeft")
    wait("3,4,5")  # smaller again
    page.keyboard.press("Escape")
    wait("")
    assert page.evaluate("() => document.activeElement.dataset.index") == "5"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    wait("6,7")  # from where the arrows went, not from the old anchor
    page.keyboard.press("Escape")
    page.locator(tile % 1).focus()
    page.locator(tile % 4).click(modifiers=["Shift"])
    wait("1,2,3,4")
    page.keyboard.press("Control+a")
    page.get_by_label("New label of the chosen images").press_sequentially("1")
    page.keyboard.press("Escape")  # leaves the field first
    assert page.evaluate("() => document.activeElement.dataset.index") == "4"
    assert page.locator("#chosen").is_visible()
    page.keyboard.press("Escape")
    wait("")


def test_similar_images_by_the_key(page, opened):
    _, address = opened
    page.goto(f"{address}data/photos?group=moss")
    page.locator('#wall .tile.at[data-index="2"] img').wait_for()
    page.locator('#wall .tile[data-index="2"]').focus()
    page.keyboard.press("l")
    page.wait_for_url("**/data/photos?like=moss*")
    page.get_by_text("Nothing is known of what this image looks like").wait_for()
