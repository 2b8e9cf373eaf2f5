"""The pages of data sets: the list, the wall, one image, decisions and their undo, the bin."""

from __future__ import annotations

import json
import re
import shutil
import time
from html import unescape
from pathlib import Path

import pytest
from data.pictures import encode, folders, put, scene
from image_studio import SCRIPT, checked, images_of, send, studio

from vitrail.studio.listing import PAGE

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of eight images in a folder of the user's own."""
    return folders(tmp_path / "photos", {"cat": 8, "dog": 8}, (24, 24))


@pytest.fixture
def client(tmp_path, photos):
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(photos)})
        yield client


def decide(client, name="photos", what="drop", ids=("cat/0.png",), **more):
    return client.post(
        f"/data/{name}/decide", data={"what": what, "id": list(ids), **more}, headers=SCRIPT
    ).json()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_place_is_opened_without_a_copy_and_taken_out_without_loss(client, photos, tmp_path):
    page = client.get("/data").text
    assert "data/photos" in page
    assert list((tmp_path / "ws" / "data").iterdir()) == []
    card = client.get("/data/photos/card?root=./").text
    assert "16 images" in card
    assert "2 classes" in card
    assert (
        client.post("/data/new", data={"path": str(photos)}, follow_redirects=False).headers["location"]
        == "photos"
    )
    client.post("/data/photos/delete")
    assert "data/photos" not in client.get("/data").text.replace("restore", "")
    assert len(list(photos.rglob("*.png"))) == 16


def test_what_is_not_there_is_a_sentence(client):
    for reply in (
        client.get("/data/nothing"),
        client.get("/data/..%2F..%2Fetc"),
        client.get("/data/photos/image?id=../../etc/passwd"),
        client.get("/data/photos/thumb?id=/etc/passwd"),
        client.get("/data/photos?after=gone.png"),
        client.post("/data/new", data={"path": "/no/such/place"}),
        client.post("/data/photos/answer", data={"card": "gone", "choice": "0"}),
        client.post("/data/photos/undo", data={"number": "9"}),
        client.post("/bin/gone/restore"),
    ):
        assert reply.status_code in {303, 404, 422} or reply.history, reply.url
        assert "Traceback" not in reply.text
        assert "root:" not in reply.text


def test_names_of_files_and_classes_are_never_markup(tmp_path):
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"name": EVIL.replace("<", "").replace(">", "") + "'&"}, headers=SCRIPT)
        (dataset,) = images_of(client).datasets.all()
        there = client.get("/data").text
        assert dataset.name not in there
        assert dataset.name in unescape(there)
        name = dataset.name
        for kind in ("dog", EVIL):
            files = {f"{kind}/{i}{EVIL}.png": encode(scene(i + len(kind), (24, 24))) for i in range(9)}
            for path, data in files.items():
                put(tmp_path / "ws" / "data" / dataset.name / path, data)
        put(tmp_path / "ws" / "data" / dataset.name / EVIL / f"broken{EVIL}.png", b"no image")
        checked(client, name)
        evil = f"{EVIL}/0{EVIL}.png"
        pages = ["", "?view=columns", "/check", "/card", f"/image?id={evil}", f"?q={EVIL}", f"?group={EVIL}"]
        for address in pages:
            reply = client.get(f"/data/{name}{address}")
            assert reply.status_code == 200, address
            assert EVIL not in reply.text, address
            assert not re.search(r"<[^>]*\sonerror=", re.sub(r'"[^"]*"', '""', reply.text)), address


def test_every_image_is_on_exactly_one_page_of_the_list(tmp_path):
    whole = tmp_path / "many"
    pixel = encode(scene(0, (2, 2)))
    for number in range(2 * PAGE + 37):
        put(whole / f"class {number % 3}" / f"{number}.png", pixel)
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(whole)})
        plan = client.get("/data/many/wall.json").json()
        assert plan["total"] == 2 * PAGE + 37
        assert [n for _, n in plan["groups"]] == [146, 146, 145]
        pages = [client.get("/data/many/tiles", params={"after": one}).json() for one in plan["anchors"]]
        assert [len(page) for page in pages] == [PAGE, PAGE, 37]
        ids = [tile["id"] for page in pages for tile in page]
        assert len(set(ids)) == plan["total"]
        assert ids[:3] == ["class 0/0.png", "class 0/3.png", "class 0/6.png"]
        seen, address = [], "/data/many"
        while address:  # without script: from page to page by the link
            page = client.get(address).text
            seen += re.findall(r'class="tile kept" href="\S+?id=([^"]+)"', page)
            link = re.search(r'rel="next" href="([^"]+)"', page)
            address = unescape(link[1]).replace("../data", "/data") if link else ""
        assert len(seen) == len(set(seen)) == plan["total"]
        some = client.get("/data/many/wall.json", params={"q": "CLASS 1", "group": "class 1"}).json()
        assert some["groups"] == [["class 1", 146]]


def test_a_thumbnail_is_small_webp_that_never_changes_under_its_stamp(client, photos, monkeypatch, tmp_path):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    put(photos / "cat" / "large.jpg", encode(scene(5, (900, 1200)), "JPEG"))
    put(photos / "cat" / "twin.jpg", (photos / "cat" / "large.jpg").read_bytes())
    tiles = {one["id"]: one for one in client.get("/data/photos/tiles").json()}
    reply = client.get("/data/photos/thumb", params={"id": "cat/large.jpg", "v": tiles["cat/large.jpg"]["v"]})
    assert reply.headers["content-type"] == "image/webp"
    assert "immutable" in reply.headers["cache-control"]
    assert len(reply.content) < 20_000
    assert client.get("/data/photos/thumb", params={"id": "cat/twin.jpg"}).content == reply.content
    assert len(list((tmp_path / "cache" / "thumbnails").rglob("*.webp"))) == 1  # by content, not by name
    assert "immutable" not in client.get("/data/photos/thumb?id=cat/large.jpg&v=old").headers["cache-control"]
    put(photos / "cat" / "large.jpg", encode(scene(6, (900, 1200)), "JPEG"))
    assert client.get("/data/photos/thumb", params={"id": "cat/large.jpg"}).content != reply.content
    large = client.get("/data/photos/view", params={"id": "cat/large.jpg"})
    assert large.headers["content-type"] == "image/webp"


def test_an_image_that_cannot_be_read_and_a_full_cache_are_no_errors(client, photos, monkeypatch, tmp_path):
    put(photos / "cat" / "broken.png", b"no image")
    reply = client.get("/data/photos/thumb", params={"id": "cat/broken.png"})
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/svg+xml")
    assert reply.headers["cache-control"] == "no-store"
    monkeypatch.setenv("VITRAIL_CACHE", str(put(tmp_path / "file", b"") / "no folder"))
    assert (
        client.get("/data/photos/thumb", params={"id": "cat/1.png"}).headers["content-type"] == "image/webp"
    )


def test_only_so_many_images_are_decoded_at_once_as_allowed():
    from threading import Thread

    from vitrail.studio.thumbnails import Turns

    allowed, busy, most = 1, 0, []

    def work():
        nonlocal busy
        with turns.turn():
            busy += 1
            most.append(busy)
            time.sleep(0.005)
            busy -= 1

    turns = Turns(lambda: allowed)
    threads = [Thread(target=work) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most == [1] * 6


def test_each_decision_is_written_at_once_and_undone_by_its_number(client, photos, tmp_path):
    history = tmp_path / "photos.vitrail.jsonl"
    assert decide(client) == {"numbers": [1]}
    assert lines(history)[0]["what"] == "drop"
    tiles = {one["id"]: one["state"] for one in client.get("/data/photos/tiles").json()}
    assert tiles["cat/0.png"] == "dropped"
    assert decide(client, what="relabel", ids=["cat/1.png", "cat/2.png"], value="dog") == {"numbers": [2]}
    assert client.get("/data/photos/wall.json").json()["groups"] == [["cat", 6], ["dog", 10]]
    undone = client.post("/data/photos/undo", data={"number": ["1", "2"]}, headers=SCRIPT).json()
    assert undone == {"numbers": [3, 4]}
    assert client.get("/data/photos/wall.json").json()["groups"] == [["cat", 8], ["dog", 8]]
    assert client.get("/data/photos/wall.json").json()["revision"] == 4
    again = client.post("/data/photos/undo", data={"number": "4"}, headers=SCRIPT).json()  # an undo is undone
    assert again == {"numbers": [5]}
    assert client.get("/data/photos/wall.json").json()["groups"] == [["cat", 6], ["dog", 10]]
    refused = client.post("/data/photos/undo", data={"number": "1"}, headers=SCRIPT)
    assert "already" in refused.json()["sentence"]


def test_a_decision_survives_the_studio_and_another_data_set_in_between(client, tmp_path):
    """Complaint 3: what is opened between changes nothing of it."""
    other = folders(tmp_path / "other", {"ant": 4, "bee": 4}, (24, 24), seed=3)
    decide(client, ids=["cat/3.png"])
    before = (tmp_path / "photos.vitrail.jsonl").read_bytes()
    client.post("/data/new", data={"path": str(other)})
    client.get("/data/other")
    decide(client, "other", ids=["ant/1.png"])
    assert (tmp_path / "photos.vitrail.jsonl").read_bytes() == before
    with studio(tmp_path / "ws") as later:  # nobody saved, nobody named anything
        assert {one.name for one in images_of(later).datasets.all()} == {"photos", "other"}
        page = later.get("/data/photos/image?id=cat/3.png").text
        assert "Left out" in page
        assert images_of(later).datasets.revision(images_of(later).datasets.get("photos")) == 1


def test_a_database_that_is_gone_loses_no_image(client, tmp_path):
    client.post("/data/new", data={"name": "mine"}, headers=SCRIPT)
    send(client, "mine", {f"{kind}/1.png": encode(scene(7, (24, 24))) for kind in ("a", "b")})
    shutil.copytree(tmp_path / "ws" / "data", tmp_path / "ws2" / "data")
    with studio(tmp_path / "ws2") as later:
        assert [one.name for one in images_of(later).datasets.all()] == ["mine"]
        assert "a/1.png" in later.get("/data/mine").text


def test_a_form_comes_back_to_its_page_and_nowhere_else(client):
    form = {"what": "drop", "id": "cat/0.png"}
    for back, wanted in (
        ("image?id=cat/0.png&group=cat", "image?id=cat%2F0.png&group=cat&done="),
        ("check?done=7#card-ab", "check?done="),
        ("wall?group=cat", "../photos?group=cat&done="),
        ("//evil.example/x", "../photos?done="),
        ("https://evil.example/?a=1", "../photos?a=1&done="),
    ):
        reply = client.post("/data/photos/decide", data={**form, "back": back}, follow_redirects=False)
        assert reply.status_code == 303
        assert reply.headers["location"].startswith(wanted)
        assert "done=7" not in reply.headers["location"]
    page = client.post("/data/photos/decide", data={**form, "back": "wall?"}).text
    assert 'class="notice"' in page
    assert "1 image" in page


def test_a_label_is_changed_to_any_word_but_a_mask_to_none(client, tmp_path):
    assert decide(client, what="relabel", ids=["cat/1.png"], value="fox|red") == {"numbers": [1]}
    assert lines(tmp_path / "photos.vitrail.jsonl")[0]["value"] == r"fox\|red"
    assert ["fox|red", 1] in client.get("/data/photos/wall.json").json()["groups"]
    assert "is missing" in decide(client, what="relabel", value="  ")["sentence"]
    assert (
        "does not exist" in decide(client, ids=["no.png"])["sentence"]
        or "no image" in decide(client, ids=["no.png"])["sentence"]
    )


def test_what_is_deleted_comes_back_with_its_decisions_until_thirty_days_have_passed(tmp_path):
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"name": "mine"}, headers=SCRIPT)
        send(
            client,
            "mine",
            {f"{kind}/{i}.png": encode(scene(i, (24, 24))) for kind in ("a", "b") for i in range(3)},
        )
        decide(client, "mine", ids=["a/1.png"])
        page = client.post("/data/mine/delete")
        assert page.url.query.startswith(b"deleted=")
        assert not (tmp_path / "ws" / "data" / "mine").exists()
        client.post("/data/new", data={"name": "mine"}, headers=SCRIPT)  # the name is taken meanwhile
        key = images_of(client).bin.content()[0].key
        back = client.post(f"/bin/{key}/restore")
        assert back.url.path == "/data/mine 2"
        assert len(list((tmp_path / "ws" / "data" / "mine 2").rglob("*.png"))) == 6
        assert images_of(client).datasets.revision(images_of(client).datasets.get("mine 2")) == 1
        client.post("/data/mine 2/delete")
        (note,) = (tmp_path / "ws" / ".vitrail" / "bin").glob("*/deleted.json")
        old = json.loads(note.read_text()) | {"time": time.time() - 31 * 24 * 3600}
        note.write_text(json.dumps(old))
    with studio(tmp_path / "ws") as client:
        assert images_of(client).bin.content() == []
        assert not list((tmp_path / "ws" / ".vitrail" / "bin").iterdir())


def test_every_page_names_its_parts_in_the_language_of_the_browser(client):
    checked(client, "photos")
    for address in ("/data", "/data/new", "/data/photos", "/data/photos?view=columns", "/data/photos/check",
                    "/data/photos/image?id=cat/1.png"):  # fmt: skip
        page = client.get(address, headers={"accept-language": "x-pseudo"}).text
        body = re.sub(
            r"<(script|style|template|pre)\b.*?</\1>", "", page.partition("<body")[2], flags=re.DOTALL
        )
        texts = [unescape(one).strip() for one in re.findall(r">([^<>]+)<", body)]
        words = [one for one in texts if re.search(r"[A-Za-z]{3}", one) and "⟦" not in one]
        own = re.compile(r"cat|dog|photos|vitrail|png|Class folders|image|layout|labels|groups|splits|what it is|"
                         r"English|the table|the column|Fewer|Random|split|things|window|block|buffer|"
                         r"seconds")  # fmt: skip
        assert [one for one in words if not own.search(one)] == [], address


def test_a_class_is_renamed_by_one_decision_and_undone(tmp_path):
    root = folders(tmp_path / "photos", {"fern": 3, "moss": 2}, (8, 8))
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        form = {"old": "fern", "new": " bracken "}
        answer = client.post("/data/photos/rename-class", data=form, follow_redirects=False)
        assert answer.headers["location"] == "../photos?group=bracken&done=1"
        assert "3 images" in client.get("/data/photos?group=bracken&done=1").text
        classes = client.get("/data/photos/wall.json").json()["classes"]
        assert classes == ["bracken", "moss"]
        assert {one.name for one in root.iterdir()} == {"fern", "moss"}
        client.post("/data/photos/undo", data={"number": 1})
        assert client.get("/data/photos/wall.json").json()["classes"] == ["fern", "moss"]
        for old, new in (("gone", "x"), ("fern", " "), ("fern", "fern")):
            assert client.post("/data/photos/rename-class", data={"old": old, "new": new}).status_code == 422


def test_one_of_several_classes_is_renamed_and_the_others_stay(tmp_path):
    root = folders(tmp_path / "photos", {"all": 3}, (8, 8))
    names = sorted(one.name for one in (root / "all").iterdir())
    rows = zip(names, ("wet|green", "wet", "green"), strict=True)
    (root / "labels.csv").write_text(
        "image,labels\n" + "".join(f"all/{name},{truth}\n" for name, truth in rows)
    )
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        client.post("/data/photos/rename-class", data={"old": "wet", "new": "damp"})
        listing = images_of(client).checks.listing(images_of(client).datasets.get("photos"))
        assert sorted(row.target for row in listing.rows) == ["damp", "damp|green", "green"]


def test_a_data_set_is_renamed_and_keeps_its_files_runs_and_decisions(tmp_path):
    root = folders(tmp_path / "ws" / "data" / "old", {"fern": 2, "moss": 2}, (8, 8))
    with studio(tmp_path / "ws") as client:
        datasets = images_of(client).datasets
        client.post("/data/old/decide", data={"what": "drop", "id": "fern/0.png"})
        answer = client.post("/data/old/rename", data={"wanted": "new name"}, follow_redirects=False)
        assert answer.headers["location"] == "../new%20name"
        assert [one.name for one in datasets.all()] == ["new name"]
        assert datasets.listed("data/old").name == "new name"
        assert datasets.revision(datasets.get("new name")) == 1
        assert datasets.place(datasets.get("new name")) == root
        assert client.get("/data/old").status_code == 422
        assert client.post("/data/new", data={"name": "old"}, headers=SCRIPT).json()["name"] == "old 2"
        assert client.post("/data/old 2/rename", data={"wanted": "new name"}).status_code == 422
        key = (
            client.post("/data/new name/delete", follow_redirects=False).headers["location"].partition("=")[2]
        )
        assert not root.exists()
        client.post(f"/bin/{key}/restore")
        assert datasets.listed("data/old").name == "new name"
        assert client.post("/data/new name/rename", data={"wanted": "old"}).status_code == 200
        assert datasets.get("old").source == "data/old"


def test_what_is_between_two_images_can_be_chosen_up_to_a_limit(tmp_path, monkeypatch):
    root = folders(tmp_path / "photos", {"fern": 3, "moss": 2}, (8, 8))
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        everything = client.get("/data/photos/ids").json()
        assert len(everything) == 5
        between = client.get("/data/photos/ids", params={"first": everything[3], "last": everything[1]})
        assert between.json() == everything[1:4]
        assert client.get("/data/photos/ids", params={"group": "moss"}).json() == everything[3:]
        assert client.get("/data/photos/ids", params={"first": "gone", "last": "gone"}).status_code == 422
        monkeypatch.setattr("vitrail.studio.listing.MOST_CHOSEN", 4)
        assert "At most 4 images" in client.get("/data/photos/ids", headers=SCRIPT).json()["sentence"]
