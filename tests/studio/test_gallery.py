"""The gallery: networks without torch, one explained, models of one's own, and a run shared with its samples."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile

import pytest
import timm
from browsers import browser
from fastapi.testclient import TestClient
from trained_studio import RUN, TOKEN

from vitrail.core.errors import DataError, RunError
from vitrail.core.files import write_text
from vitrail.models.factory import list_models
from vitrail.studio import gallery
from vitrail.studio.app import create_app
from vitrail.studio.background import Wish
from vitrail.studio.own_models import OwnModels
from vitrail.studio.run_files import RunFiles
from vitrail.studio.security import COOKIE
from vitrail.studio.workspace import Workspace


def test_the_table_is_that_of_the_installed_libraries():
    """`python -m bench.model_index` writes it again."""
    ours = {one.name: one.parameters for one in gallery.entries() if one.own}
    assert ours == {row.name: row.params for row in list_models()}
    theirs = {one.name for one in gallery.entries() if not one.own}
    assert theirs == {name.partition(".")[0] for name in timm.list_pretrained()}
    assert {one.kind for one in gallery.entries()} <= set(gallery.KINDS)


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch16_224", "mixer_b16_224"])
def test_parameters_of_timm_are_counted(name):
    network = timm.create_model(name)
    assert gallery.entry(name).parameters == sum(one.numel() for one in network.parameters())


def test_every_network_of_ours_has_its_steps():
    for one in gallery.entries():
        if one.own:
            steps = gallery.steps(one.name)
            assert steps, one.name
            assert all(step.grid[0] > 0 and step.width > 0 and step.times > 0 for step in steps)
    *_, last = gallery.steps("vit_s16")
    assert (last.grid, last.prefix, last.width, last.times) == ((14, 14), 1, 384, 12)


def test_networks_are_found_by_words_kind_and_size():
    found = gallery.found(gallery.Wanted("swin tiny", "", "medium"))
    assert found
    assert all("swin" in one.name and 10e6 <= one.parameters < 50e6 for one in found)
    assert all(one.kind == "convolutional" for one in gallery.found(gallery.Wanted(kind="convolutional")))
    assert gallery.found(gallery.Wanted("no such network")) == []


def test_the_gallery_needs_no_torch():
    code = "import sys; from vitrail.studio import gallery; gallery.entries(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_pages_lead_from_a_search_to_a_training(client):
    page = client.get("/gallery?words=vit_s16").text
    assert "gallery/of/vit_s16" in page
    network = client.get("/gallery/of/vit_s16").text
    assert "(1 + 14 × 14) × 384" in network
    assert f"data/{RUN}/train?model=vit_s16" in network
    assert 'value="vit_s16"' in client.get(f"/data/{RUN}/train?model=vit_s16").text
    missing = client.get("/gallery/of/vit_nothing")
    assert missing.status_code >= 400
    assert "Traceback" not in missing.text


def ended(folder):
    """Wait until a command has ended and its exit code is written."""
    last = time.monotonic() + 120
    while not (folder / "code").is_file():
        assert time.monotonic() < last, "the command does not end"
        time.sleep(0.05)


def test_a_measured_speed_is_shown(client, workspace):
    commands = client.app.state.studio.background
    folder = commands.new_folder()
    commands.start(folder, Wish(["bench", "--help"], "vit_s16", "", "speed"))
    ended(folder)  # it prints its help; then its answer is replaced
    (folder / "answer").write_text("no JSON")
    assert "images a second" not in client.get("/gallery/of/vit_s16").text
    (folder / "answer").write_text(json.dumps({"rows": [{"images": 12.0}, {"images": 47.6}]}))
    assert "48 images a second" in client.get("/gallery/of/vit_s16").text
    assert "<b>48</b>" in client.get("/gallery?words=vit_s16").text


def test_an_exit_code_that_is_written_late_is_waited_for(client):
    """Between the end of a process and the line that says how it ended there is a moment."""
    commands = client.app.state.studio.background
    folder = commands.new_folder()
    commands.start(folder, Wish(["bench", "--help"], "vit_s16", "", "late"))
    ended(folder)
    for name in ("log", "answer"):  # nothing was printed for a while
        os.utime(folder / name, (0, 0))
    (folder / "code").unlink()
    (one,) = commands.of_run("", "late")
    timer = threading.Timer(0.1, write_text, (folder / "code", "0"))  # in one step, as the studio writes it
    timer.start()
    assert one.state == "done"
    timer.join()
    (folder / "code").unlink()
    assert one.state == "failed"  # nobody waited for it, and it wrote nothing


def test_a_network_becomes_a_model_of_ones_own_and_is_trained(client, workspace):
    page = client.post("/gallery/save", data={"network": "vit_digits", "name": "my small one"})
    assert page.url.path == "/gallery/mine/my small one"
    assert "vit_digits" in page.text
    assert "my small one" in client.get("/gallery").text
    taken = client.post("/gallery/save", data={"network": "vit_digits", "name": "my small one"})
    assert "already" in taken.text
    recipe = "models/my small one/recipe.yaml"
    assert recipe.replace(" ", "+") in page.text.replace("%2F", "/") or "recipe=models" in page.text
    words = ["train", f"data/{RUN}", "--recipe", recipe, "--weights", "none", "--epochs", "1", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "vitrail", *words], cwd=workspace.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "vit_digits" in done.stdout + done.stderr


def test_a_run_becomes_a_model_whose_weights_start_another_training(client, workspace):
    client.post("/gallery/save", data={"run": RUN, "name": "digits so far"})
    one = OwnModels(workspace).get("digits so far")
    assert (one.network, one.weights, one.made_of) == ("vit_digits", True, RUN)
    options = [word for key, value in one.options().items() for word in (f"--{key}", value)]
    words = [
        "train",
        f"data/{RUN}",
        *options,
        "--tune",
        "full",
        "--epochs",
        "1",
        "--batch",
        "16",
        "--out",
        "runs/next",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "vitrail", *words], cwd=workspace.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (workspace.runs / "next" / "report.json").is_file()


def test_a_model_is_renamed_deleted_and_taken_back(workspace):
    own = OwnModels(workspace)
    own.save_network("vit_s16", "first")
    own.save_network("vit_b16", "second")
    with pytest.raises(DataError, match="already"):
        own.rename("first", "second")
    assert own.rename("first", "third").name == "third"
    key = own.delete("third")
    assert [one.name for one in own.all()] == ["second"]
    assert own.restore(key).network == "vit_s16"
    with pytest.raises(RunError, match="no longer"):
        own.restore("../../data")
    with pytest.raises(RunError, match="no saved model"):
        own.get("../runs")


def test_one_file_opens_in_another_studio(client, workspace, tmp_path):
    client.post("/gallery/save", data={"run": RUN, "name": "shared"})
    packed = client.get("/gallery/mine/shared/model.zip").content
    other = Workspace(tmp_path / "other")
    other.make()
    with TestClient(create_app(other, TOKEN, hosts=("testserver",)), cookies={COOKIE: TOKEN}) as second:
        page = second.post("/gallery/import", files={"model": ("shared.zip", packed)})
        assert page.url.path == "/gallery/mine/shared"
        for data in (b"no zip", zipped({"x/readme.txt": b""})):
            assert "no saved model" in second.post("/gallery/import", files={"model": ("x.zip", data)}).text
    here, there = (one.folder / "models" / "shared" / "model.safetensors" for one in (workspace, other))
    assert here.read_bytes() == there.read_bytes()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_samples_travel_with_a_run_only_if_they_are_chosen(client, workspace, tmp_path):
    run = RunFiles(workspace.runs / RUN)
    names = zipfile.ZipFile(io.BytesIO(client.get(f"/runs/{RUN}/run.zip").content)).namelist()
    assert not [name for name in names if "samples" in name]
    chosen = [id for id, row in run.rows().items() if row.split == "test"][:2]
    packed = client.get(f"/runs/{RUN}/run.zip", params={"sample": chosen}).content
    other = Workspace(tmp_path / "other")
    other.make()
    with TestClient(create_app(other, TOKEN, hosts=("testserver",)), cookies={COOKIE: TOKEN}) as second:
        second.post("/import", files={"run": ("few.zip", packed)})
        page = second.get(f"/runs/{RUN}/predict").text
        assert page.count(f"runs/{RUN}/samples/") == 4
        answered = second.post(f"/runs/{RUN}/samples/1.jpg")
        assert "/predict/" in answered.url.path
        assert answered.status_code == 200
    shutil.rmtree(other.folder)


def test_the_report_page_opens_without_any_server(client, tmp_path):
    page = tmp_path / "few.html"
    page.write_bytes(client.get(f"/runs/{RUN}/page.html").content)
    with browser() as chromium:
        tab = chromium.new_page()
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        assert tab.locator(".verdict, h1").first.inner_text()
        tab.evaluate("() => { for (const one of document.images) one.loading = 'eager'; }")
        tab.wait_for_function("() => [...document.images].every((one) => one.naturalWidth > 0)")
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
