"""Taking a model away: its file, a zip that becomes a run again, exports with their proof, and an upload."""

from __future__ import annotations

import io
import json
import shutil
import time
import zipfile

import pytest
from trained_studio import RUN, ended

from vitrail.core.errors import RunError
from vitrail.infer.predictor import Predictor
from vitrail.runs.run_archive import FILES, pack_run, unpack_run
from vitrail.studio.background import BackgroundCommands, Wish

AT = f"/runs/{RUN}"


def sent(client, data):
    return client.post(
        "/import", files={"run": ("packed.zip", data, "application/zip")}, follow_redirects=False
    )


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def test_a_run_goes_out_as_a_zip_and_comes_in_as_a_run(client, workspace):
    packed = client.get(f"{AT}/run.zip")
    names = set(zipfile.ZipFile(io.BytesIO(packed.content)).namelist())
    assert {f"{RUN}/{name}" for name in ("model.safetensors", "recipe.yaml", "result.json")} <= names
    assert names <= {f"{RUN}/{name}" for name in FILES}
    answer = sent(client, packed.content)
    assert answer.headers["location"] == f"runs/{RUN}-2/result"
    assert "?cell=" in client.get(f"/runs/{RUN}-2/result").text
    picture = next((workspace.data / RUN / "3").iterdir())
    first, second = (Predictor(workspace.runs / name)(picture)[0] for name in (RUN, f"{RUN}-2"))
    assert first == second


def test_only_the_files_of_a_run_are_taken_from_a_zip(client, workspace):
    folder = workspace.runs / RUN
    kept = {f"x/{name}": (folder / name).read_bytes() for name in ("recipe.yaml", "model.safetensors")}
    more = {"x/../../../evil.txt": b"1", "/tmp/evil.txt": b"1", "x/vitrail.py": b"1", "x/state/a/b": b"1"}
    assert sent(client, zipped({**kept, **more})).status_code == 303
    assert {path.name for path in (workspace.runs / "x").iterdir()} == {"recipe.yaml", "model.safetensors"}
    assert not list(workspace.folder.parent.rglob("evil.txt"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no zip", "no zip file"),
        (zipped({"a/photo.jpg": b"1"}), "no packed run"),
        (zipped({"a/recipe.yaml": b"data: {}"}), "has no model.safetensors"),
        (zipped({"a/recipe.yaml": b"{}", "a/model.safetensors": b"12345678"}), "not a complete model file"),
    ],
)
def test_another_zip_is_refused_in_a_sentence(client, workspace, data, says):
    answer = sent(client, data)
    assert answer.status_code == 422
    assert says in answer.text
    assert [path.name for path in workspace.runs.iterdir()] == [RUN]


def test_a_run_with_code_of_its_own_is_refused(workspace, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(workspace.runs / RUN, folder)
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("name: classify", "name: data.evil:Task"))
    pack_run(folder, tmp_path / "own.zip")
    with pytest.raises(RunError, match=r"code of its own \(data.evil:Task\)"):
        unpack_run(tmp_path / "own.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_bomb_is_refused(workspace, tmp_path):
    folder = workspace.runs / RUN
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "recipe.yaml", "recipe.yaml")
        with archive.open("model.safetensors", "w") as member:
            for _ in range(80):
                member.write(bytes(1 << 20))
    with pytest.raises(RunError, match="zip bomb"):
        unpack_run(tmp_path / "bomb.zip", tmp_path / "new")


def test_the_model_and_its_page_are_downloads(client, workspace):
    for address, name in (("model.safetensors", f"{RUN}.safetensors"), ("page.html", f"{RUN}.html")):
        answer = client.get(f"{AT}/{address}")
        assert name in answer.headers["content-disposition"]
        assert answer.headers["content-disposition"].startswith("attachment")


def test_an_export_runs_beside_the_queue_and_shows_its_proof(client):
    started = client.post(f"{AT}/export/torch", follow_redirects=False)
    at = started.headers["location"].removeprefix("../../..")
    page = ended(client, at)
    assert "Checked:" in page, page
    assert "all.zip" in page or f"{RUN}.pt2" in page
    assert ">torch<" in client.get(f"{AT}/export").text


def test_an_unknown_format_is_refused(client):
    answer = client.post(f"{AT}/export/caffe")
    assert answer.status_code == 422
    assert "There is no format called" in answer.text


def test_the_token_of_an_upload_is_written_nowhere(client, workspace, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    token = "hf_SecretOfTheTests"
    form = {"repository": "me/few", "token": token}
    started = client.post(f"{AT}/push", data=form, follow_redirects=False)
    page = ended(client, started.headers["location"].removeprefix("../.."))
    assert "could not be shared as me/few" in page
    assert "Traceback" not in page
    written = [path for path in workspace.folder.rglob("*") if path.is_file()]
    assert not [path for path in written if token.encode() in path.read_bytes()]


def test_a_command_is_still_there_after_a_restart(workspace):
    commands = BackgroundCommands(workspace)
    folder = commands.new_folder()
    started = commands.start(folder, Wish(["predict", "runs/nothing", "x.png"], "x", RUN, "table"))
    for _ in range(600):
        if started.state != "running":
            break
        time.sleep(0.1)
    again = BackgroundCommands(workspace).command(started.id)
    assert again.state == "failed"
    assert "runs/nothing" in again.line
    assert json.loads((folder / "command.json").read_text())["run"] == RUN


def test_a_finished_comparison_is_listed_and_shown_sealed(client, workspace):
    folder = workspace.runs / "compare-few"
    folder.mkdir()
    (folder / "compare.html").write_text("<h1>hello</h1><script>alert(1)</script>")
    (folder / "compare.json").write_text(json.dumps({"verdict": ["a is better by 3.1", "more"]}))
    assert "a is better by 3.1" in client.get("/compare").text
    assert "<iframe" in client.get("/compare/compare-few").text
    page = client.get("/compare/compare-few/page.html")
    assert page.headers["content-security-policy"].startswith("sandbox;")
    assert client.get("/compare/..%2f..%2fetc").status_code in (404, 422)
