"""Images by URL: none by default, and from an allowed host within limits of bytes and time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hub_server import LocalServer, QuietHandler
from pretended import png, pretended

from vitrail.serve import urls
from vitrail.serve.front import Limits


class Album(QuietHandler):
    """Answers with an image, with a redirect, with too much, or never."""

    server: LocalServer

    def do_GET(self) -> None:
        path, _, wait = self.path.partition("?wait=")
        time.sleep(float(wait or 0))
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/a.png")
            self.end_headers()
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(1000):
                    self.wfile.write(bytes(10_000))
            except OSError:
                self.server.files["cut"] = b"off"
        elif path == "/slow":
            time.sleep(1.5)
        else:
            content = self.server.files.get(path)
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content or b"")


@pytest.fixture(scope="module")
def album() -> Iterator[LocalServer]:
    server = LocalServer(Album)
    server.files["/a.png"] = png()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def asked(served, *addresses):
    return served.post("/predict", json={"images": [{"url": one} for one in addresses]})


def test_no_url_is_fetched_by_default(album):
    with pretended() as served:
        for address in (
            f"{album.address}/a.png",
            "http://169.254.169.254/latest/meta-data/",
            "file:///etc/passwd",
        ):
            answer = asked(served, address)
            assert answer.status_code == 403
            assert "--allow-urls" in answer.json()["error"]


def foreign(port):
    return (
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "file://localhost/etc/passwd",
        "ftp://localhost/a.png",
        f"http://localhost:{port}/a.png",  # the name that was allowed is 127.0.0.1
        f"http://127.1:{port}/a.png",
        f"http://2130706433:{port}/a.png",
        f"http://[::1]:{port}/a.png",
        f"http://user@127.0.0.1:{port}/a.png",
        f"http://user:word@127.0.0.1:{port}/a.png",
        "http://127.0.0.1@169.254.169.254/",
        "http://127.0.0.1\\@169.254.169.254/",
        "http://169.254.169.254#@127.0.0.1/",
        "http://169.254.169.254\\.127.0.0.1/",
        "http://127.0.0.1.evil.example/",
        "http://[::1",
        "//127.0.0.1/a.png",
        "127.0.0.1/a.png",
        "",
    )


def test_only_allowed_hosts_are_asked(album):
    with pretended(limits=Limits(hosts=("127.0.0.1",))) as served:
        for address in foreign(album.server_address[1]):
            answer = asked(served, address)
            assert answer.status_code == 403, address
            assert "127.0.0.1 only" in answer.json()["error"]


def test_an_image_of_an_allowed_host_is_predicted(album):
    with pretended(limits=Limits(hosts=("127.0.0.1",))) as served:
        answer = asked(served, f"{album.address}/a.png", f"{album.address}/a.png?wait=0")
        assert [one["bytes"] for one in answer.json()["answers"]] == [len(png())] * 2
        assert answer.json()["answers"][0]["name"] == "a.png"


def test_a_redirect_is_not_followed_and_a_missing_file_is_said(album):
    with pretended(limits=Limits(hosts=("127.0.0.1",))) as served:
        for path, code in (("/moved", "302"), ("/missing.png", "404")):
            answer = asked(served, album.address + path)
            assert answer.status_code == 422
            assert code in answer.json()["error"]
        assert asked(served, "http://127.0.0.1:9/a.png").status_code == 422


def test_what_a_host_sends_is_limited(album):
    with pretended(limits=Limits(data=50_000, hosts=("127.0.0.1",))) as served:
        answer = asked(served, f"{album.address}/endless")
        assert answer.status_code == 413
        assert "50,000 bytes" in answer.json()["error"]


def test_all_images_of_a_request_together_are_limited(album):
    album.files["/large.png"] = png() + bytes(30_000)
    with pretended(limits=Limits(data=50_000, hosts=("127.0.0.1",))) as served:
        assert asked(served, f"{album.address}/large.png").status_code == 200
        assert asked(served, *[f"{album.address}/large.png"] * 2).status_code == 413


def test_the_time_for_fetching_is_limited(album, monkeypatch):
    with pretended(limits=Limits(hosts=("127.0.0.1",), seconds=0.3)) as served:
        answer = asked(served, f"{album.address}/slow")
        assert answer.status_code == 422
        assert "0.3 seconds" in answer.json()["error"]
    monkeypatch.setattr(urls, "SECONDS", 0.3)
    with pretended(limits=Limits(hosts=("127.0.0.1",))) as served:
        answer = asked(served, f"{album.address}/slow")
        assert answer.status_code == 422
        assert "cannot be fetched" in answer.json()["error"]


def test_the_time_for_fetching_counts(album):
    with pretended(promise=0.3, limits=Limits(hosts=("127.0.0.1",))) as served:
        album.files["/later.png"] = png()
        assert asked(served, f"{album.address}/later.png").status_code == 200
        answer = asked(served, f"{album.address}/a.png?wait=0.6")
        assert answer.status_code == 429
        assert sum(served.hand.sizes()) == 1
        long = served.post(
            "/predict",
            json={"images": [{"url": f"{album.address}/a.png?wait=0.6"}]},
            headers={"x-deadline-ms": "20000"},
        )
        assert long.status_code == 200
        assert long.json()["total_ms"] > 600
        one = long.json()["answers"][0]
        assert one["queue_ms"] > 600
