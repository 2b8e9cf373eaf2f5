"""The hub client against a small server: resume, wrong hash, absence, silence."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator

import huggingface_hub  # noqa: F401  (it reads HF_HUB_OFFLINE once, so before a test sets it)
import pytest
import torch
from hub_server import Hub
from safetensors.torch import save as to_bytes

from vitrail.core.errors import WeightsError
from vitrail.models.factory import create_encoder
from vitrail.weights import download as client
from vitrail.weights.download import WeightsUnavailableError, fetch, folders
from vitrail.weights.files import FOLDER_FILES, open_weights
from vitrail.weights.resolve import find_weights
from vitrail.weights.rules import save
from vitrail.weights.tables import timm

FILES = ("model.safetensors", "pytorch_model.bin")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_comes_and_stays(hub):
    hub.files["me/net/resolve/main/pytorch_model.bin"] = b"weights" * 100
    path = fetch("me/net", FILES)
    assert path.read_bytes() == b"weights" * 100
    assert fetch("me/net", FILES) == path
    assert len(hub.ranges) == 1


def test_half_a_download_is_completed(hub):
    content = bytes(range(256)) * 40
    hub.files["me/net/resolve/main/model.safetensors"] = content
    digest = hashlib.sha256(content).hexdigest()
    half = folders("me/net")[0] / f".model.safetensors.{digest[:16]}.partial"
    half.parent.mkdir(parents=True)
    half.write_bytes(content[:5000])
    assert fetch("me/net", FILES).read_bytes() == content
    assert hub.ranges == ["bytes=5000-"]
    assert not half.exists()


def test_too_much_of_a_download_is_begun_again(hub):
    content = bytes(range(256)) * 4
    hub.files["me/net/resolve/main/model.safetensors"] = content
    partial = folders("me/net")[0] / f".model.safetensors.{hashlib.sha256(content).hexdigest()[:16]}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(content + b"more")
    assert fetch("me/net", FILES).read_bytes() == content


def test_shards_come_together(hub):
    base = "me/net/resolve/main"
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    hub.files[f"{base}/model.safetensors.index.json"] = json.dumps(index).encode()
    hub.files[f"{base}/model-1.safetensors"] = to_bytes({"a": torch.ones(2)})
    with pytest.raises(WeightsUnavailableError, match=r"lacks model-2\.safetensors"):
        fetch("me/net", FOLDER_FILES)
    hub.files[f"{base}/model-2.safetensors"] = to_bytes({"b": torch.ones(3)})
    path = fetch("me/net", FOLDER_FILES)
    assert open_weights(path.parent).tensors.keys() == {"a", "b"}
    evil = {"weight_map": {"a": "../../stolen.safetensors"}}
    hub.files["me/evil/resolve/main/model.safetensors.index.json"] = json.dumps(evil).encode()
    with pytest.raises(WeightsError, match="outside its own folder"):
        fetch("me/evil", FOLDER_FILES)


def test_what_is_not_as_promised_is_thrown_away(hub):
    hub.files["me/net/resolve/main/model.safetensors"] = b"weights"
    hub.lie = True
    with pytest.raises(WeightsError, match="not what the hub promised"):
        fetch("me/net", FILES)
    assert list(folders("me/net")[0].iterdir()) == []


def test_no_such_repository(hub):
    with pytest.raises(WeightsUnavailableError, match="knows no such repository") as caught:
        fetch("me/other", FILES)
    assert len(caught.value.ways) == 3
    assert "weights add" in str(caught.value)


def test_no_such_file(hub):
    hub.files["me/net/resolve/main/README.md"] = b"#"
    with pytest.raises(WeightsUnavailableError, match="has none of"):
        fetch("me/net", FILES)


def test_no_answer(tmp_path, monkeypatch):
    import socket

    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(client, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never says a word
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        with pytest.raises(WeightsUnavailableError, match="did not answer well"):
            fetch("me/net", FILES)
    with pytest.raises(WeightsUnavailableError, match="did not answer well"):  # and nobody there at all
        fetch("me/net", FILES)


def test_offline(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsUnavailableError, match="HF_HUB_OFFLINE"):
        fetch("me/net", FILES)


def test_a_published_name_becomes_a_network(hub):
    torch.manual_seed(3)
    encoder = create_encoder("vit_ti16")
    name = "vit_tiny_patch16_224.augreg_in21k"
    hub.files[f"timm/{name}/resolve/main/model.safetensors"] = to_bytes(save(timm.VIT, encoder.state_dict()))
    found = find_weights("auto", "vit_ti16")
    assert (found.name, found.licence) == (name, "apache-2.0")
    assert (found.preprocessing.mean, found.preprocessing.crop_fraction) == ((0.5, 0.5, 0.5), 0.9)
    assert torch.equal(found.build().state_dict()["norm.weight"], encoder.norm.weight)
    hub.files.clear()
    assert find_weights("auto", "vit_ti16").name == name  # from the cache
