"""Images with boxes and outlines in the studio: what can be predicted is a choice, and no draft stands in the way."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from scenes import boxed, outlined

from vitrail.studio.app import create_app
from vitrail.studio.workspace import Workspace


@pytest.fixture
def client(tmp_path):
    """A browser with the key, and images with boxes and with outlines. What is queued stays there."""
    workspace = Workspace(tmp_path / "studio")
    outlined(workspace.data / "rings", 6)
    boxed(workspace.data / "shapes", 6)
    app = create_app(workspace, "key", ("testserver",))
    with_key = TestClient(app, cookies={"vitrail": "key"})
    with_key.studio = app.state.studio
    return with_key


def test_one_click_on_boxes_trains_without_a_draft(client):
    answer = client.post("/data/shapes/train", data={}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "../../runs/shapes")
    (job,) = client.studio.queue.active()
    assert job.words == ("train", "data/shapes", "--out", "runs/shapes")


def test_outlines_offer_masks_and_boxes_alone_do_not(client):
    assert "a mask for every object" not in client.get("/data/shapes/train").text
    page = client.get("/data/rings/train").text
    assert '<b aria-current="true">a box for every object</b>' in page
    assert '<a href="?task=instances">a mask for every object</a>' in page
    chosen = client.get("/data/rings/train", params={"task": "instances"}).text
    assert '<b aria-current="true">a mask for every object</b>' in chosen
    assert "mask weight" in chosen
    assert "--task instances" in chosen


def test_the_choice_is_what_is_trained(client):
    client.post("/data/rings/train", data={"task": "instances"})
    (job,) = client.studio.queue.active()
    assert job.words == ("train", "data/rings", "--task", "instances", "--out", "runs/rings")
