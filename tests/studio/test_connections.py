"""What a studio reaches outside of this machine is written down, counted on every page and listed."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("fastapi", reason="the studio's extra is not installed")

from data.pictures import folders
from image_studio import studio

from vitrail.studio.connections import Connections
from vitrail.studio.watched import watched

REACH = """
import socket, sys
from pathlib import Path
from vitrail.studio.connections import Connections
Connections(Path(sys.argv[1])).watch("a test")
sys.audit("socket.connect", None, ("192.0.2.7", 443))
sys.audit("socket.connect", None, ("127.0.0.1", 80))
sys.audit("socket.connect", None, ("::1", 80, 0, 0))
sys.audit("socket.connect", None, "/run/some.socket")
for host in ("hub.invalid", b"hub.invalid", "localhost", "127.0.0.1", "192.0.2.7", None, socket.gethostname()):
    sys.audit("socket.getaddrinfo", host, 443, 0, 0, 0)
"""


def test_what_leaves_the_machine_is_written_down_and_nothing_else(tmp_path):
    found = Connections(tmp_path / "list")
    assert found.all() == []
    assert found.opened() == 0
    subprocess.run([sys.executable, "-c", REACH, str(found.path)], check=True)
    assert [(one.who, one.where, one.opened) for one in found.all()] == [
        ("a test", "hub.invalid", False),
        ("a test", "hub.invalid", False),
        ("a test", "192.0.2.7:443", True),
    ]
    assert found.opened() == 1
    with found.path.open("a") as handle:
        handle.write('{"time": 1, "wh')  # the disk was full here
    assert found.opened() == 1
    with found.path.open("a") as handle:
        handle.write('\n{"time": 1, "who": "train", "where": "hub.invalid:443", "opened": true}\n')
    assert found.opened() == Connections(found.path).opened() == 2
    found.path.write_text("")
    assert found.opened() == 0


def test_a_command_of_the_studio_is_watched(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    words = ["predict", "resnet18.a1_in1k", str(folders(tmp_path / "images", {"cat": 1}, (8, 8)))]
    ended = subprocess.run(watched(tmp_path / "list", words), capture_output=True, text=True)
    assert ended.returncode == 1
    assert "hub.invalid did not answer" in ended.stderr
    found = Connections(tmp_path / "list")
    assert {(one.who, one.where) for one in found.all()} == {("predict", "hub.invalid")}
    assert found.opened() == 0


def test_pages_count_connections_and_list_them(tmp_path):
    with studio(tmp_path) as client:
        assert '<span id="outside">0</span> connections to the outside' in client.get("/").text
        assert "have reached nothing outside of this computer" in client.get("/connections").text
        (tmp_path / ".vitrail" / "connections.jsonl").write_text(
            '{"time": 1.0, "who": "train", "where": "<b>hub</b>:443", "opened": true}\n', encoding="utf-8"
        )
        assert ">1</span> connection to the outside" in client.get("/data").text
        listed = client.get("/connections").text
        assert "&lt;b&gt;hub&lt;/b&gt;:443" in listed
        assert "<b>hub</b>" not in listed


def test_a_download_is_announced_before_the_click(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path / "cache"))
    with studio(tmp_path / "studio") as client:
        source = folders(tmp_path / "leaves", {"fern": 2, "moss": 2}, (8, 8))
        client.post("/data/new", data={"path": str(source)})
        address = "/data/leaves/train/weights"
        assert "timm/vit_small_patch14_dinov2.lvd142m" in client.get(address).text
        assert "patch16" in client.get(f"{address}?model=vit_s16").text
        for values in ("?weights=none", "?weights=nowhere", "?epochs=many", f"?weights={source}"):
            assert "<code" not in client.get(address + values).text
