"""A studio below a path of a proxy, and two studios on one machine."""

from __future__ import annotations

import json
import re
from html import unescape
from urllib.parse import urljoin

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from data.pictures import folders
from fastapi.testclient import TestClient
from studio_runs import studio, write_run

from vitrail.studio.app import create_app
from vitrail.studio.prefix import Prefix
from vitrail.studio.security import COOKIE
from vitrail.studio.workspace import Workspace

BELOW = "/lab/studio"
KEY = "key"


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.make()
    folders(workspace.data / "a leaf", {"fern": 2, "moss": 2}, (8, 8))
    write_run(workspace.runs, "mine", end="finished", source="data/a leaf")
    return workspace


@pytest.fixture(params=[True, False], ids=["path taken off", "path passed on"])
def proxy(request, workspace):
    """What a browser sees of a studio behind a proxy that takes its path off, or passes it on."""
    app = Prefix(create_app(workspace, KEY, ("testserver",)), BELOW)

    async def passed_on(scope, receive, send):
        assert scope["path"].startswith(BELOW), scope["path"]
        path = scope["path"].removeprefix(BELOW) if request.param else scope["path"]
        await app({**scope, "path": path}, receive, send)

    return TestClient(passed_on)


@pytest.fixture
def client(proxy):
    proxy.get(f"{BELOW}/?token={KEY}")
    return proxy


def test_the_link_becomes_a_cookie_of_the_path_alone(proxy):
    answer = proxy.get(f"{BELOW}/runs?token={KEY}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BELOW}/runs")
    assert f"Path={BELOW};" in answer.headers["set-cookie"]
    assert proxy.get(f"{BELOW}/runs").status_code == 200


NETWORKS = {f"{BELOW}/gallery/of/vit_s16", f"{BELOW}/gallery/of/resnet50"}
"""Two of a thousand pages that differ in their names."""


def test_every_page_every_file_and_every_form_stays_below_the_path(client):
    seen, waiting, forms = set(), [f"{BELOW}/"], set()
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        answer = client.get(address)
        assert answer.status_code == 200, address
        if "<html" in answer.text:  # a part of a page is relative to that page
            there = re.findall(r'\b(?:href|src|hx-get)="([^"#]+)"', answer.text)
            forms |= {
                urljoin(address, unescape(one)) for one in re.findall(r'\baction="([^"#]+)"', answer.text)
            }
            here = [
                urljoin(address, unescape(one)) for one in there if not one.startswith(("data:", "https:"))
            ]
            waiting += [one for one in here if "/gallery/of/" not in one or one in NETWORKS]
    assert all(one.startswith(f"{BELOW}/") for one in seen | forms)
    assert {f"{BELOW}/style.css", f"{BELOW}/static/islands/wall.js", f"{BELOW}/data/a%20leaf"} <= seen
    assert any(one.startswith(f"{BELOW}/data/a%20leaf/thumb?") for one in seen)
    assert f"{BELOW}/data/new" in forms


def test_forms_lead_back_below_the_path(client):
    sent = [
        ("data/a leaf/train", {"tune": "draft"}, f"{BELOW}/runs/a-leaf"),
        ("data/a leaf/decide", {"what": "drop", "id": "fern/0.png"}, f"{BELOW}/data/a%20leaf"),
        ("data/new", {"path": "digits"}, f"{BELOW}/data/digits"),
    ]
    ids = [one["id"] for one in client.get(f"{BELOW}/data/a leaf/tiles").json()]
    for path, values, there in sent:
        values = {**values, **({"id": ids[0]} if "id" in values else {})}
        answer = client.post(f"{BELOW}/{path}", data=values, follow_redirects=False)
        assert answer.status_code == 303, path
        assert urljoin(f"{BELOW}/{path}", answer.headers["location"]).partition("?")[0] == there


def test_events_of_a_run_come_through(client):
    with client.stream("GET", f"{BELOW}/runs/mine/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        points = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
    assert sum(len(one["score"]) for one in points) == 4


def test_two_studios_on_one_machine_do_not_close_each_other(tmp_path):
    """Browsers send a cookie to every port of a host."""
    clients = []
    for port in (8420, 9000):
        app = create_app(Workspace(tmp_path / str(port)), f"{KEY}{port}")
        clients.append(TestClient(app, base_url=f"http://127.0.0.1:{port}"))
    first, second = clients
    first.get(f"/?token={KEY}8420")
    second.cookies.update(first.cookies)
    assert second.get("/").status_code == 401
    second.get(f"/?token={KEY}9000")
    first.cookies.update(second.cookies)
    assert [one.get("/").status_code for one in clients] == [200, 200]
    assert set(first.cookies) == {f"{COOKIE}-8420", f"{COOKIE}-9000"}


def test_the_printed_link_opens_a_studio_below_a_path(tmp_path):
    with studio(tmp_path, "--root-path", "lab") as opened:
        port = opened.client.base_url.port
        assert opened.link.startswith(f"http://127.0.0.1:{port}/lab/?token=")
        (cookie,) = opened.client.cookies.jar
        assert (cookie.name, cookie.path) == (f"{COOKIE}-{port}", "/lab")
        assert "sample" in opened.client.get("runs").text
