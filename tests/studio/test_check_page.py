"""The page of a check: cards with one decision each, undone as they were made, and how images are read."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from data.pictures import encode, folders, put, scene
from image_studio import SCRIPT, checked, images_of, studio


@pytest.fixture
def client(tmp_path):
    """A studio with two classes of twelve images, and one fault of each kind planted among them."""
    root = folders(tmp_path / "photos", {"cat": 12, "dog": 12}, (64, 64))
    put(root / "dog" / "same.png", (root / "cat" / "1.png").read_bytes())
    put(root / "cat" / "copy.png", (root / "cat" / "2.png").read_bytes())
    put(root / "cat" / "grey.png", encode(np.full((64, 64, 3), 90, np.uint8)))
    put(root / "dog" / "broken.png", b"no image")
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        checked(client, "photos")
        yield client


def card(page: str, title: str) -> str:
    """Return the card with this title."""
    return next(
        one
        for one in re.findall(r"<article.*?</article>", page, re.DOTALL)
        if f">{title}" in one or f"  <h2>{title}" in one
    )


def press(client, page: str, title: str, text: str) -> str:
    """Press the button of a card, and return the page that follows."""
    found = card(page, title)
    form = next(one for one in re.findall(r"<form.*?</form>", found, re.DOTALL) if f">{text}</button>" in one)
    values = re.findall(r'name="(\w+)" value="([^"]*)"', form)
    data: dict[str, list[str]] = {}
    for name, value in values:
        data.setdefault(name, []).append(value)
    (action,) = re.findall(r'action="\.\./\.\./([^"]+)"', form)
    return client.post(f"/{action}", data=data).text


def states(client) -> dict[str, str]:
    return {one["id"]: one["state"] for one in client.get("/data/photos/tiles").json()}


def test_each_finding_is_a_card_with_its_images(client):
    page = client.get("/data/photos/check").text
    for title, name in (("One image, several labels", "dog/same.png"), ("Duplicates", "cat/copy.png"),
                        ("Almost one colour", "cat/grey.png"), ("Cannot be used", "dog/broken.png")):  # fmt: skip
        assert name in card(page, title)
    assert "vitrail check" in page
    assert "from vitrail.data.prepare import prepare" in page
    line = client.get("/data/photos/check/progress").text
    assert "3 things to look at" in line
    assert 'data-over="1"' in line


def test_the_right_one_of_two_labels_is_kept_and_the_decision_undone(client):
    before = states(client)
    assert (before["cat/1.png"], before["dog/same.png"]) == ("quarantined", "quarantined")
    page = press(client, client.get("/data/photos/check").text, "One image, several labels", "Keep this one")
    after = states(client)
    assert (after["cat/1.png"], after["dog/same.png"]) == ("kept", "dropped")
    assert "decided" in card(page, "One image, several labels")
    press(client, page, "One image, several labels", "Undo")
    assert states(client) == before


def test_one_of_each_duplicate_is_kept(client):
    page = press(client, client.get("/data/photos/check").text, "Duplicates", "Keep one of each")
    after = states(client)
    assert (after["cat/2.png"], after["cat/copy.png"]) == ("kept", "dropped")
    page = press(client, page, "Duplicates", "Undo")
    assert states(client)["cat/copy.png"] == "kept"
    page = press(client, page, "Duplicates", "It is fine")
    assert "decided" in card(page, "Duplicates")
    assert states(client)["cat/copy.png"] == "kept"


def test_images_of_one_colour_are_left_out_together_and_every_decision_is_listed(client):
    page = press(client, client.get("/data/photos/check").text, "Almost one colour", "Leave 1 out")
    assert states(client)["cat/grey.png"] == "dropped"
    assert "almost one colour" in page.partition('id="history"')[2]
    datasets = images_of(client).datasets
    history = datasets.history(datasets.get("photos"))
    assert [one.what for one in history.decisions] == ["quarantine", "drop"]
    assert datasets.revision(datasets.get("photos")) == 2


def test_a_decision_on_a_page_that_is_old_changes_nothing(client):
    page = client.get("/data/photos/check").text
    (key,) = re.findall(r'id="card-(\w+)"', card(page, "Almost one colour"))
    reply = client.post("/data/photos/answer", data={"card": key, "choice": "99"})
    assert reply.status_code == 422
    assert "has changed" in reply.text


def test_only_images_of_a_finding_are_on_its_wall(client):
    page = client.get("/data/photos/check").text
    (key,) = re.findall(r'id="card-(\w+)"', card(page, "Duplicates"))
    plan = client.get("/data/photos/wall.json", params={"finding": key}).json()
    assert plan["total"] == 2


def test_what_no_class_is_left_of_is_a_sentence_and_is_undone(client):
    ids = [name for name in states(client) if name.startswith("dog/")]
    numbers = client.post("/data/photos/decide", data={"what": "drop", "id": ids}, headers=SCRIPT).json()[
        "numbers"
    ]
    page = client.get("/data/photos/check").text
    assert "Nothing can be learned from this yet" in page
    assert "fewer than two classes" in page
    assert client.get("/data/photos").status_code == 200
    client.post("/data/photos/undo", data={"number": numbers})
    assert "can be used for training" in client.get("/data/photos/check").text


def test_a_label_that_no_image_had_becomes_a_class(client):
    data = {"what": "relabel", "id": "cat/5.png", "value": "fox"}
    assert client.post("/data/photos/decide", data=data, headers=SCRIPT).status_code == 200
    assert ["fox", 1] in client.get("/data/photos/wall.json").json()["groups"]
    assert states(client)["cat/5.png"] == "kept"
    assert "in 3 classes" in client.get("/data/photos/check").text


def test_an_image_that_arrives_later_is_checked_and_old_decisions_stay(client, tmp_path):
    press(client, client.get("/data/photos/check").text, "Almost one colour", "Leave 1 out")
    put(tmp_path / "photos" / "cat" / "new.png", encode(scene(999, (64, 64))))
    page = checked(client, "photos")
    assert "decided" in card(page, "Almost one colour")
    assert states(client)["cat/new.png"] == "kept"


def test_two_readings_are_a_question_and_its_answer_stays(tmp_path):
    root = folders(tmp_path / "birds", {"owl": 8, "jay": 8}, (24, 24))
    rows = [f"{kind}/{i}.png,{'big' if i % 2 else 'small'}" for kind in ("owl", "jay") for i in range(8)]
    put(root / "sizes.csv", "image,label\n" + "\n".join(rows) + "\n")
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        assert "Two readings contradict each other" in client.get("/data/birds").text
        page = checked(client, "birds")
        assert "Which labels are right?" in page
        ways = re.findall(r'<button name="(\w+)" value="([^"]+)">', page)
        assert len(ways) == 2
        client.post("/data/birds/reading", data={"layout": "folders"})
        page = checked(client, "birds")
        assert "Which labels are right?" not in page
        assert "--layout folders" in page
        assert {name for name, _ in client.get("/data/birds/wall.json").json()["groups"]} == {"owl", "jay"}
        wrong = client.post("/data/birds/reading", data={"colour": "blue"})
        assert wrong.status_code == 422
        client.post("/data/birds/reading", data={"layout": ""})
        assert "Which labels are right?" in checked(client, "birds")
    with studio(tmp_path / "ws") as client:
        client.post("/data/birds/reading", data=dict(ways[:1]))
        assert "Which labels are right?" not in checked(client, "birds")


def test_one_class_alone_is_shown_before_it_can_be_learned(tmp_path):
    root = folders(tmp_path / "only", {"cat": 3}, (24, 24))
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        page = client.get("/data/only").text
        assert "holds one class only" in page
        assert page.count("thumb?id=") == 3
        assert "holds one class only" in checked(client, "only")


def test_progress_is_shown_while_images_are_decoded(tmp_path):
    from vitrail.studio.checks import Progress

    root = folders(tmp_path / "photos", {"cat": 6, "dog": 6}, (24, 24))
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        checked(client, "photos")
        dataset = images_of(client).datasets.get("photos")
        progress: Progress = images_of(client).checks.progress(dataset)
        assert (progress.done, progress.total, progress.error) == (12, 12, "")
        progress.over = False
        page = client.get("/data/photos/check").text
        assert 'value="12" max="12"' in page
        assert 'http-equiv="refresh"' in page  # without script
        assert "12 of 12" in client.get("/data/photos/check/progress").text
        progress.over = True


def test_the_studio_ends_in_the_middle_of_a_check(tmp_path):
    root = folders(tmp_path / "photos", {"cat": 300, "dog": 300}, (24, 24))
    with studio(tmp_path / "ws") as client:
        client.post("/data/new", data={"path": str(root)})
        parts = images_of(client)
        parts.checks.close()
        progress = parts.checks.progress(parts.datasets.get("photos"))
        while not progress.over:
            time.sleep(0.01)
        assert "closed" in progress.error
