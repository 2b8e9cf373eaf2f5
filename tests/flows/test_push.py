"""A share on a hub: one commit to a small server that stands for it, without images or paths."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator

import pytest
from hub_server import LocalServer, QuietHandler
from huggingface_hub import constants


class Hub(LocalServer):
    """Takes one repository and keeps what is committed to it."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.made: list[dict] = []
        self.refuse = False


class Handler(QuietHandler):
    server: Hub

    def do_GET(self) -> None:
        self.answer({"id": "me/few", "modelId": "me/few", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.refuse:
            self.answer({"error": "You may not write here"}, 403)
        elif self.path.endswith("/repos/create"):
            self.server.made.append(json.loads(body))
            self.answer({"url": f"{self.server.address}/me/few", "name": "me/few"})
        elif self.path.endswith("/validate-yaml"):  # the hub's own look at the card's head
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            names = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                one = json.loads(line)
                if one["key"] == "file":
                    self.server.files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            self.answer({"commitUrl": f"{self.server.address}/me/few/commit/1", "commitOid": "1" * 40})
        else:
            self.answer({"error": f"unknown: {self.path}"}, 404)

    def answer(self, value: object, code: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    # The client reads HF_ENDPOINT once, when it is imported: a person sets it before, a test after.
    monkeypatch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
    yield server
    server.shutdown()
    server.server_close()


def test_a_share_holds_the_model_and_neither_pictures_nor_paths(vitrail, trained, digits, hub):
    done = vitrail("push", trained, "me/few", "--private", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["url"] == f"{hub.address}/me/few"
    assert set(hub.files) == {"model.safetensors", "README.md", "report.json", "recipe.yaml"}
    assert hub.files["model.safetensors"] == (trained / "model.safetensors").read_bytes()
    assert hub.made[0]["name"] == "few"
    for name, content in hub.files.items():
        assert str(digits).encode() not in content, name
        assert str(trained.parent).encode() not in content, name
        assert b".png" not in content, name


def test_pictures_travel_only_when_asked(vitrail, trained, hub):
    assert vitrail("push", trained, "me/few", "--pictures").returncode == 0
    assert set(hub.files) > {"report.html", "manifest.csv"}


def test_a_refusal_is_a_plain_error_with_the_way_out(vitrail, trained, hub, tmp_path):
    hub.refuse = True
    done = vitrail("push", trained, "me/few")
    assert done.returncode == 1
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr
    for name in ("few", "a/b/c", "/few"):
        done = vitrail("push", trained, name)
        assert done.returncode == 1
        assert f"{name!r} is not a repository name. Use owner/name" in done.stderr
    assert "recipe.yaml" in vitrail("push", tmp_path, "me/few").stderr


def test_a_hub_that_cannot_be_reached_is_no_matter_of_the_login(vitrail, trained, hub):
    hub.shutdown()
    hub.server_close()
    done = vitrail("push", trained, "me/few")
    assert done.returncode == 1
    assert f". Check whether {hub.address} can be reached from here, and try again." in done.stderr
    assert "auth login" not in done.stderr
